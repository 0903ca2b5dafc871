"""Every way a Check can end other than by an answer of "allow", and who must act on it.

`Reason` is the closed list: it is the metric label, the log field, the `reason` of the problem body
and the heading in docs/errors.md. Each concrete error fixes one. `str(error)` is for our own log and
never leaves the process. HTTP and gRPC status codes are wire language and live in `authz.doors`.
"""

from enum import StrEnum
from typing import ClassVar, Self


class Reason(StrEnum):
    """Why a request was not allowed. Extended over time, never renamed."""

    MALFORMED_REQUEST = "malformed_request"
    MISSING_TOKEN = "missing_token"
    INVALID_TOKEN = "invalid_token"
    TOKEN_TOO_LARGE = "token_too_large"
    INTERACTION_REQUIRED = "interaction_required"
    STEP_UP_REQUIRED = "step_up_required"
    CONSENT_REQUIRED = "consent_required"
    EXCHANGE_REJECTED = "exchange_rejected"
    AMBIGUOUS_SUBJECT = "ambiguous_subject"
    UNKNOWN_SUBJECT = "unknown_subject"
    FOREIGN_SUBJECT = "foreign_subject"
    UNKNOWN_ROUTE = "unknown_route"
    TUNNEL_REFUSED = "tunnel_refused"
    RULE_DENIED = "rule_denied"
    AMBIGUOUS_REQUEST = "ambiguous_request"
    FOREIGN_SESSION = "foreign_session"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    ACTOR_NOT_ALLOWED = "actor_not_allowed"
    SUBJECT_NOT_ALLOWED = "subject_not_allowed"
    WORKLOAD_NOT_ALLOWED = "workload_not_allowed"
    AGENT_NOT_ALLOWED = "agent_not_allowed"
    OVERRIDE_NOT_ALLOWED = "override_not_allowed"
    CALLER_NOT_ALLOWED = "caller_not_allowed"
    BAD_PARAMETER = "bad_parameter"
    UNKNOWN_API = "unknown_api"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TOO_LARGE = "request_too_large"
    DOWNSTREAM_BUSY = "downstream_busy"
    DOWNSTREAM_UNAVAILABLE = "downstream_unavailable"
    APP_UNAVAILABLE = "app_unavailable"
    AUTHZ_UNAVAILABLE = "authz_unavailable"
    KEYS_UNAVAILABLE = "keys_unavailable"
    EXCHANGE_UNAVAILABLE = "exchange_unavailable"
    EXCHANGE_THROTTLED = "exchange_throttled"
    EXCHANGE_MISCONFIGURED = "exchange_misconfigured"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL = "internal"


class TokenFault(StrEnum):
    """What exactly is wrong with a token: for our log. The caller learns `invalid_token` only."""

    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    SIGNATURE = "signature"
    UNKNOWN_KEY = "unknown_key"
    ISSUER = "issuer"
    TENANT = "tenant"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    MISSING_CLAIM = "missing_claim"


class AuthzError(Exception):
    """A denial on its way to the caller. Never raised itself; each subclass fixes one `Reason`.

    Args:
        detail: What happened, for the log. Never holds a token or a secret.
        retry_after: Seconds after which trying again can help, if it can.
    """

    reason: ClassVar[Reason]

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail or self.reason.value)
        self.detail = detail
        self.retry_after = retry_after

    def bare(self) -> Self:
        """Forget where and why this was raised, and return it.

        Frames and causes hold requests, tokens and secrets; an error that is kept must not.
        """
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def retrying_in(self, seconds: float) -> Self:
        """Return the same denial with another `retry_after`, for a caller who comes later."""
        same = type(self).__new__(type(self))
        same.args = self.args
        vars(same).update(vars(self))
        same.retry_after = seconds
        return same


class BadRequest(AuthzError):
    """The caller's software must change."""


class Unauthenticated(AuthzError):
    """The caller must log in, or log in again."""


class Forbidden(AuthzError):
    """An administrator must grant or configure something."""


class Unfulfilled(AuthzError):
    """We could not, or Entra could not. The caller did nothing wrong."""


class MalformedRequest(BadRequest):
    """The request has no HTTP part, or its `Authorization` is not one bearer value (RFC 6750)."""

    reason = Reason.MALFORMED_REQUEST


class BadOverride(BadRequest):
    """A caller of the HTTP API asks for what cannot be. It may read the detail, which is about that only."""

    reason = Reason.BAD_PARAMETER


class UnknownApi(BadRequest):
    """A caller of the HTTP API names an API that is not configured."""

    reason = Reason.UNKNOWN_API


class RequestTooLarge(BadRequest):
    """A caller of the HTTP API sends more than is taken."""

    reason = Reason.REQUEST_TOO_LARGE


class MissingToken(Unauthenticated):
    """The route needs a bearer token and the request carries none.

    Args:
        detail: What happened, for the log.
        retry_after: Seconds after which trying again can help, if it can.
        taken_nowhere: Whether it was asked for at an endpoint of the HTTP API that takes no user's token.
    """

    reason = Reason.MISSING_TOKEN

    def __init__(
        self, detail: str = "", *, retry_after: float | None = None, taken_nowhere: bool = False
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.taken_nowhere = taken_nowhere


class InvalidToken(Unauthenticated):
    """The bearer token does not verify (RFC 6750 section 3.1, `invalid_token`)."""

    reason = Reason.INVALID_TOKEN

    def __init__(self, fault: TokenFault, detail: str = "") -> None:
        super().__init__(f"{fault.value}: {detail}" if detail else fault.value)
        self.fault = fault


class TokenTooLarge(BadRequest):
    """The bearer token is longer than `limits.max_token_bytes`. A new one would be as long."""

    reason = Reason.TOKEN_TOO_LARGE


class AmbiguousSubject(BadRequest):
    """The request refers to a user twice, or in a form in which no reference is given out."""

    reason = Reason.AMBIGUOUS_SUBJECT


class StepUpRequired(Unauthenticated):
    """The user's sign-in did not satisfy the authentication context that the route demands.

    Args:
        claims: The JSON text of the claims challenge by which a client asks Entra for it.
        detail: What happened, for the log.
    """

    reason = Reason.STEP_UP_REQUIRED

    def __init__(self, claims: str, detail: str = "") -> None:
        super().__init__(detail)
        self.claims = claims


class UnknownSubject(Unauthenticated):
    """The reference was never given out, has ended, or was evicted."""

    reason = Reason.UNKNOWN_SUBJECT


class ForeignSubject(Forbidden):
    """The reference was given to another peer, for another agent, or on another inbound route."""

    reason = Reason.FOREIGN_SUBJECT


class EntraError(AuthzError):
    """Entra refused an exchange.

    Args:
        detail: What happened, for the log.
        code: The AADSTS number, when Entra gave one.
        claims: The JSON text of Entra's claims challenge, to be passed on to the caller.
        by_credential: Whether it is the credential that was refused, whatever else was asked.
    """

    def __init__(
        self,
        detail: str = "",
        *,
        code: int | None = None,
        claims: str | None = None,
        retry_after: float | None = None,
        by_credential: bool = False,
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.code = code
        self.claims = claims
        self.by_credential = by_credential


class InteractionRequired(EntraError, Unauthenticated):
    """The user must do something at Entra first: MFA, a Conditional Access demand, a new sign-in."""

    reason = Reason.INTERACTION_REQUIRED


class ConsentRequired(EntraError, Unauthenticated):
    """Nobody has consented to what the agent asks for on this user's behalf (AADSTS65001)."""

    reason = Reason.CONSENT_REQUIRED


class ExchangeRejected(EntraError, Unauthenticated):
    """Entra did not accept the user's token as an assertion."""

    reason = Reason.EXCHANGE_REJECTED


class ExchangeMisconfigured(EntraError, Unfulfilled):
    """Our own configuration is at fault: credential, agent, scope or resource."""

    reason = Reason.EXCHANGE_MISCONFIGURED


class ExchangeUnavailable(EntraError, Unfulfilled):
    """Entra could not be reached, or answered with a fault of its own."""

    reason = Reason.EXCHANGE_UNAVAILABLE


class ExchangeThrottled(EntraError, Unfulfilled):
    """Entra asked us to slow down (HTTP 429 or AADSTS90055)."""

    reason = Reason.EXCHANGE_THROTTLED


class UnknownRoute(Forbidden):
    """No configured route carries this name or host."""

    reason = Reason.UNKNOWN_ROUTE


class TunnelRefused(Forbidden):
    """The app asks for a connection (CONNECT), in which no token can be replaced, and no route allows it."""

    reason = Reason.TUNNEL_REFUSED


class RuleDenied(Forbidden):
    """A rule of the route denies what the request is about to do, or no rule allows it.

    Args:
        detail: What happened, for the log.
        rule: The rule that denies it; None where none is for it.
    """

    reason = Reason.RULE_DENIED

    def __init__(self, detail: str = "", *, rule: str | None = None) -> None:
        super().__init__(detail)
        self.rule = rule


class AmbiguousRequest(BadRequest):
    """A destination may read the method or the path in another way than the route's rules do."""

    reason = Reason.AMBIGUOUS_REQUEST


class ForeignSession(Forbidden):
    """The session of the MCP server belongs to another caller."""

    reason = Reason.FOREIGN_SESSION


class InsufficientScope(Forbidden):
    """The token lacks every scope or role that the route accepts (RFC 6750 section 3.1).

    Args:
        accepted: The scopes or roles of which one is needed.
        ask_for: The same as scopes of a token request, with their resource.
    """

    reason = Reason.INSUFFICIENT_SCOPE

    def __init__(
        self, accepted: tuple[str, ...], ask_for: tuple[str, ...] = (), detail: str = ""
    ) -> None:
        super().__init__(detail)
        self.accepted = accepted
        self.ask_for = ask_for


class ActorNotAllowed(Forbidden):
    """The route names neither the calling application (`azp`, `appid`) nor its blueprint."""

    reason = Reason.ACTOR_NOT_ALLOWED


class SubjectNotAllowed(Forbidden):
    """The route does not serve tokens of this kind of subject."""

    reason = Reason.SUBJECT_NOT_ALLOWED


class WorkloadNotAllowed(Forbidden):
    """The verified peer is not among the workloads that may act as the route's agent."""

    reason = Reason.WORKLOAD_NOT_ALLOWED


class AgentNotAllowed(Forbidden):
    """A caller of the HTTP API names an agent identity, or its user account, that it may not name.

    Args:
        detail: What happened, for the log.
        by_entra: Whether the configuration lets callers name it, and it is Entra that does not know it so.
        of_another: Whether the user account is that of another agent of the configuration.
    """

    reason = Reason.AGENT_NOT_ALLOWED

    def __init__(
        self, detail: str = "", *, by_entra: bool = False, of_another: bool = False
    ) -> None:
        super().__init__(detail)
        self.by_entra = by_entra
        self.of_another = of_another


class OverrideNotAllowed(Forbidden):
    """A caller of the HTTP API would change what is configured, where that is turned off."""

    reason = Reason.OVERRIDE_NOT_ALLOWED


class CallerNotAllowed(Forbidden):
    """Another machine, a web page, or somebody by another name calls the HTTP API."""

    reason = Reason.CALLER_NOT_ALLOWED


class DownstreamBusy(Unfulfilled):
    """As many calls to APIs are under way as may be, or their answers take as much memory."""

    reason = Reason.DOWNSTREAM_BUSY


class DownstreamUnavailable(Unfulfilled):
    """The API could not be reached, took too long, or answered with more than is taken."""

    reason = Reason.DOWNSTREAM_UNAVAILABLE


class KeysUnavailable(Unfulfilled):
    """No signing keys of a trusted issuer could be had yet."""

    reason = Reason.KEYS_UNAVAILABLE


class DeadlineExceeded(Unfulfilled):
    """The Check's own deadline came first. The exchange continues; a repeat may find its result."""

    reason = Reason.DEADLINE_EXCEEDED
