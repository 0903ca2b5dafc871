"""A caller who has somebody's handle: however baggage names it, the agent does not work for that user."""

import asyncio
import re
from dataclasses import replace
from typing import Final
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz._pb.external_auth_pb2 import CheckRequest as WireRequest
from authz.core.baggage import CARRIERS, MEMBER, Baggage
from authz.core.decision import Allow
from authz.core.exchange import Flow
from authz.core.route import Forward, InboundRoute
from authz.core.secret import Secret
from authz.core.subject import SubjectSource
from authz.doors.envoy.ext_authz import decode
from support.fakes.properties import brief
from support.fakes.routes import regranted
from support.fakes.scene import INBOUND, Scene
from support.proxy.spellings import Headers, Speller, received, seen_by_authz

OBO: Final = Flow.ON_BEHALF_OF.value
FORWARDS: Final = [
    {Forward.HANDLE},
    {Forward.HANDLE, Forward.PLACEHOLDER},
    {Forward.HANDLE, Forward.BEARER},
    {Forward.PLACEHOLDER},
    {Forward.BEARER},
    {Forward.STRIP},
]


def scene(forward: set[Forward]) -> Scene:
    """A world with a route that gives handles to the agent, and one beside it that forwards so."""
    made = Scene()
    made.inbound_route = replace(made.inbound_route, forward=frozenset({Forward.HANDLE}))
    made.egress_routes[OBO] = regranted(
        made.egress_routes[OBO],
        sources=(SubjectSource.HANDLE,),
        origins={INBOUND: None, "other": None},
    )
    other: InboundRoute = replace(made.inbound_route, name="other", forward=frozenset(forward))
    made.configure(other)
    return made


async def handle_of(made: Scene, user: str) -> str:
    """Return a handle that counts now."""
    record = await made.inbound(made.tenant.user_token(oid=user))
    assert isinstance(record.decision, Allow)
    assert record.decision.baggage is not None
    return record.decision.baggage.reveal().removeprefix(f"{MEMBER}=")


async def arriving(made: Scene, user: str, lines: Headers) -> dict[str, str]:
    """Call the agent by the other route, and return the headers that arrive there."""
    wire = WireRequest()
    wire.attributes.request.http.headers.update(seen_by_authz(lines))
    shown = decode(wire, gives_handles=made.service.gives_handles)
    record = await made.inbound(
        made.tenant.user_token(oid=user),
        route="other",
        baggage=shown.baggage,
        own_headers=shown.own_headers,
    )
    assert isinstance(record.decision, Allow)
    return seen_by_authz(received(lines, record.decision))


def copied(headers: dict[str, str]) -> Secret | None:
    """Return the baggage that OpenTelemetry for Python, or who reads more than it does, sends on."""
    context: dict[str, str] = {}
    for member in re.split(r"[ \t]*,[ \t]*", headers.get("baggage", "")):
        key, equals, value = member.partition("=")
        if equals:
            context[unquote_plus(key).strip()] = unquote_plus(value).strip()
    for name, value in headers.items():
        for prefix in ("uberctx-", "ot-baggage-"):
            if name.startswith(prefix):
                context[name.replace(prefix, "")] = value
    sent = ",".join(f"{key}={value}" for key, value in context.items())
    return Secret(sent) if sent else None


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda forward: "-".join(sorted(forward)))
@brief
@given(seed=st.integers(min_value=0))
def test_no_spelling_makes_the_agent_work_for_somebody_else(
    forward: set[Forward], seed: int
) -> None:
    """Its call is for the one who called it, or is refused: on routes that give no handles too."""

    async def attack() -> tuple[str | None, list[str]]:
        made = scene(forward)
        headers = await arriving(
            made, "mallory", Speller(seed, await handle_of(made, "victim")).headers()
        )
        record = await made.egress(OBO, baggage=copied(headers))
        user = None if record.principal is None else record.principal.subject.object_id
        return user, [name for name in headers if name.startswith(CARRIERS)]

    user, carriers = asyncio.run(attack())

    assert user in (("mallory",) if Forward.HANDLE in forward else (None,))
    assert [] == carriers


@pytest.mark.parametrize(
    "member",
    [
        f"{before}{MEMBER}{after}"
        for blank in ("%C2%A0", "%E2%80%80", "%C2%85", "%E3%80%80", "%A0", "+", "\xa0", "%1F")
        for before, after in ((blank, ""), ("", blank), (blank, blank))
    ],
)
@pytest.mark.parametrize("forward", FORWARDS[:5:4], ids=["handle", "bearer"])
async def test_blanks_of_unicode_hide_no_member(forward: set[Forward], member: str) -> None:
    """OpenTelemetry for Python decodes keys and trims them."""
    made = scene(forward)
    forged = f"{member}={await handle_of(made, 'victim')}"
    headers = await arriving(made, "mallory", [("baggage", f"a=1,{forged},b=2".encode())])
    found = Baggage.parse(Secret(headers["baggage"]))

    assert ("a=1", "b=2") == found.foreign
    assert (1 if Forward.HANDLE in forward else 0) == len(found.own)


async def test_other_headers_with_baggage_pass_where_no_handles_are_given() -> None:
    """They are nobody's handle there."""
    made = Scene()
    wire = WireRequest()
    wire.attributes.request.http.headers.update({"uberctx-team": "blue", "x-authz-subject": "x"})

    shown = decode(wire, gives_handles=made.service.gives_handles)

    assert ("x-authz-subject",) == shown.own_headers
