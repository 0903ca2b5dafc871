"""Where a credential's content comes from: files and environment variables, read again each time.

Text is taken as tools write it: with a byte order mark, and base64 with line breaks.

What the content means is `credentials` and `certificate`.
"""

import base64
import codecs
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from authz.config.shown import shown_file, shown_variable
from authz.system.files import BoundedFile, FileFault

MAX_FILE_BYTES: Final = 64 * 1024


_MARK: Final = "\ufeff"


class CredentialFault(Exception):
    """A credential that cannot be used, and why. Never quotes the credential."""


class CredentialAway(CredentialFault):
    """A credential whose keeper cannot be reached just now."""


def read_text(path: Path) -> Callable[[], str]:
    """Return a reader of a text file that turns every fault into `CredentialFault`."""
    content = read_bytes(path)

    def read() -> str:
        return _text(content(), shown_file(path))

    return read


def read_bytes(path: Path) -> Callable[[], bytes]:
    """Return a reader of a small file that turns every fault into `CredentialFault`."""
    file = BoundedFile(path, max_bytes=MAX_FILE_BYTES)

    def read() -> bytes:
        try:
            return file.read()
        except FileFault as fault:
            raise CredentialFault(f"{shown_file(path)}: {fault}") from None

    return read


def read_environment(name: str, environ: Mapping[str, str]) -> Callable[[], str]:
    """Return a reader of an environment variable; unset raises `CredentialFault`."""

    def read() -> str:
        try:
            return environ[name].removeprefix(_MARK)
        except KeyError:
            raise CredentialFault(
                f"environment variable {shown_variable(name)} is not set"
            ) from None

    return read


def read_encoded(name: str, environ: Mapping[str, str]) -> Callable[[], bytes]:
    """Return a reader of PEM text, or of anything else in base64, from an environment variable."""
    text = read_environment(name, environ)

    def read() -> bytes:
        return decoded(text(), shown_variable(name, sign="$"))

    return read


def decoded(content: str, described_as: str) -> bytes:
    """Return PEM text as it is, and anything else out of base64, or raise `CredentialFault`."""
    if "-----BEGIN " in content:
        return content.encode()
    try:
        # `base64` breaks lines at 76 characters unless `--wrap 0` forbids it (RFC 4648 section 3.1).
        return base64.b64decode("".join(content.split()), validate=True)
    except ValueError:
        # Not chained: the error of a text that is not ASCII holds the text.
        raise CredentialFault(f"{described_as} is neither PEM nor PKCS #12 in base64") from None


def _text(content: bytes, described_as: str) -> str:
    """Decode UTF-8, or UTF-16 where a byte order mark says so: PowerShell's `>` writes it."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        # Not chained: the error holds the content.
        raise CredentialFault(f"{described_as} is not UTF-8 text") from None
