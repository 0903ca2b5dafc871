"""Where a credential's content comes from: files and environment variables, read anew each time.

What the content means is `credentials`.
"""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 64 * 1024


class CredentialFault(Exception):
    """A credential that cannot be used, and why. Never quotes the credential."""


class CredentialAway(CredentialFault):
    """A credential whose keeper cannot be reached just now."""


def read_text(path: Path) -> Callable[[], str]:
    """Return a reader of a text file that turns every fault into `CredentialFault`."""
    content = read_bytes(path)

    def read() -> str:
        try:
            return content().decode()
        except UnicodeDecodeError as error:
            raise CredentialFault(f"{path} is not UTF-8 text") from error

    return read


def read_bytes(path: Path) -> Callable[[], bytes]:
    """Return a reader of a small file that turns every fault into `CredentialFault`."""

    def read() -> bytes:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise CredentialFault(f"{path}: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:
            raise CredentialFault(f"{path} exceeds {MAX_FILE_BYTES} bytes")
        return content

    return read


def read_environment(name: str, environ: Mapping[str, str]) -> Callable[[], str]:
    """Return a reader of an environment variable; unset raises `CredentialFault`."""

    def read() -> str:
        try:
            return environ[name]
        except KeyError:
            raise CredentialFault(f"environment variable {name} is not set") from None

    return read


def read_encoded(name: str, environ: Mapping[str, str]) -> Callable[[], bytes]:
    """Return a reader of PEM text, or of anything else in base64, from an environment variable."""
    text = read_environment(name, environ)

    def read() -> bytes:
        return decoded(text(), f"${name}")

    return read


def decoded(content: str, described_as: str) -> bytes:
    """Return PEM text as it is, and anything else out of base64, or raise `CredentialFault`."""
    if "-----BEGIN " in content:
        return content.encode()
    try:
        return base64.b64decode(content.strip(), validate=True)
    except ValueError:
        # Not chained: the error of a text that is not ASCII holds the text.
        raise CredentialFault(f"{described_as} is neither PEM nor PKCS #12 in base64") from None
