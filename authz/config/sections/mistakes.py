"""Usual mistakes in one value, known by its look: words of the fix for each. No text quotes the value.

What a value should be is in `values`. Mistakes of the document's own syntax are in `syntax`.
"""

import re
from typing import Final

from authz.config.shown import NO_VARIABLE, shown_variable
from authz.core import grammar

_SHELL: Final = re.compile(
    r"\$(?P<bare>[A-Z_][A-Z0-9_]*)|\$\((?P<kubernetes>[A-Z_][A-Z0-9_]*)\)|%(?P<windows>[A-Z_][A-Z0-9_]*)%"
)
_TEMPLATE: Final = re.compile(r"\{\{.*\}\}|<[a-z][a-z _-]*>", re.IGNORECASE | re.DOTALL)
_CURLY_QUOTES: Final = "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb"

_GUID_WITHIN: Final = re.compile(rf"(?:urn:uuid:)?[\s{{(<]*{grammar.GUID}[\s}})>]*", re.ASCII)
_GUID_BARE: Final = re.compile("[0-9a-fA-F]{32}")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_OTHER_THAN_HOST: Final = re.compile(r"[/?#@\]]|:.*:")
_ANY_TENANT: Final = frozenset({"common", "organizations", "consumers"})


def in_scalar(value: str, *, private: bool) -> str:
    """Return what is wrong with a value wherever it stands in a document, or nothing.

    Args:
        value: The text of a scalar.
        private: Whether nothing of it may be shown.
    """
    if (reference := _SHELL.fullmatch(value)) is not None:
        name = reference[reference.lastgroup or 0]
        shown = "NAME" if private or shown_variable(name) == NO_VARIABLE else name
        return f"found a reference as a shell writes it: expected ${{{shown}}}"
    if _TEMPLATE.fullmatch(value) is not None:
        return "found a place that nobody has filled in: expected the value itself, or ${NAME} for an environment variable"
    if value and (value[0] in _CURLY_QUOTES or value[-1] in _CURLY_QUOTES):
        return "found typographic quotation marks: expected \" or ', or none"
    return ""


def in_guid(value: str) -> str:
    """Return what a text that is no GUID needs to be one, as the end of a sentence, or nothing."""
    if _GUID_WITHIN.fullmatch(value) is not None:
        return ", without braces and blanks around it"
    if _GUID_BARE.fullmatch(value) is not None:
        return ", with its four hyphens"
    if value in _ANY_TENANT or _DOMAIN.fullmatch(value) is not None:
        return ": a tenant by its id, which `az account show --query tenantId` prints"
    return ""


def in_address(value: str) -> str:
    """Return what a text that is no address needs to be one, as the end of a sentence, or nothing."""
    if value.startswith("unix:"):
        return ", with an absolute path" if value.isprintable() else ", without control characters"
    if value.startswith(("/", "./")):
        return ", with unix: before the path of a socket"
    if "://" in value:
        return ", without a scheme"
    if re.fullmatch(":?[0-9]+", value):
        return ", with the host before the port, such as 127.0.0.1:9901"
    host, colon, port = value.rpartition(":")
    if not colon:
        return ", with the port after the host, such as 127.0.0.1:9901"
    is_name = ":" not in host and not port.isdecimal()
    return ", with a number as the port, such as 127.0.0.1:9901" if is_name else ""


def in_host(value: str) -> str:
    """Return what a text that is no host needs to be one, as a sentence, or nothing."""
    authority = value.rpartition("://")[2]
    host, colon, port = authority.rpartition(":")
    if not colon or not port or _OTHER_THAN_HOST.search(authority):
        return ""
    if not port.isdecimal():
        return "expected a number as the port, such as orders.example:8443"
    if host.startswith("*"):
        return (
            "expected no port after a wildcard, which means the scheme's own port: name a host on another port "
            "by itself, such as orders.example:8443"
        )
    return ""
