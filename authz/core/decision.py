"""The answer to a Check: `Allow` with what to change, `Deny` with a reason, or a whole `Reply`.

How a denial looks, with its HTTP and gRPC status, is wire language and lives in `authz.doors`.
"""

from dataclasses import dataclass
from typing import ClassVar

from authz.core.errors import AuthzError, EntraError, InsufficientScope, Reason, StepUpRequired
from authz.core.secret import Secret


@dataclass(frozen=True, slots=True)
class Allow:
    """Let the request pass, with these changes.

    Attributes:
        authorization: The token that replaces `Authorization`; None leaves or removes it.
        baggage: What replaces `baggage`; None leaves or removes it.
        headers: Further headers to set, overwriting.
        remove: Names of headers to remove. Never holds one that is set: in Envoy removal wins.
        label: What kind of decision it is, in metrics, log and metadata; each kind has one.
    """

    label: ClassVar[str] = "allow"

    authorization: Secret | None = None
    baggage: Secret | None = None
    headers: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.authorization is not None and "authorization" in self.remove:
            raise ValueError("authorization is set and removed at once: Envoy would remove it")
        if self.baggage is not None and "baggage" in self.remove:
            raise ValueError("baggage is set and removed at once: Envoy would remove it")


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse the request.

    Attributes:
        reason: Which outcome.
        retry_after: Seconds after which to try again, where waiting helps.
        accepted: Scopes or roles of which one would have been enough.
        claims: The claims challenge (JSON text), Entra's or the route's, for the caller.
        ask_for: Scopes by which a client asks Entra for a token that is enough: with their resource.
        metadata_url: Where a client learns who issues such a token (RFC 9728 section 5.1).
    """

    label: ClassVar[str] = "deny"

    reason: Reason
    retry_after: float | None = None
    accepted: tuple[str, ...] = ()
    claims: str | None = None
    ask_for: tuple[str, ...] = ()
    metadata_url: str | None = None

    @classmethod
    def because(cls, error: AuthzError) -> "Deny":
        """Return the denial that an error stands for, without its detail, which is for the log."""
        return cls(
            reason=error.reason,
            retry_after=error.retry_after,
            accepted=error.accepted if isinstance(error, InsufficientScope) else (),
            ask_for=error.ask_for if isinstance(error, InsufficientScope) else (),
            claims=error.claims if isinstance(error, EntraError | StepUpRequired) else None,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request in place of the app, which does not receive it.

    Attributes:
        status: HTTP status.
        headers: The answer's headers.
        body: The answer's body.
    """

    label: ClassVar[str] = "reply"

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


Decision = Allow | Deny | Reply
