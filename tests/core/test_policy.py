"""Routes: how the one for a request is found, and that nothing else is."""

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import (
    AuthzError,
    MalformedRequest,
    UnknownRoute,
)
from authz.core.exchange import (
    Flow,
)
from authz.core.grant import NoToken, Own
from authz.core.policy import LONGEST_AUTHORITY, Policy
from authz.core.request import CheckRequest, Direction
from authz.core.route import EgressRoute, InboundRoute
from authz.core.rules.rule import Rule, Rules
from support.fakes.clock import Clock
from support.fakes.properties import thorough
from support.fakes.routes import route_of
from support.fakes.tenant import FakeTenant

AGENT_ROUTE: Final = InboundRoute("agent", FakeTenant(clock=Clock()).expectation())


def _egress(name: str, *hosts: str, flow: Flow = Flow.NONE) -> EgressRoute:
    return route_of(name, flow, hosts)


EXACT: Final = _egress("exact", "api.example", "Mixed.Example")
PORT: Final = _egress("port", "api.example:8443")
SUFFIX: Final = _egress("suffix", "*.api.example")
WIDER: Final = _egress("wider", "*.example")
IPV6: Final = _egress("ipv6", "[::1]")
ROUTES: Final = {route.name: route for route in (EXACT, PORT, SUFFIX, WIDER, IPV6)}
POLICY: Final = Policy(version="v1", inbound={"agent": AGENT_ROUTE}, egress=ROUTES)


def _found(policy: Policy = POLICY, **request: Any) -> str:
    return policy.find(CheckRequest(**{"host": "api.example", **request})).name


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api.example", "exact"),
        ("API.EXAMPLE", "exact"),
        ("api.example.", "exact"),
        ("api.example:80", "exact"),
        ("api.example:8443", "port"),
        ("mixed.example", "exact"),
        ("v1.api.example", "suffix"),
        ("a.b.api.example:443", "suffix"),
        ("other.example", "wider"),
        ("notapi.example", "wider"),
        ("below.mixed.example", "wider"),
        ("[::1]:443", "ipv6"),
        ("api.example.:8443", "port"),
        ("api.example:08443", "port"),
        ("api.example:", "exact"),
    ],
)
def test_an_egress_route_is_found_by_host(host: str, expected: str) -> None:
    """The most specific name wins: host with port, host, the longest wildcard."""
    assert expected == _found(direction="egress", host=host)


@pytest.mark.parametrize(
    "host",
    [
        "api.example:9443",
        "below.mixed.example:8443",
        "example",
        "api.example.evil",
        "xexample",
        "evil",
        "api.example@evil",
        "[",
        ".",
        "*.evil",
    ],
)
def test_a_host_that_no_route_names_is_denied(host: str) -> None:
    """A wildcard covers what lies below it and nothing that merely contains it."""
    with pytest.raises(UnknownRoute):
        _found(direction="egress", host=host)


@pytest.mark.parametrize(
    ("length", "is_found"), [(LONGEST_AUTHORITY, True), (LONGEST_AUTHORITY + 1, False)]
)
def test_what_is_too_long_for_a_host_has_no_route(length: int, *, is_found: bool) -> None:
    """Not even the last resort. Each part of it is looked up, so a long one would hold up everybody."""
    policy = replace(POLICY, egress={**ROUTES, "rest": _egress("rest", "*")})
    host = ("a." * length)[: length - len(".example")] + ".example"

    assert length == len(host)
    assert is_found == (policy.by_host(host) is not None)


def test_the_lone_star_takes_what_nobody_else_does() -> None:
    """It is the last resort, and only where it is configured."""
    policy = replace(POLICY, egress={**ROUTES, "rest": _egress("rest", "*")})

    assert "rest" == _found(policy, direction="egress", host="anywhere")
    assert "exact" == _found(policy, direction="egress", host="api.example")


def test_a_named_egress_route_is_taken_whatever_the_host() -> None:
    """Envoy's configuration outranks the host, which the app chooses."""
    assert "suffix" == _found(direction="egress", route="suffix", host="api.example")


@pytest.mark.parametrize(
    ("route", "host"),
    [("exact", "gone.example"), ("suffix", "api.example"), ("exact", "api.example:8443")],
)
def test_an_outdated_envoy_names_no_route_for_a_host_that_it_has_no_more(
    route: str, host: str
) -> None:
    """It was taken out of the route, or is another's now; Envoy's configuration knows nothing of it."""
    with pytest.raises(UnknownRoute, match="rendered from another configuration"):
        _found(direction="egress", route=route, host=host, outdated=True)


def test_an_outdated_envoy_names_routes_for_the_hosts_that_they_still_have() -> None:
    """A roll-out refuses nobody but who was taken out; hosts that only Envoy has are Envoy's to say."""
    bare = replace(POLICY, egress={**ROUTES, "bare": _egress("bare")})

    assert "exact" == _found(
        direction="egress", route="exact", host="API.example:443", outdated=True
    )
    assert "bare" == _found(
        bare, direction="egress", route="bare", host="any.example", outdated=True
    )


def test_an_unknown_egress_name_does_not_fall_back_to_the_host() -> None:
    """A name that is not configured is a denial, though the host would match."""
    with pytest.raises(UnknownRoute):
        _found(direction="egress", route="nonesuch", host="api.example")


def test_an_inbound_route_is_found_by_name_or_by_default() -> None:
    """Istio providers cannot send a name, so there may be a default."""
    policy = replace(POLICY, default_inbound="agent")

    assert "agent" == _found(direction="inbound", route="agent")
    assert "agent" == _found(policy, direction="inbound")


@pytest.mark.parametrize("route", [None, "nonesuch", "exact"])
def test_an_unknown_inbound_route_is_denied(route: str | None) -> None:
    """Neither a missing name nor an egress route's name is an inbound route."""
    with pytest.raises(UnknownRoute):
        _found(direction="inbound", route=route)


@pytest.mark.parametrize(
    ("default", "direction", "route", "expected"),
    [
        (None, "inbound", "nonesuch", "no inbound route has the name 'nonesuch'"),
        (None, "egress", "nonesuch", "no egress route has the name 'nonesuch'"),
        (None, "egress", None, "no egress route has the host 'nobody.example'"),
        (
            None,
            "inbound",
            None,
            "the request names no inbound route, and listen.inbound_route gives none",
        ),
        (
            "nonesuch",
            "inbound",
            None,
            "listen.inbound_route is 'nonesuch', and no inbound route has the name",
        ),
    ],
)
def test_the_log_says_what_was_looked_for(
    default: str | None, direction: str, route: str | None, expected: str
) -> None:
    """By name, by host, or by the default: each is mended elsewhere."""
    with pytest.raises(UnknownRoute) as refused:
        _found(
            replace(POLICY, egress={}, default_inbound=default),
            direction=direction,
            route=route,
            host="nobody.example",
        )
    assert expected == refused.value.detail


def test_an_unknown_inbound_name_does_not_fall_back_to_the_default() -> None:
    """The default is for requests that name no route."""
    with pytest.raises(UnknownRoute):
        _found(replace(POLICY, default_inbound="agent"), direction="inbound", route="nonesuch")


def test_an_inbound_name_is_no_egress_route() -> None:
    """The two directions have names of their own."""
    with pytest.raises(UnknownRoute):
        _found(direction="egress", route="agent")


@pytest.mark.parametrize("direction", ["", "outbound", "INBOUND", "inbound "])
def test_an_unknown_direction_is_denied(direction: str) -> None:
    """Even where there is a default: what Envoy says is not overridden."""
    policy = replace(POLICY, default_direction=Direction.INBOUND, default_inbound="agent")

    with pytest.raises(UnknownRoute):
        _found(policy, direction=direction, route="agent")


def test_without_a_direction_the_default_decides() -> None:
    """A listener for one direction need not be told it by every request."""
    assert "agent" == _found(replace(POLICY, default_direction=Direction.INBOUND), route="agent")
    assert "exact" == _found(replace(POLICY, default_direction=Direction.EGRESS))


def test_without_any_direction_the_request_is_denied() -> None:
    """Nothing is guessed."""
    with pytest.raises(UnknownRoute):
        _found(route="agent")


def test_a_check_without_host_was_no_http_request() -> None:
    """The network filter sends such checks; there is nothing to decide on."""
    with pytest.raises(MalformedRequest):
        _found(host="", direction="inbound", route="agent")


@thorough
@given(host=st.text(), direction=st.none() | st.text(max_size=3) | st.sampled_from(Direction))
def test_any_request_finds_a_route_or_is_denied(host: str, direction: str | None) -> None:
    """Looking for a route raises nothing but `AuthzError`."""
    try:
        route = POLICY.find(CheckRequest(host=host, direction=direction))
    except AuthzError:
        return

    assert ROUTES[route.name] is route


def test_a_host_belongs_to_one_route() -> None:
    """Two routes for one host would make the identity a matter of order."""
    with pytest.raises(ValueError, match="two egress routes"):
        Policy("v1", egress={"a": _egress("a", "api.example"), "b": _egress("b", "API.example")})


def test_a_route_may_name_its_host_twice() -> None:
    """Only another route's claim is a contradiction."""
    route = _egress("a", "api.example", "API.example")

    assert route is Policy("v1", egress={"a": route}).hosts["api.example"]


def test_a_route_with_rules_gives_nothing_that_no_check_sees() -> None:
    """No token ahead, and no tunnel, whatever its grant says."""
    pushed, tunnel = (
        route_of("a", Flow.APP, ("a.example",)),
        EgressRoute("t", (), NoToken(tunnel=True)),
    )
    assert isinstance(pushed.grant, Own)
    pushed = replace(pushed, grant=replace(pushed.grant, push=True))
    rules: Rules[EgressRoute] = Rules((Rule("all", pushed),))

    assert pushed.pushed is not None
    assert tunnel.allows_tunnels
    assert replace(pushed, rules=rules).pushed is None
    assert not replace(tunnel, rules=rules).allows_tunnels


def test_a_route_that_reads_messages_is_not_repeated_at_the_edge() -> None:
    """Envoy's cache knows no bodies. One with rules of paths alone is."""
    route = route_of("a", Flow.APP, ("a.example",))

    assert route.may_repeat_at_edge
    assert not replace(route, reads_messages=True).may_repeat_at_edge
