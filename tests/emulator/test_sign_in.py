"""People sign in: MSAL's interactive, code and device code flows, unmodified, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import threading
import webbrowser
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msal
import pytest
import requests

from authz_dev.emulator.codes import CODE_LIFETIME, DEVICE_LIFETIME
from emulator.scene import GRAPH, Clock, Scene, claims_of

VERIFIER = "v" * 64
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)
LOCAL = "http://localhost:4711"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class Browser(webbrowser.BaseBrowser):
    """A browser that submits whatever form it is shown."""

    def __init__(self, session: requests.Session) -> None:
        super().__init__()
        self._session = session

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:  # noqa: FBT002
        """Follow the form of the page to where it leads."""
        threading.Thread(target=self._visit, args=(url,)).start()
        return True

    def _visit(self, url: str) -> None:
        page = self._session.get(url, timeout=10).text
        target = re.search(r'action="([^"]+)"', page)
        assert target is not None, page
        fields = re.findall(r'name="([^"]+)" value="([^"]*)"', page)
        form = {name: html.unescape(value) for name, value in fields}
        self._session.post(html.unescape(target[1]), data=form, timeout=10)


@pytest.fixture
def browser(scene: Scene) -> Iterator[str]:
    """Name of a browser that MSAL opens."""
    webbrowser.register("scripted", None, Browser(scene.session), preferred=True)
    yield "scripted"
    webbrowser._browsers.pop("scripted")  # type: ignore[attr-defined]
    webbrowser._tryorder.remove("scripted")  # type: ignore[attr-defined]


def terminal(scene: Scene) -> dict[str, Any]:
    """The public client of the first tenant."""
    [found] = scene.tenant["public_clients"]
    return dict(found)


def public_app(scene: Scene) -> msal.PublicClientApplication:
    """An unmodified MSAL public client."""
    return msal.PublicClientApplication(
        terminal(scene)["client_id"],
        authority=f"{scene.emulator.authority}/{scene.tenant_id}",
        instance_discovery=False,
        http_client=scene.session,
    )


def agents_scope(scene: Scene) -> str:
    """What callers of the agent ask for."""
    return f"{scene.blueprint['identifier_uri']}/access_agent"


def authorize(scene: Scene, _tenant: str | None = None, **changes: str | None) -> requests.Response:
    """A well-formed request to sign alice in, with changed parameters."""
    asked: dict[str, str | None] = {
        "client_id": terminal(scene)["client_id"],
        "response_type": "code",
        "redirect_uri": LOCAL,
        "scope": f"{agents_scope(scene)} openid offline_access",
        "state": "a&b",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "login_hint": scene.users["alice"]["username"],
    } | changes
    url = f"{scene.emulator.authority}/{_tenant or scene.tenant_id}/oauth2/v2.0/authorize"
    params = {name: value for name, value in asked.items() if value is not None}
    return scene.session.get(url, params=params, allow_redirects=False, timeout=10)


def returned(answer: requests.Response) -> dict[str, str]:
    """What the browser was sent back with."""
    assert answer.status_code == 302, answer.text
    assert answer.headers["location"].startswith(f"{LOCAL}?")
    return {
        name: value
        for name, [value] in parse_qs(urlsplit(answer.headers["location"]).query).items()
    }


def redeem(scene: Scene, code: str, **changes: str | None) -> requests.Response:
    """Redeem a code, with changed parameters."""
    form: dict[str, str | None] = {
        "client_id": terminal(scene)["client_id"],
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": LOCAL,
        "code_verifier": VERIFIER,
    }
    return scene.post(**(form | changes))


def number(answer: requests.Response) -> int:
    """The AADSTS number of a token answer."""
    [found] = answer.json()["error_codes"]
    return int(found)


def start_device(scene: Scene) -> dict[str, Any]:
    """Begin the device code flow."""
    url = f"{scene.emulator.authority}/{scene.tenant_id}/oauth2/v2.0/devicecode"
    form = {"client_id": terminal(scene)["client_id"], "scope": agents_scope(scene)}
    return dict(scene.session.post(url, data=form, timeout=10).json())


def poll(scene: Scene, device_code: str) -> requests.Response:
    """Ask whether the user has signed in."""
    client = terminal(scene)["client_id"]
    return scene.post(grant_type=DEVICE_GRANT, client_id=client, device_code=device_code)


def test_msal_signs_a_user_in_by_the_browser(scene: Scene, browser: str) -> None:
    """A public client's interactive flow, with PKCE and nonce; an agent then acts for this user."""
    app = public_app(scene)

    result = app.acquire_token_interactive(
        [agents_scope(scene)], login_hint=scene.users["alice"]["username"], timeout=30
    )

    assert "error" not in result, result
    token = claims_of(result["access_token"])
    expected = (
        scene.users["alice"]["object_id"],
        scene.blueprint["client_id"],
        "access_agent",
        "0",
    )
    assert expected == (token["oid"], token["aud"], token["scp"], token["azpacr"])
    exchanged = claims_of(scene.on_behalf_of(result["access_token"]).json()["access_token"])
    assert scene.users["alice"]["object_id"] == exchanged["oid"]
    [account] = app.get_accounts()
    again = app.acquire_token_silent_with_error([agents_scope(scene)], account, force_refresh=True)
    assert token["oid"] == claims_of(again["access_token"])["oid"]


def test_msal_finishes_a_web_apps_code_flow(scene: Scene) -> None:
    """A confidential client, whose redirect URI is registered."""
    app = scene.app(scene.portal["client_id"], scene.portal["client_secret"])
    flow = app.initiate_auth_code_flow(
        [agents_scope(scene)],
        redirect_uri="https://portal.contoso.example/signed-in",
        response_mode="form_post",
        login_hint=scene.users["carol"]["username"],
    )
    page = scene.session.get(flow["auth_uri"], timeout=10).text
    answer = {
        name: html.unescape(value)
        for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', page)
    }

    result = app.acquire_token_by_auth_code_flow(flow, answer)

    assert "error" not in result, result
    token = claims_of(result["access_token"])
    assert (scene.users["carol"]["object_id"], "1") == (token["oid"], token["azpacr"])


def test_msal_signs_a_user_in_by_device_code(scene: Scene) -> None:
    """The user types the code in elsewhere; the device code is then worth nothing."""
    app = public_app(scene)
    flow = app.initiate_device_flow([agents_scope(scene)])
    typed = {"user_code": flow["user_code"].lower(), "user": scene.users["bob"]["username"]}
    page = scene.session.post(flow["verification_uri"], data=typed, timeout=10)
    assert 200 == page.status_code, page.text

    result = app.acquire_token_by_device_flow(flow)

    assert "error" not in result, result
    assert scene.users["bob"]["object_id"] == claims_of(result["access_token"])["oid"]
    assert 70018 == number(poll(scene, flow["device_code"]))


def test_a_device_waits_until_its_user_says_yes_or_no(scene: Scene) -> None:
    """RFC 8628 section 3.5, with Entra's `authorization_declined`."""
    flow = start_device(scene)
    waiting = poll(scene, flow["device_code"])
    wrong = scene.session.post(
        flow["verification_uri"], data={"user_code": "NOTACODE1", "user": "alice"}, timeout=10
    )
    declined = {"user_code": flow["user_code"], "decline": "1"}
    scene.session.post(flow["verification_uri"], data=declined, timeout=10)
    refused = poll(scene, flow["device_code"])

    assert ("authorization_pending", 70016) == (waiting.json()["error"], number(waiting))
    assert (400, True) == (wrong.status_code, "AADSTS70018" in wrong.text)
    assert "authorization_declined" == refused.json()["error"]


def test_codes_end(fresh_scene: Scene, clock: Clock) -> None:
    """An authorization code after ten minutes, a device code after fifteen."""
    code, flow = returned(authorize(fresh_scene))["code"], start_device(fresh_scene)
    clock.ahead += CODE_LIFETIME + 1
    assert 70008 == number(redeem(fresh_scene, code))
    clock.ahead += DEVICE_LIFETIME
    assert ("expired_token", 70020) == (
        poll(fresh_scene, flow["device_code"]).json()["error"],
        number(poll(fresh_scene, flow["device_code"])),
    )


def test_a_page_asks_who_signs_in(scene: Scene) -> None:
    """Without a hint, or where the client wants it so; its form names the user."""
    for changes in ({"login_hint": None}, {"prompt": "select_account"}):
        page = authorize(scene, **changes)
        assert 200 == page.status_code
        assert scene.users["alice"]["username"] in page.text
        assert scene.agent["agent_user"] not in page.text
    chosen = scene.session.post(
        page.url, data={"user": scene.users["bob"]["object_id"]}, allow_redirects=False, timeout=10
    )
    back = returned(chosen)

    token = claims_of(redeem(scene, back["code"]).json()["access_token"])
    assert ("a&b", scene.users["bob"]["object_id"]) == (back["state"], token["oid"])


@pytest.mark.parametrize("at", ["authorize", "token", "both"])
def test_a_resource_that_is_the_scopes_is_taken(scene: Scene, at: str) -> None:
    """RFC 8707, as MCP clients send it: by identifier URI, with or without a last slash, or client id."""
    names = [
        scene.blueprint["identifier_uri"],
        f"{scene.blueprint['identifier_uri']}/",
        scene.blueprint["client_id"],
    ]
    for name in names:
        first = {"resource": name} if at != "token" else {}
        second = {"resource": name} if at != "authorize" else {}
        answer = redeem(scene, returned(authorize(scene, **first))["code"], **second)
        assert 200 == answer.status_code, answer.text
        assert scene.blueprint["client_id"] == claims_of(answer.json()["access_token"])["aud"]


PAGES: dict[str, tuple[int, Callable[[Scene], requests.Response]]] = {
    "no client": (900144, lambda s: authorize(s, client_id=None)),
    "an unknown client": (
        700016,
        lambda s: authorize(s, client_id="11111111-0000-4000-8000-000000000001"),
    ),
    "an agent": (82018, lambda s: authorize(s, client_id=s.agent["client_id"])),
    "a blueprint": (82018, lambda s: authorize(s, client_id=s.blueprint["client_id"])),
    "common": (50194, lambda s: authorize(s, "common")),
    "an unknown tenant": (90002, lambda s: authorize(s, "nobody.example")),
    "another host": (50011, lambda s: authorize(s, redirect_uri="https://evil.example")),
    "loopback with a path": (50011, lambda s: authorize(s, redirect_uri=f"{LOCAL}/x")),
    "loopback by TLS": (50011, lambda s: authorize(s, redirect_uri="https://localhost:4711")),
    "loopback with a user": (
        50011,
        lambda s: authorize(s, redirect_uri="http://localhost:1@evil.example"),
    ),
    "another loopback": (50011, lambda s: authorize(s, redirect_uri="http://127.0.0.1:4711")),
}


@pytest.mark.parametrize("name", PAGES)
def test_nobody_is_sent_to_an_address_that_is_not_registered(scene: Scene, name: str) -> None:
    """As long as client and address are not sure, the browser stays, and the page has the number."""
    code, ask = PAGES[name]
    page = ask(scene)
    assert 400 == page.status_code
    assert f"AADSTS{code}:" in page.text


REDIRECTED: dict[str, tuple[int, str, dict[str, str | None]]] = {
    "no response type": (900144, "invalid_request", {"response_type": None}),
    "an implicit flow": (700054, "unsupported_response_type", {"response_type": "token"}),
    "no scope": (900144, "invalid_request", {"scope": None}),
    "another resource": (9010010, "invalid_target", {"resource": "https://graph.microsoft.com"}),
    "a short challenge": (501491, "invalid_request", {"code_challenge": "x" * 42}),
    "a method alone": (501491, "invalid_request", {"code_challenge": None}),
    "an odd method": (90100, "invalid_request", {"code_challenge_method": "S512"}),
    "silence": (50058, "login_required", {"prompt": "none", "login_hint": None}),
    "no consent, silently": (65001, "interaction_required", {"prompt": "none", "scope": GRAPH}),
    "no consent": (65004, "access_denied", {"scope": GRAPH}),
    "nobody": (50034, "access_denied", {"login_hint": "nobody@contoso.example"}),
    "a disabled account": (50057, "access_denied", {"login_hint": "dave@contoso.example"}),
}


@pytest.mark.parametrize("name", REDIRECTED)
def test_a_refusal_goes_back_to_the_client(scene: Scene, name: str) -> None:
    """RFC 6749 section 4.1.2.1: error and state by the redirect URI."""
    code, error, changes = REDIRECTED[name]
    back = returned(authorize(scene, **changes))
    assert (error, "a&b", False) == (back["error"], back["state"], "code" in back)
    assert back["error_description"].startswith(f"AADSTS{code}:")


REDEMPTIONS: dict[str, tuple[int, dict[str, str | None]]] = {
    "another verifier": (501481, {"code_verifier": "w" * 64}),
    "no verifier": (501481, {"code_verifier": None}),
    "another address": (500112, {"redirect_uri": "http://localhost:4712"}),
    "no address": (900144, {"redirect_uri": None}),
    "a secret of a public client": (700025, {"client_secret": "x"}),
    "another resource": (9010010, {"resource": "https://graph.microsoft.com"}),
    "an invented code": (70000, {"code": "1.invented"}),
}


@pytest.mark.parametrize("name", REDEMPTIONS)
def test_a_code_is_bound_to_what_it_was_asked_with(scene: Scene, name: str) -> None:
    """PKCE (RFC 7636), redirect URI and client."""
    code, changes = REDEMPTIONS[name]
    used = changes.get("code") or returned(authorize(scene))["code"]
    others = {key: value for key, value in changes.items() if key != "code"}
    assert code == number(redeem(scene, used, **others))


def test_a_code_is_redeemed_once(scene: Scene) -> None:
    """Also where the first attempt failed, and never by another client."""
    used, spoiled, stolen = (returned(authorize(scene))["code"] for _ in range(3))
    assert 200 == redeem(scene, used).status_code
    redeem(scene, spoiled, code_verifier=None)
    portal = {name: scene.portal[name] for name in ("client_id", "client_secret")}

    assert 54005 == number(redeem(scene, used))
    assert 54005 == number(redeem(scene, spoiled))
    assert 70000 == number(redeem(scene, stolen, **portal))


def test_a_verifier_without_a_challenge_is_refused(scene: Scene) -> None:
    """RFC 9700 section 4.8.2: a client that uses PKCE notices that somebody took it off."""
    bare = {"code_challenge": None, "code_challenge_method": None}
    assert 501481 == number(redeem(scene, returned(authorize(scene, **bare))["code"]))
    without = redeem(scene, returned(authorize(scene, **bare))["code"], code_verifier=None)
    assert 200 == without.status_code


def test_a_public_client_has_no_token_of_its_own(scene: Scene) -> None:
    """A grant that needs a credential."""
    client = terminal(scene)["client_id"]
    assert 7000218 == number(
        scene.post(client_id=client, grant_type="client_credentials", scope=GRAPH)
    )
