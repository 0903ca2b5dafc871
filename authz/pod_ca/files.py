"""Where the pod's authority is: its key in a file of our own, its certificate where the app finds it.

The key outlives a restart of the container, since the app trusts the authority that it read when
it started. Both belong on volumes of the pod that are in memory.
"""

import os
import ssl
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PKCS12Certificate,
    serialize_java_truststore,
)
from cryptography.utils import CryptographyDeprecationWarning

from authz.pod_ca.authority import PodAuthority

RENEW_BEFORE: Final = 30 * 86400.0
"""Seconds before its end at which an authority is not taken up again, by a container that starts."""
_OURS_ALONE: Final = 0o600
_EVERYBODYS: Final = 0o644
_log = structlog.get_logger(__name__)


def open_authority(key_file: Path, hosts: Collection[str], *, now: float) -> PodAuthority:
    """Return the authority of the file, or a new one, which is written there.

    A file that is no authority, or one for other hosts or near its end, is replaced: then the app has to
    be restarted as well, and the log says so.

    Raises:
        OSError: The file cannot be read or written.
    """
    try:
        found = PodAuthority.load(key_file.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        _log.warning("pod authority replaced", cause="the file holds none", file=str(key_file))
    else:
        if found.hosts >= set(hosts) and found.remaining(now) > RENEW_BEFORE:
            return found
        cause = "it ends soon" if found.hosts >= set(hosts) else "there are other hosts"
        _log.warning("pod authority replaced", cause=cause, to_do="restart the app")
    authority = PodAuthority.create(hosts, now=now)
    _write(key_file, authority.dump().reveal().encode(), _OURS_ALONE)
    return authority


def publish(
    authority: PodAuthority,
    ca_file: Path,
    bundle_file: Path | None = None,
    truststore_file: Path | None = None,
) -> None:
    """Write whom the app shall trust: the authority alone, and the system's authorities with it.

    Some variables add an authority (`NODE_EXTRA_CA_CERTS`), others replace all there are
    (`SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`), and Java wants a form of its own.

    Raises:
        OSError: A file cannot be written.
    """
    _write(ca_file, authority.pem.encode(), _EVERYBODYS)
    if bundle_file is None and truststore_file is None:
        return
    known = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not known:
        _log.warning("no authorities of the system", to_do="install ca-certificates")
    if bundle_file is not None:
        system = "".join(map(ssl.DER_cert_to_PEM_cert, known))
        _write(bundle_file, (system + authority.pem).encode(), _EVERYBODYS)
    if truststore_file is not None:
        _write(truststore_file, _truststore(authority, known), _EVERYBODYS)


def _truststore(authority: PodAuthority, known: Sequence[bytes]) -> bytes:
    """Return a trust store for Java. What is public needs no password, and no app has to be told one."""
    own = x509.load_pem_x509_certificate(authority.pem.encode())
    entries = [own, *_readable(known)]
    return serialize_java_truststore(
        [PKCS12Certificate(entry, f"{number}".encode()) for number, entry in enumerate(entries)],
        NoEncryption(),
    )


def _readable(known: Sequence[bytes]) -> Iterator[x509.Certificate]:
    """Yield certificates that are well-formed: some of the system's are old, and against today's rules."""
    for der in known:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            try:
                yield x509.load_der_x509_certificate(der)
            except ValueError:
                continue


def _write(file: Path, content: bytes, mode: int) -> None:
    """Replace a file as a whole: nobody reads half of it, and nobody else reads what is ours."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as temporary:
            os.fchmod(temporary.fileno(), mode)
            temporary.write(content)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
