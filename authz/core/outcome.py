"""`Granted`, `Denied`, `Replied`: how a Check ended; what an allowance rests on, what a denial came from.

What becomes of the request is in `authz.core.decision`. What was merely observed on the way, such as
durations, is in `authz.core.record`.
"""

from dataclasses import dataclass

from authz.core.decision import Allow, Deny, Reply
from authz.core.errors import AuthzError, Reason
from authz.core.exchange import IssuedToken, TokenExchange
from authz.core.lifetime import Lifetime
from authz.core.principal import Principal
from authz.core.route import Route
from authz.core.secret import Secret


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Granted:
    """An allowance. It is compared by identity: what was prepared for one belongs to no other.

    Attributes:
        route: The route it was given on.
        decision: What becomes of the request.
        lifetime: How long it holds.
        principal: To whom it was given; None where the flow needs no caller.
        token: What was issued for it; None where nothing was.
        reference: What the app receives in place of its caller's token; None where it receives none.
    """

    route: Route
    decision: Allow
    lifetime: Lifetime
    principal: Principal | None = None
    token: IssuedToken | None = None
    reference: Secret | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Issued(Granted):
    """An allowance of the HTTP API, which can take its token back.

    Attributes:
        exchange: What the token was issued for.
    """

    exchange: TokenExchange | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """A denial.

    Attributes:
        decision: What the caller learns.
        error: What it came from, with detail for the log; None for a defect.
        fault: An unexpected exception: a defect of ours.
    """

    decision: Deny
    error: AuthzError | None = None
    fault: Exception | None = None

    @classmethod
    def because(cls, cause: Exception) -> "Denied":
        """Return the denial that an exception stands for; an unexpected one is a denial too (law 3)."""
        if isinstance(cause, AuthzError):
            # Others may be raising the same error at this moment, from the failure cache.
            return cls(Deny.because(cause), error=cause.bare())
        return cls(Deny(Reason.INTERNAL), fault=cause)


@dataclass(frozen=True, slots=True)
class Replied:
    """An answer in place of the app's. It holds for this request alone and is not remembered.

    Attributes:
        route: The route of the request.
        decision: The answer.
    """

    route: Route
    decision: Reply


Outcome = Granted | Denied | Replied
