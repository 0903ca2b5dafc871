"""Refresh tokens: opaque texts and what each one stands for."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from authz_dev.emulator.claims import SignIn

LIFETIME = 90 * 86_400
"""Seconds an unused refresh token lives."""

_CAPACITY = 50_000


@dataclass(frozen=True, slots=True)
class RefreshGrant:
    """For which client and user a refresh token may be used, and how that user signed in.

    `scope` is what was asked for: a refresh that names no scope asks for the same.
    """

    tenant_id: str
    client_id: str
    user_id: str
    scope: str
    issued_at: float
    sign_in: SignIn


class RefreshTokens:
    """All refresh tokens that were issued; the oldest are forgotten beyond a bound.

    A used token stays valid, as Entra's do.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: OrderedDict[str, RefreshGrant] = OrderedDict()

    def issue(self, grant: RefreshGrant) -> str:
        """A new refresh token for this grant."""
        token = f"1.{secrets.token_urlsafe(48)}"
        with self._lock:
            self._grants[token] = grant
            while len(self._grants) > _CAPACITY:
                self._grants.popitem(last=False)
        return token

    def find(self, token: str) -> RefreshGrant | None:
        """What this token was issued for."""
        return self._grants.get(token)

    def user_of(self, token: str) -> str:
        """The object id of the token's user; empty for an unknown token."""
        grant = self._grants.get(token)
        return "" if grant is None else grant.user_id
