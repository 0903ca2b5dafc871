"""`Endpoints`: the token endpoint of each tenant, and whether it is asked while it fails or throttles.

When a circuit opens and closes is decided in `authz.core.circuit`, when an application is held back in
`authz.core.throttle`; here the changes are logged.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

import structlog

from authz.core.circuit import Attempt, Circuit, CircuitState
from authz.core.throttle import Throttle
from authz.entra.calls import Call
from authz.ports import Timer

MOST_ENDPOINTS: Final = 10_000
"""Endpoints remembered; each is a tenant that some configuration names."""
MOST_THROTTLED: Final = 10_000
"""Applications of an endpoint that are remembered; callers of the HTTP API may name new ones all the time."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an endpoint.

    Attributes:
        client_id: The application that asks.
        user: For whom: a user, or an agent's own user account. None for neither.
        about: What is asked for, where it is for no user.
    """

    client_id: str
    user: Hashable | None
    about: Hashable

    @property
    def asker(self) -> Hashable:
        """Whom an answer of 429 may be about, if not the application."""
        return self.about if self.user is None else self.user


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
        self._throttles: dict[str, Throttle] = {}
        """By client id: those that got a 429 of late."""

    def check(self, question: Question) -> None:
        """Raise if the endpoint may not be asked this now.

        Raises:
            CircuitOpen: It keeps failing.
            ApplicationThrottled: It has asked the application to wait.
        """
        now = self._timer()
        if (throttle := self._throttles.get(question.client_id)) is not None:
            throttle.check(now, question.asker)
        self.circuit.check(now, user=question.user)

    def begin(self, question: Question, *, ends: float) -> Attempt:
        """Begin a call that ends at a monotonic second at the latest.

        Raises:
            CircuitOpen: The endpoint keeps failing.
            ApplicationThrottled: It has asked the application to wait.
        """
        self.check(question)
        before = self.circuit.state
        attempt = self.circuit.begin(self._timer(), ends=ends, user=question.user)
        if (throttle := self._throttles.get(question.client_id)) is not None:
            throttle.begin(attempt)
        self._log_change(before)
        return attempt

    def settle(self, attempt: Attempt, question: Question, call: Call) -> None:
        """Take note of how a call has ended."""
        before = self.circuit.state
        if call.answered is None:
            self.circuit.abandoned(attempt)
        elif call.answered:
            self.circuit.succeeded()
        else:
            self.circuit.failed(attempt, self._timer(), user=question.user)
        self._log_change(before)
        self._settle_throttle(attempt, question, call)

    def _settle_throttle(self, attempt: Attempt, question: Question, call: Call) -> None:
        client_id, now = question.client_id, self._timer()
        throttle = self._throttles.get(client_id)
        if throttle is None:
            if call.throttled is None:
                return
            throttle = self._throttles[client_id] = Throttle()
            if len(self._throttles) > MOST_THROTTLED:
                del self._throttles[next(iter(self._throttles))]
        before = throttle.is_held(now)
        if call.throttled is not None:
            throttle.refused(attempt, now, seconds=call.throttled, question=question.asker)
        elif call.answered:
            throttle.answered(attempt)
        else:
            throttle.abandoned(attempt)
        held = throttle.is_held(now)
        if held != before:
            level, event = (
                (_log.warning, "application throttled")
                if held
                else (_log.info, "application no longer throttled")
            )
            level(
                event,
                tenant=self.tenant_id,
                authority=self._authority,
                client_id=client_id,
                seconds=call.throttled,
            )
        if throttle.is_idle(now):
            del self._throttles[client_id]

    @property
    def is_open(self) -> bool:
        """Whether exchanges fail without being carried out, but for probes."""
        return self.circuit.is_open(self._timer())

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
