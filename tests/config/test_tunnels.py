"""`egress.<route>.tunnel`: what it is by default, and where it cannot be."""

from typing import Any

import pytest

from authz.config.compile import compile_policy
from authz.config.consistency.advice import advice
from authz.config.consistency.route_checks import https_hosts
from authz.config.consistency.tunnels import tunnelled
from config.samples import DELETED, changed, faults_of, load_data

BEARER = "inbound.chat.forward"
HTTPS = {"https": {"ca_file": "/trust/ca.pem", "key_file": "/ca/ca.key"}}
SOCKET = {"listen.grpc": "unix:/run/authz.sock"}


def weather(**keys: Any) -> dict[str, Any]:
    """Return the route of an API that takes no token."""
    return {"flow": "none", "hosts": ["weather.example"], **keys}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({BEARER: "bearer"}, set()),
        ({BEARER: ["handle", "bearer"]}, set()),
        ({BEARER: "strip"}, {"weather"}),
        ({BEARER: "placeholder"}, {"weather"}),
        ({BEARER: ["placeholder", "handle"]}, {"weather"}),
        ({BEARER: "placeholder", "egress.weather.tunnel": False}, set()),
        ({BEARER: "placeholder", **SOCKET, **HTTPS}, set()),
        ({BEARER: "placeholder", **SOCKET, **HTTPS, "egress.weather.tunnel": True}, {"weather"}),
        ({BEARER: "placeholder", "egress.weather.remove_headers": ["api-key"]}, set()),
        ({"inbound": DELETED}, set()),
        ({"inbound": DELETED, "egress.weather.tunnel": True}, {"weather"}),
    ],
)
def test_routes_allow_tunnels_where_the_app_has_no_users_token(
    changes: dict[str, Any], expected: set[str]
) -> None:
    """By default where nobody could read its TLS. The policy and Envoy's rendering have one rule."""
    config = load_data(changed({"egress.weather": weather(), **changes}))

    assert expected == tunnelled(config)
    routes = compile_policy(config).egress.values()
    assert expected == {route.name for route in routes if route.allows_tunnels}


def test_one_route_that_gives_the_token_is_enough() -> None:
    """The app is one, whichever way its callers come."""
    second = {"agent": "assistant", "scopes": ["other"]}
    changes = {BEARER: "placeholder", "inbound.second": second, "egress.weather": weather()}

    assert frozenset() == tunnelled(load_data(changed(changes)))


def test_a_tunnel_is_refused_where_the_app_has_the_users_token() -> None:
    """Law 4: what could leave in it would be seen by nobody."""
    (fault,) = faults_of(lambda: load_data(changed({"egress.weather": weather(tunnel=True)})))

    assert "egress.weather.tunnel" == fault.path
    assert fault.message == (
        "found true, and inbound.chat gives the app the user's token, which could leave in a tunnel: expected "
        "placeholder in its forward, or no tunnel and section https, by which Envoy reads TLS"
    )


def test_a_tunnel_is_refused_where_headers_are_removed() -> None:
    """Nobody sees them in it."""
    keys = {"tunnel": True, "remove_headers": ["api-key"]}
    changes = {BEARER: "placeholder", "egress.weather": weather(**keys)}
    (fault,) = faults_of(lambda: load_data(changed(changes)))

    assert "egress.weather.tunnel" == fault.path
    assert "remove_headers" in fault.message


@pytest.mark.parametrize("value", [True, False])
def test_a_route_with_a_token_has_no_such_key(value: bool) -> None:
    """There is no way to put the token in."""
    (fault,) = faults_of(lambda: load_data(changed({"egress.graph.tunnel": value})))

    assert (
        "egress.graph.tunnel",
        "does not go with flow on_behalf_of: no token could be put into a tunnel",
    ) == (fault.path, fault.message)


def test_tls_that_has_a_way_through_is_not_ended() -> None:
    """By name only: with section `https` Envoy reads all other TLS to configured hosts."""
    changes = {BEARER: "placeholder", "egress.weather": weather(tunnel=True)}
    config = load_data(changed(changes))

    assert "weather.example" not in https_hosts(config.egress)
    assert "weather.example" in https_hosts(
        load_data(changed({"egress.weather": weather(), BEARER: "placeholder"})).egress
    )


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {BEARER: "bearer"},
            ["refused https://", "inbound.chat gives it", "removes Authorization"],
        ),
        ({BEARER: "bearer", **SOCKET, **HTTPS}, ["Envoy removes", "placeholder", "another header"]),
        ({BEARER: "placeholder", **SOCKET, **HTTPS}, ["Envoy removes", "expected true"]),
        ({"inbound": DELETED}, ["refused https://", "no inbound route", "expected true"]),
    ],
)
def test_operator_hears_where_a_key_of_the_app_is_lost(
    changes: dict[str, Any], parts: list[str]
) -> None:
    """What happens to a model's API key, and what to write; until the route says `tunnel`."""
    known = {"egress.weather": weather(), **changes}
    notices = [notice for notice in advice(load_data(changed(known))) if "weather" in notice.path]

    (found,) = notices
    assert "egress.weather.tunnel" == found.path
    assert [] == [part for part in parts if part not in found.message]
    decided = changed({**known, "egress.weather": weather(tunnel=False)})
    assert [] == [one for one in advice(load_data(decided)) if "weather" in one.path]


@pytest.mark.parametrize(
    "changes",
    [
        {BEARER: "placeholder"},
        {"egress.weather": weather(hosts=["http://weather.svc"])},
        {"egress.weather": weather(remove_headers=["api-key"])},
        {"egress.weather": weather(hosts=[])},
    ],
)
def test_operator_hears_nothing_where_no_key_can_be_lost(changes: dict[str, Any]) -> None:
    """It arrives in a tunnel, the service has no TLS, or keys are removed on purpose."""
    config = load_data(changed({"egress.weather": weather(), **changes}))

    assert "egress.weather.tunnel" not in [notice.path for notice in advice(config)]
