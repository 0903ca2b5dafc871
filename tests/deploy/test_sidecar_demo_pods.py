"""The Entra SDK sidecar's demo runs: the commands of docs/walk-through.md, in order, with what they print.

What `deploy.sh --emulator` applies runs by podman; `support.kubernetes.node` says what stands for kubelet,
network and DNS, `support.kubernetes.sidecar_demo` what for kind and kubectl. `tests/cluster/node` has a real
node.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest

from support.kubernetes.engine import Engine
from support.kubernetes.images import build_curl_image
from support.kubernetes.laptop import missing
from support.kubernetes.sidecar_demo import AGENT, ALICE, BLUEPRINT, Demo, deployed
from support.programs.transcript import settled

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def curl(development_images: Engine, kubectl: str) -> Engine:
    """Return the engine with every image of the demo, or skip."""
    if (reason := missing()) is not None:
        pytest.skip(f"there is no network between the pods: {reason}")
    build_curl_image(development_images)
    return development_images


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder that every user can read; pytest's own is closed to others."""
    found = Path(tempfile.mkdtemp(prefix="authz-demo-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def demo(
    curl: Engine, kubectl: str, folder: Path, request: pytest.FixtureRequest
) -> Iterator[Demo]:
    """Return the demo after the commands of a section of the page, one at a time."""
    with deployed(curl, kubectl, folder / request.param.split()[0], request.param) as found:
        yield found


ASKING = pytest.mark.parametrize("demo", ["Asking the sidecar"], indirect=True)
TRANSPARENT = pytest.mark.parametrize("demo", ["Not asking at all"], indirect=True)
BOTH = pytest.mark.parametrize("demo", ["Asking the sidecar", "Not asking at all"], indirect=True)


@BOTH
def test_the_commands_print_what_the_page_shows(demo: Demo) -> None:
    """Each of them, in order, and nothing is left out of the page."""
    assert [step.output for step in demo.steps] == [settled(output) for output in demo.outputs]


def claims_in(output: str) -> Mapping[str, Any]:
    """Return the claims of the token that the sidecar gave."""
    token = json.loads(output)["authorizationHeader"].removeprefix("Bearer ")
    found: Mapping[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


@ASKING
def test_each_token_is_whose_the_page_says(demo: Demo) -> None:
    """The blueprint's own, the agent's own, and the agent's for alice: never another's in its place."""
    blueprint, agent, on_behalf = (claims_in(demo.output(word)) for word in demo.TOKENS)

    assert (BLUEPRINT, "app") == (blueprint["appid"], blueprint["idtyp"])
    assert (AGENT, "app") == (agent["appid"], agent["idtyp"])
    assert (AGENT, "user", ALICE) == (on_behalf["appid"], on_behalf["idtyp"], on_behalf["oid"])


@ASKING
def test_graph_was_called_by_the_agent(demo: Demo) -> None:
    """With a token that the app has not seen."""
    assert (AGENT, "app") == (demo.graph()[-1]["appid"], demo.graph()[-1]["idtyp"])


@TRANSPARENT
def test_the_transparent_call_is_the_agents_for_its_user(demo: Demo) -> None:
    """Graph saw the agent acting for alice, though the app sent alice's own token and named no agent."""
    seen = demo.graph()[-1]

    assert (AGENT, "user", ALICE) == (seen["appid"], seen["idtyp"], seen["oid"])


@TRANSPARENT
def test_the_app_has_no_way_to_a_token(demo: Demo) -> None:
    """Nothing listens on the sidecar's port, and the sockets of authz are in other containers alone."""
    ask = ("curl", "--silent", "--show-error")
    tried = [
        demo.app(*ask, "localhost:5000/healthz"),
        *(
            demo.app(*ask, "--unix-socket", f"/run/authz/{name}", "http://x/")
            for name in ("authz.sock", "checks.sock")
        ),
    ]

    assert [7, 7, 7] == [one.returncode for one in tried], [one.stderr for one in tried]


@TRANSPARENT
def test_a_call_without_a_user_is_refused(demo: Demo) -> None:
    """The agent's own token does not take the place of a user's; nor does another host get one."""
    alone = demo.app("curl", "--silent", f"{demo.GRAPH}/v1.0/me")
    other = demo.app("curl", "--silent", "http://stranger.example/")

    assert "missing_token" == json.loads(alone.stdout)["reason"]
    assert "unknown_route" == json.loads(other.stdout)["reason"]


@BOTH
def test_no_token_is_in_any_log(demo: Demo) -> None:
    """Of no container."""
    logs = demo.node.logs("demo-app")

    assert [] == [name for name, text in logs.items() if "eyJ" in text]
