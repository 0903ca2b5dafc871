"""How a denial looks: statuses, challenges, bodies; and that none of it can be injected into."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import Deny
from authz.core.errors import InsufficientScope, Reason, StepUpRequired
from authz.core.subject import SubjectSource
from authz.doors.problem import FACES, OK, describe, detail_of


def test_every_reason_has_a_face() -> None:
    """The table has no gap, and no face says OK."""
    assert set(Reason) == set(FACES)
    assert all(face.rpc_code != OK and face.http_status >= 400 for face in FACES.values())


def header(denial: Deny, name: str) -> str | None:
    """A header of the rendered denial."""
    return dict(describe(denial).headers).get(name)


def test_missing_token_is_a_bare_challenge() -> None:
    """RFC 6750 section 3.1: no error code when there was no authentication."""
    assert 'Bearer realm="authz"' == header(Deny(Reason.MISSING_TOKEN), "www-authenticate")


def test_insufficient_scope_names_the_scopes() -> None:
    """RFC 6750 section 3: `scope` of the challenge, as a client asks for it; `accepted` of the body."""
    asked = ("api://x/a.read", "api://x/b.write")
    denial = Deny(Reason.INSUFFICIENT_SCOPE, accepted=("a.read", "b.write"), ask_for=asked)

    challenge = header(denial, "www-authenticate") or ""

    assert 'error="insufficient_scope"' in challenge
    assert 'scope="api://x/a.read api://x/b.write"' in challenge
    assert ["a.read", "b.write"] == json.loads(describe(denial).body)["accepted"]


def test_challenge_says_where_the_metadata_is() -> None:
    """RFC 9728 section 5.1; beside the scope to ask for, whatever the reason."""
    url = "https://agent.example.com/.well-known/oauth-protected-resource/mcp"
    scope = "https://agent.example.com/mcp/access"
    denial = Deny(Reason.MISSING_TOKEN, metadata_url=url, ask_for=(scope,))

    expected = f'Bearer realm="authz", resource_metadata="{url}", scope="{scope}"'
    assert expected == header(denial, "www-authenticate")


def test_claims_challenge_is_passed_on() -> None:
    """The Entra page "claims-challenge": `insufficient_claims` with the JSON in base64."""
    claims = '{"access_token":{"capolids":{"essential":true,"values":["x"]}}}'
    denial = Deny(Reason.INTERACTION_REQUIRED, claims=claims)

    challenge = header(denial, "www-authenticate") or ""

    assert 'error="insufficient_claims"' in challenge
    assert claims == base64.b64decode(challenge.partition('claims="')[2].strip('"')).decode()
    assert claims == json.loads(describe(denial).body)["claims"]


def test_a_step_up_is_challenged_as_entras_own_demands_are() -> None:
    """A client that answers Entra's claims challenges answers the route's with the same code."""
    error = StepUpRequired('{"access_token":{"acrs":{"essential":true,"value":"c1"}}}')
    denial = Deny.because(error)

    challenge = header(denial, "www-authenticate") or ""

    assert (401, "Step-up required") == (
        describe(denial).http_status,
        json.loads(describe(denial).body)["title"],
    )
    assert 'error="insufficient_claims"' in challenge
    assert error.claims == base64.b64decode(challenge.partition('claims="')[2].strip('"')).decode()
    assert error.claims == json.loads(describe(denial).body)["claims"]


def test_a_missing_role_of_a_user_names_no_scope_to_ask_for() -> None:
    """The body names the roles of which an administrator assigns one."""
    denial = Deny.because(InsufficientScope(("Approver",)))

    assert (
        'Bearer realm="authz", error="insufficient_scope", error_description="Insufficient scope"'
        == header(denial, "www-authenticate")
    )
    assert ["Approver"] == json.loads(describe(denial).body)["accepted"]


ABOUT_DESTINATIONS = {Reason.UNKNOWN_ROUTE, Reason.TUNNEL_REFUSED}


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize(
    "authority", ["api.example", "api.example:8443", "[fd00::1]:80", "10.0.0.1"]
)
def test_a_denial_of_a_destination_names_it(reason: Reason, authority: str) -> None:
    """Host and port as the request has them; no other reason repeats what a request held."""
    assert (reason in ABOUT_DESTINATIONS) is (authority in detail_of(reason, authority))


@pytest.mark.parametrize("reason", sorted(ABOUT_DESTINATIONS))
@pytest.mark.parametrize(
    "authority",
    ["", "a b", 'a","x":"', "user:word@api.example", "a/b", "a%00", "a\r\nb", "ü", "a" * 260],
)
def test_what_is_no_host_and_port_is_not_repeated(reason: Reason, authority: str) -> None:
    """It comes from the request, and goes into JSON and into a header of gRPC."""
    assert FACES[reason].detail == detail_of(reason, authority)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ((SubjectSource.BEARER,), "Send a bearer token in the Authorization header."),
        (
            (SubjectSource.BEARER, SubjectSource.HANDLE),
            "Send a bearer token in the Authorization header.",
        ),
        (
            (SubjectSource.PLACEHOLDER,),
            "unchanged (Authorization: Bearer authz_placeholder_…). If that is a token",
        ),
        (
            (SubjectSource.PLACEHOLDER, SubjectSource.HANDLE),
            "(Authorization: Bearer authz_placeholder_… or baggage: authz-subject=…)",
        ),
    ],
)
def test_a_missing_user_is_asked_for_in_the_form_that_the_route_takes(
    sources: tuple[SubjectSource, ...], expected: str
) -> None:
    """A route of references does not ask for the token that it would not take."""
    assert expected in detail_of(Reason.MISSING_TOKEN, "api.example", sources=sources)


def test_a_request_without_authorization_is_not_said_to_have_a_token() -> None:
    """It is the usual case of an agent that does not send on what it received."""
    detail = detail_of(
        Reason.MISSING_TOKEN,
        "api.example",
        sources=(SubjectSource.PLACEHOLDER,),
        has_authorization=False,
    )

    assert (
        "This request has no Authorization: send on what the agent received of its user, unchanged "
        "(Authorization: Bearer authz_placeholder_…)."
    ) == detail


@pytest.mark.parametrize("reason", Reason)
def test_every_denial_has_what_sdks_print(reason: Reason) -> None:
    """`error.code` and `error.message` (OpenAI, Azure, Microsoft Graph), and `message` (Anthropic)."""
    body = json.loads(describe(Deny(reason)).body)

    assert (
        f"{FACES[reason].title} ({reason.value}, authz): {FACES[reason].detail}" == body["message"]
    )
    assert {"type": body["type"], "code": reason.value, "message": body["message"]} == body["error"]


@pytest.mark.parametrize(("seconds", "said"), [(0.1, "1"), (1, "1"), (1.2, "2"), (17, "17")])
def test_retry_after_is_whole_seconds(seconds: float, said: str) -> None:
    """RFC 9110 section 10.2.3 knows no fractions; rounding down would be too soon."""
    assert said == header(Deny(Reason.EXCHANGE_UNAVAILABLE, retry_after=seconds), "retry-after")


@pytest.mark.parametrize("reason", Reason)
def test_every_503_says_when_to_try_again(reason: Reason) -> None:
    """A caller is never left to guess, and is never told to repeat what cannot get better."""
    unavailable = FACES[reason].http_status == 503

    assert unavailable == (header(Deny(reason), "retry-after") is not None)


@given(
    st.sampled_from(list(Reason)), st.text(), st.lists(st.text(), max_size=3), st.none() | st.text()
)
def test_no_header_can_be_injected(
    reason: Reason, request_id: str, accepted: list[str], claims: str | None
) -> None:
    """Whatever is passed on, header values stay visible ASCII and the body stays JSON."""
    problem = describe(Deny(reason, 1.0, tuple(accepted), claims), request_id=request_id)

    for _, value in problem.headers:
        assert value.isascii()
        assert value.isprintable()
    assert reason.value == json.loads(problem.body)["reason"]
