"""`text`: a document of Envoy's as YAML that every parser reads alike. `json_text`: as JSON, on one line.

PyYAML's own way there is a tree of nodes, made in Python: with 1,000 hosts it took longer than all else that
is rendered. This gives libyaml's emitter its events directly.

Envoy makes JSON of YAML and reads that: JSON takes it half the time, and less memory.
"""

import io
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson
import yaml
from yaml import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    ScalarNode,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

try:
    from yaml import CSafeDumper as SafeDumper
except ImportError:  # PyYAML was built without libyaml.
    from yaml import SafeDumper  # type: ignore[assignment]

_WIDTH: Final = 1000
# Words that one YAML parser or another takes for something else than text, when they are not quoted.
_NOT_TEXT: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_RESOLVER: Final = yaml.SafeDumper(io.StringIO())
_TEXT: Final = "tag:yaml.org,2002:str"
_MAPPING: Final = MappingStartEvent(None, None, True, flow_style=False)
_MAPPING_END: Final = MappingEndEvent()
_LIST_END: Final = SequenceEndEvent()


class Shared(list[Any]):
    """A list that stands in several places. In YAML it is written once, with a name, and by that name then.

    Args:
        name: The name.
        values: What is in it.
    """

    def __init__(self, name: str, values: Iterable[Any]) -> None:
        super().__init__(values)
        self.name = name


def text(document: dict[str, Any]) -> str:
    """Return a document of mappings, lists, text, numbers and truth values as YAML."""
    stream = io.StringIO()
    dumper = SafeDumper(stream, width=_WIDTH)
    try:
        _Writer(dumper.emit).document(document)
    finally:
        dumper.dispose()
    return stream.getvalue()


def json_text(document: dict[str, Any]) -> str:
    """Return a document as JSON. What is shared is written in each place: JSON has no names for it."""
    return orjson.dumps(
        _with_whole_numbers(document, {}), option=orjson.OPT_APPEND_NEWLINE
    ).decode()


def is_json(file: Path) -> bool:
    """Whether a file's name says that it is JSON. Envoy goes by the name, too."""
    return file.name.lower().endswith(".json")


class _Writer:
    """Writes one document.

    Args:
        emit: Takes event by event.
    """

    def __init__(self, emit: Callable[[yaml.Event], None]) -> None:
        self._emit = emit
        self._written: set[str] = set()

    def document(self, document: dict[str, Any]) -> None:
        emit = self._emit
        emit(StreamStartEvent())
        emit(DocumentStartEvent(explicit=False))
        self._value(document)
        emit(DocumentEndEvent(explicit=False))
        emit(StreamEndEvent())

    def _value(self, value: Any) -> None:
        if isinstance(value, str):
            self._emit(_scalar(value))
        elif isinstance(value, dict):
            self._emit(_MAPPING)
            for key, each in value.items():
                self._emit(_scalar(key))
                self._value(each)
            self._emit(_MAPPING_END)
        elif isinstance(value, list):
            self._list(value)
        else:
            self._emit(ScalarEvent(None, None, (True, False), _plain(value)))

    def _list(self, values: list[Any]) -> None:
        name = values.name if isinstance(values, Shared) else None
        if name in self._written:
            self._emit(AliasEvent(name))
            return
        if name is not None:
            self._written.add(name)
        self._emit(SequenceStartEvent(name, None, True, flow_style=False))
        for each in values:
            self._value(each)
        self._emit(_LIST_END)


@lru_cache(maxsize=4096)
def _scalar(value: str) -> ScalarEvent:
    """Return the event of a text, quoted where a YAML parser would take it for something else."""
    is_text = _RESOLVER.resolve(ScalarNode, value, (True, False)) == _TEXT  # type: ignore[no-untyped-call]
    return ScalarEvent(None, None, (is_text, True), value, style=_style(value))


def _style(value: str) -> str | None:
    if "\n" in value:
        return "|"
    return '"' if value.lower() in _NOT_TEXT or _is_number(value) else None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _plain(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    value = _whole(value)
    # Without a dot before its exponent a number is text to PyYAML.
    return re.sub(r"^(-?[0-9]+)e", r"\1.0e", repr(value))


def _whole(value: object) -> object:
    """Return a number without a fraction as an integer, and everything else as it is."""
    # Envoy reads `503.0` as a text, where a message takes either (`Struct`).
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _with_whole_numbers(value: Any, shared: dict[str, list[Any]]) -> Any:
    """Return a copy of a document for JSON.

    Args:
        value: The document, or a part of it.
        shared: Copies of the shared lists so far, by name.
    """
    if isinstance(value, dict):
        return {key: _with_whole_numbers(each, shared) for key, each in value.items()}
    if not isinstance(value, list):
        return _whole(value)
    if isinstance(value, Shared) and value.name in shared:
        return shared[value.name]
    copy = [_with_whole_numbers(each, shared) for each in value]
    if isinstance(value, Shared):
        shared[value.name] = copy
    return copy
