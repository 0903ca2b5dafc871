"""`Endpoints`: the token endpoint of each tenant, and whether it is asked while it keeps failing.

When a circuit opens and closes is decided in `authz.core.circuit`; here its changes are logged.
"""

from collections.abc import Hashable
from typing import Final

import structlog

from authz.core.circuit import Attempt, Circuit, CircuitState
from authz.ports import Timer

MOST_ENDPOINTS: Final = 10_000
"""Endpoints remembered; each is a tenant that some configuration names."""
_log = structlog.get_logger(__name__)


class Endpoint:
    """A tenant's token endpoint. For the event loop alone.

    Args:
        authority: Entra's address.
        tenant_id: The tenant.
        timer: Monotonic seconds.
    """

    def __init__(self, authority: str, tenant_id: str, timer: Timer) -> None:
        self.tenant_id = tenant_id
        self.circuit = Circuit()
        self._authority = authority
        self._timer = timer

    def check(self) -> None:
        """Raise `CircuitOpen` if the endpoint may not be asked now."""
        self.circuit.check(self._timer())

    def begin(self, *, ends: float) -> Attempt:
        """Begin a call that ends at a monotonic second at the latest.

        Raises:
            CircuitOpen: The endpoint may not be asked now.
        """
        before = self.circuit.state
        attempt = self.circuit.begin(self._timer(), ends=ends)
        self._log_change(before)
        return attempt

    def settle(self, attempt: Attempt, *, answered: bool | None, user: Hashable | None) -> None:
        """Take note of how a call has ended.

        Args:
            attempt: The call.
            answered: Whether the endpoint answered; None if that is not known.
            user: For whom it was asked; None where no user's token was sent.
        """
        before = self.circuit.state
        if answered is None:
            self.circuit.abandoned(attempt)
        elif answered:
            self.circuit.succeeded()
        else:
            self.circuit.failed(attempt, self._timer(), user=user)
        self._log_change(before)

    @property
    def is_open(self) -> bool:
        """Whether exchanges fail without being carried out, but for probes."""
        return self.circuit.state is not CircuitState.CLOSED

    def _log_change(self, before: CircuitState) -> None:
        state = self.circuit.state
        if state is before:
            return
        level = _log.warning if state is CircuitState.OPEN else _log.info
        level(
            f"circuit {state.value}",
            tenant=self.tenant_id,
            authority=self._authority,
            failures=self.circuit.failures,
            pause=self.circuit.pause if state is CircuitState.OPEN else None,
        )


class Endpoints:
    """The endpoints that were asked, across configurations.

    Args:
        timer: Monotonic seconds.
    """

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._known: dict[tuple[str, str], Endpoint] = {}

    def of(self, authority: str, tenant_id: str) -> Endpoint:
        """Return a tenant's endpoint."""
        key = authority, tenant_id
        endpoint = self._known.get(key)
        if endpoint is None:
            endpoint = self._known[key] = Endpoint(authority, tenant_id, self._timer)
            if len(self._known) > MOST_ENDPOINTS:
                del self._known[next(iter(self._known))]
        return endpoint

    def circuits(self) -> dict[str, tuple[bool, int]]:
        """Return, for each tenant that was asked, whether its circuit is open and how often it has opened."""
        return {
            endpoint.tenant_id: (endpoint.is_open, endpoint.circuit.opened)
            for endpoint in self._known.values()
        }
