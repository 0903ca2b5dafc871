"""How tests start the program: a fork of an interpreter with imports done prints and ends as a fresh one."""

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.programs import program
from support.programs.stack import World

Write = Callable[..., Path]


@pytest.mark.parametrize("agent", ["desk", "nobody"])
def test_a_fork_prints_and_ends_as_a_fresh_interpreter_does(
    world: World, write: Write, agent: str
) -> None:
    """A valid configuration and a faulty one: standard output, standard error and exit status."""
    document: dict[str, Any] = world.config()
    document["egress"]["graph"]["agent"] = agent
    file = write(document)

    forked, fresh = (
        program.run("check-config", file, forked=forked, environ={"COLUMNS": "80"})
        for forked in (True, False)
    )

    assert (fresh.returncode, fresh.stdout, fresh.stderr) == (
        forked.returncode,
        forked.stdout,
        forked.stderr,
    )
    assert (0 if agent == "desk" else 2) == forked.returncode


def test_a_fork_has_its_own_variables_and_folder(world: World, write: Write) -> None:
    """The configuration is the one that a variable of this start alone names."""
    file = write()

    named = program.run("check-config", environ={"AUTHZ_CONFIG": str(file)}, forked=True)
    not_named = program.run("check-config", environ={"AUTHZ_CONFIG": ""}, forked=True)

    assert (0, "the configuration is valid") == (named.returncode, named.stdout[:26])
    assert named.stdout != not_named.stdout


def test_a_fork_that_is_killed_is_told_by_its_signal(write: Write) -> None:
    """As `subprocess` tells it."""
    with tempfile.TemporaryFile() as output:
        descriptor = output.fileno()
        process = program.start(
            "serve", "--config", str(write()), stdout=descriptor, stderr=descriptor, forked=True
        )
        assert process.poll() is None
        process.kill()

        assert -signal.SIGKILL == process.wait(20) == process.poll()
