"""Which hosts the app may have connections to whose content nobody sees (CONNECT).

What the app sends in such a connection goes out as it is. So no route allows one while the app may hold a
user's token: law 4 of docs/security.md.
"""

from collections.abc import Iterator, Mapping, Sequence

from authz.config.faults import Fault, Notice
from authz.config.model import Config
from authz.config.sections.hosts import EgressHost
from authz.config.sections.routes import Egress, Inbound
from authz.core.exchange import Flow
from authz.core.route import Forward


def check_tunnels(inbound: Mapping[str, Inbound], egress: Mapping[str, Egress]) -> Iterator[Fault]:
    """Return the faults of routes that allow tunnels."""
    holding = [name for name, route in inbound.items() if Forward.BEARER in route.forward]
    for name, route in egress.items():
        path = f"egress.{name}.tunnel"
        if route.tunnel is not None and route.flow is not Flow.NONE:
            yield Fault(
                path, f"does not go with flow {route.flow}: no token could be put into a tunnel"
            )
        elif route.tunnel and route.remove_headers:
            yield Fault(
                path,
                "found true beside remove_headers: nobody can remove a header in a tunnel, expected one of the two",
            )
        elif route.tunnel and holding:
            yield Fault(
                path,
                f"found true, and inbound.{holding[0]} gives the app the user's token, which could leave in a "
                "tunnel: expected placeholder in its forward, or no tunnel and section https, by which Envoy reads TLS",
            )
        elif route.tunnel and all(EgressHost.of(host).plain for host in route.hosts):
            yield Fault(path, "has no effect: no host has TLS, and Envoy reads plain HTTP")


def lost_keys(config: Config) -> Iterator[Notice]:
    """Return notices of routes where an API key of the app's own, in `Authorization`, does not arrive.

    Where `tunnel` is said, the operator has thought of it.
    """
    holding = [name for name, route in config.inbound.items() if Forward.BEARER in route.forward]
    allowed = tunnelled(config)
    for name, route in config.egress.items():
        decided = route.tunnel is not None or route.remove_headers or name in allowed
        by_tls = any(not EgressHost.of(host).plain for host in route.hosts)
        if route.flow is Flow.NONE and by_tls and not decided:
            yield Notice(f"egress.{name}.tunnel", _lost(config, holding))


def _lost(config: Config, holding: Sequence[str]) -> str:
    removed = "Envoy removes Authorization from what the app sends to these hosts, its own API key included"
    if config.https is None:
        refused = "the app is refused https:// to these hosts (tunnel_refused), because "
        if not holding:
            return (
                f"{refused}there is no inbound route: expected true if the app is given no user's token, "
                "else false"
            )
        removed = f"{refused}inbound.{holding[0]} gives it the user's token. By http:// {removed}"
    if holding:
        return (
            f"{removed}: expected placeholder in inbound.{holding[0]}.forward if the app has such a key, or the "
            "key in another header; false if it has none"
        )
    return f"{removed}: expected true if the app has such a key, else false"


def tunnelled(config: Config) -> frozenset[str]:
    """Return the egress routes that allow tunnels, after defaults."""
    by_default = (
        config.https is None
        and bool(config.inbound)
        and not any(Forward.BEARER in route.forward for route in config.inbound.values())
    )
    return frozenset(
        name
        for name, route in config.egress.items()
        if route.flow is Flow.NONE
        and (
            by_default and not (route.remove_headers or route.rules)
            if route.tunnel is None
            else route.tunnel
        )
    )
