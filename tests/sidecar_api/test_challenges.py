"""APIs that refuse a token: what they demand is read strictly, asked of Entra, and sent once more."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from authz.doors.sidecar_api.challenges import MAX_CHALLENGE, demanded_claims
from sidecar_api.conftest import OK, Seen, SomeApi
from support.fakes.properties import thorough
from support.programs.stack import Process, World
from support.programs.token_api import Sidecar, bearer, environment

REVOKED = {"access_token": {"nbf": {"essential": True, "value": "1604106651"}}}
STEP_UP = {"access_token": {"acrs": {"essential": True, "value": "c1"}}}
CAPABLE = {"access_token": {"xms_cc": {"values": ["cp1"]}}}


def encoded(claims: object) -> str:
    """Claims as a challenge carries them."""
    return base64.b64encode(json.dumps(claims).encode()).decode()


def canonical(claims: object) -> str:
    """Claims as they are sent to Entra."""
    return json.dumps(claims, sort_keys=True, separators=(",", ":"))


def challenge(claims: object) -> str:
    """A claims challenge as Microsoft's APIs write it."""
    return (
        'Bearer realm="", authorization_uri="https://login.example/common/oauth2/authorize", '
        f'error="insufficient_claims", claims="{encoded(claims)}"'
    )


WITHOUT_MEANING: list[Any] = [[], {}, "text", 7, None, CAPABLE, {"xms_cc": 1}]
URL_SAFE = base64.urlsafe_b64encode(json.dumps({"k": "ÿÿÿ>>>???"}).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([challenge(REVOKED)], REVOKED),
        (["Negotiate", 'Digest nonce="a, b=c"', challenge(REVOKED)], REVOKED),
        ([f'Digest qop="a", {challenge(REVOKED)}, Basic realm="x"'], REVOKED),
        ([f"bearer error=insufficient_claims,claims={encoded(REVOKED)}"], REVOKED),
        ([f'BEARER Error = "insufficient_\\claims" , CLAIMS="{encoded(REVOKED)}"'], REVOKED),
        ([f'Bearer error="insufficient_claims", claims="{URL_SAFE}"'], {"k": "ÿÿÿ>>>???"}),
        ([challenge(CAPABLE), challenge(STEP_UP)], STEP_UP),
        ([f'Bearer error="x", claims="{encoded(REVOKED)}", {challenge(STEP_UP)}'], STEP_UP),
    ],
)  # fmt: skip
def test_a_claims_challenge_is_found(values: list[str], expected: dict[str, Any]) -> None:
    """Wherever it stands among others, however it is quoted."""
    assert canonical(expected) == demanded_claims(values)


@pytest.mark.parametrize(
    "values",
    [
        [], [""], ["Bearer"], ['Bearer error="invalid_token"'], ["Bearer error=insufficient_claims"],
        [f'Bearer error="invalid_token", claims="{encoded(REVOKED)}"'],
        [f'Bearer claims="{encoded(REVOKED)}"'],
        [f'DPoP error="insufficient_claims", claims="{encoded(REVOKED)}"'],
        # Another scheme's parameter.
        [f'Bearer error="insufficient_claims", Digest claims="{encoded(REVOKED)}"'],
        # In a value.
        [f'Basic realm="Bearer error=insufficient_claims, claims={encoded(REVOKED)}"'],
        [f'Bearer error="insufficient_claims", claims="{encoded(REVOKED)}'],
        *([challenge(claims)] for claims in WITHOUT_MEANING),
        [challenge({"access_token": {"acrs": {"value": "x" * MAX_CHALLENGE}}})],
        ['Bearer error="insufficient_claims", claims="e30 é"'],
        [f'Bearer error="insufficient_claims", claims="{base64.b64encode(b"[" * 9999).decode()}"'],
        [f'Bearer error="insufficient_claims", claims="{base64.b64encode(b"{x:NaN}").decode()}"'],
    ],
    ids=lambda values: str(values)[:60],
)  # fmt: skip
def test_all_else_is_no_claims_challenge(values: list[str]) -> None:
    """Least of all one for tokens that live for a day."""
    assert demanded_claims(values) is None


@thorough
@given(st.lists(st.text(max_size=200), max_size=3))
def test_whatever_an_api_says_is_read(values: list[str]) -> None:
    """No text makes reading fail, and what is found is a JSON object."""
    found = demanded_claims([f'Bearer error="insufficient_claims", claims="{v}"' for v in values])

    assert found is None or isinstance(json.loads(found), dict)


@pytest.fixture
def sidecar(world: World, api: SomeApi) -> Iterator[Sidecar]:
    """The service by the sidecar's keys, with the API as its downstream API."""
    trusted = world.folder / "both.pem"
    trusted.write_bytes(world.emulator.ca_file.read_bytes() + api.ca_file.read_bytes())
    variables = environment(
        world, DownstreamApis__graph__BaseUrl=f"{api.url}/v1.0", SSL_CERT_FILE=str(trusted)
    )
    running = Sidecar(Process("serve", environ=variables))
    world.emulator.calls.reset()
    yield running
    running.http.close()
    running.process.close()


class Guard:
    """An API's judgement of tokens.

    Args:
        demands: The claims that it wants of a token that it refuses; None for a plain refusal.
    """

    def __init__(self, demands: object) -> None:
        self._demands = demands
        self.revoked: set[str] = set()
        self.refuses_all = False
        self.lacking = False
        """Whether the next token lacks what is demanded."""
        self.tokens: list[str] = []
        """Every token that came, in order."""

    def __call__(self, seen: Seen) -> Response:
        """Answer one request."""
        token = dict(seen.headers)["authorization"].removeprefix("Bearer ")
        self.tokens.append(token)
        lacking, self.lacking = self.lacking, False
        if not (lacking or self.refuses_all or token in self.revoked):
            return OK
        header = (
            'Bearer error="invalid_token"' if self._demands is None else challenge(self._demands)
        )
        return Response("refused", 401, headers={"www-authenticate": header})

    def revoke(self) -> None:
        """Refuse every token that came so far."""
        self.revoked |= set(self.tokens)
        self.tokens.clear()


class Caller:
    """Calls the API through the service, for a user or for the application itself.

    Args:
        sidecar: The service.
        world: Whose users call.
    """

    def __init__(self, sidecar: Sidecar, world: World) -> None:
        self._sidecar = sidecar
        self._world = world
        self.token = world.token()

    async def call(self, *, as_app: bool = False, body: str = "") -> dict[str, Any]:
        """Post something; return the service's answer, with its own status as `http`."""
        path = "DownstreamApiUnauthenticated" if as_app else "DownstreamApi"
        answer = await asyncio.to_thread(
            self._sidecar.http.post,
            f"/{path}/graph",
            params={
                "AgentIdentity": self._world.agent["client_id"],
                "optionsOverride.RequestAppToken": str(as_app).lower(),
                "optionsOverride.RelativePath": "me",
                "optionsOverride.HttpMethod": "POST",
            },
            content=body,
            headers=bearer(None if as_app else self.token),
        )
        return {"http": answer.status_code, **answer.json()}


@pytest.mark.parametrize("as_app", [False, True], ids=["user", "app"])
async def test_a_revoked_token_is_replaced_within_the_call(
    world: World, api: SomeApi, sidecar: Sidecar, as_app: bool
) -> None:
    """The call is repeated once, whole, with a token that Entra issued for the demand."""
    guard = api.answers["/v1.0/me"] = Guard(REVOKED)
    caller = Caller(sidecar, world)
    await caller.call(as_app=as_app)
    guard.revoke()
    answer = await caller.call(as_app=as_app, body="transfer 5")
    (old, new), bodies = guard.tokens, [seen.body for seen in api.seen[-2:]]
    later = [(await caller.call(as_app=as_app))["statusCode"] for _ in range(5)]

    assert (200, 200) == (answer["http"], answer["statusCode"])
    assert (True, False) == (old in guard.revoked, new in guard.revoked)
    assert [b"transfer 5"] * 2 == bodies
    assert [200] * 5 == later
    assert guard.revoked.isdisjoint(guard.tokens[2:])
    assert 2 == len(set(guard.tokens[1:]))


async def test_what_the_api_demands_is_asked_of_entra(
    world: World, api: SomeApi, sidecar: Sidecar
) -> None:
    """Where the user must do something for it, the caller hears Entra's own challenge and can sign in."""
    guard = api.answers["/v1.0/me"] = Guard(STEP_UP)
    guard.refuses_all = True

    answer = await Caller(sidecar, world).call()

    assert (401, "interaction_required") == (answer["http"], answer["reason"])
    assert STEP_UP == json.loads(answer["claims"])
    assert 1 == len(guard.tokens)


async def test_a_token_with_what_was_demanded_is_kept(
    world: World, api: SomeApi, sidecar: Sidecar
) -> None:
    """An API that wants the same each time gets it each time, and Entra is asked for it once."""
    guard = api.answers["/v1.0/me"] = Guard(STEP_UP)
    caller = Caller(sidecar, world)
    caller.token = world.token(claims={"acrs": ["c1"]})
    served: set[str] = set()
    for _ in range(10):
        # Whatever has no context: as if the first of the two tokens were always one.
        guard.tokens.clear()
        guard.lacking = True
        answer = await caller.call()
        assert (200, 200) == (answer["http"], answer["statusCode"])
        served.add(guard.tokens[-1])
    calls = world.emulator.calls.snapshot()

    assert 1 == len(served)
    # The plain one, one in place of it, and the one with the context.
    assert 3 == calls["agent_obo"]


@pytest.mark.parametrize("demands", [None, REVOKED, CAPABLE], ids=["plain", "claims", "cp1"])
async def test_an_api_that_refuses_everything_is_answered_as_it_says(
    world: World, api: SomeApi, sidecar: Sidecar, demands: object
) -> None:
    """Its 401 reaches the caller each time, and Entra is not asked for each call."""
    guard = api.answers["/v1.0/me"] = Guard(demands)
    guard.refuses_all = True
    caller = Caller(sidecar, world)

    answers = [await caller.call() for _ in range(20)]
    calls = world.emulator.calls.snapshot()

    assert [(200, 401)] * 20 == [(answer["http"], answer["statusCode"]) for answer in answers]
    # One at first and one in place of the token that was refused; for the demand likewise.
    assert (4 if demands is REVOKED else 2) == calls["agent_obo"]
    assert (40 if demands is REVOKED else 20) == len(guard.tokens)


async def test_a_token_that_was_refused_is_not_used_for_the_next_call(
    world: World, api: SomeApi, sidecar: Sidecar
) -> None:
    """Without a demand the caller decides whether to call again, and then it works."""
    guard = api.answers["/v1.0/me"] = Guard(None)
    caller = Caller(sidecar, world)
    await caller.call()
    guard.revoke()

    assert [401, 200] == [(await caller.call())["statusCode"] for _ in range(2)]
