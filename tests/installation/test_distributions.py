"""What a wheel holds: that of the service nothing for development, and the other one only that."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built as the Dockerfile builds them, by distribution."""
    made = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "authz_dev"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)],
            cwd=project,
            check=True,
            capture_output=True,
        )
    return {path.name.split("-")[0]: path for path in made.iterdir()}


def _packages(wheel: Path) -> set[str]:
    names = zipfile.ZipFile(wheel).namelist()
    return {"/".join(name.split("/")[:2]) for name in names if name.endswith(".py")}


def test_the_wheel_of_the_service_has_nothing_for_development(wheels: dict[str, Path]) -> None:
    """Neither the local Entra, which gives tokens for anybody, nor the demo."""
    assert {"entra_authz", "entra_authz_dev"} == set(wheels)
    assert {"authz"} == {name.split("/")[0] for name in _packages(wheels["entra_authz"])}
    assert {"authz_dev/__init__.py", "authz_dev/demo", "authz_dev/emulator"} == _packages(
        wheels["entra_authz_dev"]
    )


@pytest.mark.parametrize("verb", [["demo"], ["emulator", "--out", "folder"]], ids=lambda v: v[0])
def test_an_installation_for_production_says_where_the_verbs_are(
    wheels: dict[str, Path], verb: list[str], tmp_path: Path
) -> None:
    """They stay in the help, so that a newcomer finds them, and name the way."""
    zipfile.ZipFile(wheels["entra_authz"]).extractall(tmp_path)
    ran = subprocess.run(
        # Without the checkout, which this environment links to.
        [sys.executable, "-c", _ALONE, str(tmp_path), *verb],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 1 == ran.returncode
    assert "authz_dev is missing: it is for development" in ran.stderr
    assert "make demo" in ran.stderr


_ALONE: Final = """
import sys
folder, *verb = sys.argv[1:]
sys.path[:] = [folder, *(path for path in sys.path if "site-packages" in path or "lib" in path)]
from authz.cli import main
main(verb, prog_name="authz")
"""
