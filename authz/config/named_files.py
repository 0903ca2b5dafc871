"""Files of certificates that a configuration names: opened before the configuration is used.

A version that names a file which cannot be used is refused like any other faulty version. Files of
credentials are not: they may arrive later, and readiness waits for them (`authz.entra.credentials`).
"""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz.config.faults import Fault, Notice
from authz.config.model import Config
from authz.config.shown import NO_PATH, NO_VARIABLE, shown_file, shown_variable
from authz.files import BoundedFile, FileFault

_LARGEST: Final = 4 * 1024**2
"""Bytes; a bundle of all public authorities has some 200 kB."""


def faults_of_files(config: Config) -> Iterator[Fault]:
    """Yield what is wrong with each file of certificates that a configuration names. Reads them."""
    tls = config.listen.tls
    named: list[tuple[str, Path | None, _Kind]] = [
        ("entra.ca_file", config.entra.ca_file, _AUTHORITIES),
        ("api.ca_file", config.api.ca_file, _AUTHORITIES),
    ]
    if tls is not None:
        named += [
            ("listen.tls.certificate_file", tls.certificate_file, _CHAIN),
            ("listen.tls.key_file", tls.key_file, _KEY),
            ("listen.tls.client_ca_file", tls.client_ca_file, _AUTHORITIES),
        ]
    for path, name, (check, expected) in named:
        if name is None:
            continue
        try:
            content = BoundedFile(name, max_bytes=_LARGEST).read()
        except FileFault as fault:
            instead = f": expected the path of a file, {expected}" * (shown_file(name) == NO_PATH)
            yield Fault(path, f"{shown_file(name)}: {fault}{instead}")
            continue
        try:
            check(content)
        except (ValueError, TypeError, ssl.SSLError, UnsupportedAlgorithm):
            # Not its own message, which can quote the content.
            yield Fault(path, f"{shown_file(name)}: {_instead(content)}expected {expected}")


def missing_credentials(config: Config, environ: Mapping[str, str]) -> Iterator[Notice]:
    """Yield each file and variable of a credential that cannot be read here and now.

    Reads the files, and looks at no content.

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
                    cause = _unreadable(file)
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


def _unreadable(file: Path | None) -> str:
    """Return why a file of a credential cannot be read, and what to do, or nothing."""
    try:
        if file is not None:
            BoundedFile(file, max_bytes=_LARGEST).read()
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
