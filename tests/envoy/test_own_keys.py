"""An API key of the app's own, for an API without a token of Entra's: where it arrives (docs/recipes.md)."""

import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from authz.config import ConfigError
from authz.config.model import Config
from authz.config.reading.document import parse
from authz_dev.emulator import Emulator
from support.programs.stack import World
from support.proxy.connecting import LEGACY, WEATHER, Deployed, Pod, document

pytestmark = pytest.mark.thorough

KEY: Final = "Bearer key-of-the-app"
PAGE: Final = Path(__file__).parents[2] / "docs" / "recipes.md"
FORMS: Final = {
    "placeholder": ("placeholder", False),
    "placeholder and https": ("placeholder", True),
    "bearer": ("bearer", False),
    "bearer and https": ("bearer", True),
}
"""What the app receives for the user's token, and whether Envoy ends the app's TLS."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """The emulated Entra of all pods."""
    with Emulator() as running:
        yield running


@pytest.fixture(scope="module", params=FORMS)
def pod(
    request: pytest.FixtureRequest, emulator: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Pod]]:
    """Run a pod of each form. The route of the recipe is that of one host, where it may be."""
    forward, https = FORMS[request.param]
    folder = tmp_path_factory.mktemp("keys")
    world = World(emulator, folder)
    found = document(world, forward=forward, https=https)
    if forward == "placeholder":
        found["egress"]["weather"] = {**recipe()["egress"]["model"], "hosts": [WEATHER]}
        found["egress"]["legacy"] = {"flow": "none", "hosts": [LEGACY]}
    else:
        del found["egress"]["legacy"]["tunnel"]
    with Deployed(world, found, folder) as running:
        yield request.param, running


def recipe() -> dict[str, Any]:
    """Return the configuration of the page."""
    section = PAGE.read_text("utf-8").partition("## A model with its own key")[2]
    (block,) = re.findall(
        r"^```yaml\n(.*?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def call(pod: Pod, url: str, **headers: str) -> tuple[int, list[str], list[str]]:
    """Call an API; return the status, and what reached it in two headers."""
    pod.sidecar.forget()
    context = ssl.create_default_context(cafile=pod.authority)
    own = pod.world.folder / "pod.pem"
    if own.exists():
        context.load_verify_locations(own)
    try:
        with httpx.Client(proxy=pod.proxy, verify=context, trust_env=False, timeout=20) as client:
            status = client.get(url, headers=headers).status_code
    except httpx.ProxyError as refusal:
        status = int(str(refusal).split()[0])
    return status, pod.values("authorization"), pod.values("x-api-key")


def test_key_in_authorization_arrives_where_the_page_says(pod: tuple[str, Pod]) -> None:
    """By the recipe's route it does, wherever the app holds a reference at most."""
    form, running = pod
    found = call(running, f"https://{WEATHER}/v1/models", authorization=KEY)

    expected: dict[str, tuple[int, list[str], list[str]]] = {
        "placeholder": (200, [KEY], []),
        "placeholder and https": (200, [KEY], []),
        "bearer": (403, [], []),
        "bearer and https": (200, [], []),
    }
    assert expected[form] == found


def test_key_in_another_header_arrives_where_the_page_says(pod: tuple[str, Pod]) -> None:
    """Envoy leaves it alone; it is in the way of `https://` only where the app holds the user's token."""
    form, running = pod
    found = call(running, f"https://{WEATHER}/v1/models", **{"x-api-key": "key"})

    assert ((403, [], []) if form == "bearer" else (200, [], ["key"])) == found


def test_route_that_does_not_say_tunnel_keeps_the_key_without_https_alone(
    pod: tuple[str, Pod],
) -> None:
    """With section `https` Envoy reads what nobody has excepted."""
    form, running = pod
    found = call(running, f"https://{LEGACY}/v1/models", authorization=KEY)

    expected: dict[str, tuple[int, list[str], list[str]]] = {
        "placeholder": (200, [KEY], []),
        "bearer": (403, [], []),
    }
    assert expected.get(form, (200, [], [])) == found


@pytest.mark.parametrize("host", [WEATHER, LEGACY])
def test_by_plain_http_authorization_is_removed_and_no_other_header(
    pod: tuple[str, Pod], host: str
) -> None:
    """Whatever the pod: the user's token could be in it, and nobody can tell a key from it."""
    _, running = pod
    found = call(running, f"http://{host}/v1/models", authorization=KEY, **{"x-api-key": "key"})

    assert (200, [], ["key"]) == found


def test_refusal_says_what_helps_a_key(pod: tuple[str, Pod]) -> None:
    """Ending TLS would not: Envoy would remove the key."""
    form, running = pod
    status, problem = running.connect(f"{WEATHER}:443")

    if form != "bearer":
        assert 200 == status
        return
    assert (403, "tunnel_refused") == (status, problem["reason"])
    for word in ("x-api-key", "forward: placeholder"):
        assert word in problem["detail"]
    assert "end the app's TLS" not in problem["detail"]


def test_recipe_is_refused_where_the_app_has_the_users_token(
    emulator: Emulator, tmp_path: Path
) -> None:
    """It could leave in the tunnel."""
    found = document(World(emulator, tmp_path), forward="bearer")
    found["egress"]["weather"] = {**recipe()["egress"]["model"], "hosts": [WEATHER]}

    with pytest.raises(ConfigError, match=r"egress\.weather\.tunnel"):
        load(found)
    found["inbound"]["agent"]["forward"] = recipe()["inbound"]["agent"]["forward"]
    found["egress"]["graph"]["subject"] = ["placeholder"]
    assert load(found).egress["weather"].tunnel


def load(found: dict[str, Any]) -> Config:
    """Return a configuration that was checked."""
    return parse(json.dumps(found), {})
