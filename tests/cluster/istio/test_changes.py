"""What happens to a pod in the mesh when a part of the overlay is missing, or not applied by Istio."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest

from support.istio.mesh import AGENTS, apply, mesh_config, run
from support.istio.meshed import GRAPH_URL, MeshedPod, headers
from support.istio.pilot import Pilot
from support.kubernetes.apiserver import ApiServer
from support.kubernetes.manifests import Manifests, Object
from support.peers.internet import FURTHER, GRAPH
from support.programs.stack import claims

pytestmark = pytest.mark.cluster


def test_a_host_whose_patch_was_not_applied_is_denied(
    pod: MeshedPod, server: ApiServer, overlay: Manifests
) -> None:
    """The Check happens all the same, does not say what it is about, and is answered as inbound: no."""
    reference = pod.reference()
    maimed = deepcopy(overlay.find("EnvoyFilter"))
    maimed["spec"]["configPatches"] = [
        patch for patch in maimed["spec"]["configPatches"] if patch["applyTo"] != "VIRTUAL_HOST"
    ]

    with _changed(pod, server, overlay, maimed):
        answer = pod.curl(GRAPH_URL, *headers(reference))

    assert 401 == answer.status


def test_without_any_patch_only_a_reference_leaves(
    pod: MeshedPod, server: ApiServer, overlay: Manifests
) -> None:
    """Should Istio not apply the EnvoyFilter at all, the API gets a value that is worthless to it."""
    reference = pod.reference()

    with _changed(pod, server, overlay, None):
        answer = pod.curl(GRAPH_URL, *headers(reference))

    assert 200 == answer.status, answer.body
    assert reference == dict(answer.json()["headers"])["authorization"]
    assert 2 != reference.count(".")


def test_without_its_provider_a_policy_refuses_everything(pod: MeshedPod, pilot: Pilot) -> None:
    """A CUSTOM policy that names a provider which the mesh has not is no open door."""
    own = headers(f"Bearer {pod.token}")
    pilot.configure({**mesh_config(), "extensionProviders": []})
    try:
        pod.wait(lambda: pod.call("/", *own).status == 403 or None, "refusal")
    finally:
        pilot.configure(mesh_config())
        pod.wait(lambda: pod.call("/", *own).status == 200 or None, "provider")


def test_a_further_api_is_one_more_entry_of_each_kind(
    pod: MeshedPod, server: ApiServer, overlay: Manifests
) -> None:
    """With its five entries, as the overlay's README counts them, another host gets the agent's token."""
    reference = pod.reference()
    kinds = ("ServiceEntry", "DestinationRule", "VirtualService")
    further = [_renamed(_named(overlay, kind)) for kind in kinds]
    patches = deepcopy(overlay.find("EnvoyFilter"))
    entries = patches["spec"]["configPatches"]
    entries.append(_renamed(next(one for one in entries if one["applyTo"] == "VIRTUAL_HOST")))
    route = {
        "hosts": [FURTHER],
        "flow": "on_behalf_of",
        "agent": "agent",
        "subject": ["placeholder"],
        "scopes": ["https://graph.microsoft.com/.default"],
    }
    url = f"http://{FURTHER}/orders"
    assert 502 == pod.curl(url, *headers(reference)).status

    apply(server, [*further, patches], AGENTS)
    try:
        with pod.configured(orders=route):
            arrived = pod.wait(lambda: _token_at(pod, url, reference), "token at the further API")
            assert 200 == pod.curl(GRAPH_URL, *headers(reference)).status
    finally:
        for item in further:
            run(server, "delete", item["kind"], "orders", "--namespace", AGENTS)
        apply(server, [overlay.find("EnvoyFilter")], AGENTS)
        pod.wait(lambda: pod.curl(url).status == 502 or None, "restoration")

    assert claims(pod.token)["oid"] == arrived["oid"]
    assert pod.tenant["blueprints"][0]["agents"][0]["client_id"] == arrived["appid"]


def _token_at(pod: MeshedPod, url: str, reference: str) -> Object | None:
    """Return the claims of the token that an API got; None if it got no request."""
    answer = pod.curl(url, *headers(reference))
    if answer.status != 200:
        return None
    value: str = dict(answer.json()["headers"])["authorization"]
    return claims(value.removeprefix("Bearer ")) if value != reference else None


def _named(overlay: Manifests, kind: str) -> Object:
    (found,) = [item for item in overlay.all(kind) if item["metadata"]["name"] == "graph"]
    return found


def _renamed(item: Object) -> Object:
    """Return an entry of Graph's, for the further API."""
    text = json.dumps(item).replace(GRAPH, FURTHER).replace('"graph"', '"orders"')
    found: Object = json.loads(text)
    return found


@contextmanager
def _changed(
    pod: MeshedPod, server: ApiServer, overlay: Manifests, item: Object | None
) -> Iterator[None]:
    """Put another EnvoyFilter, or none, in the place of the overlay's, until the end."""
    before = _patched(pod)
    name = overlay.find("EnvoyFilter")["metadata"]["name"]
    run(server, "delete", "envoyfilter", name, "--namespace", AGENTS)
    if item is not None:
        apply(server, [item], AGENTS)
    try:
        pod.wait(lambda: _patched(pod) != before or None, "change")
        # The filters of a listener and the settings of its routes come one after the other.
        pod.wait(lambda: _patched(pod) == ((item is not None), False) or None, "change")
        yield
    finally:
        apply(server, [overlay.find("EnvoyFilter")], AGENTS)
        pod.wait(lambda: _patched(pod) == before or None, "restoration")


def _patched(pod: MeshedPod) -> tuple[bool, bool]:
    """Tell whether the agent's way out has the filter, and its host the settings."""
    listener, routes = pod.listeners()["0.0.0.0_80"], pod.routes()["80"]
    return "authz.egress" in str(listener), "authz.egress" in str(routes)
