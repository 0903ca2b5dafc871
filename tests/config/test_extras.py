"""What a configuration needs of the installation: a fault where a process is to serve, and nowhere else."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.config.faults import ConfigError
from authz.config.source import ConfigSource, load
from authz.system.distribution import advice
from config.samples import CLIENT, TENANT, changed

NEEDED = f"key_vault needs the Azure SDK, which is not installed: {advice('key-vault')}"
VAULT = {"key_vault": {"url": "https://v.vault.azure.net", "certificate": "desk"}}
BY_ENVIRONMENT = {
    "AzureAd__TenantId": TENANT,
    "AzureAd__ClientId": CLIENT,
    "AzureAd__ClientCredentials__0__SourceType": "KeyVault",
    "AzureAd__ClientCredentials__0__KeyVaultUrl": "https://v.vault.azure.net",
    "AzureAd__ClientCredentials__0__KeyVaultCertificateName": "desk",
    "DownstreamApis__graph__Scopes": "https://graph.microsoft.com/.default",
}


def written(folder: Path) -> Path:
    """Write a configuration with a certificate of a key vault."""
    file = folder / "authz.yaml"
    data: dict[str, Any] = changed({"blueprints.support.credentials": [VAULT]})
    file.write_text(yaml.safe_dump(data))
    return file


@pytest.fixture(params=["azure.identity", "azure.keyvault.secrets", "azure"])
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a part of the Azure SDK away, or all of it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "azure"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, request.param, None)


@pytest.mark.usefixtures("without")
def test_a_key_vault_without_its_extra_is_a_fault(tmp_path: Path) -> None:
    """Of `authz check-config`, at the start, and of a new version: not a service that is never ready."""
    with pytest.raises(ConfigError) as caught:
        ConfigSource(written(tmp_path), {}).load(to_serve=True)
    found = [(fault.path, fault.message) for fault in caught.value.faults]
    assert [("blueprints.support.credentials.0", NEEDED)] == found


@pytest.mark.usefixtures("without")
def test_by_environment_the_fault_names_the_key(tmp_path: Path) -> None:
    """Once, though one list of credentials stands for blueprint and application."""
    with pytest.raises(ConfigError) as caught:
        load(None, BY_ENVIRONMENT, to_serve=True)
    found = [(fault.path, fault.message) for fault in caught.value.faults]
    assert [("AzureAd__ClientCredentials", NEEDED)] == found


@pytest.mark.usefixtures("without")
def test_who_renders_envoys_configuration_needs_no_extra(tmp_path: Path) -> None:
    """It reads the same file, on a machine that never serves."""
    assert "support" in load(written(tmp_path), {}).config.blueprints


def test_with_the_extra_it_is_a_credential_like_any_other(tmp_path: Path) -> None:
    """Both forms load."""
    assert "support" in load(written(tmp_path), {}, to_serve=True).config.blueprints
    assert "default" in load(None, BY_ENVIRONMENT, to_serve=True).config.blueprints
