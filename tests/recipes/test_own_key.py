"""The recipe "A model with its own key", with the OpenAI SDK as it is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz_dev.emulator import Emulator
from recipes.agents import APPS, ENVIRONMENT, PAGE, require_environment
from support.programs.stack import World
from support.proxy.connecting import WEATHER, Deployed, Pod, document

pytestmark = pytest.mark.recipes
KEY: Final = "sk-key-of-the-app"


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "https"])
def pod(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """Run the recipe's routes in a pod without section `https`, and in one with it."""
    require_environment()
    section = PAGE.read_text("utf-8").partition("## A model with its own key")[2]
    shown = yaml.safe_load(
        re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[0]
    )
    folder: Path = tmp_path_factory.mktemp("own-key")
    with Emulator() as emulator:
        world = World(emulator, folder)
        found = document(world, forward=shown["inbound"]["agent"]["forward"], https=request.param)
        found["egress"]["weather"] = {**shown["egress"]["model"], "hosts": [WEATHER]}
        with Deployed(world, found, folder) as running:
            yield running


def ask(pod: Pod, base_url: str) -> dict[str, Any]:
    """List the models, with the variables of the pod; return what the API said it saw."""
    pod.sidecar.forget()
    done = pod.agent(
        [ENVIRONMENT / "bin/python", APPS / "own_key.py"],
        API=base_url,
        API_KEY=KEY,
        SSL_CERT_FILE=str(pod.authority),
    )
    assert 0 == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_key_arrives_by_the_sdks_own_tls(pod: Pod) -> None:
    """With section `https` and without: the route says `tunnel`."""
    answer = ask(pod, f"https://{WEATHER}/v1")

    assert (200, "/v1/models") == (answer["status"], answer["path"])
    assert [f"Bearer {KEY}"] == pod.values()


def test_key_is_gone_by_plain_http(pod: Pod) -> None:
    """That is read by Envoy, and a real model would answer 401."""
    answer = ask(pod, f"http://{WEATHER}/v1")

    assert (200, "/v1/models", []) == (answer["status"], answer["path"], pod.values())
