"""Whose a refusal is: the user's, the application's, or that of one of its credentials."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msal
import pytest
from structlog.testing import capture_logs

from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.core.exchange import Client
from authz.entra.aadsts import MEANINGS
from authz.entra.clients import Applications
from authz.entra.credentials import REFUSED_FOR, ClientSecret
from authz.entra.http import HttpClient
from authz.entra.msal_transport import MsalTransport
from authz.entra.refusals import refusal
from authz_dev.emulator import Fault, Match
from authz_dev.emulator.errors import REFUSALS
from support.programs.stack import World, denied, issued, stack

USERS_FAULTS = [65001, 50105, 50076, 53003, 50013, 50027, 50057, 82007]


@pytest.mark.parametrize("code", USERS_FAULTS)
async def test_where_no_user_is_asked_nobody_is_sent_to_sign_in(world: World, code: int) -> None:
    """Consent, assignment and sign-in of an autonomous agent are an operator's to mend."""
    async with stack(world) as service:
        world.emulator.faults.add(
            Fault("error", code=code, claims={"a": 1}, match=Match(leg="autonomous"))
        )

        record = await service.egress("autonomous")

        assert isinstance(record.decision, Deny)
        assert (Reason.EXCHANGE_MISCONFIGURED, None) == (
            record.decision.reason,
            record.decision.claims,
        )


@pytest.mark.parametrize(
    ("route", "leg"),
    [("graph", "t1"), ("agent-user", "t2"), ("blueprint", "blueprint"), ("app", "app")],
)
async def test_a_leg_that_carries_no_user_sends_nobody_to_sign_in(
    world: World, route: str, leg: str
) -> None:
    """Not even the user on whose behalf the other leg will be: the blueprint's credential is not theirs."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("error", code=50076, claims={"a": 1}, match=Match(leg=leg)))

        record = await service.egress(route, world.token() if route == "graph" else None)

        assert isinstance(record.decision, Deny)
        assert (Reason.EXCHANGE_MISCONFIGURED, None) == (
            record.decision.reason,
            record.decision.claims,
        )


async def test_the_account_of_an_agent_is_not_sent_to_sign_in(world: World) -> None:
    """An agent's own user account has nobody who could."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("error", code=65001, match=Match(leg="user_fic")))

        assert Reason.EXCHANGE_MISCONFIGURED == denied(await service.egress("agent-user"))


@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client"])
@pytest.mark.parametrize("code", [*USERS_FAULTS, 7000218, 7000215, 1])
def test_what_entra_says_of_the_client_is_never_a_users_fault(error: str, code: int) -> None:
    """The OAuth error says whose it is, whatever the number can mean elsewhere."""
    answer = {"error": error, "error_codes": [code], "claims": '{"a":1}'}

    found = refusal(answer, user_is_asked=True)

    assert (Reason.EXCHANGE_MISCONFIGURED, None) == (found.reason, found.claims)


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        ("invalid_client", 50027, True),
        ("invalid_client", 7000218, True),
        ("invalid_client", 123, True),
        ("invalid_client", None, True),
        ("invalid_client", 700016, False),
        ("invalid_client", 7000112, False),
        ("invalid_grant", 50027, False),
        ("invalid_grant", 65001, False),
        ("invalid_request", 7000218, True),
        (["invalid_client"], None, False),
    ],
)
def test_a_refusal_of_the_credential_is_known_as_one(
    error: object, code: int | None, expected: bool
) -> None:
    """Another credential may do: by the OAuth error, unless the number speaks of the application."""
    answer = {"error": error, "error_codes": [code]}

    assert expected == refusal(answer, user_is_asked=True).by_credential


def test_every_number_of_the_emulator_is_explained() -> None:
    """What can be met here is in the table of docs/errors.md."""
    assert set() == REFUSALS.keys() - MEANINGS.keys()


def test_the_log_says_what_to_do() -> None:
    """The cause and its fix, or the page where Microsoft explains the number."""
    known = refusal({"error": "invalid_client", "error_codes": [7000215]}, user_is_asked=False)
    unknown = refusal({"error": "invalid_client", "error_codes": [123456]}, user_is_asked=False)

    assert (
        "invalid_client AADSTS7000215 (wrong secret (or not replicated yet); put the secret's value into "
        "the file, not its id; a new one takes a minute) correlation_id=?"
    ) == str(known)
    assert (
        "invalid_client AADSTS123456 (https://login.microsoftonline.com/error?code=123456) "
        "correlation_id=?"
    ) == str(unknown)


@pytest.mark.parametrize("code", sorted(MEANINGS))
def test_entras_own_text_is_in_no_message(code: int) -> None:
    """A description can quote the token that was sent, and a correlation id is a short word or nothing."""
    answer = {
        "error": "invalid_grant",
        "error_codes": [code],
        "error_description": f"AADSTS{code}: the assertion eyJhbGciOi.secret is of no use",
        "correlation_id": "eyJhbGciOi.secret\n",
        "suberror": "eyJhbGciOi.secret",
    }

    found = refusal(answer, user_is_asked=True)

    assert "eyJhbGciOi" not in f"{found} {found.detail} {found.args} {found.__dict__}"


async def test_entras_own_text_is_in_no_log(world: World) -> None:
    """Neither for the user, nor where a credential is refused, nor where an answer cannot be read."""
    private = "eyJhbGciOi.secret"
    document = world.config()
    document["blueprints"]["support"]["credentials"] *= 2
    texts = {"error_description": f"AADSTS7000215: {private}", "correlation_id": private}
    with capture_logs() as logs:
        async with stack(world, document=document) as service:
            for fault in (
                Fault("error", code=65001, members=texts, match=Match(leg="agent_obo"), count=1),
                Fault("error", code=7000222, members=texts, match=Match(leg="blueprint"), count=1),
                Fault("members", members={"id_token": private}, match=Match(leg="app"), count=1),
                Fault("answer", status=400, body=private, match=Match(leg="app_obo"), count=1),
            ):
                world.emulator.faults.add(fault)
            records = [
                await service.egress("graph", world.token()),
                await service.egress("blueprint"),
                await service.egress("app"),
                await service.egress(
                    "app-obo", world.token(audience=world.reports["client_id"], scopes=None)
                ),
            ]

    assert 4 == len(records)
    assert "credential refused" in {entry["event"] for entry in logs}
    assert private not in str(logs)
    assert private not in " ".join(repr(record.error) for record in records)


@pytest.mark.parametrize("code", [50027, 7000218])
async def test_the_next_credential_is_tried_for_every_refusal_of_one(
    world: World, tmp_path: Path, code: int
) -> None:
    """Also in a user's exchange: nobody is sent to sign in because a secret is wrong."""
    second = tmp_path / "second"
    second.write_text(world.reports["client_secret"])
    document = world.config()
    document["applications"]["reports"]["credentials"].append(
        {"client_secret": {"file": str(second)}}
    )
    token = world.token(audience=world.reports["client_id"], scopes=None)
    world.emulator.faults.add(
        Fault("error", code=code, members={"error": "invalid_client"}, count=1)
    )
    async with stack(world, document=document) as service:
        record = await service.egress("app-obo", token)

        assert "alice" == issued(record)["upn"].split("@")[0]


async def test_a_single_credential_that_is_refused_is_our_configuration(world: World) -> None:
    """Not the user's, whose token Entra has not even looked at."""
    token = world.token(audience=world.reports["client_id"], scopes=None)
    async with stack(world) as service:
        world.emulator.faults.add(
            Fault("error", code=50027, members={"error": "invalid_client"}, match=Match("app_obo"))
        )

        assert Reason.EXCHANGE_MISCONFIGURED == denied(await service.egress("app-obo", token))


class Bench:
    """An application with two secrets, of which the first one can be changed, and time as the test says."""

    def __init__(self, world: World, *secrets: str) -> None:
        self.now = 0.0
        self.secrets = list(secrets)
        self.read = [0] * len(secrets)
        self._world = world
        self._client = Client("reports", world.tenant_id, world.reports["client_id"])
        http = HttpClient(
            ca_file=Path(world.emulator.ca_file), connect_timeout=10, timeout=30, pool_size=2
        )
        credentials = [ClientSecret(lambda n=n: self._read(n), f"secret {n}") for n in range(2)]  # type: ignore[misc]
        self._applications = Applications(
            world.emulator.authority,
            MsalTransport(http),
            {self._client: credentials},
            time.time,
            lambda: self.now,
        )

    def _read(self, position: int) -> str:
        self.read[position] += 1
        return self.secrets[position]

    def calls(self) -> tuple[int, int]:
        """Ask for a token, and return how many calls that took and how many were refused."""

        def call(application: msal.ConfidentialClientApplication) -> Mapping[str, Any]:
            answer: Mapping[str, Any] = application.acquire_token_for_client(
                ["https://graph.microsoft.com/.default"]
            )
            return answer

        self._world.emulator.calls.reset()
        self._applications.acquire(self._client, call, user_is_asked=False)
        counts = self._world.emulator.calls.snapshot()
        return counts["total"], counts["rejected"]


def test_a_refused_credential_is_remembered(world: World) -> None:
    """It is tried once, then after a while once more, and not in each exchange."""
    bench = Bench(world, "wrong", world.reports["client_secret"])

    first = [bench.calls() for _ in range(3)]
    bench.now += REFUSED_FOR + 1
    later = [bench.calls() for _ in range(2)]

    assert [(2, 1), (1, 0), (1, 0)] == first
    assert [(2, 1), (1, 0)] == later


def test_a_refused_credential_that_changes_is_tried_at_once(world: World) -> None:
    """The file has another content: what was refused is not what is there."""
    bench = Bench(world, "wrong", world.reports["client_secret"])
    bench.calls()
    bench.secrets[0] = world.reports["client_secret"]
    read = bench.read[1]

    after = [bench.calls() for _ in range(2)]

    assert [(1, 0)] * 2 == after
    assert read == bench.read[1]


def test_a_refused_credential_is_still_better_than_none(world: World) -> None:
    """Where all have been refused, each is tried: Entra may have learnt of one meanwhile."""
    bench = Bench(world, world.reports["client_secret"], "wrong")
    world.emulator.faults.add(Fault("error", code=7000215, count=2))
    with pytest.raises(Exception, match="AADSTS7000215"):
        bench.calls()

    assert (1, 0) == bench.calls()


def test_an_accepted_secret_serves_while_its_successor_is_refused(world: World) -> None:
    """The successor is tried at once, and then once in a while; each other exchange costs one call."""
    bench = Bench(world, world.reports["client_secret"], "unused")
    bench.calls()
    bench.secrets[0] = "wrong"

    first = [bench.calls() for _ in range(3)]
    bench.now += REFUSED_FOR + 1
    later = [bench.calls() for _ in range(2)]

    assert [(2, 1), (1, 0), (1, 0)] == first
    assert [(2, 1), (1, 0)] == later
