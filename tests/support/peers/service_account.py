"""`Cluster`: an issuer of service account tokens that a blueprint trusts (workload identity federation)."""

import time
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from authz_dev.emulator.entities import FederatedCredential
from support.programs.stack import World

ISSUER: Final = "https://cluster.example"
SUBJECT: Final = "system:serviceaccount:agents:desk"


class Cluster:
    """An issuer of service-account tokens that the blueprint trusts."""

    def __init__(self, world: World) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        directory = world.emulator.directory
        blueprint = directory.application(world.tenant_id, world.blueprint["client_id"])
        assert blueprint is not None
        directory.add_federated_credential(
            blueprint, FederatedCredential(ISSUER, SUBJECT, keys={"k1": self.key.public_key()})
        )

    def token(self, *, lifetime: float = 600, subject: str = SUBJECT) -> str:
        """A projected service-account token."""
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": subject, "aud": ["api://AzureADTokenExchange"],
            "iat": now, "nbf": now, "exp": now + int(lifetime),
        }  # fmt: skip
        return jwt.encode(claims, self.key, "RS256", headers={"kid": "k1"})
