"""Clients on Node.js that ask their proxy for connections: grpc-js, and fetch with `NODE_USE_ENV_PROXY`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from authz.core.request import Direction
from authz_dev.emulator import Emulator
from recipes.agents import APPS, ENVIRONMENT, NODE_APP, require_environment
from support.programs.stack import World
from support.proxy.connecting import COLLECTOR, GRAPH, RPC, SPEECH, TALK, Deployed, Pod, document

pytestmark = pytest.mark.recipes
NODE: Final = ENVIRONMENT / "bin/node"
GRPC_JS: Final = NODE_APP / "node_modules/@grpc/grpc-js"
KEY: Final = "Bearer key-of-the-app"
LINK: Final = f"https://{GRAPH}/v1.0/users?page=2"


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "https"])
def pod(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Pod, bool]]:
    """Return a pod without `https` and one with it, and which it is."""
    require_environment()
    folder: Path = tmp_path_factory.mktemp("connect")
    with Emulator() as emulator:
        world = World(emulator, folder)
        with Deployed(world, document(world, https=request.param), folder) as running:
            yield running, request.param


def trusting(pod: Pod, *, https: bool) -> dict[str, str]:
    """Return the variables of the component `https` that Node.js and gRPC read."""
    bundle = str(pod.world.folder / "bundle.pem")
    own = {
        "NODE_EXTRA_CA_CERTS": str(pod.world.folder / "pod.pem"),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,
    }
    return own if https else {}


def test_grpc_without_tls_has_the_agents_token(pod: tuple[Pod, bool]) -> None:
    """To an API that takes one, by TLS from Envoy on; and none to a collector of telemetry."""
    running, _ = pod
    running.collector.received.clear()
    command = [NODE, APPS / "connect/grpc.cjs"]
    api = running.agent([*command, f"{RPC}:80", running.held, ""], GRPC_JS=str(GRPC_JS))
    telemetry = running.agent([*command, COLLECTOR, running.held, ""], GRPC_JS=str(GRPC_JS))

    assert (0, 0) == (api.returncode, telemetry.returncode), (api.stderr, telemetry.stderr)
    assert running.acts_for_the_user(json.loads(api.stdout))
    (metadata,) = running.collector.received
    assert "authorization" not in dict(metadata)


def test_grpc_with_tls_is_read_or_refused(pod: tuple[Pod, bool]) -> None:
    """As any `https://`."""
    running, https = pod
    done = running.agent(
        [NODE, APPS / "connect/grpc.cjs", f"{RPC}:443", running.held, "tls"],
        GRPC_JS=str(GRPC_JS),
        **trusting(running, https=https),
    )

    if https:
        assert 0 == done.returncode, done.stderr
        assert running.acts_for_the_user(json.loads(done.stdout))
    else:
        assert 1 == done.returncode
        assert done.stderr.splitlines()[-1].startswith("14 ")


def test_grpc_with_tls_has_a_tunnel_or_is_read(pod: tuple[Pod, bool]) -> None:
    """To a host without a token: unread, with the app's own key; where Envoy ends TLS, without it."""
    running, https = pod
    trusted = trusting(running, https=https) or {
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(running.authority)
    }
    done = running.agent(
        [NODE, APPS / "connect/grpc.cjs", f"{SPEECH}:443", KEY, "tls"],
        GRPC_JS=str(GRPC_JS),
        **trusted,
    )

    assert 0 == done.returncode, done.stderr
    assert (["authorization", KEY] in json.loads(done.stdout)) == (not https)


@pytest.mark.parametrize("websockets", [(), ("egress",)], ids=["as it is", "with the option"])
@pytest.mark.parametrize("https", [False, True], ids=["plain", "https"])
def test_websocket_by_tls_has_a_tunnel_or_is_read(
    tmp_path: Path, https: bool, websockets: tuple[str, ...]
) -> None:
    """A tunnel needs no option; where Envoy ends TLS, `--websockets egress` lets the handshake pass."""
    require_environment()
    with Emulator() as emulator:
        world = World(emulator, tmp_path)
        found = document(world, https=https)
        directions = frozenset(map(Direction, websockets))
        with Deployed(world, found, tmp_path, websockets=directions) as running:
            trusted = world.folder / "pod.pem" if https else running.authority
            done = running.agent(
                [ENVIRONMENT / "bin/python", APPS / "connect/websocket.py", f"wss://{TALK}/", KEY],
                TRUSTED=str(trusted),
            )
            arrived = [headers.get("authorization") for _, headers in running.talk.received]
            refused = running.agent(
                [ENVIRONMENT / "bin/python", APPS / "connect/websocket.py", f"wss://{GRAPH}/", KEY],
                TRUSTED=str(trusted),
            )

    if https and not websockets:
        assert (1, []) == (done.returncode, arrived)
        assert "HTTP 403" in done.stderr
    else:
        assert (0, [None if https else KEY]) == (done.returncode, arrived), done.stderr
    # A host with a token has no tunnel.
    assert https or ("403" in refused.stderr and 1 == refused.returncode)


def test_fetch_follows_links_or_hears_that_it_may_not(pod: tuple[Pod, bool]) -> None:
    """Node's own setting has it ask for a connection for `http://` as well."""
    running, https = pod
    running.sidecar.forget()
    first = f"http://{GRAPH}/v1.0/users"
    done = running.agent(
        [NODE, APPS / "connect/pages.mjs", first, running.held, LINK],
        NODE_USE_ENV_PROXY="1",
        **trusting(running, https=https),
    )

    seen = running.sidecar.destinations[GRAPH].received
    assert (2 if https else 1) == len(seen)
    assert all(running.acts_for_the_user(each.headers) for each in seen)
    assert (0 if https else 1) == done.returncode
    assert https or "403" in done.stderr
