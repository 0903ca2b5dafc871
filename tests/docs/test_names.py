"""The distribution's name: one everywhere, and never that of a stranger on the public index."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz import __version__
from authz.cli import main
from authz.system.distribution import NAME, NAMESAKE, clash

ROOT = Path(__file__).resolve().parents[2]
INSTALLS_THE_STRANGER = re.compile(
    r"""(?:pipx?|uv)(?:\s+\S+)*?\s+(?:install|add|download)(?:\s+-\S+)*\s+['"]?authz\b"""
    r"""|(?<![-\w])authz\[[a-z-]+\]['"]"""
)
IMAGE_OF_OLD = re.compile(r"(?<![-\w.])authz(?:-development)?:\d")


def texts() -> Iterator[tuple[str, str]]:
    """Yield each line that users can read, with its place."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("this is no git checkout, so no list of its files can be had")
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if file == Path(__file__) or not file.is_file() or file.suffix in (".svg", ".json"):
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            yield f"{name}:{number}: {line.strip()}", line


def test_no_text_leads_to_the_strangers_distribution() -> None:
    """Not in docs, messages or manifests; the old image's name is gone as well."""
    found = [
        place
        for place, line in texts()
        if INSTALLS_THE_STRANGER.search(line) or IMAGE_OF_OLD.search(line)
    ]
    # The sentences that warn of it, and the advice that a registry's path may end in any name.
    assert [] == [place for place in found if "never `pip install authz`" not in place]


@pytest.mark.parametrize(
    "line",
    [
        "pip install 'authz[demo]'",
        "pip install -U authz",
        "python -m pip install authz",
        "uv pip install authz",
    ],
)
def test_the_search_knows_the_old_forms(line: str) -> None:
    """Else the test above could not fail."""
    assert INSTALLS_THE_STRANGER.search(line)


def test_the_metadata_has_the_name() -> None:
    """Of the installed distribution, whose command is `authz`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = distribution(NAME)

    assert (NAME, __version__) == (project["name"], version(NAME))
    assert {"authz"} == {entry.name for entry in installed.entry_points}


def test_where_the_stranger_is_installed_every_verb_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files may stand in place of ours."""
    assert clash() is None
    metadata = tmp_path / f"{NAMESAKE}-9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {NAMESAKE}\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = CliRunner().invoke(main, ["check-config"])

    assert 1 == done.exit_code
    assert "the distribution 'authz' is installed here" in done.output
