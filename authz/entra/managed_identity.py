"""A managed identity as a credential: its token is fetched from the host, and kept until near its end.

How versions of a credential follow one another is in `authz.entra.credentials`.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import msal

from authz.core.errors import EntraError, ExchangeUnavailable
from authz.core.exchange import IssuedToken
from authz.core.moment import Moment, earliest
from authz.core.secret import Secret
from authz.entra.credentials import Credential, Proof, end_of
from authz.entra.refusals import refusal
from authz.ports import Clock, Timer

IDENTITY_MARGIN: Final = 300.0
"""Seconds before its end at which a managed identity's token is not used any more."""
LONG_LIVED: Final = 7200.0
"""Seconds of life from which such a token is renewed at half of it."""


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
        own = end_of(token)
        if own is not None:
            ends = earliest(ends, now.epoch(own))
        left = ends.left(now)
        usable = left - IDENTITY_MARGIN
        ahead = left / 2 if left >= LONG_LIVED else usable
        return IssuedToken(Secret(token), now.later(usable), now.later(ahead))
