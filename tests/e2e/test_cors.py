"""Web pages of other origins through a real Envoy: whose preflights are answered, and who may read what."""

from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from support.programs.stack import World
from support.proxy.pod import Pod, pod_of

APP: Final = "https://app.example.com"
OTHER: Final = "https://evil.example"
RESOURCE: Final = "https://agent.example.com/mcp"
OWN: Final = "/.well-known/oauth-protected-resource/mcp"
ALLOWED: Final = "access-control-allow-origin"


@pytest.fixture(scope="module", params=["1h", "0s"])
def running(
    shared_world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Pod]:
    """Run a pod whose agent pages of one origin may call, and which says where to sign in."""
    document = shared_world.config()
    document["blueprints"]["support"]["audiences"] = [shared_world.blueprint["client_id"], RESOURCE]
    document["inbound"]["agent"] |= {
        "resource": RESOURCE,
        "public_paths": ["/static/**"],
        "cors": {"origins": [APP, "http://localhost:3000"], "max_age": "10m"},
    }
    folder, edge = tmp_path_factory.mktemp("cors"), {"edge": {"max_ttl": request.param}}
    changes = {key: document[key] for key in ("blueprints", "inbound")}
    with pod_of(shared_world, folder, cache=edge, **changes) as pod:
        yield pod


@pytest.fixture
def pod(running: Pod) -> Pod:
    """That pod, whose agent has received nothing yet."""
    running.sidecar.app.received.clear()
    return running


def preflight(pod: Pod, path: str, origin: str, method: str = "POST") -> httpx.Response:
    """Return the answer to what a browser asks before such a request."""
    asked = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization, mcp-protocol-version",
    }
    return pod.sidecar.caller.options(path, headers=asked)


@pytest.mark.parametrize("path", ["/mcp", "/", "/static/x", "/healthz"])
@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
def test_a_preflight_of_a_known_page_is_answered(pod: Pod, path: str, origin: str) -> None:
    """By Envoy, without a token; it reaches nobody."""
    answer = preflight(pod, path, origin)

    assert 200 == answer.status_code
    assert [origin] == answer.headers.get_list(ALLOWED)
    assert "POST" in answer.headers["access-control-allow-methods"].split(", ")
    assert {"authorization", "mcp-session-id", "mcp-protocol-version"} <= {
        *answer.headers["access-control-allow-headers"].split(", ")
    }
    assert "600" == answer.headers["access-control-max-age"]
    assert "access-control-allow-credentials" not in answer.headers
    assert [] == pod.sidecar.app.received


@pytest.mark.parametrize("path", ["/mcp", "/static/x"])
@pytest.mark.parametrize(
    "origin", [OTHER, f"{APP}.evil.example", "null", "https://APP.example.com"]
)
def test_a_preflight_of_another_page_allows_nothing(pod: Pod, path: str, origin: str) -> None:
    """It names no page that may call, and does not reach the agent."""
    answer = preflight(pod, path, origin)

    told = {*answer.headers} & {ALLOWED, "access-control-allow-credentials"}
    assert (200, set()) == (answer.status_code, told)
    assert [] == pod.sidecar.app.received


def test_a_known_page_may_read_answers_and_refusals(pod: Pod) -> None:
    """Where to sign in is in a header of the refusal, which it may read."""
    caller, page = pod.sidecar.caller, {"origin": APP}
    right = page | {"authorization": f"Bearer {pod.world.token()}"}

    answers = [caller.post("/mcp", headers=page), *(caller.post("/mcp", headers=right),) * 2]

    assert [401, 200, 200] == [each.status_code for each in answers]
    assert [[APP]] * 3 == [each.headers.get_list(ALLOWED) for each in answers]
    exposed = {each.headers["access-control-expose-headers"] for each in answers}
    assert {"www-authenticate, mcp-session-id"} == exposed
    assert "resource_metadata" in answers[0].headers["www-authenticate"]


def test_another_page_may_read_none(pod: Pod) -> None:
    """A token still decides whether the request passes, as for callers that are no browser."""
    caller, page = pod.sidecar.caller, {"origin": OTHER}
    right = page | {"authorization": f"Bearer {pod.world.token()}"}

    answers = [caller.post("/mcp", headers=each) for each in (page, right, right)]

    assert [401, 200, 200] == [each.status_code for each in answers]
    assert [[]] * 3 == [each.headers.get_list(ALLOWED) for each in answers]


def test_a_question_about_options_is_no_preflight(pod: Pod) -> None:
    """Without the method that a page wants to use it is a request as any other."""
    answer = pod.sidecar.caller.options("/mcp", headers={"origin": APP})

    assert (401, [APP]) == (answer.status_code, answer.headers.get_list(ALLOWED))
    assert [] == pod.sidecar.app.received


@pytest.mark.parametrize("origin", [APP, OTHER])
@pytest.mark.parametrize("path", [OWN, "/.well-known/oauth-protected-resource"])
def test_any_page_may_read_where_to_sign_in(pod: Pod, path: str, origin: str) -> None:
    """One value says so, and the preflight is answered by the service."""
    document = pod.sidecar.caller.get(path, headers={"origin": origin})
    asked = preflight(pod, path, origin, "GET")

    assert (200, ["*"]) == (document.status_code, document.headers.get_list(ALLOWED))
    assert (204, ["*"]) == (asked.status_code, asked.headers.get_list(ALLOWED))
    assert ["GET, HEAD"] == asked.headers.get_list("access-control-allow-methods")
    assert [] == pod.sidecar.app.received


def test_every_origin_may_be_named(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Envoy answers each page with its own origin, and lets no cookie pass."""
    document = world.config()
    document["inbound"]["agent"]["cors"] = {"origins": ["*"]}
    folder = tmp_path_factory.mktemp("open")
    with pod_of(world, folder, inbound=document["inbound"]) as pod:
        answer = preflight(pod, "/mcp", OTHER)
        refused = pod.sidecar.caller.post("/mcp", headers={"origin": OTHER})

    assert (200, [OTHER]) == (answer.status_code, answer.headers.get_list(ALLOWED))
    assert (401, [OTHER]) == (refused.status_code, refused.headers.get_list(ALLOWED))
    assert "access-control-allow-credentials" not in answer.headers


def test_without_the_section_a_preflight_needs_a_token(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As before; to a public path it is the agent's to answer."""
    document = world.config()
    document["inbound"]["agent"]["public_paths"] = ["/static/**"]
    folder = tmp_path_factory.mktemp("closed")
    with pod_of(world, folder, inbound=document["inbound"]) as pod:
        statuses = [preflight(pod, path, APP).status_code for path in ("/mcp", "/static/x")]
        paths = [seen.path for seen in pod.sidecar.app.received]

    assert ([401, 200], ["/static/x"]) == (statuses, paths)
