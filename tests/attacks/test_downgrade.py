"""A route on behalf of a user acts for a verified user or not at all: there is nothing to fall to."""

from typing import Any, Final

import pytest

from authz.core.decision import Deny
from authz.core.errors import (
    AuthzError,
    ConsentRequired,
    DeadlineExceeded,
    ExchangeMisconfigured,
    ExchangeRejected,
    ExchangeThrottled,
    ExchangeUnavailable,
    InteractionRequired,
    KeysUnavailable,
    MissingToken,
)
from authz.core.exchange import Flow
from authz.core.request import Authorization
from support.fakes.routes import delegated
from support.fakes.scene import DELEGATED_FLOWS, Scene
from support.fakes.tenant import ABSENT

REQUESTS: Final[dict[str, Any]] = {
    "no header": lambda _: None,
    "an empty header": lambda _: "",
    "blanks": lambda _: "  ",
    "the bare scheme": lambda _: "Bearer",
    "another scheme": lambda _: "Basic dXNlcjpwYXNz",
    "two tokens": lambda tenant: f"Bearer {tenant.user_token()}, Bearer {tenant.user_token()}",
    "no token at all": lambda _: "Bearer not-a-token",
    "a forged signature": lambda tenant: f"Bearer {tenant.user_token()[:-8]}AAAAAAAA",
    "an expired token": lambda tenant: f"Bearer {tenant.user_token(exp=1)}",
    "a token for another API": lambda tenant: f"Bearer {tenant.user_token('another')}",
    "another tenant's token": lambda tenant: f"Bearer {tenant.user_token(tid='another')}",
    "an application's token": lambda tenant: f"Bearer {tenant.app_token()}",
    "an autonomous agent's token": lambda tenant: f"Bearer {tenant.agent_token()}",
    "a user without the scope": lambda tenant: f"Bearer {tenant.user_token(scp='other')}",
    "a user with no scope": lambda tenant: f"Bearer {tenant.user_token(scp=ABSENT, idtyp='user')}",
    "a key that nobody knows": lambda tenant: (
        "Bearer " + tenant.mint(tenant.user_claims(), headers={"kid": "unknown"})
    ),
}


@pytest.mark.parametrize("flow", DELEGATED_FLOWS)
@pytest.mark.parametrize("authorization", REQUESTS.values(), ids=REQUESTS)
async def test_a_request_without_a_verified_user_is_denied(authorization: Any, flow: Flow) -> None:
    """Whatever is missing, no token of any flow is asked for."""
    scene = Scene()
    value = authorization(scene.tenant)
    header = None if value is None else Authorization(value)
    record = await scene.egress(flow, authorization=header)

    assert isinstance(record.decision, Deny)
    assert [] == scene.entra.calls


@pytest.mark.parametrize("flow", DELEGATED_FLOWS)
async def test_a_cached_token_of_the_agents_own_is_no_substitute(flow: Flow) -> None:
    """Though an app token for the same API is at hand, a request without user is denied."""
    scene = Scene()
    for other in (Flow.AUTONOMOUS, Flow.AGENT_USER, Flow.APP, Flow.BLUEPRINT):
        await scene.egress(other)
    calls = len(scene.entra.calls)
    record = await scene.egress(flow)

    assert isinstance(record.decision, Deny)
    assert calls == len(scene.entra.calls)


@pytest.mark.parametrize("flow", DELEGATED_FLOWS)
async def test_another_users_cached_token_is_no_substitute(flow: Flow) -> None:
    """Nor is what was issued for whoever called before."""
    scene = Scene()
    await scene.egress(flow, scene.tenant.user_token(oid="alice"))
    scene.entra.fail(ExchangeUnavailable())

    assert isinstance((await scene.egress(flow)).decision, Deny)
    bob = await scene.egress(flow, scene.tenant.user_token(oid="bob"))
    assert isinstance(bob.decision, Deny)


ERRORS: Final[list[type[AuthzError]]] = [
    InteractionRequired,
    ConsentRequired,
    ExchangeRejected,
    ExchangeMisconfigured,
    ExchangeUnavailable,
    ExchangeThrottled,
    DeadlineExceeded,
    KeysUnavailable,
]


@pytest.mark.parametrize("flow", DELEGATED_FLOWS)
@pytest.mark.parametrize("error", ERRORS)
async def test_a_refused_exchange_is_a_denial_and_not_a_reason_to_try_another(
    error: type[AuthzError], flow: Flow
) -> None:
    """Entra is asked for the route's flow, once, and for no other."""
    scene = Scene()
    scene.entra.fail(error())
    record = await scene.egress(flow, scene.tenant.user_token())

    assert Deny(error.reason) == record.decision
    assert [flow] == [exchange.flow for exchange in scene.entra.calls]


@pytest.mark.parametrize("flow", DELEGATED_FLOWS)
async def test_a_route_without_its_user_does_not_serve_its_agent(flow: Flow) -> None:
    """Where the route names nothing that stands in, there is nothing to fall to."""
    scene = Scene()
    denied = await scene.egress(flow)
    await scene.egress(flow, scene.tenant.user_token())

    assert isinstance(denied.decision, Deny)
    assert [flow] == [exchange.flow for exchange in scene.entra.calls]
    with pytest.raises(MissingToken):
        delegated(scene.egress_routes[flow]).stand_in()


def test_there_are_two_flows_on_behalf_of_users() -> None:
    """Should there be another, the attacks above apply to it."""
    assert (Flow.ON_BEHALF_OF, Flow.APP_ON_BEHALF_OF) == DELEGATED_FLOWS
