"""What callers, agent and destinations see when a real Envoy asks about each request."""

import json
from uuid import uuid4

import httpx
import pytest

from authz._pb.external_auth_pb2 import CheckRequest, CheckResponse
from authz.config.rendered import MARK
from authz.core.decision import Allow, Decision, Deny
from authz.core.errors import Reason
from authz.core.secret import Secret
from authz.doors.envoy.ext_authz import encode
from support.fakes.records import record_of
from support.peers.bytes_of_http import exchange
from support.proxy.ext_authz_server import PUSHED, ExtAuthzServer, allow
from support.proxy.sidecar import Sidecar

GRAPH = "graph.microsoft.com"
USER = {"authorization": "Bearer user-token"}


def decided(decision: Decision) -> CheckResponse:
    """Return a decision the way the service itself puts it on the wire."""
    return encode(record_of(decision))


def test_agent_gets_the_token_that_the_decision_names(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """The header of the answer replaces the caller's, it does not join it."""
    token = Secret("agent-token")
    service.answer = lambda _: decided(Allow(authorization=token))

    sidecar.caller.get("/chat", headers=USER)

    assert ["Bearer agent-token"] == sidecar.app.received[0].values("authorization")


def test_destination_never_sees_the_users_token(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """On egress the exchanged token takes the place of the one the agent sent (law 4)."""
    service.answer = lambda _: decided(Allow(authorization=Secret("graph-token")))

    sidecar.agent.get(f"http://{GRAPH}/v1.0/me", headers=USER)

    assert ["Bearer graph-token"] == sidecar.destinations[GRAPH].received[0].values("authorization")


@pytest.mark.parametrize("name", ["authorization", "cookie"])
def test_header_to_remove_is_removed(sidecar: Sidecar, service: ExtAuthzServer, name: str) -> None:
    """A route without token leaves no token behind, and other headers go just as well."""
    service.answer = lambda _: decided(Allow(remove=(name,)))

    sidecar.agent.get(f"http://{GRAPH}/", headers={**USER, "cookie": "a=b"})

    assert [] == sidecar.destinations[GRAPH].received[0].values(name)


def test_denial_reaches_the_caller_as_the_service_wrote_it(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Status, challenge and problem body of a denial are the service's."""
    service.answer = lambda _: decided(Deny(Reason.INVALID_TOKEN))

    answer = sidecar.caller.get("/chat", headers=USER)

    assert 401 == answer.status_code
    assert "application/problem+json" == answer.headers["content-type"]
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert "invalid_token" == answer.json()["reason"]
    assert [] == sidecar.app.received


def test_error_of_the_service_reaches_the_caller_with_retry_after(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """What we or Entra could not do is answered as 503 with our body and the time to wait."""
    service.answer = lambda _: decided(Deny(Reason.EXCHANGE_THROTTLED, retry_after=7.0))

    answer = sidecar.agent.get(f"http://{GRAPH}/", headers=USER)

    assert 503 == answer.status_code
    assert "7" == answer.headers["retry-after"]
    assert "application/problem+json" == answer.headers["content-type"]
    assert "exchange_throttled" == answer.json()["reason"]
    assert [] == sidecar.destinations[GRAPH].received


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez", "/healthz?verbose"])
def test_health_check_needs_no_decision(
    sidecar: Sidecar, service: ExtAuthzServer, path: str, method: str
) -> None:
    """A probe reaches the agent without a Check, with or without a query, whichever way it asks."""
    answer = sidecar.caller.request(method, path)

    assert 200 == answer.status_code
    assert [] == service.requests


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/healthz"),
        ("DELETE", "/healthz"),
        ("PATCH", "/healthz"),
        ("HEAD", "/healthz/"),
        ("OPTIONS", "/healthz/"),
        ("GET", "/healthz/"),
        ("GET", "/healthz/details"),
        ("GET", "/healthz;x"),
        ("GET", "/HEALTHZ"),
        ("GET", "/"),
        ("GET", "/?/healthz"),
    ],
)
def test_what_only_looks_like_a_health_check_needs_a_decision(
    sidecar: Sidecar, service: ExtAuthzServer, method: str, path: str
) -> None:
    """The exemption is one exact path, and the methods that only read."""
    service.answer = lambda _: decided(Deny(Reason.MISSING_TOKEN))

    answer = sidecar.caller.request(method, path)

    assert 401 == answer.status_code
    assert [] == sidecar.app.received


def test_path_is_normalized_before_it_is_matched(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """A path that climbs out of a health path is asked about, under the name the agent will see."""
    exchange(
        sidecar.inbound_port,
        b"GET /healthz/../admin HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n",
    )

    assert ["/admin"] == [check.attributes.request.http.path for check in service.requests]
    assert ["/admin"] == [seen.path for seen in sidecar.app.received]


@pytest.mark.parametrize("path", ["/healthz", "/chat"])
def test_identity_headers_of_a_client_never_reach_the_agent(sidecar: Sidecar, path: str) -> None:
    """Whatever a client sends under x-authz- is gone, where there is a Check and where there is none."""
    headers = {"x-authz-subject": "somebody", "X-Authz-Anything": "else"}

    sidecar.caller.get(path, headers=headers)

    seen = sidecar.app.received[0]
    assert [] == [name for name, _ in seen.headers if name.startswith("x-authz-")]


def test_identity_headers_of_the_service_reach_the_agent(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Those that the decision sets arrive once, beside a client's attempt at the same name."""
    service.answer = lambda _: decided(Allow(headers=(("x-authz-subject", "user-1"),)))

    sidecar.caller.get("/chat", headers={"x-authz-subject": "somebody"})

    assert ["user-1"] == sidecar.app.received[0].values("x-authz-subject")


def test_token_on_a_health_path_is_removed(sidecar: Sidecar) -> None:
    """Nobody looked at it, so the agent must not take it for verified."""
    sidecar.caller.get("/healthz", headers=USER)

    assert [] == sidecar.app.received[0].values("authorization")


@pytest.mark.parametrize("upper", [False, True])
def test_a_health_path_is_no_way_to_another_request(sidecar: Sidecar, upper: bool) -> None:
    """Headers by which some frameworks serve another path or method do not arrive where nobody is asked."""
    headers = {
        "x-original-url": "/admin",
        "x-rewrite-url": "/admin",
        "x-http-method-override": "DELETE",
        "x-http-method": "DELETE",
        "x-method-override": "DELETE",
    }

    sidecar.caller.get(
        "/healthz",
        headers={name.upper() if upper else name: value for name, value in headers.items()},
    )

    (seen,) = sidecar.app.received
    assert [] == [name for name, _ in seen.headers if name.lower() in headers]


@pytest.mark.parametrize("path", ["/healthz", "/chat"])
def test_agent_sees_nothing_of_envoy(sidecar: Sidecar, path: str) -> None:
    """Neither what Envoy would say of itself nor what a caller says in its place reaches the agent."""
    sidecar.caller.get(path, headers={"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3"})

    names = [name for name, _ in sidecar.app.received[0].headers]
    assert [] == [name for name in names if name.startswith("x-envoy-")]


@pytest.mark.parametrize(
    "url", ["http://evil.example/", "http://127.0.0.1/", f"http://{GRAPH}:444/"]
)
def test_unknown_destination_is_a_dead_end_even_when_it_is_allowed(
    sidecar: Sidecar, service: ExtAuthzServer, url: str
) -> None:
    """The service is asked without a route; and should it allow by mistake, nothing leaves."""
    answer = sidecar.agent.get(url, headers=USER)

    assert 403 == answer.status_code
    assert "application/problem+json" == answer.headers["content-type"]
    assert "unknown_route" == answer.json()["reason"]
    assert [{"authz.direction": "egress"}] == extensions(service)
    assert [] == [seen for server in sidecar.destinations.values() for seen in server.received]


def test_a_preflight_is_asked_about(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """It has no token, so the service denies it: nothing is open to every origin by itself."""
    headers = {"origin": "https://app.example", "access-control-request-method": "POST"}

    sidecar.caller.options("/chat", headers=headers)

    (check,) = service.requests
    assert "OPTIONS" == check.attributes.request.http.method
    assert "authorization" not in check.attributes.request.http.headers


def test_denial_of_an_unknown_destination_reaches_the_agent(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """The usual case: the service knows no route and says so."""
    service.answer = lambda _: decided(Deny(Reason.UNKNOWN_ROUTE))

    answer = sidecar.agent.get("http://evil.example/", headers=USER)

    assert 403 == answer.status_code
    assert "urn:authz:reason:unknown_route" == answer.json()["type"]


@pytest.mark.parametrize(
    "written", [GRAPH, f"{GRAPH}:80", f"{GRAPH}:443", GRAPH.upper(), f"{GRAPH}.", f"{GRAPH}.:80"]
)
def test_every_way_to_write_a_destination_leads_there(
    sidecar: Sidecar, service: ExtAuthzServer, written: str
) -> None:
    """Case, default ports and the root's dot make no difference; the connection is always TLS.

    The destination hears its name as it is configured: port 80 is the agent's side of the call.
    """
    answer = exchange(
        sidecar.egress_port,
        f"GET http://{written}/v1.0/me HTTP/1.1\r\nhost: {written}\r\n"
        "connection: close\r\n\r\n".encode(),
    )

    assert b"HTTP/1.1 200 " == answer[:13]
    expected = {"authz.direction": "egress", "authz.route": "graph", "authz.edge": "4"}
    assert [expected] == extensions(service)
    (seen,) = sidecar.destinations[GRAPH].received
    assert [GRAPH] == seen.values("host")
    assert [] == [name for name, _ in seen.headers if "host" in name and name != "host"]


def test_a_port_of_its_own_reaches_the_destination(sidecar: Sidecar) -> None:
    """A host that is configured with a port hears it, as every other client would say it."""
    sidecar.agent.get("http://inventory.internal:8443/")

    (seen,) = sidecar.destinations["inventory.internal:8443"].received
    assert ["inventory.internal:8443"] == seen.values("host")


def test_destination_can_be_called_by_its_host_alone(sidecar: Sidecar) -> None:
    """An agent that is pointed at the listener as base URL is served like one that uses a proxy."""
    answer = httpx.get(
        f"http://127.0.0.1:{sidecar.egress_port}/v1.0/me", headers={"host": GRAPH}, trust_env=False
    )

    assert 200 == answer.status_code
    assert [GRAPH] == sidecar.destinations[GRAPH].received[0].values("host")


def test_destination_with_a_certificate_for_another_name_gets_nothing(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """The token is not sent to whoever merely answers at the address."""
    service.answer = lambda _: decided(Allow(authorization=Secret("weather-token")))

    answer = sidecar.agent.get("http://api.weather.example/")

    assert 503 == answer.status_code
    assert [] == sidecar.destinations["api.weather.example"].received


def test_path_and_body_reach_the_destination_untouched(sidecar: Sidecar) -> None:
    """Nothing is normalized on egress: the path belongs to the destination."""
    path = "/v1.0//users/a%2Fb/../c?$filter=x%20eq%20'y'"

    answer = exchange(
        sidecar.egress_port,
        f"POST http://{GRAPH}{path} HTTP/1.1\r\nhost: {GRAPH}\r\n"
        "content-length: 5\r\nconnection: close\r\n\r\nhello".encode(),
    )

    assert b"HTTP/1.1 200 " == answer[:13]
    seen = sidecar.destinations[GRAPH].received[0]
    assert ("POST", path, "hello") == (seen.method, seen.path, seen.body)


def test_what_is_between_agent_and_envoy_does_not_reach_the_destination(sidecar: Sidecar) -> None:
    """Proxy credentials, Envoy's own headers and ours stay in the pod."""
    inside = {
        "proxy-authorization": "Basic c2VjcmV0",
        "x-authz-subject": "somebody",
        "x-envoy-retry-on": "5xx",
        "x-envoy-original-path": "/",
        "x-forwarded-proto": "http",
    }

    sidecar.agent.get(f"http://{GRAPH}/", headers=inside)

    names = {name for name, _ in sidecar.destinations[GRAPH].received[0].headers}
    assert set() == {name for name in names if name in inside or name.startswith("x-envoy-")}
    assert "x-forwarded-for" not in names


def test_caller_cannot_make_envoy_send_a_request_twice(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Envoy's retry headers count for nothing: what changes something goes out once."""
    before = sidecar.envoy.stats()
    headers = {"x-envoy-retry-on": "connect-failure,reset,5xx", "x-envoy-max-retries": "3"}

    sidecar.agent.post("http://api.weather.example/", headers=headers)

    name = "cluster.egress_api_weather_example.upstream_cx_total"
    assert before.get(name, 0) + 1 == sidecar.envoy.stats()[name]


def test_without_the_service_nothing_passes(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """Requests are refused in both directions while nobody answers Checks, and health checks go on."""
    service.stop()

    statuses = (
        sidecar.caller.get("/chat", headers=USER).status_code,
        sidecar.agent.get(f"http://{GRAPH}/", headers=USER).status_code,
        sidecar.caller.get("/healthz").status_code,
    )

    assert (503, 503, 200) == statuses
    assert ["/healthz"] == [seen.path for seen in sidecar.app.received]
    assert [] == sidecar.destinations[GRAPH].received


def test_crash_of_a_check_is_a_refusal(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """A gRPC error in the place of an answer lets nothing pass."""

    def crash(_: CheckRequest) -> CheckResponse:
        raise RuntimeError("the service is broken")

    service.answer = crash

    answer = sidecar.caller.get("/chat", headers=USER)

    assert 503 == answer.status_code
    assert [] == sidecar.app.received


def test_answer_with_an_impossible_header_is_a_refusal(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """A line break in a header that the service sets cannot become a header of its own."""
    service.answer = lambda _: allow(headers={"x-authz-subject": "a\r\nx-authz-tenant: b"})

    answer = sidecar.caller.get("/chat", headers=USER)

    assert 500 == answer.status_code
    assert [] == sidecar.app.received


def test_repeated_authorization_arrives_as_one_value_with_a_comma(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """The service's rule against two tokens rests on this: a comma is in no bearer value."""
    exchange(
        sidecar.inbound_port,
        b"GET /chat HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n"
        b"authorization: Bearer one\r\nAuthorization: Bearer two\r\n\r\n",
    )

    headers = service.requests[0].attributes.request.http.headers
    assert "Bearer one,Bearer two" == headers["authorization"]


def test_service_is_told_direction_and_route(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """Each Check names the route of the configuration that it belongs to, and that Envoy has a cache."""
    sidecar.caller.get("/chat")
    sidecar.agent.get("http://graph.microsoft.com/v1.0/me")

    expected = [
        {"authz.direction": "inbound", "authz.route": "chat", "authz.edge": "4"},
        {"authz.direction": "egress", "authz.route": "graph", "authz.edge": "4"},
    ]
    assert expected == extensions(service)


def test_pushed_token_replaces_whatever_the_agent_sent_without_a_check(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Law 4 holds where the service is not asked: the user's token goes out in no way."""
    answer = sidecar.agent.post(
        "http://inventory.internal:8443/items?q=1",
        headers={**USER, "x-authz-subject": "somebody", "x-request-id": "pushed-1"},
        content=b"body",
    )

    (seen,) = sidecar.destinations["inventory.internal:8443"].received
    assert 200 == answer.status_code
    assert [] == service.requests
    assert [PUSHED] == seen.values("authorization")
    assert [] == seen.values("x-authz-subject")
    assert ("POST", "/items?q=1", "body") == (seen.method, seen.path, seen.body)
    entry = sidecar.envoy.access_log("pushed-1")
    assert "inventory" == entry["pushed"]
    assert PUSHED not in str(entry)


def test_service_is_shown_only_what_it_reads(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """Cookies and other headers stay between caller and agent."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {**USER, "traceparent": trace, "x-request-id": "r-1", "cookie": "a=b"}

    sidecar.caller.post("/chat?q=1", headers=headers, content=b"secret body")

    http = service.requests[0].attributes.request.http
    expected = {**USER, "traceparent": trace, "x-request-id": "r-1"}
    assert expected == dict(http.headers)
    assert ("POST", "/chat?q=1") == (http.method, http.path)
    assert b"secret body" not in service.requests[0].SerializeToString()


def test_request_id_and_trace_context_are_kept(sidecar: Sidecar) -> None:
    """What correlates logs along the way is passed on as it came, in both directions."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": trace, "x-request-id": "chosen-by-the-caller"}

    sidecar.caller.get("/chat", headers=headers)
    sidecar.agent.get(f"http://{GRAPH}/", headers=headers)

    for seen in (sidecar.app.received[0], sidecar.destinations[GRAPH].received[0]):
        assert headers == {name: value for name, value in seen.headers if name in headers}


def test_request_without_id_gets_one(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """Service and agent see the same generated id."""
    sidecar.caller.get("/chat")

    generated = service.requests[0].attributes.request.http.headers["x-request-id"]
    assert [generated] == sidecar.app.received[0].values("x-request-id")


def test_access_log_tells_the_decision_and_no_token(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """One line for each request: what was decided and why, without header values and query."""
    service.answer = lambda _: decided(Deny(Reason.EXCHANGE_REJECTED))
    request_id = str(uuid4())
    headers = {"authorization": "Bearer very-secret", "x-request-id": request_id}

    sidecar.agent.get(f"http://{GRAPH}/v1.0/me?token=also-secret", headers=headers)

    entry = sidecar.envoy.access_log(request_id)
    expected = {
        "direction": "egress",
        "method": "GET",
        "host": GRAPH,
        "path": "/v1.0/me",
        "status": 401,
        "decision": "deny",
        "reason": "exchange_rejected",
    }
    assert expected == {name: entry.get(name) for name in expected}
    assert "secret" not in sidecar.envoy.log


def test_access_log_tells_route_and_flow_of_what_was_allowed(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """The facts come from the answer's dynamic metadata, whatever they are."""
    answer = allow(headers={"authorization": "Bearer very-secret"})
    facts = {"decision": "allow", "route": "graph", "flow": "on_behalf_of"}
    for name, value in facts.items():
        answer.dynamic_metadata.fields[name].string_value = value
    service.answer = lambda _: answer
    request_id = str(uuid4())

    sidecar.agent.get(f"http://{GRAPH}/", headers={"x-request-id": request_id})

    entry = sidecar.envoy.access_log(request_id)
    assert facts == {name: entry.get(name) for name in facts}
    assert "secret" not in json.dumps(entry)


@pytest.mark.parametrize("path", ["/config_dump", "/quitquitquit", "/logging?level=trace", "/"])
def test_agent_cannot_control_envoy(sidecar: Sidecar, path: str) -> None:
    """The agent shares the loopback interface with Envoy's administration, and may only read numbers."""
    answer = httpx.post(f"{sidecar.envoy.admin}{path}", trust_env=False)

    assert 403 == answer.status_code


def extensions(service: ExtAuthzServer) -> list[dict[str, str]]:
    """Return the context extensions of each Check so far, without the mark of the configuration."""
    return [
        {key: value for key, value in check.attributes.context_extensions.items() if key != MARK}
        for check in service.requests
    ]
