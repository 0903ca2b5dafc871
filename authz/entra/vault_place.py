"""`VaultPlace`: one certificate in one Azure Key Vault, and the way there."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VaultPlace:
    """One certificate in one vault, and the way there.

    Attributes:
        url: The vault, without path.
        certificate: Name of the certificate.
        client_id: User-assigned identity that may read it; None leaves it to the environment.
        authority: Entra's address without tenant.
        ca_file: PEM file of trusted authorities; None uses the system's.
        proxy: HTTP proxy that TLS goes through.
        connect_timeout: Seconds for a connection.
        timeout: Seconds for an answer, and for those who wait for the first fetch.
    """

    url: str
    certificate: str
    client_id: str | None
    authority: str
    ca_file: Path | None
    proxy: str | None
    connect_timeout: float
    timeout: float

    def __str__(self) -> str:
        return f"{self.url} {self.certificate}"
