"""The one spelling of an egress host: Envoy and routes compare authorities as text.

Other spellings of the same host are not read as it, but refused with the text to write. What a host means is
in `hosts`, its grammar in `values`.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from authz.config.sections.hosts import HTTP, HTTPS

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)(.*)", re.DOTALL)
_TAIL: Final = re.compile("[/?#]")
_NUMBER: Final = re.compile("[0-9]+|0[xX][0-9A-Fa-f]*")
_PORT: Final = re.compile("[0-9]{1,20}", re.ASCII)
_LONGEST: Final = 300
"""Characters: a name has 253 at most."""
_LETTERS_OF_TWO_STANDARDS: Final = frozenset("\u00df\u03c2\u200c\u200d")
"""Letters for which IDNA 2003 and IDNA 2008 have different names."""


class NoHost(ValueError):
    """A text has no right spelling as a host; the message says what was expected, or is empty."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a host is written.

    Attributes:
        text: The right spelling, which may still not be a host by the grammar.
        expected: What the given text lacks, in the words of a fault; empty if it is right.
    """

    text: str
    expected: tuple[str, ...]


def spelling(written: str) -> Spelling:
    """Return the right spelling of a host. Letters of the host may be of any case.

    Raises:
        NoHost: There is none.
    """
    if len(written) > _LONGEST or "@" in written:
        raise NoHost
    expected = []
    found = _SCHEME.fullmatch(written)
    scheme, rest = ("", written) if found is None else (found[1].lower(), found[2])
    if scheme not in {"", HTTP, HTTPS}:
        raise NoHost
    if not written.startswith(scheme):
        expected.append("the scheme in lower case")
    authority = _TAIL.split(rest)[0]
    if authority != rest:
        expected.append("no path")
    host, port, wrong = _host_and_port(authority)
    host, misspelt = _host(host)
    expected += wrong + misspelt
    return Spelling(f"{scheme}{host}{port}", tuple(expected))


def _host_and_port(authority: str) -> tuple[str, str, list[str]]:
    if authority.count(":") > 1 and not authority.startswith("["):
        return f"[{authority}]", "", ["brackets around the IPv6 address"]
    end = authority.find("]") + 1 if authority.startswith("[") else authority.find(":")
    if end <= 0:
        return authority, "", []
    host, port = authority[:end], authority[end:]
    digits = port.removeprefix(":")
    if port == ":":
        return host, "", ["no colon without a port"]
    if _PORT.fullmatch(digits) is None or digits.startswith("0") is False:
        return host, port, []
    return host, f":{digits.lstrip('0') or '0'}", ["the port without leading zeros"]


def _host(host: str) -> tuple[str, list[str]]:
    if host.startswith("["):
        return _ipv6(host)
    expected = []
    if host.endswith(".") and host != ".":
        host = host[:-1]
        expected.append("no dot at the end")
    if not host.isascii():
        host = _ascii(host)
        expected.append("the name as DNS has it, in ASCII")
    last = host.rpartition(".")[2]
    if _NUMBER.fullmatch(last) is not None:
        _check_ipv4(host)
    return host, expected


def _ipv6(host: str) -> tuple[str, list[str]]:
    try:
        address = IPv6Address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise NoHost("expected an IPv6 address between the brackets") from None
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped), ["the IPv4 address itself"]
    short = f"[{address.compressed}]"
    expected = "the IPv6 address in its short form (RFC 5952)"
    return short, [] if host.lower() == short else [expected]


def _check_ipv4(host: str) -> None:
    # Name resolution takes such a text for an address, in forms of its own: 127.1, 0x7f.1, 2130706433.
    try:
        IPv4Address(host)
    except ValueError:
        text = (
            "expected a name, or an IPv4 address as four numbers without leading zeros: 127.0.0.1"
        )
        raise NoHost(text) from None


def _ascii(host: str) -> str:
    try:
        if _LETTERS_OF_TWO_STANDARDS.isdisjoint(host):
            return host.encode("idna").decode("ascii")
    except UnicodeError:
        pass
    raise NoHost(
        "expected the name as DNS has it, in ASCII: parts with other letters begin with xn--"
    )
