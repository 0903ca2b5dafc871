"""Sections `inbound` and `egress`: what a route demands of the caller and which token follows."""

import json
import re
from typing import Annotated, Any, Final

from pydantic import Field

from authz.config.faults import did_you_mean
from authz.config.sections.api import Downstream
from authz.config.sections.cors import Cors
from authz.config.sections.demands import AuthContext, Requires, Roles, Scopes
from authz.config.sections.forwarding import FORWARD
from authz.config.sections.resource_identifier import ResourceIdentifier
from authz.config.sections.rules import (
    MOST_PATHS,
    MOST_RULES,
    EgressRule,
    InboundMcp,
    InboundRule,
    Mcp,
    PathTemplate,
)
from authz.config.sections.section import Section
from authz.config.sections.values import (
    Audience,
    Expected,
    Guid,
    Host,
    Name,
    Scalar,
    Scope,
    SpiffeId,
    Switch,
    duration,
    text,
)
from authz.core.exchange import Flow, declares_capability
from authz.core.header_name import canonical, spelling_count, spellings
from authz.core.principal import APPLICATIONS, USERS, SubjectType
from authz.core.requirement import Clauses
from authz.core.route import Forward
from authz.core.subject import SubjectSource

FLOWS: Final = tuple(
    flow for flow in Flow if flow not in (Flow.BLUEPRINT_ASSERTION, Flow.AGENT_ASSERTION)
)


class Inbound(Section):
    """User to agent: verify the token, authorize the caller, tell the app who it is."""

    agent: Name | None = Field(
        default=None,
        description="Agent that is called: audiences and tenant default to its blueprint's.",
    )
    blueprint: Name | None = Field(
        default=None, description="Blueprint that is called, instead of `agent`."
    )
    application: Name | None = Field(
        default=None, description="Ordinary application that is called, instead of `agent`."
    )
    audiences: tuple[Audience, ...] | None = Field(
        default=None,
        min_length=1,
        description="Accepted `aud` values.",
        json_schema_extra={"x-default": "those of the client called"},
    )
    tenants: tuple[Guid, ...] | None = Field(
        default=None,
        min_length=1,
        description="Tenants whose tokens are accepted. There is no wildcard.",
        json_schema_extra={"x-default": "that of the client called"},
    )
    scopes: Scopes = Field(
        default=(),
        description="Delegated permissions that a user's token needs: one of a list; of a mapping one of "
        "`any` and each of `all`. Empty: no demand. A `${NAME}` may give several, separated by blanks.",
    )
    roles: Roles = Field(
        default=(),
        description="App roles that an application's token needs, written as `scopes` are. Where no "
        "application is served, a user's token needs them.",
    )
    user_roles: Roles = Field(
        default=(),
        description="App roles that a user's token needs, written as `scopes` are, where applications "
        "are served as well. Roles are assigned to users and groups in the enterprise application.",
    )
    actors: tuple[Guid, ...] = Field(
        default=(),
        description="Client ids of applications and agents that may call. Without `actors` and "
        "`actor_blueprints`: every one.",
    )
    actor_blueprints: tuple[Guid, ...] = Field(
        default=(),
        description="Client ids of blueprints whose agents may call, beside `actors`: all agents of the "
        "blueprint, also those created later. Needs the optional claim `xms_par_app_azp` in the tokens "
        "of the API that is called.",
    )
    auth_context: AuthContext | None = Field(
        default=None,
        description="Authentication context of Conditional Access that a user's sign-in must satisfy. "
        "A token without it in the claim `acrs` is refused as `step_up_required`, with the claims "
        "challenge by which the client asks Entra for it.",
    )
    subjects: tuple[SubjectType, ...] | None = Field(
        default=None,
        min_length=1,
        description="Whose tokens are served: `user` (a person), `agent_user` (an agent's user account), "
        "`application` (an ordinary application), `agent_identity`. Agents are known by the optional claim "
        "`xms_sub_fct`: in tokens without it an agent's user account counts as `user`, and an agent "
        "identity as `application`. Applications and agent identities need `roles` or `actors`, because "
        "any of them gets a token without roles; for `agent_identity` without `application`, "
        "`actor_blueprints` are enough.",
        json_schema_extra={
            "x-default": "`[user, agent_user]`; with `roles` `[application, agent_identity]`; "
            "with `roles` and demands on users (`scopes`, `user_roles`, `auth_context`) all four"
        },
    )
    forward: Annotated[tuple[Forward, ...], FORWARD] = Field(
        default=(Forward.BEARER,),
        description="What the app receives for the user's token: in `Authorization` the token itself "
        "(`bearer`), nothing (`strip`) or a reference (`placeholder`); in `baggage` a reference "
        "(`handle`), which alone leaves `Authorization` empty. A reference is useless anywhere else.",
    )
    resource: ResourceIdentifier | None = Field(
        default=None,
        description="URL by which clients call the agent, such as `https://agent.example.com/mcp`. With it a client "
        "that knows only this URL learns where to sign in: authz answers `/.well-known/oauth-protected-resource` "
        "(RFC 9728) without a token, and refusals name it. See [discovery.md](discovery.md).",
    )
    prefetch: tuple[Name, ...] = Field(
        default=(),
        description="Egress routes that the agent will probably use for this caller: their exchanges "
        "are begun in the background as soon as the caller's token is verified, so that the agent's "
        "first call does not wait for Entra. At most `limits.prefetches` at a time; more are skipped.",
    )
    mcp: InboundMcp | None = Field(
        default=None,
        description="The agent as MCP server, so that rules can name tools.",
    )
    rules: tuple[InboundRule, ...] = Field(
        default=(),
        max_length=MOST_RULES,
        description="Which requests come in, by method and path, in order: docs/rules.md. Empty: every one that "
        "the route's demands let in.",
    )
    public_paths: tuple[PathTemplate, ...] = Field(
        default=(),
        max_length=MOST_PATHS,
        description="Paths at which GET, HEAD and OPTIONS need no token, such as `/.well-known/agent-card.json`, "
        "written as in rules: docs/rules.md. The agent learns nothing of who asks there.",
    )
    cors: Cors | None = Field(
        default=None,
        description="Web pages of other origins that may call the agent (Fetch standard). Envoy answers their "
        "preflights, which have no token: docs/rules.md.",
    )
    leeway: Annotated[float, duration(most=300)] = Field(
        default=60.0, description="Clock difference forgiven on `exp` and `nbf`."
    )

    @property
    def served(self) -> frozenset[SubjectType]:
        """Whose tokens are served, after defaults."""
        if self.subjects is not None:
            return frozenset(self.subjects)
        if not self.roles:
            return USERS
        return frozenset(SubjectType) if self._demands_of_users else APPLICATIONS

    @property
    def serves_users(self) -> bool:
        """Whether some delegated tokens are served."""
        return not self.served.isdisjoint(USERS)

    @property
    def serves_applications(self) -> bool:
        """Whether some app-only tokens are served."""
        return not self.served.isdisjoint(APPLICATIONS)

    @property
    def roles_of_users(self) -> Clauses:
        """App roles that a user's token needs."""
        return self.user_roles if self.serves_applications else self.user_roles or self.roles

    @property
    def _demands_of_users(self) -> bool:
        return bool(self.scopes or self.user_roles or self.auth_context)


def _flow(value: Any) -> Flow:
    if isinstance(value, str) and value in FLOWS:
        return Flow(value)
    hint = did_you_mean(value, map(str, FLOWS), cutoff=0.8) if isinstance(value, str) else ""
    raise Expected(f"expected one of {', '.join(FLOWS)}{hint}")


_FLOW: Final = Scalar(_flow, {"type": "string", "enum": list(FLOWS), "x-kind": "flow"})


def _claims(value: Any) -> str:
    expected = "expected a JSON object, as text or as a mapping"
    try:
        found = json.loads(value) if isinstance(value, str) else value
        if not isinstance(found, dict):
            raise Expected(expected)
        # One spelling for each meaning: the text is part of the cache key.
        text = json.dumps(found, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise Expected(expected) from None
    if declares_capability(text):
        raise Expected(
            "expected no xms_cc: the client capability cp1 promises that a token which an API refuses is "
            "replaced at once, and Envoy cannot ask for that"
        )
    return text


_CLAIMS: Final = Scalar(
    _claims,
    {"anyOf": [{"type": "string"}, {"type": "object"}], "x-kind": "JSON object"},
)


_NOT_REMOVED: Final = re.compile(
    # Set or removed by the service's own rules (law 4): in Envoy removal wins over a token that is set.
    "authorization|baggage|x-authz-.*"
    # What a request is made of, what belongs to the connection, and what is Envoy's own.
    "|host|content-.*|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|proxy-.*"
    "|sec-websocket-.*|x-envoy-.*|x-request-id"
)
MOST_REMOVED: Final = 16
"""Names that `remove_headers` takes."""
MOST_SPELLINGS: Final = 64
"""Spellings that they have together: Envoy's edge cache repeats an answer that removes 96 names at most."""


def _removed(value: str) -> str:
    name = canonical(value)
    if name.startswith("*") or name.endswith("*"):
        raise Expected("expected the whole name of a header: there are no wildcards")
    if name == "authorization":
        raise Expected(
            "expected no authorization, which each answer replaces or removes: leave it out, and where the agent "
            "shall send a credential of its own to this host, name the header that carries it"
        )
    if _NOT_REMOVED.fullmatch(name):
        raise Expected(
            "expected a header that can be removed: not one that the service sets, nor one that a request "
            "is made of"
        )
    if spelling_count(name) > MOST_SPELLINGS:
        raise Expected(
            f"expected a name of at most {MOST_SPELLINGS} spellings, each hyphen written as - or _"
        )
    return name


_REMOVED: Final = text(
    r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}",
    kind="header name",
    expected="the name of a header",
    make=_removed,
)


class Egress(Section):
    """Agent to API: the request's `Authorization` is replaced by the token named here."""

    hosts: tuple[Host, ...] = Field(
        default=(),
        description="Hosts that select the route when Envoy sends no `authz.route`: `host`, "
        "`host:port`, `*.suffix`, `*`. The most specific wins. Envoy speaks TLS to them; with `http://` before a "
        "host, plain HTTP (default port 80), in the version that the agent speaks: HTTP/1.1, or HTTP/2 as gRPC "
        "clients do.",
    )
    flow: Annotated[Flow, _FLOW] = Field(
        description="Which token: `on_behalf_of` (agent for the calling user), `autonomous` (agent "
        "itself), `agent_user` (agent's user account), `blueprint` (blueprint itself, Microsoft "
        "Graph only), `app_on_behalf_of` and `app` (without Agent ID), `none` (no token).",
    )
    scopes: tuple[Scope, ...] = Field(
        default=(),
        description="Scopes of one resource. `autonomous`, `blueprint` and `app` take exactly one, "
        "which ends in `/.default`. Where `api.any_resource` is set a route without `hosts` may have none: "
        "then it serves callers of `listen.api` that name scopes, and no Check.",
    )
    agent: Name | None = Field(
        default=None, description="Agent of the flows on_behalf_of, autonomous and agent_user."
    )
    blueprint: Name | None = Field(
        default=None, description="Blueprint of flow blueprint; possible for the app flows."
    )
    application: Name | None = Field(
        default=None, description="Application of the flows app and app_on_behalf_of."
    )
    claims: Annotated[str, _CLAIMS] | None = Field(
        default=None,
        description="OpenID Connect `claims` parameter of the token request: JSON text or mapping.",
    )
    subject: tuple[SubjectSource, ...] | None = Field(
        default=None,
        min_length=1,
        description="Where the user's token is found, for delegated flows: the first of these that the "
        "request has. `bearer`: the token itself; `placeholder`, `handle`: a reference that an inbound "
        "route gave out; `none`, at the end: where there is nothing, the agent's (or application's) own "
        "token, logged and counted.",
        json_schema_extra={"x-default": "`[bearer]`"},
    )
    requires: Requires | None = Field(
        default=None, description="Further demands on the user, for delegated flows."
    )
    workloads: tuple[SpiffeId, ...] = Field(
        default=(),
        description="Workloads that may use a route without agent. "
        "For a route with an agent its own `workloads` count.",
    )
    leeway: Annotated[float, duration(most=300)] = Field(
        default=60.0,
        description="Clock difference forgiven on the user's token, for delegated flows.",
    )
    token_over_plain_http: Switch = Field(
        default=False,
        description="Whether the token may be sent without TLS, to hosts with `http://` and to such a "
        "`downstream.base_url`: anybody on that network can read and use it. Without it they are faults, "
        "but on loopback. For networks that encrypt, such as a mesh.",
    )
    token_to_loopback: Switch = Field(
        default=False,
        description="Whether the token may be sent to hosts on loopback (`localhost`, `127.0.0.1`, `[::1]`). "
        "All containers of a pod share it, so the agent itself can listen there and receive the token. Without it "
        "they are faults. For an API beside the agent, and for trials on one machine.",
    )
    downstream: Downstream | None = Field(
        default=None, description="The API itself, for callers of `listen.api` who have it called."
    )
    remove_headers: tuple[Annotated[str, _REMOVED], ...] = Field(
        default=(),
        max_length=MOST_REMOVED,
        description="Headers of the agent that do not go out, such as `api-key` or `x-api-key`: an API may "
        "take a credential in them, beside the token. Names of the whole header, in any case. A hyphen stands for an "
        "underscore too, and an underscore for a hyphen: many servers read `api_key` as `api-key`.",
    )
    push: Switch | None = Field(
        default=None,
        description="Whether Envoy is given the token ahead and needs no check: for autonomous, "
        "agent_user, blueprint and app. `false` has each request checked, and on record.",
        json_schema_extra={"x-default": "`true` for those flows, without `rules`"},
    )
    mcp: Mcp | None = Field(
        default=None,
        description="The API as MCP server, so that rules can name tools.",
    )
    rules: tuple[EgressRule, ...] = Field(
        default=(),
        max_length=MOST_RULES,
        description="Which requests go out, by method and path, and with which scopes, in order: docs/rules.md. "
        "Empty: every one, with the route's.",
    )
    tunnel: Switch | None = Field(
        default=None,
        description="Whether the app may open connections through Envoy to these hosts (`CONNECT`, which "
        "`HTTPS_PROXY` leads to) and speak TLS of its own in them. Nobody sees what is sent there: an API key of the "
        'app\'s own arrives, any protocol may be spoken, and for `"*"` any host and port reached. '
        "Only for flow `none`, and not if an inbound route has `forward: bearer`. By default such a "
        "connection is allowed if all of this holds: the flow is `none`; there is no `remove_headers`; there is an inbound "
        "route, and none has `forward: bearer`; there is no section `https`, with which Envoy reads the app's TLS.",
        json_schema_extra={"x-default": "depends on other keys"},
    )

    @property
    def removed(self) -> tuple[str, ...]:
        """Headers that do not go out, in each spelling."""
        return tuple(
            dict.fromkeys(each for name in self.remove_headers for each in spellings(name))
        )

    @property
    def sources(self) -> tuple[SubjectSource, ...]:
        """Where the user's token is found, after defaults."""
        return self.subject or (SubjectSource.BEARER,)

    @property
    def pushed(self) -> bool:
        """Whether the token is given ahead, after defaults."""
        if self.rules:
            return False
        return self.flow.is_foreseeable and bool(self.scopes) if self.push is None else self.push
