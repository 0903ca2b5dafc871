"""Identity headers come from us: what a client sends under their names never gets past."""

import asyncio
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import Allow
from authz.core.exchange import Flow
from support.fakes.properties import brief
from support.fakes.scene import EGRESS_FLOWS, Scene

KNOWN: Final = [
    "x-authz-subject", "x-authz-subject-type", "x-authz-tenant", "x-authz-actor",
    "x-authz-actor-blueprint", "x-authz-scopes", "x-authz-roles",
]  # fmt: skip
NAMES: Final = st.lists(
    st.sampled_from(KNOWN) | st.text("abcxyz-_0", max_size=8).map("x-authz-{}".format),
    unique=True,
    max_size=8,
).map(tuple)


@brief
@given(sent=NAMES)
def test_inbound_every_forged_header_is_overwritten_or_removed(sent: tuple[str, ...]) -> None:
    """Each name that the client used is set by us or removed, and never both: removal would win."""
    scene = Scene()
    record = asyncio.run(scene.inbound(scene.tenant.user_token(), own_headers=sent))

    assert isinstance(record.decision, Allow)
    named = {name for name, _ in record.decision.headers}
    assert {*KNOWN, *sent} == named | set(record.decision.remove)
    assert named.isdisjoint(record.decision.remove)


@brief
@given(sent=NAMES, flow=st.sampled_from(EGRESS_FLOWS))
def test_on_egress_every_identity_header_is_removed(sent: tuple[str, ...], flow: Flow) -> None:
    """Who called the agent is nobody else's business."""
    scene = Scene()
    record = asyncio.run(scene.egress(flow, scene.tenant.user_token(), own_headers=sent))

    assert isinstance(record.decision, Allow)
    assert () == record.decision.headers
    assert set(sent) <= set(record.decision.remove)


@pytest.mark.parametrize("name", KNOWN)
async def test_a_forged_identity_header_is_overwritten_by_the_verified_one(name: str) -> None:
    """The value that reaches the app is ours, or there is none."""
    scene = Scene()
    plain = await scene.inbound(scene.tenant.user_token())
    forged = await scene.inbound(scene.tenant.user_token(), own_headers=(name,))

    assert plain.decision == forged.decision
