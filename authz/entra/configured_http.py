"""The HTTP client for Entra that a configuration describes: its bounds, authorities and proxy."""

from pathlib import Path

from authz.config import Config
from authz.entra.http import HttpClient


def http_client(config: Config, *, pool_size: int, plain_http: bool = False) -> HttpClient:
    """Return an HTTPS client with the bounds and authorities of the configuration."""
    ca_file = config.entra.ca_file
    return HttpClient(
        ca_file=Path(ca_file) if ca_file is not None else None,
        connect_timeout=config.entra.connect_timeout,
        timeout=config.entra.timeout,
        pool_size=pool_size,
        plain_http=plain_http,
        # The host's metadata service is on the host, whatever way leads out.
        proxy=None if plain_http else config.entra.proxy,
    )
