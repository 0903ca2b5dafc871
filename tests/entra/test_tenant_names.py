"""Tenants by domain name: whose documents say what a name means, and which meanings are refused."""

import json
from typing import Any, Final

import pytest

from authz.config import load
from authz.core.errors import EntraError, ExchangeUnavailable
from authz.entra.discovery import FIRST_PAUSE, LONGEST_PAUSE, DiscoveryFault
from authz.entra.http import Answer
from authz.entra.tenant_names import TenantNames, look_up
from authz_dev.emulator import Fault
from support.programs.stack import World

PUBLIC: Final = "https://login.microsoftonline.com"
TENANT: Final = "11111111-aaaa-4aaa-8aaa-111111111111"
NAME: Final = "contoso.onmicrosoft.com"


class Document:
    """Answers every question with one document, or fails."""

    def __init__(self, answer: Answer | EntraError) -> None:
        self._answer = answer
        self.asked: list[str] = []

    def get(self, url: str) -> Answer:
        """Answer, or fail."""
        self.asked.append(url)
        if isinstance(self._answer, EntraError):
            raise self._answer
        return self._answer


def issued_by(issuer: Any) -> Document:
    """Return a document that names an issuer."""
    return Document(Answer(200, json.dumps({"issuer": issuer}), {}))


@pytest.mark.parametrize(
    ("authority", "issuer"),
    [
        (PUBLIC, f"{PUBLIC}/{TENANT}/v2.0"),
        ("https://login.windows.net", f"{PUBLIC}/{TENANT}/v2.0"),
        ("https://login.microsoftonline.us", f"https://login.microsoftonline.us/{TENANT}/v2.0"),
    ],
)
def test_the_issuer_of_a_names_document_has_the_id(authority: str, issuer: str) -> None:
    """The configured authority alone is asked."""
    document = issued_by(issuer)

    found = look_up(document, authority, NAME)

    assert TENANT == found
    assert [f"{authority}/{NAME}/v2.0/.well-known/openid-configuration"] == document.asked


@pytest.mark.parametrize(
    "issuer",
    [
        None,
        TENANT,
        f"{PUBLIC}/{{tenantid}}/v2.0",
        f"{PUBLIC}/{TENANT}",
        f"{PUBLIC}/{TENANT}/v2.0/",
        f"{PUBLIC}/{NAME}/v2.0",
        f"{PUBLIC}/x/{TENANT}/v2.0",
        f"{PUBLIC}/{TENANT.upper()}/v2.0",
        f"https://sts.windows.net/{TENANT}/",
        f"https://login.microsoftonline.us/{TENANT}/v2.0",
        f"https://login.microsoftonline.com.example/{TENANT}/v2.0",
        f"{PUBLIC}/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
        f"{PUBLIC}/00000000-0000-0000-0000-000000000000/v2.0",
    ],
)
def test_what_is_not_one_tenants_v2_issuer_of_the_cloud_is_refused(issuer: Any) -> None:
    """Templates, other clouds and hosts, other forms, and everybody's personal accounts."""
    with pytest.raises(DiscoveryFault, match="expected the issuer of one tenant"):
        look_up(issued_by(issuer), PUBLIC, NAME)


def test_a_name_that_entra_does_not_know_is_a_fault() -> None:
    """It answers 400; what it says besides is not repeated."""
    with pytest.raises(DiscoveryFault, match=r"answered with status 400$"):
        look_up(Document(Answer(400, '{"error": "invalid_tenant"}', {})), PUBLIC, NAME)


def test_no_answer_is_no_tenant() -> None:
    """The cause is Entra's absence."""
    with pytest.raises(ExchangeUnavailable):
        look_up(Document(ExchangeUnavailable("away", retry_after=1.0)), PUBLIC, NAME)


def test_an_id_is_kept_and_failures_are_repeated_slowly(world: World) -> None:
    """Over TLS, from the emulator; a name that is known is not asked for again."""
    environ = {
        "AzureAd__Instance": world.emulator.authority,
        "AzureAd__TenantId": "unknown.example",
        "AzureAd__ClientId": world.blueprint["client_id"],
    }
    config = load(None, environ).config
    entra = config.entra.model_copy(update={"ca_file": world.emulator.ca_file})
    config = config.model_copy(update={"entra": entra})
    ids: dict[str, str] = {}
    names, pauses = TenantNames(ids), []
    pauses.append(names.pause)
    for _ in range(6):
        assert not names.learn("unknown.example", config)
        pauses.append(names.pause)
    unknown = names.fault

    known = names.learn(world.tenant["domain"], config)
    world.emulator.faults.add(Fault("down", target="discovery"))
    again = names.learn(world.tenant["domain"], config)

    assert [FIRST_PAUSE, 2.0, 4.0, 8.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE] == pauses
    assert "answered with status 400" in str(unknown)
    assert (True, True, None, FIRST_PAUSE) == (known, again, names.fault, names.pause)
    assert {world.tenant["domain"]: world.tenant_id} == ids
