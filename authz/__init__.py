"""authz: Envoy external authorization for Microsoft Entra Agent ID."""

__version__ = "0.1.0"
