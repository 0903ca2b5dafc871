"""Configuration: YAML or environment in, frozen and checked `Config` out, policy from that.

Nothing here opens a connection. Files of certificates that a configuration names are opened; secrets are
references until `authz.entra` needs them.
"""

from authz.config.compile import (
    IssuerSettings,
    agent_identities,
    compile_policy,
    credentials,
    exchange_resource,
    issuers,
)
from authz.config.faults import ConfigError, Fault, Notice
from authz.config.model import Config
from authz.config.reading.named_files import missing_credentials
from authz.config.source import ConfigSource, Loaded, load
from authz.config.watch import ConfigWatch

__all__ = [
    "Config",
    "ConfigError",
    "ConfigSource",
    "ConfigWatch",
    "Fault",
    "IssuerSettings",
    "Loaded",
    "Notice",
    "agent_identities",
    "compile_policy",
    "credentials",
    "exchange_resource",
    "issuers",
    "load",
    "missing_credentials",
]
