"""How a blueprint or an application proves itself to Entra, and how a rotated proof is picked up.

Each `Credential` is read again for every token it has to fetch, so a rotation needs no restart. A new
version that cannot be read leaves the last good one in place, and one that Entra refuses the last one that
Entra took; the log says so. Who asks Entra with it is `clients`. Secrets and tokens that are text are here;
the other kinds are in `certificate` and `managed_identity`.
"""

import base64
import json
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from authz.core.secret import Secret
from authz.entra.sources import CredentialFault
from authz.ports import Standing

REFUSED_FOR: Final = 300.0
"""Seconds for which a version that Entra refused comes after all others."""
CLOCK_SKEW: Final = 300
"""Seconds for which a token may have ended by our clock and not by Entra's."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Proof:
    """One version of a credential, in the form that MSAL takes.

    Attributes:
        version: Changes when the credential does; a digest, so it may be compared and kept.
        client_credential: MSAL's `client_credential`.
        expires_at: Epoch second at which it ends, where that is known: of certificates.
        usable_until: Epoch second from which it no longer stands in for a version that cannot be read.
    """

    version: bytes
    client_credential: Any
    expires_at: float | None = None
    usable_until: float = math.inf

    def __repr__(self) -> str:
        return "Proof(***)"


class Credential(ABC):
    """One configured way to prove who the client is. Several threads may use it."""

    kind: str

    def __init__(self, described_as: str) -> None:
        self.described_as = described_as
        """Its kind, and where it comes from: the file, the variable, the vault."""
        self._last: Proof | None = None
        self._lock = threading.Lock()
        self._taken: Proof | None = None
        self._refused: dict[bytes, float] = {}
        """Versions that Entra refused, and the monotonic second until which each is put off."""
        self._complained: tuple[str, bool] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.described_as})"

    @property
    def expires_at(self) -> float | None:
        """Epoch second at which the version in use ends, where that is known. Reads nothing."""
        in_use = self._last
        if in_use is not None and in_use.version in self._refused:
            in_use = self._taken or in_use
        return in_use.expires_at if in_use is not None else None

    @property
    def is_refused(self) -> bool:
        """Whether Entra refused the version that was read last, when it was last asked. Reads nothing."""
        return self._last is not None and self._last.version in self._refused

    @property
    def fault(self) -> str | None:
        """Why it could not be read when that was last tried; None where it could. Reads nothing."""
        complained = self._complained
        return complained[0] if complained is not None else None

    @property
    def standing(self) -> Standing:
        """How the version that was read last stands with Entra. Reads nothing."""
        newest, taken = self._last, self._taken
        if newest is None:
            return Standing.UNREAD
        if newest.version in self._refused:
            return Standing.REFUSED
        is_taken = taken is not None and taken.version == newest.version
        return Standing.ACCEPTED if is_taken else Standing.UNPROVED

    @property
    def accepted_in_use(self) -> bool:
        """Whether there is a version that Entra took, be it an older one. Reads nothing."""
        return bool(self._still_usable(self._taken))

    def proofs(self) -> list[Proof]:
        """Read the credential now; return what to try in turn.

        First its present version, or the last good one where that cannot be read, then the last version
        that Entra took.

        Raises:
            CredentialFault: There is none that has not ended.
        """
        try:
            newest = self._read()
        except CredentialFault as fault:
            good = self._still_usable(self._last, self._taken)
            self._complain(str(fault), old_one_goes_on=bool(good))
            if not good:
                raise
            return good
        self._note(newest)
        others = self._still_usable(self._taken)
        return [newest, *(other for other in others if other.version != newest.version)]

    def look(self) -> None:
        """Raise `CredentialFault` if there is no proof now. Waits for no network: readiness asks."""
        self.proofs()

    def take(self, proof: Proof) -> bool:
        """Remember that Entra takes a version; return whether that is news."""
        with self._lock:
            before, self._taken = self._taken, proof
            was_refused = self._refused.pop(proof.version, None) is not None
            return was_refused or before is None or before.version != proof.version

    def refuse(self, proof: Proof, *, now: float) -> bool:
        """Remember that Entra refused a version; return whether another one stands in for it.

        Args:
            proof: The version.
            now: Monotonic second.
        """
        with self._lock:
            known = {each.version for each in (self._last, self._taken) if each is not None}
            kept = {version: until for version, until in self._refused.items() if version in known}
            self._refused = {**kept, proof.version: now + REFUSED_FOR}
            others = self._still_usable(self._taken)
            return any(other.version not in self._refused for other in others)

    def is_put_off(self, proof: Proof, *, now: float) -> bool:
        """Whether a version comes after all others now (monotonic second), because Entra refused it.

        Every few minutes one caller gets False: that one tries the version again, and the others do
        without it meanwhile.
        """
        with self._lock:
            until = self._refused.get(proof.version)
            if until is None or now < until:
                return until is not None
            self._refused[proof.version] = now + REFUSED_FOR
            return False

    @abstractmethod
    def _read(self) -> Proof:
        """Read the credential, or raise `CredentialFault`."""

    @staticmethod
    def _still_usable(*proofs: Proof | None) -> list[Proof]:
        """Return those of different versions that have not ended, in their order."""
        now = time.time()
        usable = {
            proof.version: proof
            for proof in reversed(proofs)
            if proof is not None and now < proof.usable_until
        }
        return list(reversed(usable.values()))

    def _note(self, newest: Proof) -> None:
        """Take note of what was read. Each change is logged once, the way back to an earlier version too."""
        with self._lock:
            complained, self._complained = self._complained, None
            before, self._last = self._last, newest
        if complained is not None:
            _log.info("credential usable again", credential=self.described_as)
        if before is not None and before.version != newest.version:
            _log.info(
                "credential changed", credential=self.described_as, standing=self.standing.value
            )

    def _complain(self, cause: str, *, old_one_goes_on: bool) -> None:
        complaint = cause, old_one_goes_on
        with self._lock:
            is_news, self._complained = complaint != self._complained, complaint
        if is_news:
            _log.error(
                "credential not usable",
                credential=self.described_as,
                cause=cause,
                old_one_goes_on=old_one_goes_on,
            )


class ClientSecret(Credential):
    """A client secret in a file or an environment variable. Meant for development."""

    kind = "client_secret"

    def __init__(self, read: Callable[[], str], described_as: str) -> None:
        super().__init__(described_as)
        self._text = read

    def _read(self) -> Proof:
        text = self._text().strip()
        if not text:
            raise CredentialFault(f"{self.described_as} is empty")
        return Proof(version=_version(text), client_credential=text)


class FederatedToken(Credential):
    """A token file that another issuer renews, such as a projected service-account token.

    A file that is empty, gone or no JWT leaves the last good token in use until its own `exp`. Its
    signature and claims are Entra's to judge.
    """

    kind = "federated_token"

    def __init__(self, read: Callable[[], str], described_as: str) -> None:
        super().__init__(described_as)
        self._text = read

    def _read(self) -> Proof:
        text = self._text().strip()
        if not text:
            raise CredentialFault(f"{self.described_as} is empty")
        ends_at = end_of(text)
        if ends_at is None:
            raise CredentialFault(f"{self.described_as} is no JWT with an `exp`")
        if time.time() >= ends_at + CLOCK_SKEW:
            raise CredentialFault(f"{self.described_as} has expired")
        return Proof(
            version=_version(text),
            # MSAL warns of a plain text. A renewed token is another version, and so another MSAL client.
            client_credential={"client_assertion": lambda: text},
            usable_until=ends_at + CLOCK_SKEW,
        )


def end_of(token: str) -> float | None:
    """Return `exp` of a JWT (RFC 7519 section 4.1.4); None where it is none, or has none."""
    try:
        _, payload, _ = token.encode("ascii").split(b".")
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        ends_at = claims["exp"]
        return float(ends_at) if isinstance(ends_at, int | float) else None
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None


def _version(text: str) -> bytes:
    return Secret(text).digest()
