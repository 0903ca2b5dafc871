"""A verification that is remembered for one route is no proof on another that demands something else."""

from dataclasses import replace
from typing import Final

import pytest

from authz.core.decision import Allow, Deny
from authz.core.errors import Reason
from authz.core.record import CacheResult
from authz.core.requirement import Requirement
from authz.core.token import Expectation
from support.fakes.scene import INBOUND, Scene
from support.fakes.tenant import AUDIENCE, OTHER_TENANT

LEEWAY: Final = 60.0


def _expectations(scene: Scene) -> dict[str, Expectation]:
    tenant = scene.tenant
    return {
        "another audience": tenant.expectation("another"),
        "another issuer": Expectation(frozenset({AUDIENCE}), {tenant.issuer_v1: tenant.tenant_id}),
        "another tenant": Expectation(frozenset({AUDIENCE}), {tenant.issuer: OTHER_TENANT}),
    }


@pytest.mark.parametrize("difference", _expectations(Scene()))
async def test_a_remembered_token_is_refused_where_it_was_not_verified(difference: str) -> None:
    """The same bytes meet the other route's own expectation, and fail it."""
    scene = Scene()
    expectation = _expectations(scene)[difference]
    scene.configure(replace(scene.inbound_route, name="other", expectation=expectation))
    token = scene.tenant.user_token()
    first = await scene.inbound(token)
    elsewhere = await scene.check(scene.request("inbound", "other", token))

    assert isinstance(first.decision, Allow)
    assert (Deny(Reason.INVALID_TOKEN), None) == (elsewhere.decision, elsewhere.principal)
    assert CacheResult.MISS is elsewhere.principal_cache


async def test_a_leeway_that_one_route_grants_is_not_granted_by_another() -> None:
    """A token verified under a generous clock is verified again under a strict one."""
    scene = Scene()
    strict = replace(
        scene.inbound_route, name="strict", expectation=scene.tenant.expectation(leeway=0.0)
    )
    scene.configure(strict)
    token = scene.tenant.user_token(nbf=scene.clock() + 1.0)
    generous = await scene.inbound(token)
    refused = await scene.check(scene.request("inbound", "strict", token))

    assert isinstance(generous.decision, Allow)
    assert Deny(Reason.INVALID_TOKEN) == refused.decision


async def test_permissions_are_checked_on_every_route_though_verification_is_shared() -> None:
    """A hit says who is calling, never that he may."""
    scene = Scene()
    admins = replace(
        scene.inbound_route, name="admins", requirement=Requirement(scopes=(("administer",),))
    )
    scene.configure(admins)
    token = scene.tenant.user_token()
    await scene.inbound(token)
    record = await scene.check(scene.request("inbound", "admins", token))

    assert CacheResult.HIT is record.principal_cache
    missing = ("administer",)
    assert Deny(Reason.INSUFFICIENT_SCOPE, accepted=missing, ask_for=missing) == record.decision


async def test_a_refusal_is_not_remembered_as_a_verification() -> None:
    """Failing on one route leaves nothing that could pass on any."""
    scene = Scene()
    scene.configure(
        replace(scene.inbound_route, name="other", expectation=scene.tenant.expectation("another"))
    )
    token = scene.tenant.user_token()
    await scene.check(scene.request("inbound", "other", token))

    assert 0 == len(scene.principals)
    assert isinstance((await scene.inbound(token)).decision, Allow)
    assert INBOUND == scene.inbound_route.name


async def test_a_token_that_only_shares_its_beginning_with_a_remembered_one_is_verified() -> None:
    """The whole text is the key, signature included."""
    scene = Scene()
    token = scene.tenant.user_token()
    await scene.inbound(token)
    forged = token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB")
    record = await scene.inbound(forged)

    assert (Deny(Reason.INVALID_TOKEN), CacheResult.MISS) == (
        record.decision,
        record.principal_cache,
    )
