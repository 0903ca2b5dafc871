"""What a configuration needs of this installation: extras of the distribution.

Only a process that serves needs them. Rendering Envoy's configuration from the same file does not.
"""

from collections.abc import Iterator
from typing import Final

from authz.config.faults import Fault
from authz.config.model import Config
from authz.config.sections.clients import KeyVault
from authz.system.distribution import advice, has

_AZURE_SDK: Final = ("azure.identity", "azure.keyvault.secrets")


def missing_extras(config: Config) -> Iterator[Fault]:
    """Return a fault for each credential that could not be read here."""
    for section in ("blueprints", "applications"):
        for name, client in getattr(config, section).items():
            for index, credential in enumerate(client.credentials):
                if isinstance(credential, KeyVault) and not has(*_AZURE_SDK):
                    yield Fault(
                        f"{section}.{name}.credentials.{index}",
                        f"key_vault needs the Azure SDK, which is not installed: {advice('key-vault')}",
                    )
