"""Sections `entra`, `cache`, `limits` and `log`: the numbers, each with its unit and bounds."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, ValidationInfo, model_validator

from authz.config.sections.section import Section, environ_of
from authz.config.sections.values import (
    Authority,
    File,
    PlainHost,
    Proxy,
    Switch,
    count,
    duration,
    size,
)

AUTHORITY_HOST: Final = "AZURE_AUTHORITY_HOST"


class Keys(Section):
    """When signing keys are fetched (Entra page "signing-key-rollover")."""

    refresh_interval: Annotated[float, duration(least=60)] = Field(
        default=3600.0, description="Time between background refreshes."
    )
    retry_interval: Annotated[float, duration(least=1, most=3600)] = Field(
        default=10.0, description="Time between attempts after a failed one."
    )
    unknown_key_interval: Annotated[float, duration(least=1, most=3600)] = Field(
        default=5.0,
        description="Least time between two fetches that tokens with an unknown key cause, for "
        "all of them together. A new key is met after this time at the latest.",
    )


class Entra(Section):
    """How Microsoft Entra is reached."""

    authority: Authority = Field(
        default="https://login.microsoftonline.com",
        description="Login endpoint of the cloud, without tenant. Microsoft Entra ID only, not External ID or "
        "Azure AD B2C. "
        f"The environment variable `{AUTHORITY_HOST}` changes the default.",
    )
    trusted_hosts: tuple[PlainHost, ...] = Field(
        default=(),
        description="Further hosts that Entra's discovery documents may name for signing keys "
        "(`jwks_uri`) and tokens (`token_endpoint`): `host`, or `host:port`. The authority's own and those "
        "of its cloud are trusted anyhow. A document that names another is not used.",
    )
    ca_file: File | None = Field(
        default=None,
        description="Certificate authorities for calls to Entra, PEM. Default: the system's.",
    )
    proxy: Proxy | None = Field(
        default=None,
        description="HTTP proxy for calls to Entra, where there is no direct way. TLS goes through "
        "it to the end (`CONNECT`). Proxy variables of the environment are not looked at: in the pod "
        "they lead the agent to Envoy.",
    )
    connect_timeout: Annotated[float, duration(least=0.1, most=300)] = Field(
        default=3.0,
        description="Time to connect, to whichever of the addresses, name resolution and TLS included.",
    )
    timeout: Annotated[float, duration(least=0.1, most=300)] = Field(
        default=10.0, description="Time of one HTTP call."
    )
    exchange_timeout: Annotated[float, duration(least=0.1, most=600)] = Field(
        default=15.0,
        description="Time of a whole token exchange, with its legs and retries. No call of it lasts longer.",
    )
    prove_credentials: Switch = Field(
        default=True,
        description="Show each client's credential to Entra at the start and whenever it has changed, by one "
        "exchange whose token is kept. Without it a wrong one is noticed when the next token is needed.",
    )
    keys: Keys = Field(default_factory=Keys, description="When signing keys are fetched.")

    @model_validator(mode="before")
    @classmethod
    def _take_authority_from_environment(cls, data: Any, info: ValidationInfo) -> Any:
        host = environ_of(info).get(AUTHORITY_HOST)
        if host and isinstance(data, dict) and data.get("authority") is None:
            return {**data, "authority": host}
        return data


class TokenCacheSize(Section):
    """Exchanged tokens."""

    max_entries: Annotated[int, count()] = Field(default=10_000, description="Most tokens held.")
    max_bytes: Annotated[int, size(least=65536)] = Field(
        default=64 * 1024**2, description="Most memory they take, estimated."
    )
    margin: Annotated[float, duration(most=1800)] = Field(
        default=60.0,
        description="Time before a token's own expiry at which it is no longer handed out.",
    )


class PrincipalCacheSize(Section):
    """Verified tokens of callers."""

    max_entries: Annotated[int, count()] = Field(
        default=10_000, description="Most verifications remembered."
    )
    max_bytes: Annotated[int, size(least=65536)] = Field(
        default=32 * 1024**2, description="Most memory they take, estimated."
    )


class FailureCacheSize(Section):
    """Recent failures of exchanges."""

    max_entries: Annotated[int, count()] = Field(
        default=10_000, description="Most failures remembered."
    )


class AnswerCacheSize(Section):
    """Whole answers to checks, for as long as all they rest on holds."""

    max_entries: Annotated[int, count()] = Field(default=10_000, description="Most answers held.")
    max_bytes: Annotated[int, size(least=65536)] = Field(
        default=64 * 1024**2, description="Most memory they take, estimated."
    )


class EdgeCache(Section):
    """What Envoy itself may repeat, without asking (`authz envoy` renders the filter)."""

    max_ttl: Annotated[float, duration(most=3600)] = Field(
        default=30.0,
        description="Longest time for which Envoy repeats an allowance, and so the longest time for "
        "which a revocation, a withdrawn signing key or a new configuration may go unnoticed there. "
        "Never longer than a token lives. `0` switches it off: every request is a check.",
    )


class Cache(Section):
    """What is kept in memory. Defaults suit a sidecar; a shared deployment wants more."""

    tokens: TokenCacheSize = Field(default_factory=TokenCacheSize, description="Exchanged tokens.")
    principals: PrincipalCacheSize = Field(
        default_factory=PrincipalCacheSize, description="Verified tokens of callers."
    )
    failures: FailureCacheSize = Field(
        default_factory=FailureCacheSize, description="Recent failures of exchanges."
    )
    answers: AnswerCacheSize = Field(
        default_factory=AnswerCacheSize, description="Whole answers to checks."
    )
    edge: EdgeCache = Field(default_factory=EdgeCache, description="What Envoy itself may repeat.")


class Limits(Section):
    """Bounds on what one request, and all of them together, may take."""

    max_token_bytes: Annotated[int, size(least=1024, most=1024**2)] = Field(
        default=48 * 1024,
        description="Longest bearer token accepted, checked before parsing. Envoy takes 60 KiB of headers.",
    )
    exchanges: Annotated[int, count(most=1024)] = Field(
        default=16,
        description="Calls to Entra at a time. Each client (blueprint or application) has a share of its own: half of "
        "them is divided among the clients, at least two for each. The rest is shared, and one client gets at most "
        "half of what is left of it.",
    )
    max_flights: Annotated[int, count(most=10**6)] = Field(
        default=1000,
        description="Exchanges under way or waiting for their turn. They are divided as `exchanges` are, with at "
        "least 16 for each client; what a client asks for beyond its share is answered 503.",
    )
    prefetches: Annotated[int, count(most=1024)] = Field(
        default=8,
        description="Prefetches under way, divided as `exchanges` are. Fewer than `exchanges` leaves room for "
        "requests.",
    )
    mcp_sessions: Annotated[int, count(least=100, most=10**6)] = Field(
        default=10_000,
        description="Sessions of MCP servers whose callers are remembered (`mcp.bind_sessions`). The one that was used "
        "longest ago is forgotten first. One caller has at most a tenth of them. Each takes less than 1 kB.",
    )
    check_timeout: Annotated[float, duration(least=0.1, most=300)] = Field(
        default=10.0, description="Deadline of a check for which Envoy gives none."
    )
    deadline_margin: Annotated[float, duration(most=10)] = Field(
        default=0.05,
        description="Time before the deadline at which the answer is 503 with `Retry-After`.",
    )


class LogLevel(StrEnum):
    """From the most talkative on."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Decisions(StrEnum):
    """Which decisions are logged.

    `MADE` leaves out an allowance that is given again to the same caller on the same route. Envoy's edge
    cache and pushed tokens answer requests that never come here, so Envoy's access log is where each
    request has its line; `ALL` tells of each that does come here.
    """

    ALL = "all"
    MADE = "made"
    DENIED = "denied"
    NONE = "none"


class LogFormat(StrEnum):
    """For machines, or for people."""

    JSON = "json"
    CONSOLE = "console"


class Log(Section):
    """What is logged. Never a token, never a secret."""

    level: LogLevel = Field(default=LogLevel.INFO, description="Least level logged.")
    decisions: Decisions = Field(
        default=Decisions.MADE,
        description="Which decisions get a record. `made`: denials, and allowances when they are made, not "
        "when they are given again.",
    )
    format: LogFormat = Field(
        default=LogFormat.JSON, description="`json`: a line per record. `console`: for people."
    )
