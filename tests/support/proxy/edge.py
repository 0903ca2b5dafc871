"""What the tests of the edge cache share: a service that lets Envoy repeat, an Envoy with another script."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import yaml

from authz._pb.external_auth_pb2 import CheckRequest, CheckResponse, DeniedHttpResponse
from authz._pb.http_status_pb2 import HttpStatus
from authz._pb.status_pb2 import Status
from authz.config import Config
from authz.envoy_config.edge_cache import EDGE_CACHE
from support.proxy.ext_authz_server import allow
from support.proxy.sidecar import Sidecar

USER: Final = "Bearer user-"
"""How the `Authorization` of every user of these tests begins."""

HANDLE: Final = "authz-subject=user-"
"""How the `baggage` of every user begins who is known by it."""

DENIED: Final = 401

PATIENCE: Final = 20.0
"""Seconds until a test gives up on a condition."""


def without_pushes(config: Config) -> Config:
    """Return a configuration whose every route asks the service."""
    routes = {
        name: route.model_copy(update={"push": False}) for name, route in config.egress.items()
    }
    return config.model_copy(update={"egress": routes})


def repeatable(
    route: str,
    *,
    set_: Mapping[str, str] | None = None,
    remove: tuple[str, ...] = (),
    edge: Mapping[str, Any] | None = None,
) -> CheckResponse:
    """Return an allowance that Envoy may repeat.

    Args:
        route: The service's route that it was made for.
        set_: Headers to set.
        remove: Headers to remove.
        edge: Other values for members of `edge`; None leaves a member out.
    """
    members = {
        "ttl_ms": 60_000,
        "parts": "authorization",
        "set": list(set_ or {}),
        "remove": list(remove),
        **(edge or {}),
    }
    answer = allow(headers=dict(set_ or {}), remove=remove)
    answer.dynamic_metadata.update(
        {
            "decision": "allow",
            "route": route,
            "flow": "on_behalf_of",
            "edge": {name: value for name, value in members.items() if value is not None},
        }
    )
    return answer


def denial() -> CheckResponse:
    """Return a refusal, which nothing may repeat."""
    answer = CheckResponse(
        status=Status(code=16), denied_response=DeniedHttpResponse(status=HttpStatus(code=DENIED))
    )
    answer.dynamic_metadata.update({"decision": "deny", "reason": "invalid_token"})
    return answer


@dataclass(frozen=True, slots=True)
class Issued:
    """A token, as the service gave it.

    Attributes:
        user: To whom.
        route: On which route.
        host: For which host.
        until: Epoch second from which nobody may repeat it.
    """

    user: str
    route: str
    host: str
    until: float


@dataclass
class Issuer:
    """A service that gives each user a token of his own, and denies whatever is not a user's.

    Attributes:
        ttl_ms: For how long Envoy may repeat the next answers.
        issued: Every token given, by its value.
    """

    ttl_ms: float = 60_000
    issued: dict[str, Issued] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: CheckRequest) -> CheckResponse:
        """Answer a Check."""
        http = request.attributes.request.http
        # A user is known by a token or, in baggage, by a reference, as each egress route decides.
        baggage = http.headers.get("baggage", "")
        authorization = baggage.replace(HANDLE, USER) or http.headers.get("authorization", "")
        if not authorization.startswith(USER) or "," in authorization:
            return denial()
        route = request.attributes.context_extensions["authz.route"]
        user = authorization.removeprefix("Bearer ")
        remove = ("baggage",) if baggage else ()
        with self._lock:
            token = f"Bearer token-{next(self._numbers)}"
            until = time.time() + self.ttl_ms / 1000
            self.issued[token] = Issued(user, route, http.host, until)
        return repeatable(
            route, set_={"authorization": token}, remove=remove, edge={"ttl_ms": self.ttl_ms}
        )


class Scripted(Sidecar):
    """A sidecar whose edge cache runs a changed script.

    Args:
        change: From the script as it is shipped to the one that runs.
        document: Changes the rest of Envoy's configuration, in place.
    """

    def __init__(
        self,
        *arguments: Any,
        change: Callable[[str], str] = lambda script: script,
        document: Callable[[dict[str, Any]], None] = lambda _: None,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._change = change
        self._document = document

    def bootstrap(self) -> str:
        """Return the rendered configuration with the other script."""
        document = yaml.safe_load(super().bootstrap())
        for manager in managers(document):
            source = manager["route_config"]["typed_per_filter_config"][EDGE_CACHE]["source_code"]
            source["inline_string"] = self._change(source["inline_string"])
        self._document(document)
        return yaml.safe_dump(document)


class Eager(Sidecar):
    """A sidecar that closes a connection with nonsense at once; Envoy waits for a second by itself."""

    def bootstrap(self) -> str:
        """Return the rendered configuration with that setting."""
        document = yaml.safe_load(super().bootstrap())
        for manager in managers(document):
            manager["delayed_close_timeout"] = "0.02s"
        return yaml.safe_dump(document)


def managers(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the HTTP connection manager of each listener of a bootstrap."""
    return [
        listener["filter_chains"][0]["filters"][0]["typed_config"]
        for listener in document["static_resources"]["listeners"]
    ]


def bearer(user: str) -> dict[str, str]:
    """Return the header of a user."""
    return {"authorization": f"{USER}{user}"}


def handle(user: str) -> dict[str, str]:
    """Return the header of a user who is known by a reference."""
    return {"baggage": f"{HANDLE}{user}"}


def fresh() -> dict[str, str]:
    """Return the header of a user whom nobody has met."""
    return bearer(str(uuid4()))


def user_of(headers: Mapping[str, str]) -> str:
    """Return the user whose header that is, as `Issued` names him."""
    return headers["authorization"].removeprefix("Bearer ")


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        threading.Event().wait(0.005)


def wait(event: threading.Event) -> None:
    """Wait for an event."""
    assert event.wait(PATIENCE)


def raw(port: int) -> socket.socket:
    """Connect to a listener."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def exchange(port: int, request: bytes) -> bytes:
    """Send a request as it is and return what comes back until the other side closes."""
    with raw(port) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def first_line(port: int, request: bytes) -> bytes:
    """Send a request as it is and return how the answer begins; Envoy waits before it closes on nonsense."""
    with raw(port) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n" not in answer and (part := connection.recv(65536)):
            answer += part
        return answer.partition(b"\r\n")[0]


def get_request(host: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Return a GET request through the proxy, as bytes."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET http://{host}{path} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n".encode()
