"""The Entra SDK sidecar's environment keys to `Config`: one client, one route per DownstreamApi.

The keys themselves are in `keys`, tenants in `tenants`, hosts in `hosts`. For Envoy an agent is named by keys
of our own; callers of the HTTP API name it in each request, as they do with the sidecar, and may name any of
the blueprint's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from authz.config.clouds import NO_TENANT
from authz.config.entra_sdk.api import (
    DEFAULT_ADDRESS,
    GATES,
    read_address,
    read_downstream,
    read_hosts,
)
from authz.config.entra_sdk.credentials import CREDENTIALS, read_credentials
from authz.config.entra_sdk.hosts import may_be_reached, named_hosts, select_by_host, to_loopback
from authz.config.entra_sdk.keys import split
from authz.config.entra_sdk.tenants import check_tenant, tenant_name
from authz.config.entra_sdk.values import Variable, Variables
from authz.config.faults import ConfigError, Fault, Notice
from authz.config.model import Config
from authz.config.reading.validation import Origin, validate
from authz.config.reading.variables import override
from authz.config.sections.clients import CERTIFICATE_FILE, CLIENT_SECRET_FILE, FEDERATED_TOKEN_FILE
from authz.config.shown import shown
from authz.core.exchange import Flow

NAME: Final = "default"
"""Name of the client, of the inbound route, and of the agent that `AzureAd__AgentIdentity` names."""

LOG_LEVELS: Final = {
    "trace": "debug",
    "debug": "debug",
    "information": "info",
    "warning": "warning",
    "error": "error",
    "critical": "error",
    "none": "error",
}


def is_environment_form(environ: Mapping[str, str]) -> bool:
    """Whether the environment holds keys of the sidecar that configure a client or an API."""
    return any(
        len(path) > 1 and path[0] in {"azuread", "downstreamapis"} for path in map(split, environ)
    )


def read_environment(
    environ: Mapping[str, str], tenants: Mapping[str, str] | None = None
) -> tuple[Config, tuple[Notice, ...]]:
    """Return the configuration that the sidecar's keys describe, and what has no effect.

    Args:
        environ: The environment.
        tenants: The ids of tenants by their domain names. A name that is not among them gives a
            configuration of `NO_TENANT`, which serves nobody.

    Raises:
        ConfigError: With every fault; paths are names of variables.
    """
    variables = Variables.of(environ)
    name = tenant_name(environ)
    form = _Form(variables, environ, name and (tenants or {}).get(name, NO_TENANT))
    form.read()
    data, keys = override(form.data, environ)
    origin = Origin(keys={**form.keys, **keys})
    faults = variables.faults
    try:
        config = validate(data, environ=environ, origin=origin)
    except ConfigError as error:
        told = {fault.path for fault in faults}
        faults = [*faults, *(fault for fault in error.faults if fault.path not in told)]
    else:
        if not faults:
            return config, tuple(variables.notices)
    raise ConfigError(faults)


@dataclass(slots=True)
class _Form:
    """Builds the data of a configuration, and the variable behind each path of it."""

    variables: Variables
    environ: Mapping[str, str]
    tenant_id: str | None
    """Of the tenant that the environment names by a domain."""
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    _agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    _credentials_key: str = "AzureAd__ClientCredentials__0__SourceType"

    def read(self) -> None:
        """Read everything."""
        routes = {api: self._route(api) for api in self.variables.below("DownstreamApis")}
        select_by_host(self.variables, routes)
        default_agent = self._agent("AzureAd", NAME)
        has_agents = bool(self._agents)
        without_agent = any("agent" not in route for route in routes.values())
        client = self._client()
        self.data["agents"] = self._agents
        self.data["egress"] = routes
        self._entra()
        self._log()
        self._api()
        if not routes and not has_agents and self._only_verifies(client):
            self.data["inbound"] = {NAME: self._verifying(client)}
            return
        self._put_client("blueprints", {**client, "any_agent": True})
        if without_agent or not has_agents:
            self._put_client("applications", client)
        self.data["inbound"] = {NAME: self._inbound(default_agent, has_agents=has_agents)}

    def _put_client(self, section: str, client: dict[str, Any]) -> None:
        self.data[section] = {NAME: client}
        path = f"{section}.{NAME}"
        name = self.variables.name
        self.keys |= {
            f"{path}.tenant_id": name("AzureAd__TenantId"),
            f"{path}.client_id": name("AzureAd__ClientId"),
            f"{path}.credentials": self._credentials_key,
        }

    def _client(self) -> dict[str, Any]:
        value = self.variables.value
        check_tenant(self.variables, self.tenant_id)
        told = len(self.variables.faults)
        credentials = read_credentials(self.variables)
        if not credentials and len(self.variables.faults) > told:
            # What could not be read is not missing as well: both faults get one name.
            self._credentials_key = self.variables.faults[told].path
        audiences = [
            *self.variables.listed("AzureAd__Audience", ""),
            *self.variables.listed("AzureAd__Audiences", ","),
        ]
        client = {
            "tenant_id": self.tenant_id or value("AzureAd__TenantId"),
            "client_id": value("AzureAd__ClientId"),
            "audiences": [audience.value for audience in audiences] or None,
            "credentials": credentials or None,
        }
        return {key: found for key, found in client.items() if found is not None}

    def _only_verifies(self, client: Mapping[str, Any]) -> bool:
        """Whether a client is there, and nothing by which it could get a token."""
        return (
            client.keys() >= {"tenant_id", "client_id"}
            and not self.variables.below(CREDENTIALS)
            and not any(
                self.environ.get(name)
                for name in (CERTIFICATE_FILE, CLIENT_SECRET_FILE, FEDERATED_TOKEN_FILE)
            )
        )

    def _verifying(self, client: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inbound route of a client that verifies tokens and gets none."""
        variables, path = self.variables, f"inbound.{NAME}"
        text = "is missing: tokens are verified (/Validate), and none are given out"
        variables.notices.append(Notice(CREDENTIALS, text))
        self.keys[f"{path}.tenants.0"] = variables.name("AzureAd__TenantId")
        self.keys[f"{path}.audiences.0"] = variables.name("AzureAd__ClientId")
        own = [client["client_id"], f"api://{client['client_id']}"]
        return {
            "audiences": client.get("audiences", own),
            "tenants": [client["tenant_id"]],
            "scopes": self._list(f"{path}.scopes", variables.listed("AzureAd__Scopes", ",")),
        }

    def _inbound(self, agent: str | None, *, has_agents: bool) -> dict[str, Any]:
        path = f"inbound.{NAME}.scopes"
        kind = "agent" if agent else "blueprint" if has_agents else "application"
        return {
            kind: agent or NAME,
            "scopes": self._list(path, self.variables.listed("AzureAd__Scopes", ",")),
        }

    def _route(self, api: str) -> dict[str, Any]:
        key, path = f"DownstreamApis__{api}", f"egress.{api}"
        variables = self.variables
        self._check_limits_of(key)
        own = any(
            variables.get(f"{key}__Agent{rest}") for rest in ("Identity", "Username", "UserId")
        )
        agent = self._agent(key, api) if own else self._agent("AzureAd", NAME)
        app_token = self._is_true(f"{key}__RequestAppToken")
        scopes = self._list(f"{path}.scopes", variables.listed(f"{key}__Scopes", ""))
        hosts = named_hosts(variables, api)
        if (base := variables.get(f"{key}__BaseUrl")) is not None:
            self.keys[f"{path}.hosts.0"] = base.name
        readable = self._is_true(f"{key}__TokenOverPlainHttp")
        if readable:
            self.keys[f"{path}.token_over_plain_http"] = variables.name(
                f"{key}__TokenOverPlainHttp"
            )
        reached = may_be_reached(variables, key, hosts, readable=readable)
        route: dict[str, Any] = {
            "scopes": scopes,
            "hosts": hosts if scopes and reached else [],
            **({"token_over_plain_http": True} if readable else {}),
            **to_loopback(hosts if scopes and reached else []),
            **(self._downstream(api) if reached else {}),
        }
        if not scopes:
            text = (
                "has no scopes: only callers of the HTTP API get a token, which send "
                "optionsOverride.Scopes, and Envoy's requests are denied"
            )
            variables.notices.append(Notice(f"DownstreamApis__{api}", text))
        self.keys.setdefault(f"{path}.scopes", variables.name(f"{key}__Scopes__0"))
        claims = variables.get(f"{key}__AcquireTokenOptions__Claims")
        if claims is not None:
            route["claims"] = claims.value
            self.keys[f"{path}.claims"] = claims.name
        if agent is None:
            flow = Flow.APP if app_token else Flow.APP_ON_BEHALF_OF
            text = (
                "no AgentIdentity is configured: tokens are those of AzureAd__ClientId itself, except for "
                "callers of the HTTP API that name an agent"
            )
            if not app_token:
                text += ". Envoy's calls for users will be refused where that client is a blueprint: expected AzureAd__AgentIdentity"
            variables.notices.append(Notice(f"DownstreamApis__{api}", text))
            return {**route, "application": NAME, "flow": flow.value}
        if self._agents[agent].get("agent_user"):
            flow = Flow.AGENT_USER
            if app_token:
                name = variables.name(f"{key}__RequestAppToken")
                text = "found true: an agent's user account has no app tokens"
                variables.faults.append(Fault(name, text))
        else:
            flow = Flow.AUTONOMOUS if app_token else Flow.ON_BEHALF_OF
            if app_token:
                name = variables.name(f"{key}__RequestAppToken")
                text = f"is true: for Envoy, {api} is called as the agent itself, for every caller"
                variables.notices.append(Notice(name, text))
        return {**route, "agent": agent, "flow": flow.value}

    def _agent(self, key: str, name: str) -> str | None:
        """Return the name of the agent that the keys below a key name, and put it among the agents."""
        variables = self.variables
        place = key if variables.get(f"{key}__AgentIdentity") else "AzureAd"
        identity = variables.get(f"{place}__AgentIdentity")
        user, form = self._agent_user(key)
        if user is None and place != key:
            user, form = self._agent_user(place)
        if identity is None:
            if user is not None:
                text = "names the user account of an agent, and no AgentIdentity names the agent"
                variables.faults.append(Fault(user.name, text))
            return None
        agent: dict[str, Any] = {"blueprint": NAME, "agent_identity": identity.value}
        if user is not None:
            agent["agent_user"] = {form: user.value}
        while self._agents.get(name, agent) != agent:
            name = f"{name}-agent"
        self._agents[name] = agent
        self.keys[f"agents.{name}.agent_identity"] = identity.name
        if user is not None:
            self.keys[f"agents.{name}.agent_user"] = user.name
        return name

    def _agent_user(self, key: str) -> tuple[Variable | None, str]:
        username = self.variables.get(f"{key}__AgentUsername")
        object_id = self.variables.get(f"{key}__AgentUserId")
        if username is not None and object_id is not None:
            text = f"{username.name} is given as well: expected one of the two"
            self.variables.faults.append(Fault(object_id.name, text))
        return (username, "username") if username is not None else (object_id, "object_id")

    def _check_limits_of(self, key: str) -> None:
        tenant = self.variables.get(f"{key}__AcquireTokenOptions__Tenant")
        own = {(self.variables.value("AzureAd__TenantId") or "").lower(), self.tenant_id}
        if tenant is not None and tenant.value.lower() not in own and self.tenant_id != NO_TENANT:
            text = (
                "is not AzureAd__TenantId: for a client in another tenant use a configuration file"
            )
            self.variables.faults.append(Fault(tenant.name, text))
        scheme = self.variables.get(f"{key}__ProtocolScheme")
        if scheme is not None and scheme.value.lower() != "bearer":
            text = f"found {shown(scheme.value)}: expected Bearer"
            self.variables.faults.append(Fault(scheme.name, text))

    def _entra(self) -> None:
        instance = self.variables.get("AzureAd__Instance")
        if instance is not None:
            self.data["entra"] = {"authority": instance.value}
            self.keys["entra.authority"] = instance.name

    def _log(self) -> None:
        level = self.variables.get("Logging__LogLevel__Default")
        if level is not None:
            # An unknown level is kept as it is, to become a fault like any other.
            self.data["log"] = {"level": LOG_LEVELS.get(level.value.lower(), level.value)}
            self.keys["log.level"] = level.name

    def _api(self) -> None:
        address = read_address(self.variables)
        self.data["listen"] = {"api": DEFAULT_ADDRESS if address is None else address.value}
        if address is not None:
            self.keys["listen.api"] = address.name
        self.data["api"] = {
            "hosts": self._list("api.hosts", read_hosts(self.variables)),
            "any_resource": True,
            "follow_redirects": self._is_true("Sidecar__AllowOutboundRedirects"),
            "overrides": [
                endpoint.value
                for key, endpoint in GATES.items()
                if self._is_true(f"Sidecar__AllowOverrides__{key}", default=True)
            ],
        }

    def _downstream(self, api: str) -> dict[str, Any]:
        found, keys = read_downstream(self.variables, api)
        self.keys |= keys
        return {"downstream": found} if found else {}

    def _list(self, path: str, entries: Any) -> list[str]:
        found = list(entries)
        for index, entry in enumerate(found):
            self.keys[f"{path}.{index}"] = entry.name
        return [entry.value for entry in found]

    def _is_true(self, key: str, *, default: bool = False) -> bool:
        found = self.variables.get(key)
        value = found.value.lower() if found else str(default).lower()
        if found is not None and value not in {"true", "false"}:
            text = f"found {shown(found.value)}: expected true or false"
            self.variables.faults.append(Fault(found.name, text))
        return value == "true"
