"""Where the pod's authority is: its key in a file of our own, its certificate where the app finds it.

The key outlives a restart of the container, since the app goes on trusting the authority that it read when
it started. Both belong on volumes of the pod that are in memory.
"""

import os
import ssl
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

import structlog

from authz.core.secret import Secret
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
    _write(key_file, authority.dump(), _OURS_ALONE)
    return authority


def publish(authority: PodAuthority, ca_file: Path, bundle_file: Path | None) -> None:
    """Write whom the app shall trust: the authority alone, and the system's authorities with it.

    Some variables add an authority (`NODE_EXTRA_CA_CERTS`), others replace all there are
    (`SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`).

    Raises:
        OSError: A file cannot be written.
    """
    _write(ca_file, Secret(authority.pem), _EVERYBODYS)
    if bundle_file is None:
        return
    known = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not known:
        _log.warning("no authorities of the system", to_do="install ca-certificates")
    system = "".join(map(ssl.DER_cert_to_PEM_cert, known))
    _write(bundle_file, Secret(system + authority.pem), _EVERYBODYS)


def _write(file: Path, content: Secret, mode: int) -> None:
    """Replace a file as a whole: nobody reads half of it, and nobody else reads what is ours."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w") as temporary:
            os.fchmod(temporary.fileno(), mode)
            temporary.write(content.reveal())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
