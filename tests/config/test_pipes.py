"""A configuration that a shell passes on (`/dev/stdin`, `<(…)`): a pipe gives it once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.cli import main
from authz.config import ConfigSource, ConfigWatch
from config.samples import changed, load_data


@contextmanager
def piped(**changes: object) -> Iterator[Path]:
    """Yield the path of a pipe with a configuration in it, and no writer left."""
    text = load_data(changed(changes)).model_dump_json(exclude_unset=True)
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "w") as file:
            file.write(text)
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)


@pytest.mark.parametrize("verb", ["check-config", "envoy"])
@pytest.mark.parametrize("options", [[], ["--no-values"]])
def test_verbs_read_a_pipe_once(verb: str, options: list[str]) -> None:
    """What refers to variables and what they stand for come from the same reading."""
    with piped() as path:
        result = CliRunner().invoke(main, [verb, *options, str(path)])

    assert (0, "") == (result.exit_code, result.output if result.exit_code else "")


def test_what_a_pipe_gave_stays() -> None:
    """The service looks for changes of its configuration, and finds none."""
    with piped() as path:
        source = ConfigSource(path, {})
        loaded = source.load()

        assert loaded.config == ConfigWatch(source).current.config
        assert loaded.digest == source.digest()


def test_several_workers_cannot_read_one_pipe() -> None:
    """The fault names the key and what would do."""
    with piped(**{"listen.grpc": "127.0.0.1:0", "listen.workers": 2}) as path:
        result = CliRunner().invoke(main, ["serve", str(path)])

    assert 2 == result.exit_code
    assert "listen.workers" in result.output
    assert "expected a file, for each worker reads it" in result.output
