"""The command in the first lines of a rendered Envoy configuration: written, and read again for `--like`.

These lines are comments in YAML. JSON has no comments: they are metadata of Envoy's node, also at the head.

What is rendered is not here; `authz.cli.envoy` has the options.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from authz import __version__
from authz.envoy_config.counterpart import CounterpartFault, read_envoy
from authz.envoy_config.text import is_json, json_text, text

OPTIONS_OF_ITS_OWN: Final = frozenset({"like", "output"})
"""Options that say where options and result are, and so are none of the result."""
_PATHS: Final = frozenset({"file", "config_file"})
"""The configuration's path, as an argument and as an option: one of them counts."""
RENDERED_BY: Final = "authz.rendered_by"
"""Key of the node's metadata under which JSON has the lines."""
_FIRST: Final = re.compile(r"Envoy's configuration, rendered (?:by authz (\S+) )?and not written")
_MOST: Final = 64 * 1024
"""Characters that are read of a file for its first lines."""


class NoCommand(click.ClickException):
    """A file whose first lines name no command that renders it again."""


def made_by(context: click.Context) -> list[str]:
    """Return lines with this version and the command that makes what follows, to run it again.

    The configuration's path is written relative to the folder in which the command runs, if it is below that:
    what is rendered may be kept beside the configuration, on any machine.
    """
    words = ["authz", context.info_name or ""]
    for option in context.command.params:
        name = option.name or ""
        is_default = context.get_parameter_source(name) is ParameterSource.DEFAULT
        if is_default or name in OPTIONS_OF_ITS_OWN:
            continue
        # The argument counts, whatever AUTHZ_CONFIG says.
        if name == "config_file" and context.params["file"] is not None:
            continue
        value = context.params[name]
        # An argument has no name on the command line.
        named = isinstance(option, click.Option)
        for each in value if isinstance(value, tuple) else (value,):
            words += [option.opts[0]] if named else []
            words += [] if each is True else [_below(each) if name in _PATHS else str(each)]
    command = "".join(
        character if character.isprintable() else "?" for character in shlex.join(words)
    )
    first = (
        f"Envoy's configuration, rendered by authz {__version__} and not written by hand. "
        "After a change render it again, by"
    )
    return [first, f"  {command}"]


def headed(lines: Sequence[str], document: dict[str, Any], *, as_json: bool) -> str:
    """Return a rendered document as YAML or JSON, with lines such as those of `made_by` at its head."""
    if not as_json:
        return "".join(f"# {line}\n" for line in lines) + text(document)
    node = document.get("node", {})
    metadata = {RENDERED_BY: [line.strip() for line in lines], **node.get("metadata", {})}
    # A document without a node gets one, before all else.
    return json_text({"node": {}, **document} | {"node": {**node, "metadata": metadata}})


def version_in(file: Path) -> str | None:
    """Return the version of authz that rendered a file, None if its first line does not say so."""
    try:
        lines = _lines(file, _head(file))
    except (OSError, CounterpartFault):
        return None
    found = _FIRST.match(lines[0])
    return found[1] if found else None


def take_over(context: click.Context, file: Path) -> None:
    """Set the options of a call that it does not name itself to those in the first lines of a rendered file.

    Raises:
        NoCommand: The file cannot be read, names no command, or one that this version cannot run.
    """
    noted = _command_in(file)
    try:
        earlier = context.command.make_context(context.info_name, noted)
    except click.UsageError as error:
        place = RENDERED_BY if is_json(file) else "line 2"
        raise NoCommand(f"{file}: {place}: {error.format_message()}") from None
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if given & _PATHS:
        given |= _PATHS
    for name, value in earlier.params.items():
        if (
            earlier.get_parameter_source(name) is ParameterSource.COMMANDLINE
            and name not in given | OPTIONS_OF_ITS_OWN
        ):
            context.params[name] = value
            context.set_parameter_source(name, ParameterSource.COMMANDLINE)


def _command_in(file: Path) -> list[str]:
    try:
        head = _head(file)
    except OSError as error:
        raise NoCommand(f"{file}: cannot be read: {error.strerror}") from None
    if not head.strip():
        raise NoCommand(
            f"{file}: is empty: a shell empties the file that `>` names before the command runs, so name it by "
            "--output"
        )
    try:
        first, second, *_ = _lines(file, head)
    except CounterpartFault as fault:
        raise NoCommand(str(fault)) from None
    try:
        words = shlex.split(second)
    except ValueError:
        words = []
    if _FIRST.match(first) is None or words[:2] != ["authz", "envoy"]:
        place = f"{RENDERED_BY} of its node's metadata" if is_json(file) else "its second line"
        raise NoCommand(
            f"{file}: {place} does not name the command that rendered it: give the options here, once"
        )
    return words[2:]


def _lines(file: Path, head: str) -> list[str]:
    """Return the lines at the head of a file, two at least: empty ones where there are fewer.

    Raises:
        CounterpartFault: The file is to be JSON, and is no configuration of Envoy's.
    """
    if not is_json(file):
        return [*(line.removeprefix("#").strip() for line in head.splitlines()), "", ""]
    found: Any = read_envoy(file)
    for key in ("node", "metadata", RENDERED_BY):
        found = found.get(key) if isinstance(found, dict) else None
    lines = found if isinstance(found, list) else []
    return [*(line for line in lines if isinstance(line, str)), "", ""]


def _head(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(_MOST)


def _below(path: Path) -> str:
    here = Path.cwd()
    whole = path if path.is_absolute() else here / path
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)
