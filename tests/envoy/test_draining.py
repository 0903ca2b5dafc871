"""`authz drain-envoy`: a real Envoy lets its callers go before the pod's agent stops."""

from collections.abc import Iterator

import httpx
import pytest
from click.testing import CliRunner, Result

from authz.cli import main
from authz.config import Config
from authz.envoy_config.administration import FAIL_HEALTH
from support.proxy.envoy import EnvoyProcess, free_port
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar


@pytest.fixture
def pod(example: Config, authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """A sidecar of the test's own: what is asked of it here cannot be taken back."""
    service.answer = lambda _: allow()
    with Sidecar(
        example, authz_address=service.address, authority=authority, certificates={}
    ) as sidecar:
        yield sidecar


def drain(admin: str) -> Result:
    """Run the command as the pod's hook does."""
    return CliRunner().invoke(main, ["drain-envoy", "--admin", admin.removeprefix("http://")])


def test_a_kept_connection_ends_with_its_next_answer(pod: Sidecar) -> None:
    """The caller is told to close, loses nothing, and whoever connects anew is served like before."""
    before = [pod.caller.get("/chat") for _ in range(2)]

    result = drain(pod.envoy.admin)
    after = [pod.caller.get("/chat") for _ in range(2)]

    assert 0 == result.exit_code, result.output
    assert [200] * 4 == [answer.status_code for answer in (*before, *after)]
    assert [None, None] == [answer.headers.get("connection") for answer in before]
    assert ["close", "close"] == [answer.headers.get("connection") for answer in after]


def test_the_agent_cannot_ask_for_more_than_that(pod: Sidecar) -> None:
    """By a GET nothing happens, so no page does that the agent is made to fetch; nor with a query."""
    address = f"{pod.envoy.admin}{FAIL_HEALTH}"

    by_get = httpx.get(address, trust_env=False)
    with_query = httpx.post(f"{address}?x", trust_env=False)

    assert (405, 403) == (by_get.status_code, with_query.status_code)
    assert pod.caller.get("/chat").headers.get("connection") is None


def test_an_envoy_that_is_configured_without_it_is_named() -> None:
    """The hook fails with what to do, and the kubelet makes an event of it."""
    bootstrap = """
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
  allow_paths: [{safe_regex: {regex: '/(ready|listeners|stats).*'}}]
"""
    with EnvoyProcess(bootstrap) as older:
        result = drain(older.admin)

    assert (1, True) == (result.exit_code, "render its configuration again" in result.output)


def test_an_envoy_that_is_not_there_is_no_mystery() -> None:
    """Nor a reason to wait: the pod stops all the same."""
    address = f"127.0.0.1:{free_port()}"

    result = drain(address)

    assert (1, True) == (result.exit_code, f"does not answer at {address}" in result.output)
