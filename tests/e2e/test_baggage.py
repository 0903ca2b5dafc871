"""Baggage through a real Envoy: the agent has one member of ours, which it was given, and sends no other."""

import json
from collections.abc import Iterator
from typing import Final

import pytest

from authz.core.baggage import CARRIERS, MEMBER
from support.peers.lines import Caller
from support.programs.stack import World, claims
from support.proxy.pod import GRAPH, Pod, pod_of
from support.proxy.spellings import TRACES, Headers, Speller

SPELLINGS: Final = 400


@pytest.fixture(scope="module")
def running(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod whose agent receives a handle, and whose Envoy repeats answers."""
    world = shared_world
    agent, graph = (
        {**section}
        for section in (world.config()["inbound"]["agent"], world.config()["egress"]["graph"])
    )
    with pod_of(
        world,
        tmp_path_factory.mktemp("pod"),
        inbound={"agent": {**agent, "forward": "handle"}},
        egress={"graph": {**graph, "subject": ["handle"]}},
    ) as pod:
        yield pod


@pytest.fixture
def pod(running: Pod) -> Pod:
    """The pod, with nothing on record."""
    running.sidecar.forget()
    return running


def received(pod: Pod, token: str, lines: Headers) -> Headers | None:
    """Call the agent, and return the header lines that arrive there; None where Envoy refused the request."""
    with Caller(pod.sidecar.inbound_port) as caller:
        status, body = caller.get("/chat", [("authorization", f"Bearer {token}".encode()), *lines])
    if status == 400:
        return None
    assert 200 == status, body
    return [(name, value.encode("latin-1")) for name, value in json.loads(body)["headers"]]


def baggage(lines: Headers) -> list[bytes]:
    """Return the values of every line that carries baggage."""
    return [value for name, value in lines if name == "baggage" or name.startswith(CARRIERS)]


def handle_of(pod: Pod, token: str) -> str:
    """Return the handle that the agent receives for a user's token."""
    lines = received(pod, token, [])
    assert lines is not None
    (line,) = baggage(lines)
    return line.decode().removeprefix(f"{MEMBER}=")


def test_whatever_a_caller_spells_the_agent_has_one_member_of_ours(pod: Pod) -> None:
    """One line, ours in front, in ASCII, with no escape in a key and our key nowhere else."""
    token = pod.world.token("alice2")
    victim, own = handle_of(pod, pod.world.token("alice")), handle_of(pod, token)
    refused = 0
    for lines in Speller(3, victim).spellings(SPELLINGS):
        found = received(pod, token, lines)
        if found is None:
            refused += 1
            continue
        (line,) = baggage(found)
        first, *others = line.decode("ascii").split(",")

        assert f"{MEMBER}={own}" == first, lines
        assert [] == [other for other in others if "%" in other.partition("=")[0]], lines
        assert MEMBER not in ",".join(others).lower(), lines

    assert refused < SPELLINGS / 4


SECOND: Final = (
    f"{MEMBER}=%s",
    "%%C2%%A0authz-subject=%s",
    "a=1;authz-subject=%s",
    "\xff,\\x61uthz-subject=%s",
)


def test_a_second_line_of_baggage_is_read_with_the_first(pod: Pod) -> None:
    """Some libraries read the first line only, others the last; Envoy may have an answer for the first."""
    token = pod.world.token("alice2")
    victim, own = handle_of(pod, pod.world.token("alice")), handle_of(pod, token)
    expected = [f"{MEMBER}={own},a=1".encode()]
    for second in SECOND:
        lines = [("baggage", b"a=1"), ("Baggage", (second % victim).encode("latin-1"))]
        for order in (lines, lines[::-1]):
            received(pod, token, order[:1])
            found = [received(pod, token, order) for _ in range(2)]

            assert [expected] * 2 == [baggage(one or []) for one in found]


def test_no_header_that_carries_baggage_goes_out(pod: Pod) -> None:
    """An agent with other propagators would send the reference to the API in theirs."""
    own = handle_of(pod, pod.world.token("alice"))
    member = f"{MEMBER}={own}"
    lines = [
        ("baggage", f"a=1,{member}".encode()),
        ("baggage", b"b=2"),
        (f"uberctx-{MEMBER}", own.encode()),
        (f"Ot-Baggage-{MEMBER.title()}", own.encode()),
        *((name, member.encode()) for name in ("jaeger-baggage", "Correlation-Context")),
        *TRACES,
    ]
    with Caller(pod.sidecar.egress_port) as caller:
        answers = [caller.get(GRAPH, lines) for _ in range(2)]
    found = [json.loads(body)["headers"] for _, body in answers]

    assert [200, 200] == [status for status, _ in answers]
    for seen in found:
        assert [["baggage", "a=1,b=2"]] == [
            line for line in seen if line[0].startswith(("baggage", *CARRIERS))
        ]
        assert [] == [line for line in seen if own in line[1]]
        (token,) = (value for name, value in seen if name == "authorization")
        assert pod.world.users["alice"]["object_id"] == claims(token.removeprefix("Bearer "))["oid"]


MORE: Final = (
    "%C2%A0authz-subject={0}",
    "authz-subject={0},authz-subject={1}",
    "authz-subject={1};p",
    "AUTHZ-SUBJECT={1}",
)


def test_an_agent_that_sends_more_than_its_one_member_is_refused(pod: Pod) -> None:
    """Nobody can tell whose call it is."""
    own, other = [handle_of(pod, pod.world.token(user)) for user in ("alice", "alice2")]
    for member in MORE:
        lines = [
            ("baggage", f"{MEMBER}={own}".encode()),
            ("baggage", member.format(other, own).encode()),
        ]
        with Caller(pod.sidecar.egress_port) as caller:
            status, body = caller.get(GRAPH, lines)

        assert (400, "ambiguous_subject") == (status, json.loads(body)["reason"])
