"""The token exchanges there are, each with exactly its fields, and the cache key of each.

`TokenExchange` is our umbrella name. Entra's flows are assertion grants (RFC 7521, RFC 7523), not RFC
8693 token exchange; how they go over the wire is `authz.entra`.
"""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar, Final, assert_never

from authz.core.errors import AuthzError, EntraError, InvalidToken, Reason, TokenFault
from authz.core.moment import Moment
from authz.core.secret import Secret


class Flow(StrEnum):
    """The flows by their configuration names, and the two assertions inside them."""

    ON_BEHALF_OF = "on_behalf_of"
    AUTONOMOUS = "autonomous"
    AGENT_USER = "agent_user"
    BLUEPRINT = "blueprint"
    APP_ON_BEHALF_OF = "app_on_behalf_of"
    APP = "app"
    NONE = "none"
    BLUEPRINT_ASSERTION = "blueprint_assertion"
    AGENT_ASSERTION = "agent_assertion"

    @property
    def is_delegated(self) -> bool:
        """Whether the flow acts for the calling user and so needs that user's token."""
        return self in (Flow.ON_BEHALF_OF, Flow.APP_ON_BEHALF_OF)

    @property
    def is_app_only(self) -> bool:
        """Whether the token has no user in it."""
        return self in (Flow.AUTONOMOUS, Flow.BLUEPRINT, Flow.APP)

    @property
    def is_foreseeable(self) -> bool:
        """Whether nothing of a request changes the token, so that it can be had before there is one."""
        return self in (Flow.AUTONOMOUS, Flow.AGENT_USER, Flow.BLUEPRINT, Flow.APP)


@dataclass(frozen=True, slots=True)
class Client:
    """An application registration that holds credentials: a blueprint, or an ordinary app.

    Attributes:
        name: Its name in the configuration.
        tenant_id: Where it gets its tokens.
        client_id: Application id.
    """

    name: str
    tenant_id: str
    client_id: str


@dataclass(frozen=True, slots=True)
class AgentUser:
    """An agent's own user account: by user principal name or by object id, one of the two.

    Attributes:
        username, object_id: Either.
        by_request: Whether a request names it, and no configuration does.
    """

    username: str | None = None
    object_id: str | None = None
    by_request: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if bool(self.username) == bool(self.object_id):
            raise ValueError("an agent user is named by username or by object_id, one of the two")


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """A service principal without credentials; its blueprint vouches for it.

    Attributes:
        name: Its name in the configuration.
        client_id: Its application id, which is also its object id.
        blueprint: The application whose credential it uses.
        user: Its user account, if it has one.
        by_request: Whether a request names it, and no configuration does.
    """

    name: str
    client_id: str
    blueprint: Client
    user: AgentUser | None = None
    by_request: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Target:
    """What the token is for.

    Attributes:
        scopes: Scopes of one resource, sorted.
        claims: JSON text of the OpenID Connect `claims` parameter, or None.
        policy_version: Version of what else in the configuration decides which token Entra issues; a
            change of it ends old entries.
        by_request: Whether it is a request that asks for these scopes, or for this kind of token, and not the
            configuration.
    """

    scopes: tuple[str, ...]
    claims: str | None = None
    policy_version: str = ""
    by_request: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", tuple(sorted(set(self.scopes))))


def declares_capability(claims: str) -> bool:
    """Whether a `claims` parameter declares client capabilities (`xms_cc`), such as `cp1`.

    A client that declares `cp1` gets tokens that live up to 28 hours, and promises to fetch another one when
    an API refuses a token that was revoked (Entra page "app-resilience-continuous-access-evaluation").
    """
    requested = json.loads(claims)
    return any(
        isinstance(part, dict) and "xms_cc" in part for part in (requested, *requested.values())
    )


@dataclass(frozen=True, slots=True)
class SubjectToken:
    """The verified user's own token, as the assertion of an on-behalf-of exchange.

    Attributes:
        secret: The token.
        expires_at: Its `exp`: nothing issued for it is used any longer than that.
    """

    secret: Secret
    expires_at: float


@dataclass(frozen=True, slots=True)
class BlueprintAssertion:
    """T1: the blueprint's token that names one agent identity and serves as its credential."""

    flow: ClassVar[Flow] = Flow.BLUEPRINT_ASSERTION
    agent: AgentIdentity
    target: Target


@dataclass(frozen=True, slots=True)
class AgentAssertion:
    """T2: the agent identity's own token-exchange token, by which it acts as its user account."""

    flow: ClassVar[Flow] = Flow.AGENT_ASSERTION
    agent: AgentIdentity
    target: Target


@dataclass(frozen=True, slots=True)
class OnBehalfOf:
    """The agent identity acts for the calling user."""

    flow: ClassVar[Flow] = Flow.ON_BEHALF_OF
    agent: AgentIdentity
    target: Target
    subject: SubjectToken


@dataclass(frozen=True, slots=True)
class Autonomous:
    """The agent identity acts for itself, app-only."""

    flow: ClassVar[Flow] = Flow.AUTONOMOUS
    agent: AgentIdentity
    target: Target


@dataclass(frozen=True, slots=True)
class AsAgentUser:
    """The agent acts as its own user account (`user_fic`)."""

    flow: ClassVar[Flow] = Flow.AGENT_USER
    agent: AgentIdentity
    target: Target


@dataclass(frozen=True, slots=True)
class BlueprintToken:
    """The blueprint's own app token, for provisioning in Microsoft Graph only."""

    flow: ClassVar[Flow] = Flow.BLUEPRINT
    client: Client
    target: Target


@dataclass(frozen=True, slots=True)
class AppOnBehalfOf:
    """An ordinary application acts for the calling user."""

    flow: ClassVar[Flow] = Flow.APP_ON_BEHALF_OF
    client: Client
    target: Target
    subject: SubjectToken


@dataclass(frozen=True, slots=True)
class AppToken:
    """An ordinary application acts for itself."""

    flow: ClassVar[Flow] = Flow.APP
    client: Client
    target: Target


TokenExchange = (
    BlueprintAssertion
    | AgentAssertion
    | OnBehalfOf
    | Autonomous
    | AsAgentUser
    | BlueprintToken
    | AppOnBehalfOf
    | AppToken
)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """What Entra issued.

    Attributes:
        secret: The access token.
        expires_at: Its end: its own `exp` on the wall clock, and the lifetime that Entra gave it, counted
            from before it was asked for.
        refresh_at: When a successor is worth fetching.
    """

    secret: Secret
    expires_at: Moment
    refresh_at: Moment


CacheKey = bytes
"""Digest over everything that changes the answer; holds no token."""


def subject_of(exchange: TokenExchange) -> SubjectToken | None:
    """Return the user's token that the exchange rests on, if it rests on one."""
    match exchange:
        case OnBehalfOf() | AppOnBehalfOf():
            return exchange.subject
        case (
            BlueprintAssertion()
            | AgentAssertion()
            | Autonomous()
            | AsAgentUser()
            | BlueprintToken()
            | AppToken()
        ):
            return None
        case _ as unreachable:
            assert_never(unreachable)


def client_of(exchange: TokenExchange) -> Client:
    """Return the application whose credential the exchange uses: of an agent, its blueprint."""
    asker = asker_of(exchange)
    return asker.blueprint if isinstance(asker, AgentIdentity) else asker


def check_subject_lives(exchange: TokenExchange, now: float) -> None:
    """Check that the user's token which an exchange rests on, if any, has not ended.

    Routes forgive some seconds of clock difference on `exp`. Entra takes no assertion that has ended.

    Raises:
        InvalidToken: It has.
    """
    subject = subject_of(exchange)
    if subject is not None and now >= subject.expires_at:
        raise InvalidToken(TokenFault.EXPIRED, "too late for an exchange")


def blamed(exchange: TokenExchange, error: AuthzError) -> Reason:
    """Return the reason by which a failed exchange is counted.

    What a request names and Entra refuses is the caller's error, and no operator's (`agent_not_allowed`,
    `bad_parameter`).
    """
    ours = error.reason is not Reason.EXCHANGE_MISCONFIGURED
    if ours or (isinstance(error, EntraError) and error.by_credential):
        return error.reason
    if _is_named_by_request(asker_of(exchange)):
        return Reason.AGENT_NOT_ALLOWED
    return Reason.BAD_PARAMETER if exchange.target.by_request else error.reason


def cache_key(exchange: TokenExchange) -> CacheKey:
    """Return the key under which the exchange's result may be repeated.

    It covers flow, tenant, client, agent, agent user, scopes, claims, policy version and the hash of
    the subject token: two exchanges share a key only if Entra would be asked the very same thing.
    """
    asker, target = asker_of(exchange), exchange.target
    # What a request says may be long, and another each time.
    is_said = target.by_request or target.claims is not None or _is_named_by_request(asker)
    part_of = _shared_part if is_said else _known_part
    shared = part_of(exchange.flow, asker, target)
    subject = subject_of(exchange)
    return shared if subject is None else shared + subject.secret.digest()


def _is_named_by_request(asker: AgentIdentity | Client) -> bool:
    """Whether a request names the agent, or its user account, and no configuration does."""
    if isinstance(asker, Client):
        return False
    return asker.by_request or (asker.user is not None and asker.user.by_request)


def asker_of(exchange: TokenExchange) -> AgentIdentity | Client:
    """Return as whom Entra is asked: an agent identity, or an application."""
    match exchange:
        case BlueprintToken() | AppOnBehalfOf() | AppToken():
            return exchange.client
        case BlueprintAssertion() | AgentAssertion() | OnBehalfOf() | Autonomous() | AsAgentUser():
            return exchange.agent
        case _ as unreachable:
            assert_never(unreachable)


def _shared_part(flow: Flow, asker: AgentIdentity | Client, target: Target) -> bytes:
    agent = asker if isinstance(asker, AgentIdentity) else None
    client = asker.blueprint if isinstance(asker, AgentIdentity) else asker
    user = agent.user if agent else None
    parts = [
        flow.value,
        client.tenant_id,
        client.client_id,
        agent.client_id if agent else None,
        [user.username, user.object_id] if user else None,
        list(target.scopes),
        target.claims,
        target.policy_version,
    ]
    return sha256(json.dumps(parts).encode()).digest()


# Routes are few and their parts never change, so all but the user's hash is computed once.
_known_part: Final = lru_cache(maxsize=4096)(_shared_part)
