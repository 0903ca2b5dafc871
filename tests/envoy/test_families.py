"""Callers and agents reach Envoy by IPv4 and by IPv6, and it starts where there is none of the latter."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest
import yaml

from authz.config import Config
from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.doors.envoy.ext_authz import encode
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings, Transparent
from support.fakes.records import record_of
from support.kubernetes.namespaces import Namespace, missing
from support.proxy.envoy import envoy_binary
from support.proxy.ext_authz_server import ExtAuthzServer

pytestmark = pytest.mark.thorough

POD: Final = {"4": "10.200.0.1", "6": "[fd00:200::1]"}
LOOPBACK: Final = {"4": "127.0.0.1", "6": "[::1]"}
INBOUND, EGRESS, ADMIN = 8080, 15001, "http://127.0.0.1:15000"


@pytest.fixture
def pod() -> Iterator[Namespace]:
    """A network namespace with an address of each family."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    namespace = Namespace()
    namespace.add()
    try:
        namespace.do("ip", "link", "set", "lo", "up")
        namespace.do("ip", "address", "add", "10.200.0.1/32", "dev", "lo")
        namespace.do("ip", "address", "add", "fd00:200::1/128", "dev", "lo", "nodad")
        yield namespace
    finally:
        namespace.remove()


@contextmanager
def envoy(pod: Namespace, text: str, folder: Path) -> Iterator[None]:
    """Run Envoy in a pod until it is ready, and through the block."""
    file = folder / "envoy.yaml"
    file.write_text(text)
    command: list[str | Path] = [
        *(envoy_binary(), "--config-path", file),
        *("--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"),
    ]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(pod.command(command), stdout=log, stderr=log) as process,
    ):
        try:
            ready = pod.run(
                *("curl", "--silent", "--fail", "--retry", "40", "--retry-all-errors"),
                *("--retry-delay", "1", "--noproxy", "*", f"{ADMIN}/ready"),
            )
            assert 0 == ready.returncode, (folder / "log").read_text()
            yield
        finally:
            process.terminate()


def statuses(pod: Namespace) -> Mapping[str, str]:
    """Return what a caller and an agent are answered, by family of the address that they use."""
    urls = {
        **{f"inbound {family}": f"http://{host}:{INBOUND}/chat" for family, host in POD.items()},
        **{f"egress {family}": f"http://{host}:{EGRESS}/" for family, host in LOOPBACK.items()},
    }
    return {
        name: pod.run(
            *("curl", "--silent", "--noproxy", "*", "--output", "/dev/null"),
            *("--header", "host: graph.microsoft.com", "--write-out", "%{http_code}", url),
        ).stdout
        for name, url in urls.items()
    }


@pytest.fixture
def refusing(service: ExtAuthzServer) -> ExtAuthzServer:
    """A service that refuses: its answer is proof enough that a request came in."""
    denial = Deny(Reason.MISSING_TOKEN)
    service.start()
    service.answer = lambda _: encode(record_of(denial))
    return service


def test_both_families_are_served(
    pod: Namespace, example: Config, refusing: ExtAuthzServer, tmp_path: Path
) -> None:
    """Callers by the pod's addresses, the agent by those of loopback."""
    text = render(example, SidecarSettings(authz_address=refusing.address))

    with envoy(pod, text, tmp_path):
        found = statuses(pod)

    expected = dict.fromkeys(("inbound 4", "inbound 6", "egress 4", "egress 6"), "401")
    assert expected == found


def test_envoy_starts_where_ipv6_is_switched_off(
    pod: Namespace, example: Config, refusing: ExtAuthzServer, tmp_path: Path
) -> None:
    """The same configuration: there is no address of IPv6 then, `::1` included."""
    pod.set("ipv6/conf/all/disable_ipv6", 1)
    text = render(example, SidecarSettings(authz_address=refusing.address))

    with envoy(pod, text, tmp_path):
        found = statuses(pod)

    assert ("401", "401", "000", "000") == (
        found["inbound 4"],
        found["egress 4"],
        found["inbound 6"],
        found["egress 6"],
    )


@pytest.mark.parametrize("transparent", [None, Transparent.PASS_TLS])
def test_a_kernel_without_ipv6_is_asked_for_none(
    example: Config, transparent: Transparent | None
) -> None:
    """Envoy would not start: it makes a socket for each address that it is given."""
    settings = SidecarSettings(ipv6=False, transparent=transparent)

    every = yaml.safe_load(render(example, settings))["static_resources"]["listeners"]
    listeners = [one for one in every if "address" in one]

    assert ["inbound", "egress"] == [one["name"] for one in listeners]
    assert [[], []] == [one.get("additional_addresses", []) for one in listeners]
    assert {ip_address(0).compressed, "127.0.0.1"} == {
        one["address"]["socket_address"]["address"] for one in listeners
    }


@pytest.mark.parametrize("where", ["127.0.0.1:0", "127.0.0.2:8080", "[::]:8080", "[::1]:8080"])
def test_an_address_of_the_operators_own_stays_alone(example: Config, where: str) -> None:
    """Only the two addresses that every pod has stand for both families, and only with a known port."""
    listeners = yaml.safe_load(render(example, SidecarSettings(inbound_address=where)))[
        "static_resources"
    ]["listeners"]

    assert "additional_addresses" not in listeners[0]
