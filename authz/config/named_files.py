"""Files of certificates that a configuration names: opened before the configuration is used.

A version that names a file which cannot be used is refused like any other faulty version. Files of
credentials are not: they may arrive later, and readiness waits for them (`authz.entra.credentials`).
"""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz.config.faults import Fault, Notice
from authz.config.model import Config
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
            check(BoundedFile(name, max_bytes=_LARGEST).read())
        except FileFault as fault:
            yield Fault(path, f"{name}: {fault}")
        except (ValueError, TypeError, ssl.SSLError, UnsupportedAlgorithm):
            # Not its own message, which can quote the content.
            yield Fault(path, f"{name}: expected {expected}, PEM")


def missing_credentials(config: Config) -> Iterator[Notice]:
    """Yield each file of a credential that cannot be read here and now. Reads them, and not their content."""
    for section in ("blueprints", "applications"):
        for name, client in getattr(config, section).items():
            for index, credential in enumerate(client.credentials):
                for key in ("file", "password_file"):
                    file: Path | None = getattr(credential, key, None)
                    if file is None:
                        continue
                    try:
                        BoundedFile(file, max_bytes=_LARGEST).read()
                    except FileFault as fault:
                        yield Notice(
                            f"{section}.{name}.credentials.{index}.{credential.kind}.{key}",
                            f"{file}: {fault}: authz is not ready until this file can be read",
                        )


def _authorities(content: bytes) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))


def _certificates(content: bytes) -> None:
    x509.load_pem_x509_certificates(content)


def _private_key(content: bytes) -> None:
    load_pem_private_key(content, None)


_Kind = tuple[Callable[[bytes], None], str]
"""How a content is checked, and what it should be."""
_AUTHORITIES: Final[_Kind] = (_authorities, "certificates of authorities")
_CHAIN: Final[_Kind] = (_certificates, "a chain of certificates")
_KEY: Final[_Kind] = (_private_key, "a private key without a password")
