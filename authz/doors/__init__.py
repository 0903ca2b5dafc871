"""Where questions come in: ext_authz and SDS (gRPC), the Entra SDK sidecar's HTTP API, health and metrics."""
