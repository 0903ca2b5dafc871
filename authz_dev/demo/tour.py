"""The scenarios of the demo, in the order they are played.

The order matters: what is cached in one scenario is used in a later one, and the last ones break things.
How each is played is in `plays`.
"""

from collections.abc import Iterator
from typing import Any, Final

from authz_dev.demo.plays import (
    RETRY_AFTER,
    asks,
    asks_after_rollover,
    asks_for_report,
    asks_while_throttled,
    asks_with,
    asks_with_forgery,
    asks_with_old_key,
    asks_without,
    claims_to_be_admin,
    counts_checks,
    finds_where_to_sign_in,
    is_sent_to,
    is_sent_to_stranger,
    looks_at_what_arrives,
    looks_for_tokens_in_logs,
    looks_for_users_tokens,
    looks_up_agent,
    shows_scopes,
    takes_reference_to_api,
    ticks,
    ticks_without_authz,
    while_entra_is_down,
    with_references,
)
from authz_dev.demo.scenario import Chapter, Json, Scenario

DESK: Final = "support-desk"
_USERS_TOKEN: Final = "user's token"
_NOTHING: Final = "nothing"
_REFERENCE: Final = "a reference"
_NOT_CALLED: Final = "not called"
_TIMER: Final = "nothing, timer"
_AWAY: Final = "authz_unavailable"
"""The reason that Envoy gives by itself where nobody decides."""
_SIGN_IN: Final = ["openid", "profile"]
"""The scopes that MSAL adds to those of each exchange."""
_SEARCHED: Final = ["orders API", "agent app", "authz", "Envoy", "metrics"]


def tour() -> tuple[Chapter, ...]:
    """Return every scenario, in order."""
    return (
        Chapter("Users: the agent acts for the user who calls it", _users),
        Chapter("Agent alone: nobody is signed in", _nobody),
        Chapter("Plain services: ordinary apps, without Agent ID", _applications),
        Chapter("References: the agent holds no token at all", _references),
        Chapter("Rules: method and path decide what passes, and with which scopes", _rules),
        Chapter("Tools: the same for each tool of an MCP server", _tools),
        Chapter("Sign-in: a client knows the agent's URL and nothing else", _newcomers),
        Chapter("Attacks", _bad_callers),
        Chapter("Outages: Entra refuses, throttles, is down, changes its keys", _entra_fails),
        Chapter("Leaks: looked for in everything above", _leaks),
        Chapter("Outages: authz itself is stopped", _authz_is_away),
    )


def _users() -> Iterator[Scenario]:
    yield Scenario(
        "on-behalf-of-user",
        "alice asks for her orders: the API sees support-desk for alice", "alice's token", _USERS_TOKEN,
        asks("/my-orders", "alice"),
        _served(_caller(DESK, "alice", "user"), entra_calls=2),
    )  # fmt: skip
    yield Scenario(
        "on-behalf-of-user-warm",
        "alice asks again: the same token, and no call to Entra", "alice's token", _USERS_TOKEN,
        asks("/my-orders", "alice"),
        _served(_caller(DESK, "alice", "user"), entra_calls=0),
    )  # fmt: skip
    yield Scenario(
        "repeated-by-envoy",
        "and again: Envoy repeats both decisions, without a call to authz", "alice's token", _USERS_TOKEN,
        counts_checks(asks("/my-orders", "alice")),
        # Both decisions, inbound and on egress, are those of a moment ago.
        _served(_caller(DESK, "alice", "user"), entra_calls=0, checks=0),
    )  # fmt: skip
    yield Scenario(
        "on-behalf-of-second-user",
        "alice2 asks: the API sees support-desk for alice2", "alice2's token", _USERS_TOKEN,
        asks("/my-orders", "alice2"),
        _served(_caller(DESK, "alice2", "user"), entra_calls=1),
    )  # fmt: skip
    yield Scenario(
        "on-behalf-of-user-graph",
        "alice's profile: Microsoft Graph sees support-desk for alice", "alice's token", _USERS_TOKEN,
        asks("/my-profile", "alice"),
        _served(_caller(DESK, "alice", "user", claim="appid"), entra_calls=1),
    )  # fmt: skip


def _nobody() -> Iterator[Scenario]:
    yield Scenario(
        "autonomous",
        "the nightly job: the API sees support-desk itself", _TIMER, _NOTHING,
        ticks("/jobs/nightly"),
        _served(_caller(DESK, DESK, "app"), entra_calls=1),
    )  # fmt: skip
    yield Scenario(
        "agent-user",
        "the desk's own orders: the API sees the agent's own user account", _TIMER, _NOTHING,
        ticks("/jobs/desk"),
        _served(_caller(DESK, "support-desk@contoso.example", "user"), entra_calls=2),
    )  # fmt: skip
    yield Scenario(
        "blueprint",
        "a look-up in the directory: Graph sees the blueprint", _TIMER, _NOTHING,
        looks_up_agent,
        _served(
            _caller("support blueprint", "support blueprint", "app", claim="appid"),
            entra_calls=1,
        ),
    )  # fmt: skip


def _applications() -> Iterator[Scenario]:
    yield Scenario(
        "app-on-behalf-of",
        "an ordinary app for alice: the API sees reports for alice", "reports token", _USERS_TOKEN,
        asks_for_report,
        _served(_caller("reports", "alice", "user"), entra_calls=1),
    )  # fmt: skip
    yield Scenario(
        "app",
        "the billing job of an ordinary app: the API sees reports itself", _TIMER, _NOTHING,
        ticks("/jobs/billing"),
        _served(_caller("reports", "reports", "app"), entra_calls=1),
    )  # fmt: skip
    yield Scenario(
        "app-token-pushed",
        "the payroll job: Envoy has the token already, authz is not called", _TIMER, _NOTHING,
        counts_checks(ticks("/jobs/payroll")),
        # Envoy was given the token when it started.
        _served(_caller("reports", "reports", "app"), entra_calls=0, checks=0),
    )  # fmt: skip


def _references() -> Iterator[Scenario]:
    yield Scenario(
        "what-the-agent-receives",
        "the agent logs all that it receives: references, not one token", "alice's token", _REFERENCE,
        with_references(looks_at_what_arrives),
        {
            "status": 200, "tokens": 0, "references": {"placeholder": 1, "handle": 1},
            # The token that Envoy is given ahead outlives the reload.
            "api_saw": None, "app_called": True, "entra_calls": 0,
        },
    )  # fmt: skip
    yield Scenario(
        "placeholder",
        "it forwards a reference: the API sees support-desk for alice", "alice's token", _REFERENCE,
        with_references(asks("/my-orders", "alice")),
        # The agent's own token outlives the reload; the user's exchange for this API is new.
        _served(_caller(DESK, "alice", "user"), entra_calls=1),
    )  # fmt: skip
    yield Scenario(
        "handle",
        "it forwards tracing headers: the API sees support-desk for alice2", "alice2's token", _REFERENCE,
        with_references(asks("/my-orders-traced", "alice2")),
        _served(_caller(DESK, "alice2", "user"), entra_calls=1),
    )  # fmt: skip
    yield Scenario(
        "stolen-reference",
        "a stolen reference, sent to the API past Envoy: 401", "alice's token", _REFERENCE,
        with_references(takes_reference_to_api),
        {
            "status": 401, "api_saw": {"idtyp": None, "agent": False, "refused": "DecodeError"},
            "app_called": True, "entra_calls": 0,
        },
    )  # fmt: skip


def _rules() -> Iterator[Scenario]:
    graph = _caller(DESK, "alice", "user", claim="appid")
    ambiguous = _refused(400, "ambiguous_request", app=True)
    yield Scenario(
        "rule-allows",
        "alice's name, by a rule: Graph sees the scope User.Read", "alice's token", _USERS_TOKEN,
        shows_scopes(asks("/my-name", "alice"), "graph"),
        _served(graph, entra_calls=1, scopes=["User.Read", *_SIGN_IN]),
    )  # fmt: skip
    yield Scenario(
        "rule-exchanges-other-scopes",
        "alice's mail, by another rule: Graph sees the scope Mail.Read", "alice's token", _USERS_TOKEN,
        shows_scopes(asks("/my-mail", "alice"), "graph"),
        _served(graph, entra_calls=1, scopes=["Mail.Read", *_SIGN_IN]),
    )  # fmt: skip
    yield Scenario(
        "rule-denied",
        "a path that no rule allows: 403, nothing reaches Graph", "other path", _USERS_TOKEN,
        is_sent_to("/v1.0/whoami"),
        _refused(403, "rule_denied", app=True),
    )  # fmt: skip
    yield Scenario(
        "rule-encoded-path",
        "the mail's path with an encoded letter: 400, nothing reaches Graph", "encoded path", _USERS_TOKEN,
        is_sent_to("/v1.0/me/m%65ssages"),
        ambiguous,
    )  # fmt: skip
    yield Scenario(
        "rule-other-case",
        "the mail's path in capitals: 400, nothing reaches Graph", "path in capitals", _USERS_TOKEN,
        is_sent_to("/V1.0/ME/MESSAGES"),
        ambiguous,
    )  # fmt: skip


def _tools() -> Iterator[Scenario]:
    person = _caller(DESK, "alice2", "user")
    yield Scenario(
        "tool-allowed",
        "a tool that lists orders: the API sees the scope Orders.Read", "list_orders", _USERS_TOKEN,
        shows_scopes(asks("/tools/list_orders", "alice2"), "orders"),
        _served(person, entra_calls=1, scopes=["Orders.Read"]),
    )  # fmt: skip
    yield Scenario(
        "tool-widens-scopes",
        "a tool that cancels one: only for it is Orders.Write exchanged", "cancel_order", _USERS_TOKEN,
        shows_scopes(asks("/tools/cancel_order", "alice2"), "orders"),
        _served(person, entra_calls=1, scopes=["Orders.Write"]),
    )  # fmt: skip
    yield Scenario(
        "tool-denied",
        "a tool that no rule allows: 403, nothing reaches the server", "delete_customer", _USERS_TOKEN,
        asks("/tools/delete_customer", "alice2"),
        _refused(403, "rule_denied", app=True),
    )  # fmt: skip


def _newcomers() -> Iterator[Scenario]:
    yield Scenario(
        "where-to-sign-in",
        "no token: the 401 names a document that says where to sign in", _NOTHING, _NOT_CALLED,
        finds_where_to_sign_in,
        _refused(
            401, "missing_token", describes_the_agent=True, leads_to_entra=True,
            scopes=["access_agent", "access_as_user"],
        ),
    )  # fmt: skip


def _bad_callers() -> Iterator[Scenario]:
    invalid = _refused(401, "invalid_token")
    yield Scenario(
        "no-token",
        "no token: 401, and the agent is not called",
        _NOTHING,
        _NOT_CALLED,
        asks_without,
        _refused(401, "missing_token"),
    )
    yield Scenario(
        "wrong-audience",
        "a token for another API: 401, and the agent is not called", "orders token", _NOT_CALLED,
        lambda visitor: asks_with(
            audience=visitor.stage.landscape.orders.client_id, scopes=["Orders.Read"]
        )(visitor),
        invalid,
    )  # fmt: skip
    yield Scenario(
        "expired",
        "an expired token: 401, and the agent is not called",
        "expired token",
        _NOT_CALLED,
        asks_with(lifetime=-3600),
        invalid,
    )
    yield Scenario(
        "missing-scope",
        "a token without the scope: 403, and the agent is not called", "other scope", _NOT_CALLED,
        asks_with(scopes=["profile.read"]), _refused(403, "insufficient_scope"),
    )  # fmt: skip
    yield Scenario(
        "forged-signature",
        "a signature by a foreign key: 401, and the agent is not called",
        "forged token",
        _NOT_CALLED,
        asks_with_forgery,
        invalid,
    )
    yield Scenario(
        "forged-identity-header",
        "forged identity headers: removed, the agent still sees alice", "own x-authz-*", _USERS_TOKEN,
        claims_to_be_admin,
        _served(None, subject_header="alice", admin_header=None, entra_calls=0),
    )  # fmt: skip
    yield Scenario(
        "unknown-host",
        "a prompt leads to a stranger's address: 403, nothing reaches it", "stranger's URL", _USERS_TOKEN,
        is_sent_to_stranger,
        _refused(403, "unknown_route", app=True, reached_stranger=0),
    )  # fmt: skip


def _entra_fails() -> Iterator[Scenario]:
    yield Scenario(
        "consent-required",
        "bob has not consented: 401, with the claims to sign in for", "bob's token", _USERS_TOKEN,
        asks("/my-orders", "bob"),
        _refused(401, "consent_required", app=True, entra_calls=1, claims=["capolids"]),
    )  # fmt: skip
    yield Scenario(
        "conditional-access-challenge",
        "carol must pass MFA: 401, with the claims to sign in for", "carol's token", _USERS_TOKEN,
        asks("/my-orders", "carol"),
        _refused(401, "interaction_required", app=True, entra_calls=1, claims=["capolids"]),
    )  # fmt: skip
    yield Scenario(
        "entra-throttled",
        "Entra throttles: 503, with the seconds to wait", "alice3's token", _USERS_TOKEN,
        asks_while_throttled,
        _refused(503, "exchange_throttled", app=True, entra_calls=1, retry_after=RETRY_AFTER),
    )  # fmt: skip
    yield Scenario(
        "entra-down-warm-cache",
        "Entra is down, alice's token is cached: she is served", "alice's token", _USERS_TOKEN,
        while_entra_is_down(asks("/my-orders", "alice")),
        _served(_caller(DESK, "alice", "user"), entra_calls=0),
    )  # fmt: skip
    yield Scenario(
        "entra-down-cold",
        "Entra is down, a new token is needed: 503, try again in 1 s", "alice2's token", _USERS_TOKEN,
        while_entra_is_down(asks("/my-profile", "alice2")),
        _refused(503, "exchange_unavailable", app=True, retry_after=1),
    )  # fmt: skip
    yield Scenario(
        "key-rollover",
        "Entra replaces its signing key: tokens of the new one are served", "token, new key", _USERS_TOKEN,
        asks_after_rollover,
        # The agent's own T1 was signed by the withdrawn key: refused, renewed, tried again.
        _served(_caller(DESK, "alice3", "user"), entra_calls=3),
    )  # fmt: skip
    yield Scenario(
        "key-withdrawn",
        "a token of the withdrawn key: 401, and the agent is not called", "token, old key", _NOT_CALLED,
        asks_with_old_key, _refused(401, "invalid_token"),
    )  # fmt: skip


def _leaks() -> Iterator[Scenario]:
    yield Scenario(
        "user-token-never-leaves",
        "users' tokens that reached an API in all of the above: none", "all the above", "", looks_for_users_tokens,
        _found(users_tokens_at_apis=0, apis_called=True),
    )  # fmt: skip
    yield Scenario(
        "no-token-in-logs",
        "tokens in the logs and metrics of all programs: none", "all the above", "", looks_for_tokens_in_logs,
        _found(token_like_texts=0, searched=_SEARCHED),
    )  # fmt: skip


def _authz_is_away() -> Iterator[Scenario]:
    yield Scenario(
        "authz-down-egress",
        "the agent calls an API: 503, and nothing reaches it",
        "new token",
        _NOTHING,
        ticks_without_authz,
        _refused(503, _AWAY, app=True, retry_after=1),
    )
    yield Scenario(
        "authz-down",
        "a user with a valid token: 503, and the agent is not called",
        "valid token",
        _NOT_CALLED,
        asks_with(),
        _refused(503, _AWAY, retry_after=1),
    )


def _caller(actor: str, subject: str, idtyp: str, *, claim: str = "azp") -> Json:
    """Return who calls, by the claims of a token: v2 tokens say `azp`, v1 tokens `appid`."""
    return {claim: actor, "oid": subject, "idtyp": idtyp, "agent": actor == DESK}


def _served(api_saw: Json | None, *, entra_calls: int, **more: Any) -> Json:
    seen = {"api_saw": api_saw, "app_called": True, "entra_calls": entra_calls}
    return {"status": 200, **more, **seen}


def _refused(
    status: int, reason: str | None, *, app: bool = False, entra_calls: int = 0, **more: Any
) -> Json:
    seen = {"api_saw": None, "app_called": app, "entra_calls": entra_calls}
    return {"status": status, "reason": reason, **more, **seen}


def _found(**findings: Any) -> Json:
    return {**findings, "api_saw": None, "app_called": False, "entra_calls": 0}
