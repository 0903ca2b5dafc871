"""The Dockerfile, as far as it can be judged without building it. `test_image` builds it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.kubernetes.manifests import KUBERNETES, ROOT, render

DOCKERFILE = ROOT / "Dockerfile"


def test_hadolint_finds_nothing() -> None:
    """The linter for Dockerfiles, at its strictest."""
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint has no wheel for this machine")

    result = subprocess.run(
        [hadolint, "--failure-threshold", "style", DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout) == (0, "")


def test_the_user_is_the_one_that_kubernetes_runs(kubectl: str) -> None:
    """A number, because `runAsNonRoot` cannot judge a name, and the same as in the pod."""
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE.read_text(), re.MULTILINE)
    security = render(KUBERNETES / "client-secret-file").containers["authz"].security

    assert user is not None
    assert (int(user[1]), int(user[2])) == (security["runAsUser"], security["runAsGroup"])


def test_the_build_sees_only_what_it_copies() -> None:
    """An allow list: credentials, history and environments of the checkout stay out of the context."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = {
        source
        for sources in re.findall(
            r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE
        )
        for source in sources.split()
    }

    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("file", ["runtime.txt", "key-vault.txt", "development.txt", "build.txt"])
def test_everything_installed_is_locked(file: str) -> None:
    """Each requirement has a version and hashes, and the build asks for them."""
    text = (ROOT / "requirements" / file).read_text().replace("\\\n", " ")
    unlocked = [
        line
        for line in text.splitlines()
        if line.strip()
        and not re.fullmatch(r"[\w.\[\],-]+==\S+( ;.*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)
    ]
    installs = [
        line
        for line in DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
        if "pip" in line and " install " in line and "--requirement" in line
    ]

    assert unlocked == []
    assert len(installs) == 2
    assert all("--require-hashes" in line for line in installs)
