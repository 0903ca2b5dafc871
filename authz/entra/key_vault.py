"""Certificates that Azure Key Vault holds: kept in memory, and fetched again from time to time.

Who may wait for a fetch, and what becomes of a failed one. How a vault is asked is `vault_client`, the
only module that imports the Azure SDK; what the content means is `certificate`.
"""

import threading
import time
from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

import structlog

from authz.entra.certificate import Certificate
from authz.entra.sources import CredentialAway, CredentialFault, decoded
from authz.entra.vault_place import VaultPlace
from authz.ports import Timer
from authz.system.distribution import advice

REFRESH_AFTER: Final = 600.0
"""Seconds after which a certificate is fetched again, so that a renewed one is noticed."""
RETRY_AFTER: Final = 5.0
"""Seconds after a failed fetch before which the vault is not asked again."""
_log = structlog.get_logger(__name__)


Fetch = Callable[[VaultPlace], str]
"""Fetches the secret behind a certificate, or raises `CredentialFault`."""


def fetch(place: VaultPlace) -> str:
    """Fetch a secret with the Azure SDK, which is imported now if it is there.

    Raises:
        CredentialFault: The SDK is not installed, or the vault does not give the secret.
    """
    try:
        from authz.entra.vault_client import VaultClient  # noqa: PLC0415 - an extra, and heavy
    except ImportError:
        raise CredentialFault(
            f"key_vault {place}: the Azure SDK is not installed: {advice('key-vault')}"
        ) from None
    return VaultClient().fetch(place)


class KeptCertificate:
    """A certificate as it was last fetched. Several threads may read it.

    Only the first fetch is waited for. Later ones leave the old certificate in use until they succeed.

    Args:
        place: Where it is.
        fetch: Fetches it.
        timer: Monotonic seconds.
    """

    def __init__(self, place: VaultPlace, fetch: Fetch, timer: Timer) -> None:
        self._place = place
        self._fetch = fetch
        self._timer = timer
        self._changed = threading.Condition()
        self._content: bytes | None = None
        self._fault: CredentialFault | None = None
        self._is_fetching = False
        self._due = timer()

    def read(self) -> bytes:
        """Return the certificate; wait for it, but not for long, if there is none yet.

        Raises:
            CredentialFault: There is none.
        """
        with self._changed:
            self._fetch_if_due()
            if self._content is None:
                self._changed.wait_for(lambda: not self._is_fetching, self._place.timeout)
            return self._held()

    def look(self) -> bytes:
        """Return the certificate that is there now.

        Raises:
            CredentialFault: There is none.
        """
        with self._changed:
            self._fetch_if_due()
            return self._held()

    @property
    def fault(self) -> str | None:
        """Why the last fetch failed; None where it did not, and before the first has ended."""
        fault = self._fault
        return None if fault is None else str(fault)

    def _held(self) -> bytes:
        if self._content is not None:
            return self._content
        if self._fault is None:
            raise CredentialAway(f"key_vault {self._place}: the first fetch is under way")
        # A new one each time: an exception that is raised again collects tracebacks.
        raise type(self._fault)(str(self._fault))

    def _fetch_if_due(self) -> None:
        if self._is_fetching or self._timer() < self._due:
            return
        # A daemon, so that a vault that hangs does not keep the process from ending.
        threading.Thread(target=self._refresh, name="key-vault", daemon=True).start()
        self._is_fetching = True

    def _refresh(self) -> None:
        content = None
        fault: CredentialFault | None = CredentialFault(f"key_vault {self._place}: a defect")
        try:
            content = decoded(self._fetch(self._place), f"key_vault {self._place}")
            fault = None
        except CredentialFault as error:
            fault = error.with_traceback(None)
        finally:
            with self._changed:
                self._end(content, fault)

    def _end(self, content: bytes | None, fault: CredentialFault | None) -> None:
        self._complain(fault)
        self._is_fetching = False
        self._due = self._timer() + (REFRESH_AFTER if fault is None else RETRY_AFTER)
        self._content = content or self._content
        self._fault = fault
        self._changed.notify_all()

    def _complain(self, fault: CredentialFault | None) -> None:
        """Say that the old certificate stays in use. Where there is none, its reader complains."""
        if fault is None and self._fault is not None and self._content is not None:
            _log.info("credential usable again", credential=f"key_vault {self._place}")
        if fault is not None and self._content is not None and str(fault) != str(self._fault):
            _log.error(
                "credential not usable",
                credential=f"key_vault {self._place}",
                cause=str(fault),
                old_one_goes_on=True,
            )


class KeyVaultCertificate(Certificate):
    """A certificate with its private key that Azure Key Vault holds."""

    kind = "key_vault"

    def __init__(self, kept: KeptCertificate, described_as: str, *, send_x5c: bool) -> None:
        super().__init__(kept.read, described_as, send_x5c=send_x5c)
        self._kept = kept

    @property
    def fault(self) -> str | None:
        """Why it could not be fetched or read when that was last tried. Fetches and reads nothing."""
        return self._kept.fault or super().fault

    def look(self) -> None:
        """Raise `CredentialFault` while there is nothing to prove oneself with. Does not wait."""
        self._kept.look()
        super().look()


class KeyVaults:
    """The certificates of the configurations in force.

    A new configuration finds the certificates of the old one here, so it need not wait for the vault.

    Args:
        fetch: Fetches one.
        timer: Monotonic seconds.
    """

    def __init__(self, fetch: Fetch = fetch, timer: Timer = time.monotonic) -> None:
        self._fetch = fetch
        self._timer = timer
        # Weak: what no configuration uses any more is forgotten.
        self._kept: WeakValueDictionary[VaultPlace, KeptCertificate] = WeakValueDictionary()

    def credential(self, place: VaultPlace, *, send_x5c: bool) -> KeyVaultCertificate:
        """Return the credential of a certificate. Fetches nothing yet."""
        kept = self._kept.get(place)
        if kept is None:
            kept = self._kept[place] = KeptCertificate(place, self._fetch, self._timer)
        return KeyVaultCertificate(kept, f"key_vault {place}", send_x5c=send_x5c)
