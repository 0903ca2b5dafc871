"""Authorization codes and device codes: what each stands for, until it is redeemed or ends."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from authz_dev.emulator.claims import SignIn
from authz_dev.emulator.errors import TokenError

CODE_LIFETIME = 600
"""Seconds an authorization code lives."""
DEVICE_LIFETIME = 900
"""Seconds a device code lives."""
POLL_INTERVAL = 1
"""Seconds that a device is asked to wait between two questions. Entra says 5."""

_CAPACITY = 10_000
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ23456789"


@dataclass(frozen=True, slots=True)
class Authorized:
    """What a user signed in for.

    `challenge` and `method` are those of PKCE (RFC 7636); empty where the client used none.
    """

    tenant_id: str
    client_id: str
    user_id: str
    redirect_uri: str
    scope: str
    issued_at: float
    sign_in: SignIn
    challenge: str = ""
    method: str = "plain"
    nonce: str = ""

    def check_verifier(self, verifier: str) -> None:
        """Compare `code_verifier` with the challenge (RFC 7636, section 4.6); raises TokenError 501481."""
        if not self.challenge and not verifier:
            return
        shown = verifier
        if self.method == "S256":
            digest = hashlib.sha256(verifier.encode()).digest()
            shown = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if not verifier or not hmac.compare_digest(shown.encode(), self.challenge.encode()):
            raise TokenError(501481)


class Codes:
    """Authorization codes; each can be redeemed once, whatever comes of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued: OrderedDict[str, Authorized | None] = OrderedDict()

    def issue(self, authorized: Authorized) -> str:
        """A new code."""
        code = f"1.{secrets.token_urlsafe(32)}"
        with self._lock:
            self._issued[code] = authorized
            while len(self._issued) > _CAPACITY:
                self._issued.popitem(last=False)
        return code

    def redeem(self, code: str, now: float) -> Authorized:
        """What the code was issued for; raises TokenError 70000, 54005 or 70008."""
        with self._lock:
            if code not in self._issued:
                raise TokenError(70000, "The authorization code was not issued here.")
            found, self._issued[code] = self._issued[code], None
        if found is None:
            raise TokenError(54005)
        if now >= found.issued_at + CODE_LIFETIME:
            raise TokenError(70008, "The authorization code has expired.")
        return found


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A device that waits for its user: who asks, for what, and what the user said so far."""

    tenant_id: str
    client_id: str
    scope: str
    user_code: str
    expires_at: float
    user_id: str = ""
    declined: bool = False
    sign_in: SignIn = field(default_factory=SignIn)


class DeviceCodes:
    """Device codes (RFC 8628)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, DeviceRequest] = OrderedDict()

    def issue(self, tenant_id: str, client_id: str, scope: str, now: float) -> tuple[str, str]:
        """A new device code, and the code that its user types in."""
        device_code = secrets.token_urlsafe(48)
        user_code = "".join(secrets.choice(_LETTERS) for _ in range(9))
        request = DeviceRequest(tenant_id, client_id, scope, user_code, now + DEVICE_LIFETIME)
        with self._lock:
            self._waiting[device_code] = request
            while len(self._waiting) > _CAPACITY:
                self._waiting.popitem(last=False)
        return device_code, user_code

    def find(self, user_code: str, now: float) -> DeviceRequest | None:
        """The request that waits under this user code."""
        typed = user_code.strip().upper()
        with self._lock:
            waiting = list(self._waiting.values())
        return next(
            (one for one in waiting if one.user_code == typed and now < one.expires_at), None
        )

    def decide(self, request: DeviceRequest, *, user_id: str, sign_in: SignIn | None) -> None:
        """Note who signed in; without `sign_in` the user declined."""
        with self._lock:
            for code, one in self._waiting.items():
                if one.user_code == request.user_code:
                    self._waiting[code] = replace(
                        one, user_id=user_id, declined=sign_in is None, sign_in=sign_in or SignIn()
                    )

    def redeem(self, device_code: str, tenant_id: str, client_id: str, now: float) -> DeviceRequest:
        """The request of this code, which ends with it; raises TokenError 70018, 70020, 70016 or 65004."""
        with self._lock:
            found = self._waiting.get(device_code)
            if found is None or (found.tenant_id, found.client_id) != (tenant_id, client_id):
                raise TokenError(70018)
            if now >= found.expires_at:
                raise TokenError(70020)
            if found.declined:
                raise TokenError(65004, error="authorization_declined", status=400)
            if not found.user_id:
                raise TokenError(70016)
            del self._waiting[device_code]
        return found
