"""The environment variables of the Entra SDK sidecar, read as this service's configuration."""
