"""What the service needs from the outside world, as Protocols.

No implementation lives here. `authz.checks`, `authz.tokens`, `authz.entra`, `authz.observe` and the tests'
fakes provide them. Beside them are the few values that they speak of, and the types of the two clocks.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from authz.core.budget import Budget
from authz.core.event import Event
from authz.core.exchange import IssuedToken, TokenExchange
from authz.core.keys import SigningKey
from authz.core.moment import Moment
from authz.core.outcome import Granted
from authz.core.record import CheckRecord
from authz.core.request import CheckRequest
from authz.core.secret import Secret
from authz.core.subject import Origin, Reference, Subject

Clock = Callable[[], float]
"""Epoch seconds, as `time.time`: what tokens go by. Somebody may set it at any time."""

Timer = Callable[[], float]
"""Monotonic seconds, as `asyncio`'s loop time: for deadlines, durations and whatever else we count."""


class Decide(Protocol):
    """Decides by one version of the configuration."""

    def __call__(self, request: CheckRequest, *, deadline: float) -> Awaitable[CheckRecord]:
        """Decide before `deadline` (monotonic seconds) on what no answer stands for. Never raises."""


class Checks(Protocol):
    """Decisions on requests: what the ext_authz door calls."""

    gives_handles: bool
    """Whether apps receive references in `baggage`, so that nothing else may carry baggage."""
    has_rules: bool
    """Whether some route has rules, so that headers by which servers read another request count."""

    def repeat(self, request: CheckRequest) -> CheckRecord | None:
        """Give the answer again that such a request had, if it still holds. Never raises, never waits."""

    def decider(self) -> Decide:
        """Return what decides by the configuration in use now, by which a request has just been read."""


class KeySource(Protocol):
    """Signing keys of trusted issuers."""

    def current(self, issuer: str, key_id: str) -> SigningKey | None:
        """Return a key that is trusted now, without waiting."""

    async def find(self, issuer: str, key_id: str, *, deadline: float) -> SigningKey:
        """Return the key, fetching once if it is unknown and fetching is due.

        Raises:
            InvalidToken: The issuer has no such key.
            KeysUnavailable: No keys of this issuer could be had yet.
            DeadlineExceeded: The answer did not come before `deadline`.
        """


class Exchange(Protocol):
    """One way to have a token issued."""

    async def __call__(self, exchange: TokenExchange, budget: Budget) -> IssuedToken:
        """Ask Entra.

        Raises:
            AuthzError: Entra refused, or could not be reached.
        """


class Standing(StrEnum):
    """How a credential, or a client by its credentials, stands with Entra."""

    UNREAD = "unread"
    """There is nothing to show: its file is missing, say."""
    UNPROVED = "unproved"
    """Its newest version was not shown to Entra yet, or without an answer."""
    ACCEPTED = "accepted"
    REFUSED = "refused"


class SubjectStore(Protocol):
    """References to verified users' tokens. One that several processes share would wait, hence `async`."""

    async def give(
        self, token: Secret, origin: Origin, *, expires_at: float, now: Moment
    ) -> Reference:
        """Return a reference to a token that ends at `expires_at` (epoch seconds)."""

    async def find(self, reference: Secret, now: Moment) -> Subject:
        """Return what a reference stands for.

        Raises:
            UnknownSubject: It was never given out, has ended, or was evicted.
        """

    def holds(self, reference: Secret, now: Moment) -> bool:
        """Whether a reference that was given out may be given out again, as far as is known here."""

    @property
    def epoch(self) -> str:
        """Names this memory of references; another one has another."""


class Observer(Protocol):
    """Counts or logs what happens. Must not raise and must not wait."""

    def observe(self, event: Event) -> None:
        """Take note of one event, or pass over it."""


class RepeatObserver(Observer, Protocol):
    """An observer that is notified of each answer that is given again. It must be quick."""

    def repeated(self, granted: Granted, record: CheckRecord) -> None:
        """Take note of one Check that an answer of before has answered."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who holds the other end of a connection.

    Attributes:
        spiffe_id: What its certificate proves; None for a Unix socket, which is the proof itself.
    """

    spiffe_id: str | None = None
