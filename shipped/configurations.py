"""Which files are rendered, and by which command: `CONFIGURATIONS`. `render` writes them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

_GUID: Final = "00000000-0000-4000-8000-000000000001"
"""In place of every identifier: none of them appears in what is rendered."""

_BASE: Final = {
    "TENANT_ID": _GUID,
    "CLIENT_ID": _GUID,
    "AGENT_IDENTITY": _GUID,
    "SCOPE": "any",
    "AZURE_FEDERATED_TOKEN_FILE": "any",
}
"""What `kubernetes/base/authz.yaml` takes from its environment, and the file that brings a credential."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One file, and the command that makes it.

    Attributes:
        file: Relative to the repository.
        config: Configuration of the service, relative to the repository; None for the environment's keys.
        options: Further ones of `authz envoy`.
        environment: What the configuration of the service takes from there.
        is_commented: Whether layout and comments are written by hand, and only the values rendered.
    """

    file: str
    config: str | None
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: _BASE)
    is_commented: bool = False

    @property
    def path(self) -> Path:
        """Where it is."""
        return ROOT / self.file

    @property
    def arguments(self) -> tuple[str, ...]:
        """Everything after `authz`."""
        config = () if self.config is None else ("--config", self.config)
        return ("envoy", *config, *self.options)

    def rendered(self) -> str:
        """Return what the command prints.

        Raises:
            subprocess.CalledProcessError: It failed, and has said why on standard error.
        """
        # Variables of this shell must not change what is shipped.
        environ = {"PATH": os.environ["PATH"], **self.environment}
        command = [sys.executable, "-m", "authz", *self.arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


_STATISTICS: Final = ("--statistics", "0.0.0.0:9903")
_REDIRECTED: Final = ("--transparent", "pass-tls", *_STATISTICS)

CONFIGURATIONS: Final = (
    Configuration(
        "envoy/sidecar.yaml",
        "docs/examples/sidecar.yaml",
        environment=dict.fromkeys(("TENANT_ID", "BLUEPRINT_CLIENT_ID", "AGENT_CLIENT_ID"), _GUID),
        is_commented=True,
    ),
    Configuration("kubernetes/base/envoy.yaml", "kubernetes/base/authz.yaml", _STATISTICS),
    Configuration(
        "kubernetes/components/interception/envoy.yaml", "kubernetes/base/authz.yaml", _REDIRECTED
    ),
    Configuration(
        "kubernetes/components/https/envoy.yaml",
        "kubernetes/base/authz.yaml",
        _REDIRECTED,
        {
            **_BASE,
            "AUTHZ_HTTPS_CA_FILE": "/run/authz-trust/ca.pem",
            "AUTHZ_HTTPS_KEY_FILE": "/run/authz-ca/ca.key",
        },
    ),
    Configuration(
        "kubernetes/shared/client/envoy.yaml",
        "kubernetes/shared/authz.yaml",
        (
            *_STATISTICS,
            *("--inbound-route", "desk", "--egress-route", "desk-graph=graph.microsoft.com"),
            *("--authz-address", "authz.authz.svc:9901", "--authz-name", "authz.authz.svc"),
            *("--authz-secrets", "/etc/envoy"),
        ),
        {
            **dict.fromkeys(
                ("TENANT_ID", "CLIENT_ID", "DESK_AGENT_IDENTITY", "CLERK_AGENT_IDENTITY"), _GUID
            ),
            "AZURE_FEDERATED_TOKEN_FILE": "any",
        },
    ),
    Configuration(
        "kubernetes/kind/agent/envoy.yaml",
        "kubernetes/kind/agent/authz.yaml",
        (*_STATISTICS, "--upstream-ca", "/etc/development-ca/ca.crt"),
        {**_BASE, "AGENT_USER": "agent@example.com"},
    ),
    Configuration(
        "kubernetes/client-secret-transparent/envoy.yaml",
        None,
        environment={
            "AzureAd__TenantId": _GUID,
            "AzureAd__ClientId": _GUID,
            "AzureAd__AgentIdentity": _GUID,
            "AzureAd__ClientCredentials__0__SourceType": "ClientSecret",
            "AzureAd__ClientCredentials__0__ClientSecret": "any",
            "DownstreamApis__graph__BaseUrl": "https://graph.microsoft.com/v1.0/",
            "DownstreamApis__graph__Scopes__0": "https://graph.microsoft.com/.default",
            "AUTHZ_LISTEN_CHECKS": "unix:/run/authz/checks.sock",
            "AUTHZ_LISTEN_API": "off",
        },
    ),
)
