"""YAML text to `Config`: reading with line numbers, and environment references.

A small part of YAML is read, and read alike by everyone: mappings with text keys, lists, and scalars of
the core schema (so `yes` and `0600` are text). Tags, anchors and duplicate keys are faults. The parser's
events are read one by one, without recursion, so no document can exhaust the stack.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from authz.config.faults import ConfigError, Fault, did_you_mean
from authz.config.model import Config
from authz.config.reading.syntax import syntax_fault
from authz.config.reading.validation import Origin, validate
from authz.config.reading.variables import override
from authz.config.reading.wording import PRIVATE
from authz.config.sections.mistakes import in_scalar
from authz.config.shown import shown_place, shown_variable

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST: Final = 32
REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_NO_KEY: Final = (
    "found a key that is no text: fill in a template such as {{ NAME }} first, and put quotes around a text that "
    "begins with { or ["
)
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}", re.ASCII)
_CONSTANTS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse(text: str, environ: Mapping[str, str]) -> Config:
    """Return the configuration of a YAML document, as changed by `AUTHZ_…` variables.

    Args:
        text: The document.
        environ: The environment: for `${NAME}` references, overrides and defaults.

    Raises:
        ConfigError: With every fault. After a syntax error nothing else is known.
    """
    return parse_with_origin(text, environ)[0]


def parse_with_origin(text: str, environ: Mapping[str, str]) -> tuple[Config, Origin]:
    """Return the same, and where each value came from.

    Raises:
        ConfigError: As `parse`.
    """
    reader = _Reader(environ)
    data, keys = override(reader.read(text), environ)
    origin = Origin(lines=reader.lines, variables=reader.variables, keys=keys)
    try:
        config = validate(data, environ=environ, origin=origin)
    except ConfigError as error:
        # What could not be read is one fault, not a second one for the value that is missing now.
        unread = {fault.path for fault in reader.faults}
        # Nor is it one that a credential lacks what could not be read.
        unread |= {path.rpartition(".")[0] for path in unread if ".credentials." in path}
        faults = [fault for fault in error.faults if fault.path not in unread]
    else:
        if not reader.faults:
            return config, origin
        faults = []
    raise ConfigError(sorted([*reader.faults, *faults], key=lambda fault: fault.line or 0))


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been read yet."""

    value: dict[str, Any] | list[Any]
    path: str
    key: str | None = None

    def next_path(self) -> str:
        """Return the path of the value that comes next."""
        key = len(self.value) if isinstance(self.value, list) else self.key
        return f"{self.path}.{key}" if self.path else str(key)

    def add(self, value: Any) -> None:
        """Take the value that came next; of duplicate keys the first one stays."""
        if isinstance(self.value, list):
            self.value.append(value)
        else:
            assert self.key is not None
            self.value.setdefault(self.key, value)
            self.key = None


@dataclass(slots=True)
class _Reader:
    """Reads one document into plain data, keeping lines, references and faults by path."""

    environ: Mapping[str, str]
    lines: dict[str, int] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _open: list[_Open] = field(default_factory=list)
    _root: Any = None

    def read(self, text: str) -> Any:
        documents = 0
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                documents += isinstance(event, yaml.DocumentStartEvent)
                if documents > 1:
                    raise ConfigError(
                        [Fault("", "found several documents: expected one", _line(event))]
                    )
                self._take(event)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            fault = syntax_fault(error, text)
        else:
            return self._root
        # Outside of the handler: the parser's own error quotes the document.
        raise ConfigError([*self.faults, fault])

    def _take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent() | yaml.AliasEvent() if self._is_at_key():
                self._take_key(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._start(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._put(self._open.pop().value)
            case yaml.ScalarEvent():
                path = self._path(event)
                self._refuse_properties(event, path)
                self._put(self._scalar(event, path))
            case yaml.AliasEvent():
                self._fault(self._path(event), event, "found an alias: expected the value itself")
                self._put(None)

    def _is_at_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].value, dict)
            and (self._open[-1].key is None)
        )

    def _take_key(self, event: Any) -> None:
        top = self._open[-1]
        # A key is text whatever it looks like, so `1` and `null` are names like any other.
        top.key = event.value if isinstance(event, yaml.ScalarEvent) else f"*{event.anchor}"
        path = top.next_path()
        if top.key in top.value:
            first = self.lines[path]
            self._fault(path, event, f"is a duplicate key: line {first} has it already")
        self.lines.setdefault(path, _line(event))
        self._refuse_properties(event, path)

    def _start(self, event: Any) -> None:
        if self._is_at_key() or len(self._open) >= _DEEPEST:
            path = self._open[-1].path
            text = _NO_KEY if self._is_at_key() else "is nested too deeply"
            raise ConfigError([*self.faults, Fault(shown_place(path), text, _line(event))])
        path = self._path(event)
        self._refuse_properties(event, path)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._open.append(_Open({} if is_mapping else [], path))

    def _path(self, event: Any) -> str:
        path = self._open[-1].next_path() if self._open else ""
        self.lines.setdefault(path, _line(event))
        return path

    def _put(self, value: Any) -> None:
        if self._open:
            self._open[-1].add(value)
        else:
            self._root = value

    def _scalar(self, event: yaml.ScalarEvent, path: str) -> Any:
        text = event.value
        if not event.style:
            if text in _CONSTANTS:
                return _CONSTANTS[text]
            if _INTEGER.fullmatch(text):
                return int(text)
            if _FLOAT.fullmatch(text):
                return float(text)
        reference = REFERENCE.fullmatch(text)
        if reference is None:
            private = not PRIVATE.isdisjoint(path.split("."))
            if mistake := in_scalar(text, private=private):
                self._fault(path, event, mistake)
                return None
            if "${" in text:
                self._fault(
                    path,
                    event,
                    "found a reference inside of a value: expected ${NAME} alone, with the whole value in the "
                    "variable",
                )
            return text
        name = reference[1]
        self.variables[path] = name
        if not self.environ.get(name):
            self._fault(path, event, self._unset(name))
            return None
        return self.environ[name]

    def _unset(self, name: str) -> str:
        if name in self.environ:
            return f"environment variable {name} is empty: expected a value in it"
        known = (each for each in self.environ if shown_variable(each) == each)
        hint = did_you_mean(name, known, cutoff=0.8)
        return f"environment variable {name} is not set{hint or ': expected a value in it'}"

    def _refuse_properties(self, event: Any, path: str) -> None:
        if getattr(event, "tag", None) is not None:
            self._fault(path, event, "found a tag (!): expected a plain value")
        if getattr(event, "anchor", None) is not None and not isinstance(event, yaml.AliasEvent):
            self._fault(
                path, event, "found an anchor (&): expected the value written out each time"
            )

    def _fault(self, path: str, event: Any, message: str) -> None:
        self.faults.append(Fault(shown_place(path), message, _line(event)))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
