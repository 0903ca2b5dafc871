"""Noticing new versions: once each, bad ones with their faults, and none where there is none."""

from pathlib import Path

import pytest

from authz.config import ConfigError, ConfigSource, ConfigWatch

GOOD = "log: {level: info}\negress: {plain: {hosts: [a.example], flow: none}}\n"
OTHER = GOOD.replace("info", "debug")
BAD = GOOD.replace("info", "loud")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good configuration file."""
    path = tmp_path / "authz.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def watch(file: Path) -> ConfigWatch:
    """An eye on it."""
    return ConfigWatch(ConfigSource(file, {}))


def test_an_unchanged_file_is_no_new_version(watch: ConfigWatch) -> None:
    """Looking again finds nothing."""
    assert watch.look() is None


def test_a_new_version_is_returned_once(watch: ConfigWatch, file: Path) -> None:
    """The caller hears of a version once, whether or not it has applied it already."""
    file.write_text(OTHER)
    found = watch.look()

    assert found is not None
    assert "debug" == found.config.log.level
    assert watch.look() is None


def test_a_bad_version_is_raised_once_and_remembered(watch: ConfigWatch, file: Path) -> None:
    """Loud once, not at every look; the reason stays readable."""
    file.write_text(BAD)
    with pytest.raises(ConfigError, match=r"log\.level"):
        watch.look()

    assert watch.look() is None
    assert "log.level" in (watch.refused or "")


def test_a_repaired_file_ends_the_refusal(watch: ConfigWatch, file: Path) -> None:
    """Back to the version in use is no new version, and nothing is refused any more."""
    file.write_text(BAD)
    with pytest.raises(ConfigError):
        watch.look()
    file.write_text(GOOD)

    assert watch.look() is None
    assert watch.refused is None


def test_a_vanished_file_is_a_refused_version(watch: ConfigWatch, file: Path) -> None:
    """The old configuration goes on while the file is away."""
    file.unlink()
    with pytest.raises(ConfigError):
        watch.look()

    assert watch.refused is not None
