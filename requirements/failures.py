"""What can go wrong while packages are installed, in words for the person at the terminal. Nothing runs here.

Like `machine`, this has no syntax that is newer than Python 3.8, and uses the standard library alone.
"""

from __future__ import annotations

import re

_UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Connection refused|ProxyError"
    r"|connection broken|dns error|client error \(Connect\)|error sending request|tcp connect error",
    re.IGNORECASE,
)
_UNTRUSTED = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate|UnknownIssuer", re.IGNORECASE
)


class Failure(Exception):
    """The environment could not be made; the message is for the person at the terminal."""


class CommandFailure(Exception):
    """A command failed; the message is its output."""


def is_untrusted(failure: CommandFailure) -> bool:
    """Whether a command failed because it does not trust a server's certificate."""
    return _UNTRUSTED.search(str(failure)) is not None


def raise_if_clear(failure: CommandFailure) -> None:
    """Raise `Failure` where the cause is clear, and no other way would help."""
    raise_if_changed(failure)
    if is_untrusted(failure):
        raise Failure(
            "the package index has a certificate that is not trusted here: "
            "set PIP_CERT to the file of your company's authorities"
        ) from failure
    if _UNREACHABLE.search(str(failure)):
        raise Failure(
            "no package index can be reached: is this machine online? "
            "Behind a proxy, set HTTPS_PROXY; for a mirror, pip's index-url"
        ) from failure


def raise_if_changed(failure: CommandFailure) -> None:
    """Raise `Failure` if a package is not the one that is pinned."""
    if re.search(r"DO NOT MATCH THE HASHES|Hash mismatch", str(failure)):
        raise Failure(f"a package is not the one that is pinned; nothing was installed:\n{failure}")


def reason(failure: CommandFailure) -> str:
    """Return the first line of a command's output that names an error, without addresses."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "?")
    return re.sub(r"`?\w+://[^\s`]+`?", "an address", line)
