"""What the sidecar's keys say of its HTTP API: its address, its gates, and how each API is called."""

import re
from collections.abc import Iterator
from typing import Any, Final

from authz.config.entra_sdk.values import Variable, Variables
from authz.config.faults import Fault, Notice
from authz.config.sections.api import HOST_NAME, RESERVED_HEADERS, Endpoint
from authz.config.shown import cut

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
    """Return where to listen, as `host:port`, with the variable that says so; None where none does.

    Which variable goes before which is as in ASP.NET Core. Of several addresses the first one of plain HTTP
    is served.
    """
    endpoints = [
        url
        for part in variables.below("Kestrel__Endpoints")
        if (url := variables.get(f"Kestrel__Endpoints__{part}__Url")) is not None
    ]
    ports = [*_ports(variables, "http"), *_ports(variables, "https")]
    ranks = [endpoints, list(variables.listed("ASPNETCORE_URLS", ";")), ports]
    urls, *outranked = [rank for rank in ranks if rank] or [[]]
    for name in dict.fromkeys(url.name for rank in outranked for url in rank):
        variables.notices.append(Notice(name, f"has no effect: {urls[0].name} goes before it"))
    if not urls:
        return None
    first = next((url for url in urls if not url.value.lower().startswith("https:")), urls[0])
    for url in urls:
        if url is not first:
            text = f"{cut(url.value)} is not served: only {cut(first.value)} is"
            variables.notices.append(Notice(url.name, text))
    if first in ports:
        text = (
            f"listens on port {first.value.rpartition(':')[2]} of every address, and serves callers of "
            "this machine only, but for /healthz"
        )
        variables.notices.append(Notice(first.name, text))
    return Variable(first.name, _address(first, variables))


def _ports(variables: Variables, scheme: str) -> Iterator[Variable]:
    for port in variables.listed(f"ASPNETCORE_{scheme.upper()}_PORTS", ";"):
        if port.value.isdecimal():
            yield Variable(port.name, f"{scheme}://*:{port.value}")
        else:
            # Not quoted: blanks part the value, and a part of a secret looks like a word.
            text = "expected numbers of ports, separated by semicolons"
            variables.faults.append(Fault(port.name, text))


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
            text = "a name with a wildcard has no effect: a web page can make any name lead to loopback"
            variables.notices.append(Notice(host.name, text))
        elif host.value.lower() in _OF_EVERY_MACHINE:
            continue
        elif re.fullmatch(HOST_NAME, host.value):
            found.append(host)
        else:
            # Not quoted, as ports above.
            text = "expected host names such as sidecar, without port, separated by semicolons"
            variables.faults.append(Fault(host.name, text))
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
        if part == "ExtraHeaderParameters":
            children = [
                child for child in children if _can_be_added(variables, f"{key}{part}__", child)
            ]
        if children:
            found[name] = {child: variables.value(f"{key}{part}__{child}") for child in children}
            keys |= {
                f"{path}.{name}.{child}": variables.name(f"{key}{part}__{child}")
                for child in children
            }
    return found, keys


def _can_be_added(variables: Variables, key: str, header: str) -> bool:
    if RESERVED_HEADERS.fullmatch(header) is None:
        return True
    text = "has no effect: the service sets this header itself, or never sends it"
    variables.notices.append(Notice(variables.name(f"{key}{header}"), text))
    return False
