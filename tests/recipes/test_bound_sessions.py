"""MCP sessions and A2A tasks behind Envoy: anybody's without the recipe, their caller's alone with it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from recipes.agents import APPS, PAGE, Program, require_environment
from recipes.served import behind_envoy
from support.proxy.envoy import free_port
from support.proxy.sidecar import Authority

pytestmark = pytest.mark.recipes

OPENING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
CALL = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "note", "arguments": {"text": "x"}},
}
ACCEPT = {"accept": "application/json, text/event-stream"}


def rpc(caller: httpx.Client, method: str, **params: Any) -> dict[str, Any]:
    """Call the A2A agent."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = caller.post("/a2a", json=body, headers={"A2A-Version": "1.0"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("bound", [False, True], ids=["as the SDK leaves it", "with the recipe"])
def test_an_mcp_session_is_its_callers_alone(authority: Authority, bound: bool) -> None:
    """Bob knows the id of Alice's session: with the recipe he can neither use nor end it, and she can."""
    with (
        behind_envoy("bound_mcp", authority, bound=bound) as place,
        place.caller("alice") as alice,
        place.caller("bob") as bob,
    ):
        opened = alice.post("/mcp", json=OPENING, headers=ACCEPT)
        session = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        used = bob.post("/mcp", json=CALL, headers=session)
        ended = bob.delete("/mcp", headers=session)
        hers = alice.post("/mcp", json=CALL, headers=session)

    assert 200 == opened.status_code
    expected = (404, 404, 200) if bound else (200, 200, 404)
    assert expected == (used.status_code, ended.status_code, hers.status_code)
    assert ("noted: x" in used.text, "noted: x" in hers.text) == (not bound, bound)


@pytest.mark.parametrize("bound", [False, True], ids=["as the SDK leaves it", "with the recipe"])
def test_an_a2a_task_is_its_callers_alone(authority: Authority, bound: bool) -> None:
    """Bob knows the id of Alice's task: with the recipe he can neither read nor cancel it, and she can."""
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "a secret of Alice's"}]}
    with (
        behind_envoy("bound_a2a", authority, bound=bound) as place,
        place.caller("alice") as alice,
        place.caller("bob") as bob,
    ):
        task = rpc(alice, "SendMessage", message=message)["result"]["task"]["id"]
        read = rpc(bob, "GetTask", id=task)
        cancelled = rpc(bob, "CancelTask", id=task)
        hers = rpc(alice, "GetTask", id=task)

    assert "a secret of Alice's" in json.dumps(hers)
    assert bound == ("a secret of Alice's" not in json.dumps(read))
    state = hers["result"]["status"]["state"]
    expected = "TASK_STATE_INPUT_REQUIRED" if bound else "TASK_STATE_CANCELED"
    assert (expected, bound) == (state, "error" in cancelled)


@pytest.mark.parametrize("app", ["bound_mcp", "bound_a2a"])
def test_without_a_verified_caller_nothing_is_served(app: str, authority: Authority) -> None:
    """Past Envoy the headers are missing, so the recipe does not make everybody the same user."""
    require_environment()
    port = free_port()
    folder = Path(tempfile.mkdtemp(dir=authority.file.parent))
    with Program(
        ["uvicorn", f"{app}:app", "--port", str(port)],
        environ={"BOUND": "1"},
        folder=APPS,
        ready_url=f"http://127.0.0.1:{port}/healthz",
        log=folder / "agent.log",
    ):
        for path in ("/mcp", "/a2a"):
            answer = httpx.post(
                f"http://127.0.0.1:{port}{path}", json=OPENING, headers=ACCEPT, trust_env=False
            )
            assert 500 == answer.status_code


def test_the_page_shows_the_middleware_that_is_run() -> None:
    """Word for word, past the first line."""
    shown = PAGE.read_text().partition("```python\n")[2].partition("```")[0]
    file = (APPS / "caller_as_user.py").read_text()
    assert file.partition("\n\n")[2] == shown
