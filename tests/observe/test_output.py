"""`LogOutput`: whole lines in order, a bounded number that wait, and a count of those that were lost."""

import os
from typing import Final

import pytest

from authz.observe.output import LogOutput
from support.faults.output import small_pipe

LINE: Final = b"x" * 99 + b"\n"


def told(number: int) -> bytes:
    """What is written of lines that were dropped."""
    return b"dropped %d\n" % number


class Pipe:
    """A small pipe."""

    def __init__(self) -> None:
        self.reading, self.writing = small_pipe()

    def close(self) -> None:
        """Close the end for writing."""
        os.close(self.writing)

    def read(self) -> bytes:
        """Read to the end."""
        with os.fdopen(self.reading, "rb") as file:
            return file.read()


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_arrive_whole_and_in_order(blocking: bool) -> None:
    """Also where somebody else has made the descriptor non-blocking."""
    pipe = Pipe()
    os.set_blocking(pipe.writing, blocking)
    output = LogOutput(pipe.writing, tell=told)
    lines = [b"%d %s" % (number, LINE) for number in range(500)]
    output.write(lines[:200])
    for line in lines[200:]:
        output.write([line])
    pipe.close()
    output.close(0)
    arrived = pipe.read()

    assert b"".join(lines) == arrived
    assert 0 == output.dropped


def test_what_waits_is_bounded_and_what_is_lost_is_told() -> None:
    """As soon as lines go out again, in a line of its own."""
    pipe = Pipe()
    output = LogOutput(pipe.writing, tell=told, most_held=100 * len(LINE))
    for _ in range(1000):
        output.write([LINE])
    dropped = output.dropped
    pipe.close()
    output.close(0)
    arrived = pipe.read().splitlines(keepends=True)

    assert 1000 - 100 <= dropped < 1000
    assert [b"dropped %d\n" % dropped] == [line for line in arrived if line != LINE]
    assert 1000 == dropped + len(arrived) - 1


def test_what_cannot_be_written_is_counted() -> None:
    """The reader is gone; whoever hands over lines does not learn of it."""
    pipe = Pipe()
    os.close(pipe.reading)
    output = LogOutput(pipe.writing, tell=told)
    output.write([LINE, LINE])
    output.write([LINE])
    output.close(10)
    pipe.close()

    assert 3 == output.dropped


def test_without_an_output_every_line_is_dropped() -> None:
    """A number that the program was not given may belong to a connection."""
    output = LogOutput(None, tell=told)
    output.write([LINE])
    output.close(10)

    assert 1 == output.dropped
