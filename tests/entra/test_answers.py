"""Odd answers of Entra: each ends in a Reason, for the one who asked, and leaves nothing behind."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jwt
import msal
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.decision import Deny
from authz.core.errors import EntraError, Reason
from authz.core.exchange import AgentIdentity, Client, IssuedToken
from authz.entra.answers import DAY, MAX_TOKEN_BYTES, IdentityTransport
from authz.entra.clients import Agents, Applications
from authz.entra.credentials import ClientSecret
from authz.entra.http import Answer, HttpClient
from authz.entra.managed_identity import ManagedIdentity
from authz.entra.msal_transport import MsalTransport, NoHttpCache, NoTokenCache
from authz.entra.refusals import MAX_CHALLENGE
from authz_dev.emulator import Fault, Match
from support.fakes.clock import Clock as TwoClocks
from support.fakes.properties import JSON, brief
from support.faults.answers import ODD_ERRORS
from support.peers.quiet_server import QuietHandler, QuietServer
from support.programs.stack import Clock, World, claims, denied, issued, stack

pytestmark = pytest.mark.thorough

OBO = Match(leg="agent_obo")


@pytest.mark.parametrize("error", ODD_ERRORS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("status", [200, 400, 401])
async def test_one_odd_refusal_is_one_users(world: World, error: object, status: int) -> None:
    """What stands in `error` concerns nobody else, and not the same user a moment later."""
    clock = Clock()
    async with stack(world, clock=clock) as service:
        alice = world.users["alice"]["username"]
        world.emulator.faults.add(
            Fault("answer", status=status, body={"error": error}, count=1, match=Match(user=alice))
        )

        first = await service.egress("graph", world.token("alice"))
        others = [await service.egress("graph", world.token("alice2")) for _ in range(2)]
        clock.ahead += 60
        again = await service.egress("graph", world.token("alice"))

        assert denied(first) is not Reason.INTERNAL
        assert ["alice2"] * 2 == [issued(record)["upn"].split("@")[0] for record in others]
        assert "alice" == issued(again)["upn"].split("@")[0]


class Recording(HttpClient):
    """Keeps what it sends, without what is made up for each request."""

    sent: list[tuple[str, str, bytes | None, dict[str, str]]]

    def _call(
        self, method: str, url: str, *, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        kept = {name: value for name, value in headers.items() if name != "client-request-id"}
        self.sent.append((method, url, body, kept))
        return super()._call(method, url, body=body, headers=headers)


class Bench:
    """An agent of the emulator, asked through MSAL without any cache of ours."""

    def __init__(self, world: World) -> None:
        self.http = Recording(
            ca_file=Path(world.emulator.ca_file), connect_timeout=10, timeout=30, pool_size=2
        )
        self.http.sent = []
        transport, authority = MsalTransport(self.http), world.emulator.authority
        blueprint = Client("support", world.tenant_id, world.blueprint["client_id"])
        self._agent = AgentIdentity("desk", world.agent["client_id"], blueprint)
        secret = ClientSecret(lambda: world.blueprint["client_secret"], "client_secret")
        applications = Applications(
            authority, transport, {blueprint: [secret]}, time.time, time.monotonic
        )
        self._agents = Agents(authority, transport, time.time, time.monotonic)
        self._t1 = applications.acquire(
            blueprint,
            lambda app: app.acquire_token_for_client(
                ["api://AzureADTokenExchange/.default"], fmi_path=world.agent["client_id"]
            ),
            user_is_asked=False,
        ).secret

    def exchange(self, token: str) -> IssuedToken:
        """Exchange one user's token."""

        def call(application: msal.ConfidentialClientApplication) -> Mapping[str, Any]:
            answer: Mapping[str, Any] = application.acquire_token_on_behalf_of(
                token, ["https://graph.microsoft.com/.default"]
            )
            return answer

        return self._agents.acquire(self._agent, self._t1, call, user_is_asked=True)


_MEMBERS = st.sampled_from(
    [
        "access_token", "token_type", "expires_in", "ext_expires_in", "refresh_in", "refresh_token",
        "id_token", "client_info", "scope", "foci", "error", "error_description", "error_codes",
        "suberror", "claims", "correlation_id", "timestamp", "trace_id",
    ]
)  # fmt: skip
_BODIES = JSON | st.dictionaries(_MEMBERS, JSON | st.text('aé\n\r\0.{}[]"0', max_size=8))
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "set-cookie", "x-ms-clitelem", "location", "www-authenticate"]),
    st.text('a0-; =/"', max_size=12),
)


def test_whatever_entra_answers_one_user_the_next_ones_exchange_is_the_same(world: World) -> None:
    """After any answer to one user, another user's request has the same bytes, and the same end."""
    bench, faults = Bench(world), world.emulator.faults
    alice, other = world.token("alice"), world.token("alice2")
    match = Match(user=world.users["alice"]["username"])
    bench.exchange(other)
    bench.http.sent.clear()
    bench.exchange(other)
    (undisturbed,) = bench.http.sent
    refusals: list[int] = []

    @brief
    @given(
        status=st.sampled_from([200, 400, 401, 403, 429, 500, 503]), headers=_HEADERS, body=_BODIES
    )
    @example(status=400, headers={}, body={"error": ["0"]})
    def holds(status: int, headers: dict[str, str], body: object) -> None:
        for fault in (
            Fault("answer", status=status, headers=headers, body=body, match=match),
            Fault(
                "members", members=body if isinstance(body, dict) else {"error": body}, match=match
            ),
        ):
            faults.clear()
            faults.add(fault)
            try:
                bench.exchange(alice)
            except EntraError:
                refusals.append(status)
            bench.http.sent.clear()
            token = bench.exchange(other)

            assert [undisturbed] == bench.http.sent
            assert "alice2" == claims(token.secret)["upn"].split("@")[0]

    holds()
    assert 400 in refusals


@pytest.mark.parametrize("expires_in", [0, -1, "-1", -0.5, "0", -(10**30)])
async def test_a_token_without_a_life_is_not_used(world: World, expires_in: object) -> None:
    """`expires_in` of nothing or less: the token has ended."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("members", members={"expires_in": expires_in}, match=OBO))

        assert Reason.EXCHANGE_UNAVAILABLE == denied(await service.egress("graph", world.token()))


def opaque(**members: object) -> Fault:
    """An answer with a token that says nothing of itself."""
    body = {"token_type": "Bearer", "access_token": "opaque", **members}
    return Fault("answer", status=200, body=body, match=Match(leg="autonomous"))


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (3599.0, 3599), ("3599", 3599), ("3599.9", 3599), (10**12, DAY), (10**400, DAY), (1e300, DAY),
        (float("inf"), 300), (True, 300), ("soon", 300), ("", 300), (None, 300), ([1], 300), ("1e3", 300),
    ],
)  # fmt: skip
async def test_a_lifetime_is_read_as_servers_write_it_and_never_believed_past_a_day(
    world: World, expires_in: object, seconds: float
) -> None:
    """Numbers and decimal text count; what is neither counts as if it were not there."""
    clock = Clock()
    async with stack(world, clock=clock) as service:
        world.emulator.faults.add(opaque(expires_in=expires_in))

        before = time.time()
        await service.egress("autonomous")
        (entry,) = service.engine._workshop.tokens._cache._entries.values()

        assert seconds == pytest.approx(entry.value.expires_at.wall - before, abs=10)


async def test_a_token_is_not_used_past_its_own_end(world: World) -> None:
    """`exp` of the token itself counts where it comes before `expires_in`."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("members", members={"expires_in": 80_000}))

        token = issued(await service.egress("autonomous"))
        (entry,) = service.engine._workshop.tokens._cache._entries.values()

        assert token["exp"] == entry.value.expires_at.wall
        assert entry.value.refresh_at.wall < entry.value.expires_at.wall


@pytest.mark.parametrize(
    "members",
    [
        {"id_token": "garbage"}, {"id_token": 7}, {"id_token": None}, {"id_token": "a.e30x.c"},
        {"refresh_in": "soon"}, {"refresh_in": "1800"}, {"refresh_in": None}, {"refresh_in": []},
        {"access_token": 7}, {"access_token": ""}, {"access_token": "two words"},
        {"access_token": "x\r\nhost: evil"}, {"access_token": "é"},
        {"access_token": "x" * (MAX_TOKEN_BYTES + 1)},
        {"token_type": "pop"}, {"token_type": 7}, {"token_type": "mac"},
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
async def test_an_answer_that_cannot_be_read_is_no_answer(
    world: World, members: dict[str, object]
) -> None:
    """What MSAL would fail on, and what is no bearer token, is Entra's fault: 503, and nobody's token."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("members", members=members, match=OBO))

        assert Reason.EXCHANGE_UNAVAILABLE == denied(await service.egress("graph", world.token()))


@pytest.mark.parametrize(
    "members", [{"client_info": 7}, {"scope": 7}, {"refresh_token": []}, {"foci": 1}]
)
async def test_members_that_nobody_uses_do_no_harm(
    world: World, members: dict[str, object]
) -> None:
    """They do not even reach MSAL."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("members", members=members, match=OBO))

        assert "alice" == issued(await service.egress("graph", world.token()))["upn"].split("@")[0]


async def test_refresh_in_says_when_a_successor_is_fetched(world: World) -> None:
    """Entra's own word goes before our guess."""
    async with stack(world) as service:
        world.emulator.faults.add(opaque(expires_in=3600, refresh_in=600))

        await service.egress("autonomous")
        (entry,) = service.engine._workshop.tokens._cache._entries.values()

        assert 3000 == pytest.approx(
            entry.value.expires_at.steady - entry.value.refresh_at.steady, abs=1
        )


@pytest.mark.parametrize(
    "members",
    [
        {"error_codes": [10**300]}, {"error_codes": [True]}, {"error_codes": {"a": 1}},
        {"error_codes": [], "error_description": "AADSTS" + "9" * 5000 + ": x"},
        {"claims": "[" * 50_000}, {"claims": json.dumps({"a": "x" * MAX_CHALLENGE})}, {"claims": 7},
        {"suberror": []}, {"correlation_id": {"a": "b"}},
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
async def test_a_refusal_with_odd_members_is_a_refusal(
    world: World, members: dict[str, object]
) -> None:
    """Its number, its challenge and its text are read as far as they can be; what is too large is not."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("error", code=65001, members=members, match=OBO))

        record = await service.egress("graph", world.token())

        assert isinstance(record.decision, Deny)
        assert record.decision.reason in (Reason.CONSENT_REQUIRED, Reason.EXCHANGE_REJECTED)
        assert record.decision.claims is None or len(record.decision.claims) <= MAX_CHALLENGE


@pytest.fixture
def identity_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What the host's metadata service answers, one after the other; the last one for ever."""
    answers: list[object] = []

    class Metadata(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.answer(json.dumps(body).encode())

    server = QuietServer(("127.0.0.1", 0), Metadata).started()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", address)
    yield answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "odd",
    [
        {"access_token": 7}, {"access_token": ["x"]}, {"access_token": "x\r\ny"}, {"expires_in": "soon"},
        {"expires_in": 0}, {"expires_in": -1}, {"expires_in": None}, {"expires_in": [3600]},
    ],
    ids=str,
)  # fmt: skip
async def test_an_odd_answer_of_the_hosts_identity_is_not_kept(
    world: World, identity_answers: list[object], odd: dict[str, object]
) -> None:
    """MSAL keeps what the metadata service gives for as long as it says: it is looked at before."""
    clock, document = Clock(), world.config()
    document["blueprints"]["support"]["credentials"] = [{"managed_identity": {}}]
    good = {"access_token": "some.federated.token", "expires_in": 3600}
    identity_answers += [{**good, **odd}, good]
    async with stack(world, document=document, clock=clock) as service:
        first = await service.egress("autonomous")
        clock.ahead += 60
        second = await service.egress("autonomous")

        # The emulator takes no such assertion: it came that far.
        assert [Reason.EXCHANGE_UNAVAILABLE, Reason.EXCHANGE_MISCONFIGURED] == [
            denied(first),
            denied(second),
        ]


def _identity(clock: TwoClocks) -> Callable[[], str]:
    """Return how the host's managed identity is asked for an assertion."""
    http = HttpClient(ca_file=None, connect_timeout=10, timeout=30, pool_size=1, plain_http=True)
    client = msal.ManagedIdentityClient(
        msal.SystemAssignedManagedIdentity(),
        http_client=IdentityTransport(http),
        token_cache=NoTokenCache(),
        http_cache=NoHttpCache(),
    )
    identity = ManagedIdentity(client, "api://it", "it", clock=clock, timer=clock.timer)
    assertion: Callable[[], str] = identity.proofs()[0].client_credential["client_assertion"]
    return assertion


@pytest.mark.parametrize("set_by", [-86_400.0, -3600.0, 0.0])
def test_the_token_of_the_hosts_identity_ends_in_time_whoever_sets_the_wall_clock(
    identity_answers: list[object], set_by: float
) -> None:
    """Five minutes before its end it is asked for again; Entra would refuse one that has ended."""
    clock = TwoClocks()
    assertion = _identity(clock)
    identity_answers += [{"access_token": f"a.b.{n}", "expires_in": 3600} for n in range(2)]
    first = assertion()
    clock.set_by(set_by)
    clock.advance(3299)

    assert ["a.b.0", "a.b.0"] == [first, assertion()]
    clock.advance(1)
    assert "a.b.1" == assertion()


def test_a_long_lived_token_of_the_hosts_identity_is_renewed_at_half_of_its_life(
    identity_answers: list[object],
) -> None:
    """While there is time enough to outlast a metadata service that is away."""
    clock = TwoClocks()
    assertion = _identity(clock)
    identity_answers += [{"access_token": "a.b.0", "expires_in": 10_000}, {"error": "away"}]
    assertion()
    clock.advance(5000)
    kept = assertion()
    asked = len(identity_answers)
    clock.advance(4700)

    assert ("a.b.0", 1) == (kept, asked)
    with pytest.raises(EntraError):
        assertion()


def test_the_token_of_the_hosts_identity_ends_by_its_own_exp(
    identity_answers: list[object],
) -> None:
    """Where that comes before what the metadata service says."""
    clock = TwoClocks()
    assertion = _identity(clock)
    short = jwt.encode({"exp": int(clock()) + 1000}, "k" * 32, algorithm="HS256")
    identity_answers += [
        {"access_token": short, "expires_in": 3600},
        {"access_token": "a.b.1", "expires_in": 3600},
    ]
    assertion()
    clock.advance(699)

    assert short == assertion()
    clock.advance(1)
    assert "a.b.1" == assertion()
