"""What the sidecar's keys say of its HTTP API: its address, its gates, and how each API is called."""

from typing import Any, Final

from authz.config.environment_values import Variable, Variables
from authz.config.faults import Fault, Notice
from authz.config.sidecar_api import Endpoint

DEFAULT_ADDRESS: Final = "127.0.0.1:5000"
GATES: Final = {
    "GetAuthorizationHeader": Endpoint.AUTHORIZATION_HEADER,
    "GetAuthorizationHeaderUnauthenticated": Endpoint.AUTHORIZATION_HEADER_UNAUTHENTICATED,
    "CallDownstreamApi": Endpoint.DOWNSTREAM_API,
    "CallDownstreamApiUnauthenticated": Endpoint.DOWNSTREAM_API_UNAUTHENTICATED,
}
"""Endpoints by the last part of `Sidecar__AllowOverrides__…`."""
_OF_EVERY_MACHINE: Final = ("localhost", "127.0.0.1", "[::1]")
_ANY_HOST: Final = ("+", "*")
_SHAPE: Final = {
    "BaseUrl": "base_url",
    "RelativePath": "path",
    "HttpMethod": "method",
    "AcceptHeader": "accept",
    "ContentType": "content_type",
}
_FURTHER: Final = {"ExtraHeaderParameters": "headers", "ExtraQueryParameters": "query"}


def read_address(variables: Variables) -> Variable | None:
    """Return where to listen, as `host:port`, with the variable that says so; None where none does."""
    urls = [
        url
        for part in variables.below("Kestrel__Endpoints")
        if (url := variables.get(f"Kestrel__Endpoints__{part}__Url")) is not None
    ] or list(variables.listed("ASPNETCORE_URLS", ";"))
    if not urls:
        return None
    first, *others = urls
    if others:
        text = f"found {len(urls)} addresses: expected one"
        variables.faults.append(Fault(others[0].name, text))
    return Variable(first.name, _address(first, variables))


def _address(url: Variable, variables: Variables) -> str:
    scheme, separator, rest = url.value.partition("://")
    authority = rest.partition("/")[0]
    host, _, port = authority.rpartition(":")
    if not host or not port.isdecimal():
        # As in ASP.NET Core: without a port it is the scheme's.
        host, port = authority, "80"
    if not separator or scheme.lower() != "http" or not host:
        text = "expected one address of plain HTTP, such as http://+:5000 or http://127.0.0.1:5000"
        variables.faults.append(Fault(url.name, text))
        return DEFAULT_ADDRESS
    return f"{'[::]' if host in _ANY_HOST else host}:{port}"


def read_hosts(variables: Variables) -> list[Variable]:
    """Return the names by which callers may call, beside those of every machine."""
    found = []
    for host in variables.listed("AllowedHosts", ";"):
        if "*" in host.value:
            text = f"{host.value} has no effect: a web page can make any name lead to loopback"
            variables.notices.append(Notice(host.name, text))
        elif host.value.lower() not in _OF_EVERY_MACHINE:
            found.append(host)
    return found


def read_downstream(variables: Variables, api: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return how an API is called, and the variable behind each path; nothing without `BaseUrl`."""
    key, path = f"DownstreamApis__{api}__", f"egress.{api}.downstream"
    base = variables.get(f"{key}BaseUrl")
    if base is None or "://" not in base.value:
        return {}, {}
    found: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for part, name in _SHAPE.items():
        variable = variables.get(key + part)
        if variable is not None:
            found[name] = variable.value
            keys[f"{path}.{name}"] = variable.name
    for part, name in _FURTHER.items():
        children = variables.below(key + part)
        if children:
            found[name] = {child: variables.value(f"{key}{part}__{child}") for child in children}
            keys |= {
                f"{path}.{name}.{child}": variables.name(f"{key}{part}__{child}")
                for child in children
            }
    return found, keys
