"""The demo's folder: leftovers of killed runs are removed, and nothing else is."""

from pathlib import Path

import pytest

from authz_dev.demo.folder import LOCK, PREFIX, remove_stale, temporary_folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def make_folder(parent: Path, name: str, *, lock: bool) -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / "authz.log").touch()
    if lock:
        (folder / LOCK).touch()
    return folder


def test_folder_of_a_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    """Nobody holds its lock."""
    stale = make_folder(tmp_path, f"{PREFIX}stale", lock=True)
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert not stale.exists()
    assert not folder.exists()


def test_folder_of_a_run_that_lasts_is_left_alone(tmp_path: Path) -> None:
    """Two demos may run at a time."""
    with temporary_folder() as folder:
        remove_stale(tmp_path)
        assert folder.exists()


def test_what_is_none_of_the_demos_is_left_alone(tmp_path: Path) -> None:
    """A folder without lock, another name, and a link that somebody else may have made."""
    unlocked = make_folder(tmp_path, f"{PREFIX}other", lock=False)
    named = make_folder(tmp_path, "another", lock=True)
    (tmp_path / f"{PREFIX}link").symlink_to(named)
    remove_stale(tmp_path)

    assert unlocked.exists()
    assert (named / "authz.log").exists()
