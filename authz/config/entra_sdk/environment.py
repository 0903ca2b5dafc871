"""The Entra SDK sidecar's environment keys to `Config`: one client, one route per DownstreamApi.

The keys themselves are in `environment_keys`. For Envoy an agent is named by keys of our own; callers of
the HTTP API name it in each request, as they do with the sidecar, and may name any of the blueprint's.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from authz.config.clouds import NO_TENANT, PERSONAL_ACCOUNTS
from authz.config.entra_sdk.api import (
    DEFAULT_ADDRESS,
    GATES,
    read_address,
    read_downstream,
    read_hosts,
)
from authz.config.entra_sdk.credentials import CREDENTIALS, read_credentials
from authz.config.entra_sdk.keys import split
from authz.config.entra_sdk.values import Variable, Variables
from authz.config.faults import ConfigError, Fault, Notice
from authz.config.model import Config
from authz.config.reading.validation import Origin, validate
from authz.config.reading.variables import override
from authz.config.sections.clients import CERTIFICATE_FILE, CLIENT_SECRET_FILE, FEDERATED_TOKEN_FILE
from authz.config.sections.hosts import EgressHost
from authz.config.shown import shown
from authz.core.exchange import Flow

NAME: Final = "default"
"""Name of the client, of the inbound route, and of the agent that `AzureAd__AgentIdentity` names."""

_ANY_TENANT: Final = ("common", "organizations", "consumers", PERSONAL_ACCOUNTS)
_DOMAIN: Final = re.compile("[0-9a-z](?:[0-9a-z-]*[0-9a-z])?(?:[.][0-9a-z-]+)+", re.IGNORECASE)
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


def is_any_tenant(tenant: str) -> bool:
    """Whether a name or an id stands for users of any tenant, or for everybody's personal accounts."""
    return tenant.lower() in (*_ANY_TENANT, NO_TENANT)


def tenant_name(environ: Mapping[str, str]) -> str | None:
    """Return the domain name that the environment has in place of a tenant's id, in lower case."""
    value = Variables.of(environ).value("AzureAd__TenantId")
    return value.lower() if value is not None and _DOMAIN.fullmatch(value) else None


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
        self._select_by_host(routes)
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
        self._check_tenant()
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

    def _check_tenant(self) -> None:
        """Refuse what is no single tenant, and say of a domain name what becomes of it."""
        tenant = self.variables.get("AzureAd__TenantId")
        if tenant is None:
            return
        if self.tenant_id is not None:
            text = (
                f"is the domain {shown(tenant.value)}: the tenant's id is looked up at the start, at Instance. Domains can "
                "move to other tenants, so prefer the id"
            )
            self.variables.notices.append(Notice(tenant.name, text))
        elif is_any_tenant(tenant.value):
            text = (
                f"found {tenant.value!r}, which would admit users of any tenant, and in which no application "
                "gets a token of its own: expected one tenant, by its GUID or a domain name"
            )
            self.variables.faults.append(Fault(tenant.name, text))

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
        hosts = self._hosts(api)
        readable = self._is_true(f"{key}__TokenOverPlainHttp")
        if readable:
            self.keys[f"{path}.token_over_plain_http"] = variables.name(
                f"{key}__TokenOverPlainHttp"
            )
        reached = self._may_be_reached(key, hosts, readable=readable)
        route: dict[str, Any] = {
            "scopes": scopes,
            "hosts": hosts if scopes and reached else [],
            **({"token_over_plain_http": True} if readable else {}),
            **self._to_loopback(hosts if scopes and reached else []),
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

    def _hosts(self, api: str) -> list[str]:
        base = self.variables.get(f"DownstreamApis__{api}__BaseUrl")
        if base is None:
            return []
        self.keys[f"egress.{api}.hosts.0"] = base.name
        try:
            parts = urlsplit(base.value)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        # A wildcard would be one host of many to a route, and no URL can be called so.
        wrong = not parts.hostname or "*" in parts.hostname or "@" in parts.netloc
        if parts.scheme not in {"http", "https"} or wrong or parts.hostname is None:
            text = "expected a URL with scheme and host, such as https://graph.microsoft.com/v1.0"
            self.variables.faults.append(Fault(base.name, text))
            return []
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        usual = {"http": 80, "https": 443}[parts.scheme]
        authority = host if port in {None, usual} else f"{host}:{port}"
        return [str(EgressHost(authority, parts.scheme == "http"))]

    def _may_be_reached(self, key: str, hosts: Sequence[str], *, readable: bool) -> bool:
        """Whether an API gets its token by way of this service, Envoy's or a call of its own."""
        found = [EgressHost.of(host) for host in hosts]
        if readable or not any(host.plain and not host.is_loopback for host in found):
            return True
        text = (
            "is http://, where anybody on the network could read the token: neither Envoy nor /DownstreamApi "
            f"sends it there without {key}__TokenOverPlainHttp=true"
        )
        self.variables.notices.append(Notice(self.variables.name(f"{key}__BaseUrl"), text))
        return False

    def _to_loopback(self, hosts: Sequence[str]) -> dict[str, bool]:
        """Allow a token to loopback where the BaseUrl is: the app can ask the HTTP API for the same one."""
        return (
            {"token_to_loopback": True}
            if any(EgressHost.of(host).is_in_pod for host in hosts)
            else {}
        )

    def _select_by_host(self, routes: Mapping[str, dict[str, Any]]) -> None:
        """Leave out hosts that several routes share: which of them was meant, Envoy must say."""
        named = Counter(
            name
            for route in routes.values()
            for host in route["hosts"]
            for name in EgressHost.of(host).names
        )
        for api, route in routes.items():
            own = []
            for host in route["hosts"]:
                apis = max(named[name] for name in EgressHost.of(host).names)
                if apis == 1:
                    own.append(host)
                    continue
                name = self.variables.name(f"DownstreamApis__{api}__BaseUrl")
                text = (
                    f"{host} is the host of {apis} APIs and selects none of them: "
                    f"let Envoy send authz.route={api}"
                )
                self.variables.notices.append(Notice(name, text))
            route["hosts"] = own
            if not own:
                route.pop("token_to_loopback", None)

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
