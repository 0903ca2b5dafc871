"""The door for apps that ask by HTTP, with the endpoints of the Entra SDK sidecar.

Who may ask is `callers`; what is decided, `issuer` decides. What differs from the sidecar, and why, is in
docs/sidecar-api.md.
"""

import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from authz.config import Config
from authz.config.sections.api import Endpoint
from authz.core.decision import Allow, Deny
from authz.core.errors import (
    AuthzError,
    BadOverride,
    OverrideNotAllowed,
    Reason,
    RequestTooLarge,
    UnknownApi,
)
from authz.core.event import Called
from authz.core.record import CheckRecord
from authz.core.request import Authorization, CheckRequest, Direction
from authz.core.secret import Secret
from authz.doors.http_server import HttpServer
from authz.doors.sidecar_api.answers import answer, detail_of, payload_of, problem, refusal
from authz.doors.sidecar_api.callers import HEALTH, KnownCallers
from authz.doors.sidecar_api.challenges import demanded_claims
from authz.doors.sidecar_api.downstream import DownstreamAnswer, DownstreamClient, Hold, target_of
from authz.doors.sidecar_api.issuer import TokenIssuer
from authz.doors.sidecar_api.openapi import document
from authz.doors.sidecar_api.overrides import Overrides
from authz.doors.sidecar_api.parameters import Call, Parameters, printable
from authz.ports import Observer, Timer

HOST: Final = "localhost"
KEEP_ALIVE: Final = 75
"""Seconds for which an idle connection is kept: longer than callers' own pools keep theirs."""
_VERBS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_OWN_METHOD: Final = ("PUT", "PATCH", "DELETE")
"""Methods of a caller that stand for the API's, where nothing else names one (the sidecar's documents)."""
_UNAUTHORIZED: Final = 401
_CALLER_LEFT: Final = 499
_log = structlog.get_logger(__name__)

Missing = Callable[[], Mapping[str, Any]]
"""Why the service is not ready; empty when it is."""


class SidecarApi(HttpServer):
    """Serves the API until it is stopped.

    Args:
        address: `host:port` or `unix:PATH`.
        tokens: Decides.
        config: The configuration to start with.
        observer: Is notified of calls to APIs.
        missing: Why the service is not ready.
        timer: Monotonic seconds, the clock of deadlines.
    """

    def __init__(
        self,
        address: str,
        tokens: TokenIssuer,
        config: Config,
        *,
        observer: Observer,
        missing: Missing,
        timer: Timer,
    ) -> None:
        self._tokens = tokens
        self._observer = observer
        self._missing = missing
        self._timer = timer
        self._config = config
        self._client = DownstreamClient(config.api)
        self._apis = _by_lower_name(config)
        routes = [
            Route(HEALTH, self._health),
            Route("/openapi/v1.json", self._describe),
            Route("/Validate", self._validate),
            *(
                Route(f"/AuthorizationHeader{kind}/{{api}}", self._header(endpoint, known=known))
                for kind, endpoint, known in (
                    ("", Endpoint.AUTHORIZATION_HEADER, True),
                    ("Unauthenticated", Endpoint.AUTHORIZATION_HEADER_UNAUTHENTICATED, False),
                )
            ),
            *(
                Route(
                    f"/DownstreamApi{kind}/{{api}}",
                    self._downstream(endpoint, known=known),
                    methods=_VERBS,
                )
                for kind, endpoint, known in (
                    ("", Endpoint.DOWNSTREAM_API, True),
                    ("Unauthenticated", Endpoint.DOWNSTREAM_API_UNAUTHENTICATED, False),
                )
            ),
        ]
        app = Starlette(routes=routes, exception_handlers={Exception: _failed})
        app.router.redirect_slashes = False
        paths = [str(route.path).split("/")[1] for route in routes]
        self._callers = KnownCallers(app, paths, timer=timer)
        self._callers.peers, self._callers.hosts = config.api.peers, config.api.hosts
        super().__init__(
            address,
            self._callers,
            keep_alive=KEEP_ALIVE,
            # Which is answered with a reason of its own.
            most_body=None,
            patience=config.listen.drain_timeout,
        )

    async def swap(self, config: Config, client: DownstreamClient) -> None:
        """Use another configuration from the next request on, and the client that was built for it."""
        old, self._config = self._config, config
        self._apis = _by_lower_name(config)
        self._callers.peers, self._callers.hosts = config.api.peers, config.api.hosts
        if config.api != old.api:
            client, self._client = self._client, client
        await client.retire()

    async def stop(self) -> None:
        """Stop, finishing requests under way."""
        await super().stop()
        await self._client.retire()

    async def _health(self, _: Request) -> Response:
        sick = bool(self._missing())
        return PlainTextResponse("Unhealthy" if sick else "Healthy", 503 if sick else 200)

    async def _describe(self, _: Request) -> Response:
        return answer(document(self._config.egress))

    async def _validate(self, request: Request) -> Response:
        asked = _asked(request, Direction.INBOUND, None)
        record = await self._tokens.validate(asked, deadline=self._deadline())
        if not isinstance(record.decision, Allow):
            return _refused(record)
        token = request.headers["authorization"].split(maxsplit=1)[1].strip()
        return answer({"protocol": "Bearer", "token": token, "claims": payload_of(token)})

    def _header(self, endpoint: Endpoint, *, known: bool) -> Callable[[Request], Any]:
        async def give(request: Request) -> Response:
            def read_overrides() -> Overrides:
                parameters = self._parameters(request, endpoint)
                # It has no effect here, and what is wrong is told all the same.
                parameters.call()
                return parameters.overrides(for_own_resource=False)

            record = await self._issue(request, read_overrides, known=known)
            token = _token_of(record)
            if token is None:
                return _refused(record)
            return answer({"authorizationHeader": f"Bearer {token.reveal()}"})

        return give

    def _downstream(self, endpoint: Endpoint, *, known: bool) -> Callable[[Request], Any]:
        async def call(request: Request, client: DownstreamClient) -> Response:
            config, name = self._config, self._name(request)
            route = config.egress.get(name)
            wanted = Call()

            def read_overrides() -> Overrides:
                nonlocal wanted
                if route is None:
                    raise UnknownApi(f"no API {name!r}")
                if route.downstream is None:
                    raise BadOverride("this API has no base URL, and so cannot be called from here")
                parameters = self._parameters(request, endpoint)
                wanted = _call_of(parameters, request)
                # Before a token is asked for that could not be used.
                target_of(route.downstream, wanted)
                return parameters.overrides(for_own_resource=True)

            record = await self._issue(request, read_overrides, known=known)
            if _token_of(record) is None or route is None or route.downstream is None:
                return _refused(record)
            wanted = wanted.without(route.removed)
            if wanted.withheld:
                _log.info("headers not sent", route=name, headers=wanted.withheld)
            api, kind = route.downstream, request.headers.get("content-type")
            body: bytes | None = None

            async def send(token: Secret) -> DownstreamAnswer:
                nonlocal body
                if body is None:
                    body = await _body(request, config.api.max_request)
                return await client.call(api, wanted, token, body, kind)

            def issue_for(challenge: str) -> Awaitable[CheckRecord]:
                return self._issue(
                    request, lambda: replace(read_overrides(), challenge=challenge), known=known
                )

            return await self._called(name, record, send, issue_for)

        return self._by_client(call)

    def _by_client(
        self, call: Callable[[Request, DownstreamClient], Awaitable[Response]]
    ) -> Callable[[Request], Any]:
        async def asked(request: Request) -> Response:
            # A reload brings another client, and may come while this request waits for Entra.
            client = self._client
            async with client.in_use():
                return await call(request, client)

        return asked

    async def _called(
        self,
        name: str,
        record: CheckRecord,
        send: Callable[[Secret], Awaitable[DownstreamAnswer]],
        issue_for: Callable[[str], Awaitable[CheckRecord]],
    ) -> Response:
        """Call an API, and once more with what it demands where it refuses the token for a lack of claims."""
        try:
            found = await self._sent(name, record, send)
            challenge = self._demanded(record, found)
            if challenge is not None:
                record = await issue_for(challenge)
                if _token_of(record) is None:
                    return _refused(record)
                found = await self._sent(name, record, send)
                self._demanded(record, found)
        except ClientDisconnect:
            _log.info("caller left", route=name)
            # Nobody reads it: the connection is closed.
            return Response(status_code=_CALLER_LEFT)
        except AuthzError as error:
            return refusal(error, request_id=record.request.request_id)
        response = answer(found.body())
        # What it holds counts until it has been sent.
        weakref.finalize(response, _forget, found.hold)
        return response

    async def _sent(
        self, name: str, record: CheckRecord, send: Callable[[Secret], Awaitable[DownstreamAnswer]]
    ) -> DownstreamAnswer:
        token, started = _token_of(record), self._timer()
        assert token is not None
        try:
            found = await send(token)
        except AuthzError as error:
            self._observer.observe(Called(name, error, self._timer() - started))
            raise
        self._observer.observe(Called(name, found.status, self._timer() - started))
        return found

    def _demanded(self, record: CheckRecord, found: DownstreamAnswer) -> str | None:
        """Return the claims that an API demands in place of the token that it has refused, if any."""
        if found.status != _UNAUTHORIZED:
            return None
        # It may be revoked, and would be handed out for the rest of its life.
        self._tokens.refused(record)
        return demanded_claims(found.headers.get("WWW-Authenticate", []))

    async def _issue(
        self, request: Request, read_overrides: Callable[[], Overrides], *, known: bool
    ) -> CheckRecord:
        return await self._tokens.issue(
            _asked(request, Direction.EGRESS, self._name(request)),
            read_overrides,
            authenticated=known,
            deadline=self._deadline(),
        )

    def _parameters(self, request: Request, endpoint: Endpoint) -> Parameters:
        parameters = Parameters.read(request.scope["query_string"])
        if parameters.change_something and endpoint not in self._config.api.overrides:
            raise OverrideNotAllowed(f"at {endpoint.value}")
        return parameters

    def _name(self, request: Request) -> str:
        given: str = request.path_params["api"]
        return given if given in self._config.egress else self._apis.get(given.lower(), given)

    def _deadline(self) -> float:
        return self._timer() + self._config.limits.check_timeout


def _forget(_: Hold) -> None:
    """Refer to it no more."""


async def _failed(_: Request, __: Exception) -> Response:
    """Return what a defect looks like; Starlette raises it again, so the log has it."""
    return problem(Deny(Reason.INTERNAL))


def _by_lower_name(config: Config) -> dict[str, str]:
    """Return the APIs' names by their lower case: .NET's configuration knows no case."""
    return {name.lower(): name for name in config.egress}


def _asked(request: Request, direction: Direction, api: str | None) -> CheckRequest:
    values = request.headers.getlist("authorization")
    return CheckRequest(
        request.method,
        HOST,
        request.url.path,
        # Two headers are joined, and then are not exactly one bearer value.
        Authorization(",".join(values)) if values else None,
        request_id=request.headers.get("x-request-id", ""),
        traceparent=request.headers.get("traceparent", ""),
        direction=direction.value,
        route=api,
    )


def _call_of(parameters: Parameters, request: Request) -> Call:
    """Return how the API is to be called.

    Raises:
        BadOverride: A value, or the caller's own `Content-Type`, is not what it should be.
    """
    call = parameters.call()
    # A Latin-1 value would end as an error of the client's that sends it on.
    printable("Content-Type", request.headers.get("content-type", ""))
    if call.method is None and request.method in _OWN_METHOD:
        return replace(call, method=request.method)
    return call


async def _body(request: Request, most: int) -> bytes:
    """Read the body.

    Raises:
        RequestTooLarge: It exceeds the bound.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise RequestTooLarge(f"the body has more than {most} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise RequestTooLarge(f"the body exceeds {most} bytes")
    return bytes(body)


def _token_of(record: CheckRecord) -> Secret | None:
    return record.decision.authorization if isinstance(record.decision, Allow) else None


def _refused(record: CheckRecord) -> Response:
    denial = record.decision if isinstance(record.decision, Deny) else Deny(Reason.INTERNAL)
    detail = detail_of(record.error)
    return problem(denial, request_id=record.request.request_id, detail=detail)
