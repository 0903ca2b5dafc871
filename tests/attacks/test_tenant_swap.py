"""A token of one tenant is never taken for another's."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from authz.core.errors import InvalidToken, TokenFault
from authz.core.request import BearerToken
from authz.core.secret import Secret
from authz.core.token import read
from support.fakes.attack import accepted, fault_of
from support.fakes.clock import Clock
from support.fakes.scene import INBOUND, Scene
from support.fakes.tenant import OTHER_TENANT, TENANT, FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
OTHER: Final = FakeTenant(OTHER_TENANT, clock=Clock())


@pytest.mark.parametrize("tenant_id", [OTHER_TENANT, TENANT.upper(), f"{TENANT} ", "common"])
@pytest.mark.parametrize("mint", [ENTRA.user_token, ENTRA.v1_user_token, ENTRA.app_token])
async def test_a_tenant_claim_that_the_issuer_cannot_make_is_refused(
    mint: Callable[..., str], tenant_id: str
) -> None:
    """An issuer speaks for its own tenant only."""
    assert TokenFault.TENANT is await fault_of(mint(tid=tenant_id))


@pytest.mark.parametrize("mint", [OTHER.user_token, OTHER.v1_user_token])
async def test_a_foreign_tenants_genuine_token_is_refused(
    mint: Callable[..., str],
) -> None:
    """The tenant is not on the list, though its token is impeccable."""
    scene = Scene()
    scene.keys.publish(OTHER.signing_key())

    assert TokenFault.ISSUER is await fault_of(mint(), scene)
    assert [] == scene.keys.finds


def log_of(issuer: object) -> str:
    """Return what the log says of a token with an issuer."""
    bearer = BearerToken(Secret(ENTRA.user_token(iss=issuer)))
    with pytest.raises(InvalidToken) as refused:
        read(bearer, ENTRA.expectation())
    return refused.value.detail


def test_the_log_names_the_issuer_found_and_those_expected() -> None:
    """An operator sees which tenant's token it is, or that it is of the other version."""
    expected = ", ".join(map(repr, sorted(ENTRA.expectation().issuers)))
    assert [
        f"issuer: found '{OTHER.issuer}', expected {expected}",
        f"issuer: found 'https://accounts.google.com', expected {expected}",
    ] == [log_of(OTHER.issuer), log_of("https://accounts.google.com")]


@pytest.mark.parametrize(
    "issuer",
    [
        None,
        [ENTRA.issuer],
        "eyJhbGciOiJub25lIn0.eyJzZWNyZXQiOiJ4In0.",
        f"{ENTRA.issuer}?secret=x",
        "https://" + "a" * 100,
        f"{ENTRA.issuer}\nsecond line",
        "https://secret:word@login.example",
    ],
    ids=repr,
)
def test_the_log_shows_no_issuer_of_another_form(issuer: object) -> None:
    """Anybody writes the claims of a token that is not verified."""
    assert "issuer: found one of another form, expected" in log_of(issuer)


async def test_a_foreign_tenant_cannot_claim_to_be_ours() -> None:
    """Its own issuer with our tenant's id is still its own issuer."""
    assert TokenFault.ISSUER is await fault_of(OTHER.user_token(tid=TENANT))


async def test_a_tenant_trusted_on_one_route_is_not_trusted_on_the_others() -> None:
    """The list is the route's own."""
    scene = Scene()
    partners = replace(scene.inbound_route, name="partners", expectation=OTHER.expectation())
    scene.configure(partners)
    scene.keys.publish(OTHER.signing_key())
    token = OTHER.user_token()
    at_partners = await scene.check(scene.request("inbound", "partners", token))
    at_agent = await scene.check(scene.request("inbound", INBOUND, token))

    assert at_partners.principal is not None
    assert at_agent.principal is None


@pytest.mark.parametrize(
    "issuer",
    [
        ENTRA.issuer + "/",
        ENTRA.issuer.upper(),
        ENTRA.issuer.replace("https", "http"),
        ENTRA.issuer.replace(".com", ".com.attacker.example"),
        ENTRA.issuer.replace(TENANT, "{tenantid}"),
        ENTRA.issuer.replace(TENANT, "common"),
        ENTRA.issuer_v1.rstrip("/"),
        "",
        None,
        [ENTRA.issuer],
        {ENTRA.issuer: ENTRA.issuer},
    ],
    ids=repr,
)
async def test_an_issuer_is_compared_exactly(issuer: object) -> None:
    """What merely looks like the issuer is another one."""
    assert TokenFault.ISSUER is await fault_of(ENTRA.user_token(iss=issuer))


async def test_both_issuers_of_the_tenant_are_its_own() -> None:
    """The attacks above fail for what they change and for nothing else."""
    assert await accepted(ENTRA.user_token())
    assert await accepted(ENTRA.v1_user_token())
