"""Envoy configurations of this repository are what `make render` writes, and the pages name its commands."""

import re
import shlex
import subprocess
import sys

import pytest

from shipped.configurations import CONFIGURATIONS, ROOT, Configuration
from shipped.render import differences

pytestmark = pytest.mark.thorough

BY_FILE = {configuration.file: configuration for configuration in CONFIGURATIONS}
PAGES = {
    "docs/kubernetes.md": "kubernetes/base/envoy.yaml",
    "docs/https.md": "kubernetes/components/https/envoy.yaml",
    "kubernetes/shared/README.md": "kubernetes/shared/client/envoy.yaml",
    "kubernetes/kind/README.md": "kubernetes/kind/agent/envoy.yaml",
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda item: item.file)
def test_file_is_what_the_command_renders(configuration: Configuration) -> None:
    """`make render` would change nothing: neither code nor file has gone ahead of the other."""
    assert [] == list(differences(configuration)), "run `make render`"


def test_every_shipped_file_is_in_the_table() -> None:
    """No configuration of Envoy is left out, and none is in it that is not there."""
    files = [*ROOT.glob("kubernetes/**/envoy.yaml"), ROOT / "envoy" / "sidecar.yaml"]

    assert {str(file.relative_to(ROOT)) for file in files} == BY_FILE.keys()


@pytest.mark.parametrize("page", PAGES)
def test_command_of_the_page_is_the_one_that_is_run(page: str) -> None:
    """The same configuration, options and variables; identifiers are the reader's."""
    configuration = BY_FILE[PAGES[page]]
    (block,) = re.findall(
        r"^```(?:sh)?\n((?:(?!^```).)*?authz envoy --config(?:(?!^```).)*?)^```$",
        (ROOT / page).read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    words = shlex.split(block.replace("\\\n", " ").partition(" >")[0].replace("export ", ""))
    command = next(index for index, word in enumerate(words) if word.endswith("authz"))
    given_ = dict(word.split("=", 1) for word in words[:command])
    named = {key: value for key, value in configuration.environment.items() if "/" in value}

    assert configuration.arguments == tuple(words[command + 1 :])
    assert configuration.environment.keys() == given_.keys()
    assert named.items() <= given_.items()


def test_a_file_may_be_named_without_its_option() -> None:
    """The command that is printed can be run, in that form too."""
    ran = subprocess.run(
        [sys.executable, "-m", "authz", "envoy", "docs/examples/sidecar.yaml", "--no-ipv6"],
        cwd=ROOT,
        env=dict.fromkeys(
            ("TENANT_ID", "BLUEPRINT_CLIENT_ID", "AGENT_CLIENT_ID"),
            "11111111-0000-4000-8000-000000000001",
        ),
        capture_output=True,
        text=True,
        check=True,
    )

    command = shlex.split(ran.stdout.splitlines()[1].removeprefix("#"))
    assert ["authz", "envoy", "docs/examples/sidecar.yaml", "--no-ipv6"] == command


def test_first_lines_of_a_file_are_its_command() -> None:
    """`authz envoy` says itself how it was run: what a person would write there cannot be lost."""
    for configuration in CONFIGURATIONS:
        if not configuration.is_commented:
            command = configuration.path.read_text("utf-8").splitlines()[1].removeprefix("#")

            assert ["authz", *configuration.arguments] == shlex.split(command)
