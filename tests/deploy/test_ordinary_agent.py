"""An ordinary agent in one pod does all that agents do, at once, for a user: what arrives where.

Needs root and netfilter. Two network namespaces of the test stand for the pod and for the rest of the world;
users, variables and files of the pod are those of the rendered manifests. Every server outside has noted all
headers that it saw, and the user's token is in none of them.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from support.kubernetes.manifests import KUBERNETES, composed, render
from support.kubernetes.namespaces import missing
from support.kubernetes.ordinary_pod import OrdinaryPod
from support.peers.ordinary_apis import GRAPH, MODEL, RECORDS, TOOLS, UNKNOWN
from support.programs.stack import claims

pytestmark = pytest.mark.system

OVERLAY: Final = "client-secret-file"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        form: How the pod is made.
        told: What the agent made of its work, by job.
        records: Requests that reached a server outside: where to, with which headers and body.
        user_token: What the agent was called with.
        agent_identity: Client id that the agent's tokens name.
        reason: Says why Envoy's log has a refusal of a host.
    """

    form: str
    told: dict[str, Any]
    records: list[dict[str, Any]]
    user_token: str
    agent_identity: str
    reason: Callable[[str], str]

    def authorizations(self, where: str) -> list[str | None]:
        """Return the `Authorization` of each request to a place."""
        return [
            dict(record["headers"]).get("authorization")
            for record in self.records
            if record["where"] == where
        ]

    def acts_for_the_user(self, where: str) -> bool:
        """Whether what reached a place has the agent's own token for the user, each time."""
        found = [
            claims((value or "").removeprefix("Bearer ")) for value in self.authorizations(where)
        ]
        subject = claims(self.user_token)["oid"]
        seen = [(each["appid"], each["oid"]) for each in found]
        return bool(seen) and set(seen) == {(self.agent_identity, subject)}


FORMS: Final = {
    # Components on top of the overlay, and how Envoy's file is rendered.
    "proxy": ((), ""),
    "proxy and https": (("https",), ""),
    "redirected": (("interception",), "pass-tls"),
    "redirected and https": (("interception", "https"), "pass-tls"),
}


@pytest.fixture(scope="module", params=FORMS)
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    """Let the agent work once in each form of the pod."""
    reason = missing()
    if reason is not None or shutil.which("kubectl") is None:
        pytest.skip(f"no pod: {reason or 'kubectl is not on PATH'}")
    components, transparent = FORMS[request.param]
    manifests = composed(OVERLAY, *components) if components else render(KUBERNETES / OVERLAY)
    folder = Path(tempfile.mkdtemp(prefix="authz-ordinary-"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        pod = stack.enter_context(OrdinaryPod(manifests, folder))
        if "interception" in components:
            done = pod.intercept()
            assert done.returncode == 0, done.stderr
        stack.enter_context(pod.envoy(transparent, https="https" in components))
        stack.enter_context(pod.agent())
        told = pod.ask("/work")
        records = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
        yield Outcome(request.param, told, records, pod.token, pod.agent_identity, pod.reason)


def test_no_token_of_the_user_is_outside(outcome: Outcome) -> None:
    """In no header and no body of any request, whole or in part; the agent has none of it either."""
    signature = outcome.user_token.rpartition(".")[2]
    everything = json.dumps(outcome.records)

    assert len(outcome.records) >= 4
    assert signature not in everything
    assert signature not in json.dumps(outcome.told)
    assert outcome.told["received"].startswith("Bearer ")


def test_pages_are_collected_or_refused_at_the_link(outcome: Outcome) -> None:
    """The first by `http://`, the next where the answer says: `https://`."""
    first, second = f"{GRAPH}/v1.0/users", f"{GRAPH}/v1.0/users?page=2"
    assert outcome.acts_for_the_user(first)
    if "https" in outcome.form:
        assert outcome.told["pages"] == ["ann", "bob"]
        assert outcome.acts_for_the_user(second)
    else:
        page, refusal = outcome.told["pages"]
        assert page == "ann"
        assert ("403" in refusal) == (outcome.form == "proxy")
        assert outcome.authorizations(second) == []


def test_location_is_followed_or_refused(outcome: Outcome) -> None:
    """As uploads and long operations of Graph have it; a refusal has its reason in Envoy's log."""
    assert outcome.acts_for_the_user(f"{GRAPH}/v1.0/reports")
    if "https" in outcome.form:
        assert outcome.told["report"] == {"status": "succeeded"}
        assert outcome.acts_for_the_user(f"{GRAPH}/v1.0/reports/1")
    else:
        assert outcome.authorizations(f"{GRAPH}/v1.0/reports/1") == []
    if outcome.form == "proxy":
        assert "403" in outcome.told["report"]
        assert outcome.reason(f"{GRAPH}:443") == "tunnel_refused"


def test_tools_of_the_cluster_are_called_without_a_token(outcome: Outcome) -> None:
    """Plain HTTP, at a port of its own."""
    assert outcome.told["tools"] == {"tools": [{"name": "orders"}]}
    assert outcome.authorizations("{}:{}/mcp".format(*TOOLS)) == [None]


def test_silent_stream_is_read_to_its_end(outcome: Outcome) -> None:
    """Its second event comes when the agent has the first one."""
    assert outcome.told["events"] == ["data: first", "data: last"]


def test_telemetry_arrives_by_grpc(outcome: Outcome) -> None:
    """Through the proxy that gRPC reads from the environment, or through the kernel's rules."""
    assert outcome.told["telemetry"] == "sent"
    assert outcome.authorizations("collector") == [None]


def test_websocket_is_held(outcome: Outcome) -> None:
    """Its handshake has been asked about like any request, and what follows passes as it is."""
    assert outcome.told["chat"] == "HELLO"
    assert outcome.authorizations("chat") == [None]


def test_api_without_a_token_is_reached_by_tls(outcome: Outcome) -> None:
    """Unread, with nothing but the reference; or read, without that."""
    assert outcome.told["model"] == {"host": MODEL, "path": "/v1/models"}
    held = None if "https" in outcome.form else outcome.told["received"]
    assert outcome.authorizations(f"{MODEL}/v1/models") == [held]


def test_host_without_a_route_is_refused_by_the_proxy(outcome: Outcome) -> None:
    """Where connections are redirected TLS goes on, and could hold a reference at most."""
    if outcome.form.startswith("proxy"):
        assert "403" in outcome.told["unknown"]
        assert outcome.reason(f"{UNKNOWN}:443") == "unknown_route"


def test_program_that_ignores_the_proxy_has_nothing_to_leak(outcome: Outcome) -> None:
    """By proxy it gets out with the reference; redirected it is refused, or serves the user."""
    where = f"{GRAPH}/v1.0/past"
    match outcome.form:
        case "proxy" | "proxy and https":
            assert outcome.authorizations(where) == [outcome.told["received"]]
        case "redirected":
            assert outcome.authorizations(where) == []
        case _:
            assert outcome.acts_for_the_user(where)
