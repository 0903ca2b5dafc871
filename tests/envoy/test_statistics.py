"""The listener for Prometheus: Envoy's statistics, and nothing else of its administration."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import httpx
import pytest
import yaml

from authz.config import Config
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import RenderError, SidecarSettings
from support.proxy.envoy import EnvoyProcess, free_port

PATH: Final = "/stats/prometheus"


@pytest.fixture(scope="module")
def settings() -> SidecarSettings:
    """Listeners at free ports, without IPv6, which not every machine has."""
    return SidecarSettings(
        inbound_address="127.0.0.1:0",
        egress_address="127.0.0.1:0",
        admin_address=f"127.0.0.1:{free_port()}",
        statistics_address="127.0.0.1:0",
        authz_address="127.0.0.1:1",
        ipv6=False,
    )


@pytest.fixture(scope="module")
def client(example: Config, settings: SidecarSettings) -> Iterator[httpx.Client]:
    """A client of the listener."""
    with (
        EnvoyProcess(render(example, settings)) as envoy,
        httpx.Client(
            base_url=f"http://127.0.0.1:{envoy.port('statistics')}", trust_env=False
        ) as client,
    ):
        yield client


def test_prometheus_finds_what_the_edge_cache_counts(client: httpx.Client) -> None:
    """Requests without a Check, and with one, by direction."""
    answer = client.get(PATH)

    assert (200, "text/plain; charset=UTF-8") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    for direction in ("inbound", "egress"):
        for name in ("disabled", "ok", "denied", "error"):
            line = f'envoy_http_ext_authz_{name}{{envoy_http_conn_manager_prefix="{direction}"}} 0'
            assert line in answer.text.splitlines()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/config_dump"),
        ("GET", "/stats"),
        ("GET", "/clusters"),
        ("GET", f"{PATH}/../../config_dump"),
        ("GET", f"{PATH}/"),
        ("GET", "//stats/prometheus"),
        ("POST", PATH),
        ("POST", "/healthcheck/fail"),
        ("POST", "/quitquitquit"),
        ("HEAD", PATH),
    ],
)
def test_nothing_else_is_reached(client: httpx.Client, method: str, path: str) -> None:
    """The administration stays the pod's own."""
    request = client.build_request(method, "/")
    request.url = request.url.copy_with(raw_path=path.encode())

    assert 404 == client.send(request).status_code


def test_there_is_none_without_an_address(example: Config, settings: SidecarSettings) -> None:
    """Neither the listener nor the way to the administration."""
    data = yaml.safe_load(render(example, replace(settings, statistics_address=None)))

    resources = data["static_resources"]
    assert "statistics" not in [one["name"] for one in resources["listeners"]]
    assert "administration" not in [one["name"] for one in resources["clusters"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statistics_address": "stats.example:1"}, "statistics_address: found stats.example:1"),
        ({"admin_address": "127.0.0.1:0"}, "admin_address: found 127.0.0.1:0"),
    ],
)
def test_addresses_that_cannot_be_are_refused(
    example: Config, settings: SidecarSettings, changes: dict[str, str], message: str
) -> None:
    """A name to listen on, and a port that nobody knows beforehand."""
    with pytest.raises(RenderError, match=message):
        render(example, replace(settings, **changes))  # type: ignore[arg-type]
