"""APIs that a newcomer adds to the emulator: who may call them, and what is refused as a name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from authz_dev.emulator import Emulator, default_directory
from authz_dev.emulator.own_apis import ApiError, add_api
from emulator.scene import Scene, claims_of, trusting


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """An emulator with an API of the reader's own."""
    emulator = Emulator()
    add_api(emulator.directory, "billing", "Bills.Read,Bills.Pay", "Bills.Read.All")
    with emulator, trusting(emulator) as session:
        yield Scene(emulator, session)


def test_each_agent_may_call_it_for_a_user(scene: Scene) -> None:
    """The scopes that were listed, for the API's client id, and by every agent of the tenant."""
    t1 = scene.t1(scene.sibling)

    answer = scene.on_behalf_of(
        scene.user_token(),
        client_id=scene.sibling["client_id"],
        client_assertion=t1,
        scope="api://billing/.default",
    ).json()

    claims = claims_of(answer["access_token"])
    assert (scene.apis["billing"]["client_id"], {"Bills.Read", "Bills.Pay"}) == (
        claims["aud"],
        set(claims["scp"].split()),
    )


def test_a_scope_that_was_not_listed_is_refused(scene: Scene) -> None:
    """As strictly as for any other API: AADSTS65001, no consent for it."""
    answer = scene.on_behalf_of(scene.user_token(), scope="api://billing/Bills.Burn")

    assert (400, [65001]) == (answer.status_code, answer.json()["error_codes"])


def test_bob_has_not_consented_there_either(scene: Scene) -> None:
    """What goes wrong for a user goes wrong at the reader's own API."""
    answer = scene.on_behalf_of(scene.user_token("bob"), scope="api://billing/Bills.Read")

    assert [65001] == answer.json()["error_codes"]


def test_the_agent_itself_has_its_roles(scene: Scene) -> None:
    """An app-only token for it carries the listed role."""
    answer = scene.as_agent(scope="api://billing/.default").json()

    assert ["Bills.Read.All"] == claims_of(answer["access_token"])["roles"]


def test_an_ordinary_app_may_call_it(scene: Scene) -> None:
    """For the flow `app`."""
    answer = scene.post(
        client_id=scene.reports["client_id"],
        client_secret=scene.reports["client_secret"],
        grant_type="client_credentials",
        scope="api://billing/.default",
    ).json()

    assert ["Bills.Read.All"] == claims_of(answer["access_token"])["roles"]


def test_an_identifier_uri_is_taken_as_it_is() -> None:
    """A configuration that names its API by a URI needs no change."""
    api = add_api(default_directory(), "https://api.contoso.example/billing", "Bills.Read", "")

    assert ("https://api.contoso.example/billing",) == api.identifier_uris


def test_its_ids_depend_on_the_seed_and_its_name() -> None:
    """Another API before it changes nothing."""
    alone, second = default_directory(1), default_directory(1)
    add_api(second, "stock", "Stock.Read", "")

    assert add_api(alone, "billing", "Bills.Read", "") == add_api(
        second, "billing", "Bills.Read", ""
    )


@pytest.mark.parametrize(
    ("name", "scopes", "message"),
    [
        ("two words", "Bills.Read", "two words: must be a name such as billing, or an identifier URI"),
        ("api://", "Bills.Read", "api://: must be a name such as billing, or an identifier URI"),
        ("orders", "Orders.Read", "orders: the tenant has api://orders already"),
        ("https://graph.microsoft.com", "x", "https://graph.microsoft.com: the tenant has https://graph.microsoft.com already"),
        ("billing", "Bills.Read Bills.Pay", "billing: Bills.Read Bills.Pay is no name of a scope or a role, such as Bills.Read"),
        ("billing", ".default", "billing: .default is no name of a scope or a role, such as Bills.Read"),
    ],
)  # fmt: skip
def test_what_cannot_be_added_is_named(name: str, scopes: str, message: str) -> None:
    """The API, and what is wrong with it."""
    with pytest.raises(ApiError, match=f"^{re.escape(message)}$"):
        add_api(default_directory(), name, scopes, "")
