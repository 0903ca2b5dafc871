"""Both sides know whether they were made from one configuration: the service, and whoever checks files."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from structlog.testing import capture_logs

from authz._pb.discovery_pb2 import DiscoveryRequest
from authz.config.reading.document import parse
from authz.config.rendered import MARK, Rendered, Selection, mark_of
from authz.doors.envoy.conversation import mark_in
from authz.doors.envoy.pairing import KEPT, MOST_MARKS, Match, Pairing
from authz.envoy_config.bootstrap import render
from authz.envoy_config.counterpart import CounterpartFault, compare, read_envoy
from authz.envoy_config.settings import SidecarSettings
from support.programs import program
from support.programs.stack import Clock, Process, World, until
from support.proxy.pod import Pod, pod_of
from support.proxy.sidecar import Authority, Sidecar


def config(*hosts: str, **more: Any) -> Any:
    """A configuration with these destinations."""
    caller = {
        "tenants": ["11111111-0000-4000-8000-000000000001"],
        "audiences": ["a"],
        "scopes": ["s"],
    }
    routes = {
        f"route{number}": {"flow": "none", "hosts": [host]} for number, host in enumerate(hosts)
    }
    return parse(json.dumps({"inbound": {"chat": caller}, "egress": routes, **more}), {})


def data(text: str) -> dict[str, Any]:
    """An Envoy configuration as plain data."""
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_an_envoy_is_told_apart_by_its_mark_and_forgotten_when_it_is_silent() -> None:
    """Matched, outdated and unknown; each counted once however often it asks, and for a while."""
    clock, ours = Clock(), config("a.example")
    pairing = Pairing(Rendered.of(ours), timer=clock.timer)
    for mark in (mark_of(ours), mark_of(ours), "0000", None, "x" * 5000):
        pairing.note(mark)
    counted = pairing.counts()
    clock.ahead += KEPT / 2
    pairing.note(mark_of(ours))
    clock.ahead += KEPT / 2 + 1

    assert {"matched": 1, "outdated": 1, "unknown": 1} == counted
    assert {"matched": 1, "outdated": 0, "unknown": 0} == pairing.counts()
    assert [(mark_of(ours), "matched")] == [
        (entry["rendered_from"], entry["match"]) for entry in pairing.status()["heard"]
    ]


def test_an_outdated_envoy_is_logged_once_and_again_under_the_next_configuration() -> None:
    """A thousand Checks are one record. What was matched may be outdated after a reload."""
    old, new = config("a.example"), config("a.example", "b.example")
    clock = Clock()
    pairing = Pairing(Rendered.of(old), timer=clock.timer)
    with capture_logs() as logs:
        for _ in range(100):
            pairing.note(mark_of(old))
        pairing.swap(Rendered.of(new))
        for _ in range(100):
            clock.ahead += 60
            pairing.note(mark_of(old))
        pairing.swap(Rendered.of(old))
        pairing.note(mark_of(old))

    assert [(mark_of(old), mark_of(new))] == [(entry["envoy"], entry["authz"]) for entry in logs]
    assert {"matched": 1, "outdated": 0, "unknown": 0} == pairing.counts()


def test_strangers_marks_take_no_more_memory_than_some() -> None:
    """Whoever may ask may say anything; the log and the memory have an end."""
    pairing = Pairing(Rendered.of(config("a.example")), timer=Clock().timer)
    with capture_logs() as logs:
        for number in range(5 * MOST_MARKS):
            pairing.note(f"{number};{number};")

    assert MOST_MARKS == pairing.counts()["outdated"] == len(pairing.status()["heard"]) == len(logs)


def test_a_mark_that_was_forgotten_for_others_counts_again_when_it_comes() -> None:
    """Also within the time in which it would not be noted again."""
    ours = Rendered.of(config("a.example"))
    pairing = Pairing(ours, timer=Clock().timer)
    with capture_logs():
        for mark in (ours.mark(), *(f"{number};{number};" for number in range(MOST_MARKS))):
            pairing.note(mark)
    before = pairing.counts()["matched"]

    pairing.note(ours.mark())

    assert (0, 1) == (before, pairing.counts()["matched"])


def test_an_envoy_of_some_routes_is_compared_by_those() -> None:
    """Another agent's route does not make it outdated."""
    egress = {"desk": {"flow": "none"}, "clerk": {"flow": "none"}}
    routes = {"inbound": {}, "listen": {"direction": "egress"}}
    settings = SidecarSettings(egress_hosts={"desk": ("a.example",)}, authz_address="127.0.0.1:1")
    before = config(egress=egress, **routes)
    after = config(egress={**egress, "third": {"flow": "none"}}, **routes)
    gone = config(egress={"clerk": {"flow": "none"}}, **routes)
    text = data(render(before, settings))

    assert Match.MATCHED is compare(before, text).match
    assert Match.MATCHED is compare(after, text).match
    assert Match.OUTDATED is compare(gone, text).match
    assert () == compare(gone, text).too_many


def test_a_file_names_the_hosts_that_differ() -> None:
    """As requests name them, without a scheme."""
    text = data(render(config("a.example", "http://old.example"), SidecarSettings()))

    found = compare(config("a.example", "new.example:8443"), text)

    assert (Match.OUTDATED, ("new.example:8443",), ("old.example",)) == (
        found.match,
        found.missing,
        found.too_many,
    )


def test_a_file_whose_parts_come_from_two_renderings_is_outdated() -> None:
    """Somebody has copied a route by hand."""
    text = render(config("a.example"), SidecarSettings())
    mark = mark_of(config("a.example"))

    assert (
        Match.OUTDATED is compare(config("a.example"), data(text.replace(mark, "other", 1))).match
    )


def test_a_file_written_by_hand_is_unknown() -> None:
    """Nobody can tell, so nobody refuses it."""
    assert Match.UNKNOWN is compare(config("a.example"), {"static_resources": {}}).match
    assert Match.UNKNOWN is compare(config("a.example"), {"node": [], "a": [{"b": None}]}).match


@pytest.mark.parametrize("hosts", [5, "a", {"a": 1}, [5, {"name": 5}], None])
def test_hosts_that_are_none_are_missing(hosts: object) -> None:
    """Envoy would not take such a file, and what is missing is said."""
    routes = {"name": "egress", "virtual_hosts": hosts}
    envoy = {"node": {"metadata": {MARK: "another"}}, "listeners": [{"route_config": routes}]}

    found = compare(config("a.example"), envoy)

    assert (Match.OUTDATED, ("a.example",), ()) == (found.match, found.missing, found.too_many)


@pytest.mark.parametrize(
    "content", ["[", "text", "a: &x [*x, {b: \x00}]", "listen: {grpc: 'unix:/run/authz.sock'}"]
)
def test_a_file_that_is_no_configuration_is_a_fault(tmp_path: Path, content: str) -> None:
    """Its path is named, and nothing of it is quoted."""
    file = tmp_path / "envoy.yaml"
    file.write_text(content)

    with pytest.raises(CounterpartFault, match=r"envoy\.yaml"):
        read_envoy(file)


def test_a_stream_says_its_mark_by_the_nodes_metadata() -> None:
    """None where there is no node, no metadata, or another type."""
    request = DiscoveryRequest()
    nothing = mark_in(request)
    request.node.metadata.update({MARK: 7})
    number = mark_in(request)
    request.node.metadata.update({MARK: "abc"})

    assert (None, None, "abc") == (nothing, number, mark_in(request))


@pytest.fixture
def pod(world: World, tmp_path: Path) -> Iterator[Pod]:
    """A service with a real Envoy that was rendered from its configuration."""
    with pod_of(world, tmp_path, reload_interval="50ms") as running:
        yield running


def heard(process: Process) -> list[str]:
    """How the Envoys match that the service has heard of."""
    return [entry["match"] for entry in process.admin("/status").json()["envoy"]["heard"]]


def test_envoy_says_its_mark_in_checks_and_a_reload_says_what_to_do(pod: Pod) -> None:
    """Matched at first; after a host was added the log, the status and the metric say that Envoy is older."""
    agent, world, authz = pod.sidecar.agent, pod.world, pod.authz
    url = "http://graph.microsoft.com/v1.0/me"
    headers = {"authorization": f"Bearer {world.token()}"}
    first = agent.get(url, headers=headers)
    before = heard(authz)
    document = json.loads(pod.config_file.read_text())
    document["egress"]["more"] = {**document["egress"]["graph"], "hosts": ["api.example"]}
    pod.config_file.write_text(json.dumps(document))
    said = authz.event("hosts changed: render Envoy's configuration again")
    unknown = agent.get("http://api.example/", headers=headers)
    after = heard(authz)
    warned = authz.event("Envoy's configuration is older than authz's, or newer: render it again")
    metrics = authz.admin("/metrics").text

    assert 200 == first.status_code
    assert (["matched"], ["outdated"]) == (before, after)
    assert ["api.example"] == said["hosts"]
    assert 403 == unknown.status_code
    assert (
        "No route is configured for this destination, or Envoy's configuration is older than authz's. An "
        "operator must add the route, or render Envoy's configuration again."
    ) == unknown.json()["detail"]
    assert authz.admin("/status").json()["envoy"]["rendered_from"] == warned["authz"]
    assert 'authz_envoy_configurations{match="outdated"} 1.0' in metrics
    assert 'authz_envoy_configurations{match="matched"} 0.0' in metrics


def test_a_host_that_was_taken_out_of_a_route_gets_no_token_though_envoy_still_has_it(
    pod: Pod,
) -> None:
    """403 `unknown_route` until Envoy is rendered again; the route's other host is served all the while."""
    agent, world, authz = pod.sidecar.agent, pod.world, pod.authz
    document = json.loads(pod.config_file.read_text())

    def call(user: str) -> httpx.Response:
        # Each user once: what Envoy's own cache repeats is no matter of the service.
        headers = {"authorization": f"Bearer {world.token(user)}"}
        return agent.get("http://graph.microsoft.com/v1.0/me", headers=headers)

    def reload(*hosts: str) -> None:
        before = authz.admin("/status").json()["configuration"]["digest"]
        document["egress"]["graph"]["hosts"] = list(hosts)
        pod.config_file.write_text(json.dumps(document))
        end = time.monotonic() + 15
        while authz.admin("/status").json()["configuration"]["digest"] == before:
            assert time.monotonic() < end, authz.log()

    first = call("alice")
    received = pod.sidecar.destinations["graph.microsoft.com"].received
    reload("api.example")
    served = len(received)
    refused = call("alice2")
    sent = len(received) - served
    reload("api.example", "graph.microsoft.com")
    again = call("alice3")

    assert (200, 403, 200) == (first.status_code, refused.status_code, again.status_code)
    assert ("unknown_route", 0) == (refused.json()["reason"], sent)


async def test_envoy_says_its_mark_when_it_asks_for_tokens(world: World, tmp_path: Path) -> None:
    """Before any request: an Envoy whose routes are all pushed never sends a Check."""
    document = world.config()
    routes = document["egress"]
    document["egress"] = {"orders": {**routes["autonomous"], "hosts": ["orders.example"]}}
    older = {
        **document,
        "egress": {"orders": {**document["egress"]["orders"], "hosts": ["old.example"]}},
    }
    file = tmp_path / "authz.yaml"
    file.write_text(json.dumps(document))
    envoy = Sidecar(
        parse(json.dumps(older), {}),
        authz_address=document["listen"]["grpc"],
        authority=Authority.create(tmp_path),
        certificates={"old.example": ("old.example",)},
    )

    with Process("serve", "--config", str(file)) as authz:
        authz.wait_ready()
        with envoy:
            await until(lambda: heard(authz))

            assert ["outdated"] == heard(authz)


EXAMPLE = Path(__file__).parents[2] / "kubernetes" / "base" / "authz.yaml"


def test_the_program_renders_without_values_and_checks_the_pair(tmp_path: Path) -> None:
    """No variable is set. Matched is 0, and outdated is 1 with the hosts' names."""
    authz, envoy = tmp_path / "authz.yaml", tmp_path / "envoy.yaml"
    authz.write_text(EXAMPLE.read_text())
    rendered = program.run("envoy", "--no-values", "--config", authz)
    envoy.write_text(rendered.stdout)
    matched = program.run("check-config", "--no-values", authz, "--envoy", envoy)
    authz.write_text(EXAMPLE.read_text().replace("graph.microsoft.com]", "api.example]"))
    outdated = program.run("check-config", "--no-values", authz, "--envoy", envoy)
    (tmp_path / "hand.yaml").write_text("static_resources: {}\n")
    unknown = program.run("check-config", "--no-values", authz, "--envoy", tmp_path / "hand.yaml")
    absent = program.run("check-config", "--no-values", authz, "--envoy", tmp_path / "no.yaml")

    assert (0, "") == (rendered.returncode, rendered.stderr)
    assert (0, "") == (matched.returncode, matched.stderr)
    assert f"{envoy} was rendered from it" in matched.stdout
    assert 1 == outdated.returncode
    assert "it lacks the host api.example" in outdated.stderr
    assert "it has the host graph.microsoft.com" in outdated.stderr
    assert (0, True) == (unknown.returncode, "nobody can tell" in unknown.stderr)
    assert (2, True) == (absent.returncode, "no.yaml" in absent.stderr)


def test_a_variable_that_envoys_configuration_needs_is_named(tmp_path: Path) -> None:
    """Nothing is printed with a stand-in in it."""
    file = tmp_path / "authz.yaml"
    file.write_text(EXAMPLE.read_text().replace("[graph.microsoft.com]", '["${API_HOST}"]'))

    result = program.run("envoy", "--no-values", "--config", file)

    assert (1, "") == (result.returncode, result.stdout)
    assert "API_HOST" in result.stderr


def test_selections_are_read_as_they_are_written() -> None:
    """None is none."""
    assert Selection() == Selection.of_mark("abc")
    assert Selection("chat") == Selection.of_mark("abc;chat;")
