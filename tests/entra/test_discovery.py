"""Discovery documents: only good ones are kept, and none may lead secrets or keys to another host."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from authz.config.clouds import cloud_of
from authz.core.decision import Allow
from authz.core.errors import EntraError, ExchangeUnavailable, KeysUnavailable, Reason
from authz.core.keys import RefreshPolicy
from authz.core.secret import Secret
from authz.core.shares import Shares
from authz.entra.audience import may_be_for
from authz.entra.bulkheads import Bulkheads
from authz.entra.discovery import (
    FIRST_PAUSE,
    LIFETIME,
    LONGEST_PAUSE,
    MOST_DOCUMENTS,
    DiscoveryFault,
    Metadata,
    endpoint,
)
from authz.entra.http import Answer, HttpClient
from authz.entra.msal_transport import MsalTransport, build
from authz.entra.signing_keys import Issuer, SigningKeys
from authz_dev.emulator import Fault, Match
from support.fakes.clock import Clock
from support.fakes.jws import b64url
from support.fakes.tenant import FakeTenant
from support.programs.stack import Clock as SharedClock
from support.programs.stack import World, denied, issued, stack

URL: Final = "https://entra.example/tenant/v2.0/.well-known/openid-configuration"
GOOD: Final = {
    "authorization_endpoint": "https://entra.example/tenant/oauth2/v2.0/authorize",
    "token_endpoint": "https://entra.example/tenant/oauth2/v2.0/token",
}
BAD: Final[dict[str, dict[str, Any]]] = {
    "empty": {},
    "no token endpoint": {**GOOD, "token_endpoint": None},
    "no authorization endpoint": {**GOOD, "authorization_endpoint": None},
    "plain HTTP": {**GOOD, "token_endpoint": "http://entra.example/tenant/oauth2/v2.0/token"},
    "another host": {**GOOD, "token_endpoint": "https://other.example/tenant/oauth2/v2.0/token"},
    "another port": {**GOOD, "token_endpoint": "https://entra.example:8443/tenant/token"},
    "another host behind a name": {**GOOD, "token_endpoint": "https://entra.example@other.example/t"},
    "a name before the host": {**GOOD, "token_endpoint": "https://other.example@entra.example/t"},
    "another tenant": {**GOOD, "token_endpoint": "https://entra.example/other/oauth2/v2.0/token"},
    "no tenant": {**GOOD, "token_endpoint": "https://entra.example/"},
    "no address": {**GOOD, "token_endpoint": "https://[/tenant"},
    "a port that is no number": {**GOOD, "token_endpoint": "https://entra.example:x/tenant"},
}  # fmt: skip


class Publisher:
    """Answers with one document after the other, the last one from then on."""

    def __init__(self, *answers: Answer | EntraError) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def get(self, url: str) -> Answer:
        """Answer, or fail."""
        self.asked.append(url)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, EntraError):
            raise answer
        return answer


def _answer(document: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document), {})


@pytest.mark.parametrize("document", BAD.values(), ids=BAD)
def test_a_document_that_cannot_be_used_is_asked_for_again_soon(document: dict[str, Any]) -> None:
    """One bad answer costs a second, not an hour."""
    publisher, timer = Publisher(_answer(document), _answer(GOOD)), Clock(0.0)
    metadata = Metadata(publisher, hosts=(), timer=timer)

    with pytest.raises(ExchangeUnavailable) as refused:
        metadata.get(URL)
    timer.advance(FIRST_PAUSE)
    healed = metadata.get(URL)

    assert FIRST_PAUSE == refused.value.retry_after
    assert json.dumps(GOOD) == healed.text


def test_a_bad_document_is_not_asked_for_by_everybody() -> None:
    """Between two attempts the failure is repeated; the pause doubles up to its bound."""
    publisher, timer = Publisher(_answer({})), Clock(0.0)
    metadata, moments = Metadata(publisher, hosts=(), timer=timer), []
    for _ in range(400):
        before = len(publisher.asked)
        with pytest.raises(ExchangeUnavailable):
            metadata.get(URL)
        if len(publisher.asked) > before:
            moments.append(timer.now)
        timer.advance(0.125)

    assert [0.0, 1.0, 3.0, 7.0, 15.0, 30.0, 45.0] == moments
    assert LONGEST_PAUSE == moments[-1] - moments[-2]


def test_a_good_document_is_kept_for_an_hour() -> None:
    """Every client of the tenant shares it."""
    publisher, timer = Publisher(_answer(GOOD)), Clock(0.0)
    metadata = Metadata(publisher, hosts=(), timer=timer)
    for _ in range(3):
        metadata.get(URL)
        timer.advance(LIFETIME / 2 - 1)
    asked = len(publisher.asked)
    metadata.get(URL)
    timer.advance(2)
    metadata.get(URL)

    assert (1, 2) == (asked, len(publisher.asked))


@pytest.mark.parametrize(
    "worse",
    [_answer({}), _answer({"error": "invalid_tenant"}, 400), ExchangeUnavailable("down")],
    ids=["a bad document", "a refusal", "no answer"],
)
def test_the_last_good_document_goes_on(worse: Answer | EntraError) -> None:
    """What Entra answers after the hour does not take away what worked; it is asked again soon."""
    publisher, timer = Publisher(_answer(GOOD), worse, _answer(GOOD)), Clock(0.0)
    metadata = Metadata(publisher, hosts=(), timer=timer)
    seen = []
    for pause in (LIFETIME, 0.0, FIRST_PAUSE, 0.0):
        seen.append((metadata.get(URL).text, len(publisher.asked)))
        timer.advance(pause)

    good = json.dumps(GOOD)
    assert [(good, 1), (good, 2), (good, 2), (good, 3)] == seen


def test_no_answer_at_all_is_not_repeated() -> None:
    """Whether a call that failed is tried again is decided by who called."""
    publisher = Publisher(ExchangeUnavailable("down"), _answer(GOOD))
    metadata = Metadata(publisher, hosts=(), timer=Clock(0.0))

    with pytest.raises(ExchangeUnavailable, match="down"):
        metadata.get(URL)
    assert json.dumps(GOOD) == metadata.get(URL).text


def test_a_refusal_is_handed_on() -> None:
    """An unknown tenant is MSAL's to report: as the operator's mistake, not as an outage."""
    metadata = Metadata(Publisher(_answer({}, 400)), hosts=(), timer=Clock(0.0))

    assert [400, 400] == [metadata.get(URL).status_code for _ in range(2)]


def test_documents_are_bounded() -> None:
    """The least recently used makes room."""
    publisher = Publisher(_answer(GOOD))
    metadata = Metadata(publisher, hosts=(), timer=Clock(0.0))
    for number in range(MOST_DOCUMENTS):
        metadata.get(f"https://entra.example/tenant/{number}")
    metadata.get("https://entra.example/tenant/0")
    metadata.get("https://entra.example/tenant/more")
    asked = len(publisher.asked)
    metadata.get("https://entra.example/tenant/0")
    metadata.get("https://entra.example/tenant/1")

    assert MOST_DOCUMENTS + 1 == asked
    assert ["https://entra.example/tenant/1"] == publisher.asked[asked:]


@pytest.mark.parametrize(
    ("named", "hosts"),
    [
        ("https://entra.example/keys", ()),
        ("https://ENTRA.example:443/keys", ()),
        ("https://keys.example/keys", ("keys.example",)),
        ("https://keys.example:8443/keys", ("keys.example:8443",)),
        ("https://[::1]:8443/keys", ("[::1]:8443",)),
    ],
)
def test_a_document_may_name_its_own_host_and_configured_ones(
    named: str, hosts: tuple[str, ...]
) -> None:
    """The authority's host, its cloud's, and `entra.trusted_hosts`."""
    assert named == endpoint({"jwks_uri": named}, "jwks_uri", url=URL, hosts=hosts).geturl()


@pytest.mark.parametrize(
    "named",
    [
        "https://keys.example/keys",
        "https://entra.example.keys.example/keys",
        "https://entra.example:444/keys",
        "http://entra.example/keys",
        "//entra.example/keys",
        "https:///keys",
        "https://[::1/keys",
        "",
        None,
        ["https://entra.example/keys"],
    ],
)
def test_a_document_may_name_no_other_address(named: object) -> None:
    """Nothing that is not https, and no host that nobody has named."""
    with pytest.raises(DiscoveryFault):
        endpoint({"jwks_uri": named}, "jwks_uri", url=URL, hosts=("trusted.example",))


@pytest.mark.parametrize(
    ("authority", "others"),
    [
        ("https://login.microsoftonline.com", {"login.windows.net", "sts.windows.net"}),
        ("https://login.windows.net", {"login.microsoftonline.com"}),
        ("https://login.microsoftonline.us", {"login.usgovcloudapi.net"}),
        ("https://login.partner.microsoftonline.cn", {"login.chinacloudapi.cn"}),
    ],
)
def test_the_hosts_of_a_cloud_are_its_own(authority: str, others: set[str]) -> None:
    """Aliases of one cloud may stand for one another; another cloud's host may not."""
    hosts = cloud_of(authority).hosts

    assert others <= hosts
    assert not {"login.microsoftonline.com", "login.microsoftonline.us"} <= hosts
    assert frozenset() == cloud_of("https://login.microsoftonline.com:8443").hosts


@pytest.mark.parametrize("host", ["127.0.0.1:1", "other.example"])
async def test_a_token_endpoint_of_another_host_gets_no_secret(world: World, host: str) -> None:
    """A wrong document makes Entra unavailable; the next good one heals it."""
    wrong = {"token_endpoint": f"https://{host}/{world.tenant_id}/oauth2/v2.0/token"}
    async with stack(world) as service:
        world.emulator.faults.add(Fault("members", target="discovery", members=wrong))
        record = await service.egress("autonomous")
        world.emulator.faults.clear()

        assert Reason.EXCHANGE_UNAVAILABLE == denied(record)
        assert record.error is not None
        assert f"token_endpoint of {host}" in record.error.detail
        end = time.monotonic() + 10
        while not isinstance((record := await service.egress("autonomous")).decision, Allow):
            assert time.monotonic() < end, record.error
            await asyncio.sleep(0.05)
        assert world.agent["client_id"] == issued(record)["appid"]


async def test_one_empty_document_does_not_outlast_itself(world: World) -> None:
    """Entra answers `{}` with status 200 once: unavailable, not misconfigured, and only for a moment."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("answer", status=200, body={}, target="discovery", count=1))
        record = await service.egress("autonomous")

        assert Reason.EXCHANGE_UNAVAILABLE == denied(record)
        end = time.monotonic() + 10
        while not isinstance((record := await service.egress("autonomous")).decision, Allow):
            assert time.monotonic() < end, record.error
            await asyncio.sleep(0.05)


async def test_a_token_endpoint_of_another_tenant_is_not_used(
    world: World, clock: SharedClock
) -> None:
    """MSAL would keep it for as long as its client lives. The document is asked for again soon."""
    other = f"{world.emulator.authority}/{world.other_tenant['tenant_id']}/oauth2/v2.0/token"
    async with stack(world, clock=clock) as service:
        world.emulator.faults.add(
            Fault("members", "discovery", count=1, members={"token_endpoint": other})
        )
        refused = await service.egress("app")
        clock.ahead += 10
        served = await service.egress("app")

    assert Reason.EXCHANGE_UNAVAILABLE == denied(refused)
    assert world.reports["client_id"] == issued(served)["appid"]


def test_a_host_that_is_configured_is_asked(world: World) -> None:
    """`entra.trusted_hosts` is the exception."""
    http = HttpClient(
        ca_file=Path(world.emulator.ca_file), connect_timeout=3, timeout=5, pool_size=2
    )
    endpoint = f"https://other.example:8443/{world.tenant_id}/token"
    world.emulator.faults.add(
        Fault("members", target="discovery", members={"token_endpoint": endpoint})
    )
    client = build(
        world.emulator.authority, world.tenant_id, world.reports["client_id"], "x",
        MsalTransport(http, hosts=frozenset({"other.example:8443"})),
    )  # fmt: skip

    assert endpoint == client.authority.token_endpoint


@pytest.mark.parametrize(
    ("hosts", "expected"), [((), False), (("keys.example",), True)], ids=["unknown", "trusted"]
)
async def test_keys_come_from_trusted_hosts(hosts: tuple[str, ...], expected: bool) -> None:
    """A document that names another host's keys is not followed, unless the host is configured."""
    tenant = FakeTenant(clock=Clock())
    publisher = Publisher(
        _answer({"issuer": tenant.issuer, "jwks_uri": "https://keys.example/keys"}),
        _answer({"keys": [tenant.jwk()]}),
    )
    issuer = Issuer(tenant.issuer, tenant.tenant_id, URL, ())
    with ThreadPoolExecutor(1) as threads:
        keys = SigningKeys(
            [issuer], http=publisher, hosts=hosts, bulkheads=Bulkheads(threads, Shares(4, holders=1)), policy=RefreshPolicy(),
            clock=time.time, timer=time.monotonic,
        )  # fmt: skip
        try:
            await keys.find(tenant.issuer, tenant.key_id, deadline=time.monotonic() + 10)
        except KeysUnavailable:
            found = False
        else:
            found = True

    assert expected is found
    assert expected is ("https://keys.example/keys" in publisher.asked)


API: Final = "11111111-2222-3333-4444-555555555555"
OTHER_API: Final = "66666666-7777-8888-9999-000000000000"


def _token(claims: object) -> Secret:
    return Secret(f"{b64url(b'{}')}.{b64url(json.dumps(claims).encode())}.{b64url(b'signature')}")


@pytest.mark.parametrize(
    ("audience", "scope"),
    [
        ("https://graph.microsoft.com", "https://graph.microsoft.com/.default"),
        ("https://graph.microsoft.com/", "https://graph.microsoft.com/User.Read"),
        ("00000003-0000-0000-c000-000000000000", "https://graph.microsoft.com/.default"),
        ("https://management.core.windows.net/", "https://management.core.windows.net//.default"),
        (API, f"api://{API}/.default"),
        (f"api://{API}", f"{API}/.default"),
        (f"spn:{API}", f"api://{API.upper()}/read"),
        (API, "https://contoso.example/api/.default"),
        ("https://contoso.example/api", f"{API}/.default"),
        (OTHER_API, "User.Read"),
    ],
)
def test_a_token_for_what_was_asked_is_taken(audience: str, scope: str) -> None:
    """Every way in which Entra names a resource, and what cannot be compared."""
    assert may_be_for(_token({"aud": audience}), [scope])


@pytest.mark.parametrize(
    ("audience", "scope"),
    [
        ("https://graph.microsoft.com", "https://vault.azure.net/.default"),
        (OTHER_API, f"api://{API}/.default"),
        (f"api://{OTHER_API}", f"{API}/.default"),
        ("https://graph.microsoft.com.example", "https://graph.microsoft.com/.default"),
    ],
)
def test_a_token_for_something_else_is_refused(audience: str, scope: str) -> None:
    """It would be handed to an API that it was not asked for."""
    assert not may_be_for(_token({"aud": audience}), [scope])


@pytest.mark.parametrize(
    "token",
    [
        Secret("opaque"),
        Secret("a.b.c.d.e"),
        Secret("a.%.c"),
        Secret(f"a.{b64url(b'no JSON')}.c"),
        _token([]),
        _token({}),
        _token({"aud": ["https://graph.microsoft.com"]}),
    ],
    ids=["opaque", "encrypted", "no base64url", "no JSON", "no object", "no aud", "a list"],
)
def test_a_token_that_cannot_be_read_is_taken(token: Secret) -> None:
    """Access tokens are the API's to read (Entra page "access-tokens")."""
    assert may_be_for(token, ["https://vault.azure.net/.default"])


async def test_a_token_for_another_audience_is_not_handed_out(world: World) -> None:
    """Whatever made Entra issue it, it goes to no API."""
    token = _token({"aud": "https://vault.azure.net"}).reveal()
    async with stack(world) as service:
        world.emulator.faults.add(
            Fault("members", match=Match(leg="autonomous"), members={"access_token": token})
        )
        record = await service.egress("autonomous")

        assert Reason.EXCHANGE_UNAVAILABLE == denied(record)
        assert "another audience" in str(record.error)
