"""How a blueprint or an application proves itself to Entra, and how a rotated proof is picked up.

Each `Credential` is read again for every token it has to fetch, so a rotation needs no restart. A new
version that cannot be read leaves the last good one in place, and one that Entra refuses the last one that
Entra took; the log says so. Who asks Entra with it is `clients`.
"""

import base64
import hashlib
import json
import math
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
import msal
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12

from authz.core.errors import EntraError, ExchangeUnavailable
from authz.core.exchange import IssuedToken
from authz.core.moment import Moment, earliest
from authz.core.secret import Secret
from authz.entra.refusals import refusal
from authz.entra.sources import CredentialFault
from authz.ports import Clock, Standing, Timer

ASSERTION_LIFETIME: Final = 300
"""Seconds; Entra accepts five to ten minutes."""
REFUSED_FOR: Final = 300.0
"""Seconds for which a version that Entra refused comes after all others."""
CLOCK_SKEW: Final = 300
"""Seconds for which a token may have ended by our clock and not by Entra's."""
IDENTITY_MARGIN: Final = 300.0
"""Seconds before its end at which a managed identity's token is not used any more."""
LONG_LIVED: Final = 7200.0
"""Seconds of life from which such a token is renewed at half of it."""
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


class Certificate(Credential):
    """A certificate with its private key: PEM, or PFX (PKCS#12) with an optional password.

    Args:
        read: Reads the file.
        described_as: For the log.
        password: Reads the password of the key; None if there is none.
        send_x5c: Send the chain (`x5c`), for subject-name and issuer authentication.
    """

    kind = "certificate"

    def __init__(
        self,
        read: Callable[[], bytes],
        described_as: str,
        *,
        password: Callable[[], str] | None = None,
        send_x5c: bool = False,
    ) -> None:
        super().__init__(described_as)
        self._content = read
        self._password = password
        self._send_x5c = send_x5c

    def _read(self) -> Proof:
        content = self._content()
        password = self._password().strip().encode() if self._password else None
        version = hashlib.sha256(content + b"\0" + (password or b"")).digest()
        if self._last is not None and self._last.version == version:
            return self._last
        try:
            key, chain = (
                _parse_pem(content, password) if _is_pem(content) else _parse_pfx(content, password)
            )
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm) as error:
            raise CredentialFault(
                f"{self.described_as} is neither PEM nor PFX with a private key and a certificate, "
                "or its password is wrong"
            ) from error
        headers: dict[str, Any] = {"x5t#S256": _base64url(chain[0].fingerprint(hashes.SHA256()))}
        if self._send_x5c:
            headers["x5c"] = [
                base64.b64encode(link.public_bytes(serialization.Encoding.DER)).decode()
                for link in chain
            ]
        # Signed here, not by MSAL: MSAL knows the SHA-256 thumbprint only together with `x5c`, and
        # repeats one assertion for nine minutes, which a strict server takes for a replay.
        return Proof(
            version=version,
            client_credential={"client_assertion": lambda context: _sign(key, headers, context)},
            expires_at=chain[0].not_valid_after_utc.timestamp(),
        )


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
        ends_at = _end_of(text)
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


class ManagedIdentity(Credential):
    """The host's managed identity, whose token is the blueprint's federated credential.

    The token is kept here until five minutes before its end: MSAL would go by the wall clock alone.

    Args:
        client: MSAL's client for the identity; it keeps nothing.
        resource: The cloud's token-exchange resource.
        described_as: For the log.
        clock: Epoch seconds.
        timer: Monotonic seconds.
    """

    kind = "managed_identity"

    def __init__(
        self,
        client: msal.ManagedIdentityClient,
        resource: str,
        described_as: str,
        *,
        clock: Clock = time.time,
        timer: Timer = time.monotonic,
    ) -> None:
        super().__init__(described_as)
        self._client = client
        self._resource = resource
        self._clock = clock
        self._timer = timer
        self._kept: IssuedToken | None = None

    def _read(self) -> Proof:
        return Proof(
            version=b"managed_identity", client_credential={"client_assertion": self._assertion}
        )

    def _assertion(self) -> str:
        now, kept = Moment(self._clock(), self._timer()), self._kept
        if kept is None or kept.refresh_at.has_come(now):
            try:
                kept = self._kept = self._ask(now)
            except EntraError:
                if kept is None or kept.expires_at.has_come(now):
                    raise
        return kept.secret.reveal()

    def _ask(self, now: Moment) -> IssuedToken:
        """Ask the host's metadata service for a token.

        Raises:
            EntraError: It refuses, or gives no usable answer.
        """
        try:
            answer: Mapping[str, Any] = self._client.acquire_token_for_client(
                resource=self._resource
            )
        except EntraError:
            raise
        except Exception as error:  # noqa: BLE001 - what MSAL raises is nowhere said
            # MSAL reads the answers of the metadata services unchecked, and its texts can quote them.
            raise ExchangeUnavailable(f"{self.described_as}: {type(error).__name__}") from None
        token = answer.get("access_token")
        if not isinstance(token, str):
            raise refusal(answer, user_is_asked=False)
        ends = now.later(answer["expires_in"])
        own = _end_of(token)
        if own is not None:
            ends = earliest(ends, now.epoch(own))
        left = ends.left(now)
        usable = left - IDENTITY_MARGIN
        ahead = left / 2 if left >= LONG_LIVED else usable
        return IssuedToken(Secret(token), now.later(usable), now.later(ahead))


def _sign(key: RSAPrivateKey, headers: Mapping[str, Any], context: Mapping[str, str]) -> str:
    """Make one client assertion (RFC 7523 section 2.2; Entra page "certificate-credentials")."""
    now = int(time.time())
    claims = {
        "aud": context["token_endpoint"],
        "iss": context["client_id"],
        "sub": context["client_id"],
        "jti": str(uuid.uuid4()),
        "iat": now,
        "nbf": now,
        "exp": now + ASSERTION_LIFETIME,
    }
    return jwt.encode(claims, key, algorithm="PS256", headers=dict(headers))


def _end_of(token: str) -> float | None:
    """Return `exp` of a JWT (RFC 7519 section 4.1.4); None where it is none, or has none."""
    try:
        _, payload, _ = token.encode("ascii").split(b".")
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        ends_at = claims["exp"]
        return float(ends_at) if isinstance(ends_at, int | float) else None
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _version(text: str) -> bytes:
    return Secret(text).digest()


def _is_pem(content: bytes) -> bool:
    return b"-----BEGIN " in content


def _parse_pem(
    content: bytes, password: bytes | None
) -> tuple[RSAPrivateKey, list[x509.Certificate]]:
    key = serialization.load_pem_private_key(content, password)
    return _fitting(key, x509.load_pem_x509_certificates(content))


def _parse_pfx(
    content: bytes, password: bytes | None
) -> tuple[RSAPrivateKey, list[x509.Certificate]]:
    key, certificate, others = pkcs12.load_key_and_certificates(content, password)
    return _fitting(key, [*([certificate] if certificate else []), *others])


def _fitting(
    key: object, chain: list[x509.Certificate]
) -> tuple[RSAPrivateKey, list[x509.Certificate]]:
    """Put the key's own certificate first; a file in the middle of a rotation has none that fits."""
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("Entra takes RSA keys only")  # noqa: TRY004 - the content is wrong
    own = [certificate for certificate in chain if certificate.public_key() == key.public_key()]
    if not own:
        raise ValueError("no certificate fits the private key")
    return key, own[:1] + [certificate for certificate in chain if certificate is not own[0]]
