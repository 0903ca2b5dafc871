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
MOST_CLIENTS: Final = 10_000
"""Clients of an endpoint that are remembered; callers of the HTTP API may name new ones all the time."""
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
    """A tenant's token endpoint, with a circuit for each client id. For the event loop alone.

    Args:
        authority: Entra's address.
        tenant_id: The tenant.
        timer: Monotonic seconds.
    """

    def __init__(self, authority: str, tenant_id: str, timer: Timer) -> None:
        self.tenant_id = tenant_id
        self._circuits: dict[str, Circuit] = {}
        self._authority = authority
        self._timer = timer
        self._throttles: dict[str, Throttle] = {}
        """By client id: those that got a 429 of late."""
        self.opened = 0
        """How often a circuit has opened: after a probe that failed too, and of forgotten clients."""

    def check(self, question: Question) -> None:
        """Raise if the endpoint may not be asked this now.

        Raises:
            CircuitOpen: It keeps failing.
            ApplicationThrottled: It has asked the application to wait.
        """
        now = self._timer()
        if (throttle := self._throttles.get(question.client_id)) is not None:
            throttle.check(now, question.asker)
        self._circuit(question).check(now, question.asker)

    def begin(self, question: Question, *, ends: float) -> Attempt:
        """Begin a call that ends at a monotonic second at the latest.

        Raises:
            CircuitOpen: The endpoint keeps failing.
            ApplicationThrottled: It has asked the application to wait.
        """
        self.check(question)
        circuit = self._circuit(question)
        before = circuit.state
        attempt = circuit.begin(self._timer(), question.asker, ends=ends)
        if (throttle := self._throttles.get(question.client_id)) is not None:
            throttle.begin(attempt)
        self._log_change(question, before)
        return attempt

    def settle(self, attempt: Attempt, question: Question, call: Call) -> None:
        """Take note of how a call has ended."""
        circuit = self._circuit(question)
        before = circuit.state
        if call.answered is None:
            circuit.abandoned(attempt)
        elif call.answered:
            circuit.succeeded()
        else:
            circuit.failed(attempt, self._timer(), question.asker)
        self._log_change(question, before)
        self._settle_throttle(attempt, question, call)

    def _settle_throttle(self, attempt: Attempt, question: Question, call: Call) -> None:
        client_id, now = question.client_id, self._timer()
        throttle = self._throttles.get(client_id)
        if throttle is None:
            if call.throttled is None:
                return
            throttle = self._throttles[client_id] = Throttle()
            if len(self._throttles) > MOST_CLIENTS:
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

    def is_open_for(self, question: Question) -> bool:
        """Whether exchanges of the client fail without being carried out, but for probes."""
        return self._circuit(question).is_open(self._timer())

    def has_open(self) -> bool:
        """Whether the circuit of some client is open."""
        now = self._timer()
        return any(circuit.is_open(now) for circuit in self._circuits.values())

    def _circuit(self, question: Question) -> Circuit:
        circuit = self._circuits.get(question.client_id)
        if circuit is None:
            circuit = self._circuits[question.client_id] = Circuit()
            if len(self._circuits) > MOST_CLIENTS:
                del self._circuits[next(iter(self._circuits))]
        return circuit

    def _log_change(self, question: Question, before: CircuitState) -> None:
        circuit = self._circuit(question)
        if circuit.state is before:
            return
        opened = circuit.state is CircuitState.OPEN
        self.opened += opened
        (_log.warning if opened else _log.info)(
            f"circuit {circuit.state.value}",
            tenant=self.tenant_id,
            authority=self._authority,
            client_id=question.client_id,
            failures=circuit.failures,
            pause=circuit.pause if opened else None,
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
        """Return, for each tenant that was asked, whether a circuit is open and how often one has opened."""
        found: dict[str, tuple[bool, int]] = {}
        # A tenant may have been asked at two addresses, one after the other.
        for endpoint in self._known.values():
            is_open, opened = found.get(endpoint.tenant_id, (False, 0))
            found[endpoint.tenant_id] = is_open or endpoint.has_open(), opened + endpoint.opened
        return found
