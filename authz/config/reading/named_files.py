"""Files of certificates that a configuration names: opened before it is used, and looked at again later.

A version that names a file which cannot be used is refused like any other faulty version. `NamedFiles` finds
a file that becomes so while its version is in use. Files of credentials are not refused: they may arrive
later, and readiness waits for them (`authz.entra.credentials`).
"""

import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz.config.faults import Fault, Notice
from authz.config.model import Config
from authz.config.shown import NO_PATH, NO_VARIABLE, shown_file, shown_variable
from authz.system.files import BoundedFile, FileFault

_LARGEST: Final = 4 * 1024**2
"""Bytes; a bundle of all public authorities has some 200 kB."""
_OF_VERSIONS: Final = ("entra.ca_file", "api.ca_file")
_CERTIFICATE_FILE: Final = "listen.tls.certificate_file"
_KEY_FILE: Final = "listen.tls.key_file"


class NamedFiles:
    """The files of certificates that a configuration names, looked at again and again.

    They are parsed again only where one has changed. While a read hangs, no further thread is left behind.
    """

    def __init__(self) -> None:
        self._readers: dict[Path, BoundedFile] = {}
        self._seen: list[tuple[str, Path, str | bytes]] = []
        """What was found, by its digest: no key stays in memory for it."""
        self._faults: dict[str, str | None] = {}

    def look(self, config: Config) -> dict[str, str | None]:
        """Return what is wrong with each file, None where nothing is, by its key in the configuration."""
        named = _named(config)
        contents = [_content(self._reader(path)) for _, path, _ in named]
        self._forget(path for _, path, _ in named)
        seen: list[tuple[str, Path, str | bytes]] = [
            (
                key,
                path,
                str(content) if isinstance(content, FileFault) else sha256(content).digest(),
            )
            for (key, path, _), content in zip(named, contents, strict=True)
        ]
        if seen != self._seen:
            self._seen = seen
            faults = {fault.path: fault.message for fault in _judged(named, contents)}
            self._faults = {key: faults.get(key) for key, _, _ in named}
        return self._faults

    def of_versions(self) -> list[tuple[str, Path, str | bytes]]:
        """Return what was last seen of the files that are read when a version is built, and only then.

        Where one has other content, or can be read again, the same version has to be built again.
        """
        return [seen for seen in self._seen if seen[0] in _OF_VERSIONS]

    def _forget(self, but: Iterable[Path]) -> None:
        """Forget files that no configuration names any more, except where a read of one has not ended."""
        kept = frozenset(but)
        self._readers = {
            path: reader for path, reader in self._readers.items() if path in kept or reader.hangs
        }

    def _reader(self, path: Path) -> BoundedFile:
        return self._readers.setdefault(path, BoundedFile(path, max_bytes=_LARGEST))


def faults_of_files(config: Config) -> Iterator[Fault]:
    """Yield what is wrong with each file of certificates that a configuration names. Reads them."""
    for key, message in NamedFiles().look(config).items():
        if message is not None:
            yield Fault(key, message)


def _named(config: Config) -> "list[_Named]":
    tls = config.listen.tls
    named: list[tuple[str, Path | None, _Kind]] = [
        ("entra.ca_file", config.entra.ca_file, _AUTHORITIES),
        ("api.ca_file", config.api.ca_file, _AUTHORITIES),
    ]
    if tls is not None:
        named += [
            (_CERTIFICATE_FILE, tls.certificate_file, _CHAIN),
            (_KEY_FILE, tls.key_file, _KEY),
            ("listen.tls.client_ca_file", tls.client_ca_file, _AUTHORITIES),
        ]
    return [(key, path, kind) for key, path, kind in named if path is not None]


def _content(file: BoundedFile) -> "bytes | FileFault":
    try:
        return file.read()
    except FileFault as fault:
        return fault


def _judged(named: "Sequence[_Named]", contents: "Sequence[bytes | FileFault]") -> Iterator[Fault]:
    good: dict[str, bytes] = {}
    for (key, path, (check, expected)), content in zip(named, contents, strict=True):
        if isinstance(content, FileFault):
            instead = f": expected the path of a file, {expected}" * (shown_file(path) == NO_PATH)
            yield Fault(key, f"{shown_file(path)}: {content}{instead}")
            continue
        try:
            check(content)
        except (ValueError, TypeError, ssl.SSLError, UnsupportedAlgorithm):
            # Not its own message, which can quote the content.
            yield Fault(key, f"{shown_file(path)}: {_instead(content)}expected {expected}")
        else:
            good[key] = content
    certificate, private = good.get(_CERTIFICATE_FILE), good.get(_KEY_FILE)
    if certificate is not None and private is not None and not _fit(certificate, private):
        (path,) = [path for name, path, _ in named if name == _KEY_FILE]
        yield Fault(_KEY_FILE, f"{shown_file(path)}: is not the key of {_CERTIFICATE_FILE}")


def missing_credentials(config: Config, environ: Mapping[str, str]) -> Iterator[Notice]:
    """Yield each file and variable of a credential that cannot be read here and now.

    Reads the files, and looks at no content but whether there is some.

    Args:
        config: The configuration.
        environ: The environment.
    """
    for section in ("blueprints", "applications"):
        for name, client in getattr(config, section).items():
            for index, credential in enumerate(client.credentials):
                path = f"{section}.{name}.credentials.{index}.{credential.kind}"
                for key in ("file", "password_file"):
                    file: Path | None = getattr(credential, key, None)
                    cause = _unreadable(file, may_be_empty=key == "password_file")
                    if file is not None and cause:
                        yield Notice(f"{path}.{key}", f"{shown_file(file)}: {cause}")
                for key in ("env", "password_env"):
                    variable: str | None = getattr(credential, key, None)
                    if variable is not None and variable not in environ:
                        shown = shown_variable(variable)
                        yield Notice(
                            f"{path}.{key}",
                            f"{shown} is not set: authz is not ready until it is{_INSTEAD_OF_NAME * (shown == NO_VARIABLE)}",
                        )


def _unreadable(file: Path | None, *, may_be_empty: bool) -> str:
    """Return why a file of a credential is of no use, and what to do, or nothing."""
    try:
        content = b"" if file is None else BoundedFile(file, max_bytes=_LARGEST).read().strip()
        if file is not None and not content and not may_be_empty:
            return "is empty: authz is not ready until this file holds something"
    except FileFault as fault:
        instead = _INSTEAD_OF_PATH * (shown_file(file or "") == NO_PATH)
        return f"{fault}: authz is not ready until this file can be read{instead}"
    return ""


_INSTEAD_OF_PATH: Final = ": expected the path of a file that holds the secret"
_INSTEAD_OF_NAME: Final = ": expected the name of a variable that holds the secret"


def _authorities(content: bytes) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))


def _certificates(content: bytes) -> None:
    x509.load_pem_x509_certificates(content)


def _private_key(content: bytes) -> None:
    load_pem_private_key(content, None)


def _fit(certificates: bytes, key: bytes) -> bool:
    """Whether the first certificate is that of the key."""
    first = x509.load_pem_x509_certificates(certificates)[0]
    return first.public_key() == load_pem_private_key(key, None).public_key()


def _instead(content: bytes) -> str:
    """Return what a content is in place of PEM, as the beginning of a sentence, or nothing."""
    text = content.lstrip(b"\xef\xbb\xbf\r\n\t ")
    if not text:
        return "is empty: "
    if text.startswith(b"\x30") and not text.isascii():
        return "is in DER or PKCS #12 (openssl x509 -inform der -in FILE makes PEM of DER): "
    if text.startswith(b"<"):
        return "is a web page or XML: "
    labels = sorted({label.decode() for label in _LABEL.findall(text)})
    return f"holds {', '.join(labels)}: " if labels else ""


_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9# ]{1,40})-----")
"""What a part of PEM is (RFC 7468 section 2)."""
_Kind = tuple[Callable[[bytes], None], str]
"""How a content is checked, and what it should be."""
_Named = tuple[str, Path, _Kind]
"""A key of the configuration, the file that it names, and what that should hold."""
_AUTHORITIES: Final[_Kind] = (
    _authorities,
    "certificates of authorities, PEM: texts from -----BEGIN CERTIFICATE----- to its end, complete",
)
_CHAIN: Final[_Kind] = (
    _certificates,
    "a chain of certificates, PEM: texts from -----BEGIN CERTIFICATE----- to its end, complete",
)
_KEY: Final[_Kind] = (
    _private_key,
    "a private key without a password, PEM: a text that begins with -----BEGIN PRIVATE KEY-----",
)
