"""How scenarios of the demo are played: what a visitor does and breaks, and what comes of it.

Which of them are played, and what is expected, is in `tour`; what a visitor can do at all, in `visitor`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from authz_dev.demo.landscape import GRAPH_HOSTS
from authz_dev.demo.scenario import Json
from authz_dev.demo.visitor import Visitor, outcome
from authz_dev.emulator import Fault, Match

RETRY_AFTER: Final = 7
"""Seconds that Entra asks for when it throttles."""
Play = Callable[[Visitor], Mapping[str, Any]]
"""Makes a scenario happen; returns what the caller learned."""
_METADATA: Final = re.compile(r'resource_metadata="([^"]+)"')


def asks(path: str, user: str) -> Play:
    """A user asks the agent."""
    return lambda visitor: outcome(visitor.ask(path, visitor.token(user)))


def asks_with(**order: Any) -> Play:
    """Somebody asks with a token that is made to order."""
    return lambda visitor: outcome(visitor.ask("/my-orders", visitor.mint(**order)))


def ticks(path: str) -> Play:
    """A job of the agent runs, without a user."""
    return lambda visitor: outcome(visitor.tick(path))


def counts_checks(play: Play) -> Play:
    """The same, and the Checks that authz was asked meanwhile."""

    def counted(visitor: Visitor) -> Json:
        before = visitor.checks()
        found = dict(play(visitor))
        return {**found, "checks": visitor.checks() - before}

    return counted


def asks_without(visitor: Visitor) -> Json:
    """Somebody asks without a token."""
    return outcome(visitor.ask("/my-orders"))


def asks_with_forgery(visitor: Visitor) -> Json:
    """Somebody asks with a token that a foreign key signed under the name of a real one."""
    genuine = visitor.key_id(visitor.token("alice"))
    return dict(asks_with(key="foreign", header={"kid": genuine})(visitor))


def looks_up_agent(visitor: Visitor) -> Json:
    """A job looks the agent up in the directory."""
    agent = visitor.stage.landscape.agent.client_id
    return outcome(visitor.tick(f"/jobs/directory?app_id={agent}"))


def asks_for_report(visitor: Visitor) -> Json:
    """A user asks an ordinary app."""
    reports = visitor.stage.landscape.reports.client_id
    return outcome(visitor.ask("/my-report", visitor.mint(audience=reports)))


def claims_to_be_admin(visitor: Visitor) -> Json:
    """A user sends identity headers of somebody else."""
    forged = {"x-authz-subject": "admin", "x-authz-admin": "true"}
    answer = visitor.ask("/whoami", visitor.token("alice"), **forged)
    seen = answer.json()
    return {
        **outcome(answer),
        "subject_header": visitor.name(seen.get("x-authz-subject", "")),
        "admin_header": seen.get("x-authz-admin"),
    }


def is_sent_to_stranger(visitor: Visitor) -> Json:
    """A user's prompt leads the agent to an address that is not configured."""
    url = quote(visitor.stranger_url(), safe="")
    answer = visitor.ask(f"/fetch?url={url}", visitor.token("alice"))
    return {**outcome(answer), "reached_stranger": visitor.strangers_visits()}


def shows_scopes(play: Play, api: str) -> Play:
    """The same, and the scopes of the token that reached an API."""

    def shown(visitor: Visitor) -> Json:
        found = dict(play(visitor))
        return {**found, "scopes": visitor.scopes_at(api)}

    return shown


def is_sent_to(path: str) -> Play:
    """A user's prompt leads the agent to a path of a host that has rules."""
    url = quote(f"http://{GRAPH_HOSTS[2]}{path}", safe="")
    return lambda visitor: outcome(visitor.ask(f"/fetch?url={url}", visitor.token("alice")))


def finds_where_to_sign_in(visitor: Visitor) -> Json:
    """Somebody who has the agent's URL and no token asks, and follows what the 401 names."""
    stage = visitor.stage
    answer = visitor.ask("/my-orders")
    named = _METADATA.search(answer.headers["www-authenticate"])
    document = visitor.follow(named[1]) if named is not None else {}
    entra = f"{stage.emulator.authority}/{stage.landscape.tenant_id}/v2.0"
    asked_for: list[str] = document.get("scopes_supported", [])
    return {
        **outcome(answer),
        "describes_the_agent": document.get("resource") == stage.agent_url,
        "leads_to_entra": document.get("authorization_servers") == [entra],
        "scopes": [scope.removeprefix(f"{stage.agent_url}/") for scope in asked_for],
    }


def with_references(play: Play) -> Play:
    """The same, while the agent is given references in place of tokens."""

    def played(visitor: Visitor) -> Mapping[str, Any]:
        # Envoy would repeat to a known token what it was answered under the former rules.
        with visitor.stage.references(), visitor.signing_in_anew():
            return play(visitor)

    return played


def looks_at_what_arrives(visitor: Visitor) -> Json:
    """A user asks, and the agent's log is searched for what it received."""
    answer = visitor.ask("/received", visitor.token("alice"))
    logged = visitor.agents_log()
    return {
        **outcome(answer),
        "tokens": visitor.token_like_texts()["agent app"],
        "references": {
            "placeholder": logged.count("authorization: Bearer authz_placeholder_"),
            "handle": logged.count("baggage: authz-subject="),
        },
    }


def takes_reference_to_api(visitor: Visitor) -> Json:
    """Somebody sends a stolen reference to an API, past Envoy."""
    held = visitor.ask("/received", visitor.token("alice")).json()["authorization"]
    return {"status": visitor.call_orders_directly(held)}


def asks_while_throttled(visitor: Visitor) -> Json:
    """A user asks while Entra throttles, once."""
    throttle = Fault(
        kind="status", status=429, retry_after=RETRY_AFTER, match=Match(leg="agent_obo"), count=1
    )
    visitor.stage.emulator.faults.add(throttle)
    return dict(asks("/my-orders", "alice3")(visitor))


def while_entra_is_down(asking: Play) -> Play:
    """The same, while Entra cannot be reached."""

    def play(visitor: Visitor) -> Mapping[str, Any]:
        visitor.stage.emulator.stop()
        try:
            return asking(visitor)
        finally:
            visitor.stage.emulator.start()

    return play


def asks_after_rollover(visitor: Visitor) -> Json:
    """A user asks with a token of Entra's new signing key."""
    # Used for the first time after the rollover: Envoy would repeat the decision about a former one.
    visitor.set_aside = visitor.mint("alice")
    visitor.stage.emulator.roll_signing_key(withdraw_old=True)
    return outcome(visitor.ask("/my-orders", visitor.mint("alice3")))


def asks_with_old_key(visitor: Visitor) -> Json:
    """A user asks with a token of the key that Entra has withdrawn."""
    return outcome(visitor.ask("/my-orders", visitor.set_aside))


def looks_for_users_tokens(visitor: Visitor) -> Json:
    """Everything that arrived at APIs is searched for users' tokens."""
    return {
        "users_tokens_at_apis": visitor.users_tokens_at_apis(),
        "apis_called": visitor.arrivals() > 0,
    }


def looks_for_tokens_in_logs(visitor: Visitor) -> Json:
    """The logs and metrics of all programs are searched for tokens."""
    found = visitor.token_like_texts()
    return {"token_like_texts": sum(found.values()), "searched": list(found)}


def ticks_without_authz(visitor: Visitor) -> Json:
    """A job runs while authz is stopped."""
    visitor.stage.authz.stop()
    # For a user's token that is new: neither is there one pushed, nor has Envoy an answer to repeat.
    return outcome(visitor.tick("/my-orders", authorization=f"Bearer {visitor.mint('alice')}"))
