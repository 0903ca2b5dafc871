"""Where people sign in: `/authorize` with its codes, and the device code flow's two pages.

Nobody types a password. `login_hint` names who signs in; without it a page asks, and its form takes a
`user` (object id or user principal name). Scripts send the same form. Consent is not asked for: a client
that has none in the directory is refused as by a user who declines.
"""

from __future__ import annotations

import html
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from authz_dev.emulator.claims import SignIn
from authz_dev.emulator.codes import DEVICE_LIFETIME, POLL_INTERVAL, Authorized, Codes, DeviceCodes
from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import AgentIdentity, Application, Tenant, User
from authz_dev.emulator.errors import TokenError
from authz_dev.emulator.fault_response import NOT_STORED, error_response
from authz_dev.emulator.issuance import lacks_consent
from authz_dev.emulator.issuer import Issuer
from authz_dev.emulator.request import ScopeRequest, TokenRequest
from authz_dev.emulator.token_endpoint import SHARED_TENANTS, read_form

DEVICE_PAGE = "/common/oauth2/deviceauth"
_MODES = ("query", "fragment", "form_post")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CHALLENGE = range(43, 129)
"""Lengths of a code challenge (RFC 7636, section 4.2)."""


class SignInPages:
    """The pages, of every tenant."""

    def __init__(
        self,
        directory: Directory,
        issuer: Issuer,
        codes: Codes,
        devices: DeviceCodes,
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._issuer = issuer
        self._codes = codes
        self._devices = devices
        self._clock = clock

    async def authorize(self, request: Request) -> Response:
        """`/{tenant}/oauth2/v2.0/authorize` (RFC 6749, section 4.1.1)."""
        try:
            asked = await _parameters(request)
            tenant, client = self._client(request, asked)
            redirect_uri = _redirect_uri(asked, client)
        except TokenError as error:
            # Nobody knows yet where it would be safe to send the browser.
            return _page("Sorry, but we are having trouble signing you in.", str(error), 400)
        try:
            found = self._authorized(asked, tenant, client, redirect_uri)
        except TokenError as error:
            return _sent(
                asked, redirect_uri, {"error": error.error, "error_description": str(error)}
            )
        if found is None:
            return self._choice(tenant, client)
        return _sent(asked, redirect_uri, {"code": self._codes.issue(found)})

    async def start_device(self, request: Request) -> Response:
        """`/{tenant}/oauth2/v2.0/devicecode` (RFC 8628, section 3.1)."""
        request.state.correlation_id = str(uuid.uuid4())
        now = self._clock()
        try:
            asked = await read_form(request)
            tenant, client = self._client(request, asked)
            ScopeRequest.of(asked, self._directory, tenant.tenant_id)
        except TokenError as error:
            return error_response(error, request, authority=self._issuer.authority, now=now)
        device_code, user_code = self._devices.issue(
            tenant.tenant_id, client.client_id, asked.get("scope"), now
        )
        page = f"{self._issuer.authority}{DEVICE_PAGE}"
        return JSONResponse(
            {
                "user_code": user_code,
                "device_code": device_code,
                "verification_uri": page,
                "expires_in": DEVICE_LIFETIME,
                "interval": POLL_INTERVAL,
                "message": f"To sign in, open {page} and enter the code {user_code}.",
            },
            headers=NOT_STORED,
        )

    async def device(self, request: Request) -> Response:
        """The page where a user types the code in: `user_code`, `user`, and `decline` to refuse."""
        if request.method == "GET":
            return _form("Enter code", ["user_code", "user"])
        try:
            return self._decided(await read_form(request))
        except TokenError as error:
            return _page("That did not work.", str(error), 400)

    def _decided(self, asked: TokenRequest) -> Response:
        waiting = self._devices.find(asked.required("user_code"), self._clock())
        if waiting is None:
            raise TokenError(70018)
        if asked.get("decline"):
            self._devices.decide(waiting, user_id="", sign_in=None)
            return _page("You declined.", "You can close this window.")
        user = self._user(waiting.tenant_id, asked.required("user"))
        client = self._directory.application(waiting.tenant_id, waiting.client_id)
        assert client is not None
        scope = ScopeRequest.parse(waiting.scope, self._directory, waiting.tenant_id)
        self._check_consent(client, scope, user)
        self._devices.decide(waiting, user_id=user.object_id, sign_in=_signed_in(user))
        return _page("You have signed in.", "You can close this window.")

    def _client(self, request: Request, asked: TokenRequest) -> tuple[Tenant, Application]:
        client_id = asked.required("client_id")
        name = request.path_params["tenant"]
        if name.lower() in SHARED_TENANTS:
            raise TokenError(50194, f"The endpoint is '/{name.lower()}'.")
        tenant = self._directory.tenant(name)
        if tenant is None:
            raise TokenError(90002, f"The tenant is '{name}'.")
        client = self._directory.client(tenant.tenant_id, client_id)
        if client is None:
            raise TokenError(700016, f"The client id is '{client_id}'.")
        if isinstance(client, AgentIdentity) or client.is_blueprint:
            raise TokenError(82018, f"The application is '{client_id}'.")
        if client.disabled:
            raise TokenError(7000112, f"The application is '{client_id}'.")
        return tenant, client

    def _authorized(
        self, asked: TokenRequest, tenant: Tenant, client: Application, redirect_uri: str
    ) -> Authorized | None:
        """What the user signed in for; None when nobody has said who it is."""
        if asked.required("response_type") != "code":
            raise TokenError(700054, f"It is '{asked.get('response_type')}'.")
        if asked.get("response_mode") not in ("", *_MODES):
            raise TokenError(90100, "The parameter is 'response_mode'.")
        asked.claims()
        scope = ScopeRequest.of(asked, self._directory, tenant.tenant_id)
        challenge, method = asked.get("code_challenge"), asked.get("code_challenge_method")
        if (challenge or method) and len(challenge) not in _CHALLENGE:
            raise TokenError(501491)
        if method not in ("", "plain", "S256"):
            raise TokenError(90100, "The parameter is 'code_challenge_method'.")
        silent = asked.get("prompt") == "none"
        hint = "" if asked.get("prompt") in ("login", "select_account") else asked.get("login_hint")
        name = asked.get("user") or hint
        if silent and not name:
            raise TokenError(50058)
        if not name:
            return None
        user = self._user(tenant.tenant_id, name)
        self._check_consent(client, scope, user, silent=silent)
        return Authorized(
            tenant.tenant_id,
            client.client_id,
            user.object_id,
            redirect_uri,
            asked.get("scope"),
            self._clock(),
            _signed_in(user),
            challenge=challenge,
            method=method or "plain",
            nonce=asked.get("nonce"),
        )

    def _user(self, tenant_id: str, name: str) -> User:
        user = self._directory.user(tenant_id, name)
        if user is None or user.agent_id is not None:
            raise TokenError(50034, error="access_denied")
        if user.disabled:
            raise TokenError(50057, error="access_denied")
        return user

    def _check_consent(
        self, client: Application, scope: ScopeRequest, user: User, *, silent: bool = False
    ) -> None:
        if lacks_consent(self._directory, client, scope, user):
            if silent:
                raise TokenError(65001, error="interaction_required")
            raise TokenError(65004)

    def _choice(self, tenant: Tenant, client: Application) -> Response:
        people = [u for u in self._directory.users(tenant.tenant_id) if u.agent_id is None]
        return _form(f"Sign in to {client.name}", [], {u.object_id: u.username for u in people})


def _signed_in(user: User) -> SignIn:
    """How the user proved to be one: the second factor is given where it is asked for."""
    return SignIn(amr=("pwd", "mfa") if user.mfa_required else ("pwd",), sid=str(uuid.uuid4()))


async def _parameters(request: Request) -> TokenRequest:
    """Query and form together: the page's own form repeats the query."""
    pairs = parse_qsl(request.url.query, keep_blank_values=True)
    if len(dict(pairs)) != len(pairs):
        raise TokenError(9002313, "A parameter is included more than once.")
    form = (await read_form(request)).form if request.method == "POST" else {}
    return TokenRequest(dict(pairs) | dict(form))


def _redirect_uri(asked: TokenRequest, client: Application) -> str:
    """The address to send the browser to; raises TokenError 50011 for one that is not registered."""
    given = asked.get("redirect_uri")
    if not given and len(client.redirect_uris) == 1:
        return client.redirect_uris[0]
    if given not in client.redirect_uris and _without_port(given) not in client.redirect_uris:
        raise TokenError(50011, f"It is '{given}'.")
    return given


def _without_port(address: str) -> str:
    """The address as a registered loopback address admits it on any port (RFC 8252, section 7.3)."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK or "@" in parts.netloc:
        return ""
    bare = parts._replace(netloc=parts.netloc.removesuffix(f":{port}")) if port else parts
    return bare.geturl()


def _sent(asked: TokenRequest, redirect_uri: str, result: Mapping[str, str]) -> Response:
    """The answer, sent through the browser as `response_mode` says."""
    state = {"state": asked.form["state"]} if "state" in asked.form else {}
    answer = {**result, **state}
    mode = asked.get("response_mode") or "query"
    if mode == "form_post":
        fields = "".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
            for name, value in answer.items()
        )
        return HTMLResponse(
            f'<form method="post" action="{html.escape(redirect_uri)}">{fields}'
            "<noscript><button>Continue</button></noscript></form>"
            "<script>document.forms[0].submit()</script>",
            headers=NOT_STORED,
        )
    mark = "#" if mode == "fragment" else "&" if urlsplit(redirect_uri).query else "?"
    return RedirectResponse(f"{redirect_uri}{mark}{urlencode(answer)}", 302, headers=NOT_STORED)


def _form(title: str, names: list[str], people: Mapping[str, str] | None = None) -> Response:
    fields = "".join(f"<label>{name} <input name={name}></label> " for name in names)
    buttons = "".join(
        f'<p><button name="user" value="{user}">{html.escape(name)}</button></p>'
        for user, name in (people or {}).items()
    )
    return _page(
        title, "", raw=f'<form method="post">{fields}{buttons or "<button>Next</button>"}</form>'
    )


def _page(title: str, text: str, status: int = 200, *, raw: str = "") -> Response:
    content = f"<!doctype html><title>Sign in</title><h1>{html.escape(title)}</h1>"
    return HTMLResponse(f"{content}<p>{html.escape(text)}</p>{raw}", status, headers=NOT_STORED)
