"""MSAL's own memory is switched off: nothing grows with users, nobody's failure is replayed."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import msal
import pytest

from authz.core.errors import ExchangeThrottled
from authz.entra.answers import TokenRefused
from authz.entra.http import HttpClient
from authz.entra.msal_transport import MsalTransport, NoHttpCache, NoTokenCache, build
from authz_dev.emulator import Fault, Match
from support.programs.stack import World


def client(world: World, *, ours: bool) -> msal.ConfidentialClientApplication:
    """A client as this project builds it, or as MSAL comes."""
    http = HttpClient(
        ca_file=Path(world.emulator.ca_file), connect_timeout=3, timeout=5, pool_size=2
    )
    secret = world.reports["client_secret"]
    if ours:
        return build(
            world.emulator.authority,
            world.tenant_id,
            world.reports["client_id"],
            secret,
            MsalTransport(http),
        )
    return msal.ConfidentialClientApplication(
        world.reports["client_id"],
        client_credential=secret,
        authority=f"{world.emulator.authority}/{world.tenant_id}",
        instance_discovery=False,
        http_client=http,
    )


def on_behalf_of(
    application: msal.ConfidentialClientApplication, world: World, user: str
) -> dict[str, Any]:
    """One exchange for a user."""
    token = world.token(user, audience=world.reports["client_id"])
    answer: dict[str, Any] = application.acquire_token_on_behalf_of(
        token, ["https://graph.microsoft.com/.default"]
    )
    return answer


def size(application: msal.ConfidentialClientApplication) -> int:
    """Entries in MSAL's token cache, of every kind."""
    return sum(len(entries) for entries in application.token_cache._cache.values())


def test_msals_token_cache_stays_empty(world: World) -> None:
    """Users leave nothing behind in our client, and something in one as MSAL comes."""
    ours, theirs = client(world, ours=True), client(world, ours=False)
    for user in ("alice", "alice2", "alice3"):
        assert "access_token" in on_behalf_of(ours, world, user)
        assert "access_token" in on_behalf_of(theirs, world, user)

    assert 0 == size(ours)
    assert size(theirs) > 3
    assert isinstance(ours.token_cache, NoTokenCache)


def test_msals_throttle_replays_nothing(world: World) -> None:
    """After one user's 429 the next user's request leaves the process."""
    application = client(world, ours=True)
    world.emulator.faults.add(
        Fault(
            "status", status=429, retry_after=60, match=Match(user=world.users["alice"]["username"])
        )
    )
    with pytest.raises(ExchangeThrottled) as caught:
        on_behalf_of(application, world, "alice")

    assert 60 == caught.value.retry_after
    assert "access_token" in on_behalf_of(application, world, "alice2")


def test_a_repeated_refusal_is_asked_again(world: World) -> None:
    """MSAL keeps a 400 for a minute; ours is not kept, because our own negative cache decides."""
    application = client(world, ours=True)
    world.emulator.faults.add(Fault("error", code=65001, count=1))

    with pytest.raises(TokenRefused):
        on_behalf_of(application, world, "alice")
    assert "access_token" in on_behalf_of(application, world, "alice")


def test_the_http_cache_keeps_nothing() -> None:
    """The mapping that MSAL is given takes entries and forgets them."""
    cache = NoHttpCache()
    cache["key"] = "value"

    assert {} == cache


def test_no_request_is_hashed_for_the_throttle(world: World) -> None:
    """What MSAL would wrap around our transport is gone from our client, and is there in MSAL's own."""
    ours, theirs = client(world, ours=True), client(world, ours=False)

    assert {"get", "post"} <= vars(theirs.http_client).keys()
    assert not {"get", "post"} & vars(ours.http_client).keys()
    assert "access_token" in on_behalf_of(ours, world, "alice")


@pytest.mark.parametrize("ours", [True, False])
def test_a_client_is_freed_with_its_last_reference(world: World, *, ours: bool) -> None:
    """Each reload makes new ones. MSAL's own wait for a full garbage collection, which may be a day away."""
    application = client(world, ours=ours)
    assert "access_token" in on_behalf_of(application, world, "alice")
    freed = weakref.ref(application)
    gc.disable()
    try:
        del application

        assert ours == (freed() is None)
    finally:
        gc.enable()


def test_agents_share_one_discovery_document(world: World) -> None:
    """The second client of a tenant asks for no document."""
    http = HttpClient(
        ca_file=Path(world.emulator.ca_file), connect_timeout=3, timeout=5, pool_size=2
    )
    transport = MsalTransport(http)
    build(world.emulator.authority, world.tenant_id, world.reports["client_id"], "x", transport)
    world.emulator.faults.add(Fault("down", target="discovery"))

    second = build(
        world.emulator.authority, world.tenant_id, world.portal["client_id"], "x", transport
    )

    assert second.client_id == world.portal["client_id"]


LOGGING = """
import logging, sys
import authz.entra.msal_transport
logging.basicConfig(stream=sys.stdout, level=logging.DEBUG)
for name in ("msal", "msal.application", "msal.oauth2cli.oauth2"):
    logging.getLogger(name).error("a token")
"""


def test_what_msal_logs_goes_nowhere() -> None:
    """Law 5: it logs answers that it cannot read. No handler gets them, nor standard error."""
    done = subprocess.run(
        [sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True, timeout=60
    )

    assert ("", "") == (done.stdout, done.stderr)
