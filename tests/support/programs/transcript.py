"""Transcripts of a page: commands with what they print, to be run again and compared.

A block of the language `console` has lines that begin with `$`, which are commands, and what those print on
standard output. Lines that end in a backslash go on. What differs from run to run is made equal by `settled`.
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK: Final = "@@@ next command @@@"
_VOLATILE: Final = (
    (r"eyJ[\w.-]+", "eyJ…"),
    # Its content is the authority's certificate, among others.
    (r"configmap/envoy-[a-z0-9]{10}", "configmap/envoy-9k2t5hbm7f"),
    (r'"Date":\["[^"]*"\]', '"Date":["…"]'),
    # A pod, its age, and columns that are as wide as its name.
    (r"demo-app-[a-z0-9]+-[a-z0-9]+ +", "demo-app-7789658746-q997q   "),
    (r"\bNAME +READY", "NAME                        READY"),
    (r"\b\d+s$", "27s"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a page.

    Attributes:
        command: For a shell.
        output: What the page says that it prints, without the end of the last line.
    """

    command: str
    output: str


def steps_of(page: str) -> list[Step]:
    """Return the commands of a page, or of a part of it, in order."""
    return [step for block in _BLOCK.findall(page) for step in _steps(block)]


def _steps(block: str) -> list[Step]:
    joined = block.replace("\\\n", "\\\0")
    found = []
    for part in re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        found.append(Step(command.replace("\0", "\n"), output.rstrip("\n")))
    return found


def run(
    steps: Sequence[Step], *, folder: Path, environ: Mapping[str, str], within: Sequence[str]
) -> list[str]:
    """Run commands in one shell and return what each has printed on standard output.

    Args:
        steps: The commands.
        folder: Where they run.
        environ: Their variables.
        within: The shell as a command, to which the script is added.

    Raises:
        AssertionError: One of them failed.
    """
    script = "\n".join(
        ["set -e", f"cd '{folder}'", *(f"echo '{_MARK}'\n{step.command}" for step in steps)]
    )
    done = subprocess.run(
        [*within, script],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [text.rstrip("\n") for text in done.stdout.split(f"{_MARK}\n")[1:]]


def settled(text: str) -> str:
    """Return an output with what differs from run to run made equal."""
    for pattern, replacement in _VOLATILE:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text
