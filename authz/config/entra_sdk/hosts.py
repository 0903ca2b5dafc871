"""Hosts of the DownstreamApis: which host leads to which API, and whether a token may go there.

The rest of a route is in `authz.config.entra_sdk.environment`; whose Host header the HTTP API takes, in
`authz.config.entra_sdk.api`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from authz.config.entra_sdk.values import Variables
from authz.config.faults import Fault, Notice
from authz.config.sections.hosts import EgressHost


def named_hosts(variables: Variables, api: str) -> list[str]:
    """Return the host of an API's BaseUrl; none where there is none, or none that can be used."""
    base = variables.get(f"DownstreamApis__{api}__BaseUrl")
    if base is None:
        return []
    try:
        parts = urlsplit(base.value)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    # A wildcard would be one host of many to a route, and no URL can be called so.
    wrong = not parts.hostname or "*" in parts.hostname or "@" in parts.netloc
    if parts.scheme not in {"http", "https"} or wrong or parts.hostname is None:
        text = "expected a URL with scheme and host, such as https://graph.microsoft.com/v1.0"
        variables.faults.append(Fault(base.name, text))
        return []
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    authority = host if port in {None, usual} else f"{host}:{port}"
    return [str(EgressHost(authority, parts.scheme == "http"))]


def may_be_reached(variables: Variables, key: str, hosts: Sequence[str], *, readable: bool) -> bool:
    """Whether an API gets its token by way of this service, Envoy's or a call of its own."""
    found = [EgressHost.of(host) for host in hosts]
    if readable or not any(host.plain and not host.is_loopback for host in found):
        return True
    text = (
        "is http://, where anybody on the network could read the token: neither Envoy nor /DownstreamApi "
        f"sends it there without {key}__TokenOverPlainHttp=true"
    )
    variables.notices.append(Notice(variables.name(f"{key}__BaseUrl"), text))
    return False


def to_loopback(hosts: Sequence[str]) -> dict[str, bool]:
    """Allow a token to loopback where the BaseUrl is: the app can ask the HTTP API for the same one."""
    return (
        {"token_to_loopback": True} if any(EgressHost.of(host).is_in_pod for host in hosts) else {}
    )


def select_by_host(variables: Variables, routes: Mapping[str, dict[str, Any]]) -> None:
    """Leave out hosts that several routes share: which of them was meant, Envoy must say."""
    named = Counter(
        name
        for route in routes.values()
        for host in route["hosts"]
        for name in EgressHost.of(host).names
    )
    for api, route in routes.items():
        own = []
        for host in route["hosts"]:
            apis = max(named[name] for name in EgressHost.of(host).names)
            if apis == 1:
                own.append(host)
                continue
            name = variables.name(f"DownstreamApis__{api}__BaseUrl")
            text = (
                f"{host} is the host of {apis} APIs and selects none of them: "
                f"let Envoy send authz.route={api}"
            )
            variables.notices.append(Notice(name, text))
        route["hosts"] = own
        if not own:
            route.pop("token_to_loopback", None)
