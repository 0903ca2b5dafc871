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

from authz.config.faults import ConfigError, Fault
from authz.config.model import Config
from authz.config.overrides import override
from authz.config.shown import shown, shown_place
from authz.config.validation import Origin, validate

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST: Final = 32
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_TAB: Final = re.compile(r" *\t")
_BARE_REFERENCE: Final = re.compile(r"""[\[{,:]\s*\$\{""", re.ASCII)
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
    reader = _Reader(environ)
    data, keys = override(reader.read(text), environ)
    origin = Origin(lines=reader.lines, variables=reader.variables, keys=keys)
    try:
        config = validate(data, environ=environ, origin=origin)
    except ConfigError as error:
        # What could not be read is one fault, not a second one for the value that is missing now.
        unread = {fault.path for fault in reader.faults}
        faults = [fault for fault in error.faults if fault.path not in unread]
    else:
        if not reader.faults:
            return config
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
            fault = _syntax_fault(error, text)
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
            text = "found a key that is no text" if self._is_at_key() else "is nested too deeply"
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
        reference = _REFERENCE.fullmatch(text)
        if reference is None:
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
            state = "is empty" if name in self.environ else "is not set"
            self._fault(path, event, f"environment variable {name} {state}")
            return None
        return self.environ[name]

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


def _syntax_fault(error: Exception, document: str) -> Fault:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)
    line = mark.line + 1 if mark else None
    # The parser quotes names that it does not know.
    text = re.sub(r"'([^']*)'", lambda quoted: shown(quoted[1]), problem or "it cannot be read")
    return Fault("", f"not valid YAML: {text}{_usual_cause(document, line)}", line)


def _usual_cause(document: str, line: int | None) -> str:
    """Return what is most often wrong on the line and the one before, where the parser stopped."""
    lines = document.splitlines()[max(0, (line or 0) - 2) : line or 0]
    if any(_TAB.match(one) for one in lines):
        return ": expected spaces, found a tab"
    if any(_BARE_REFERENCE.search(one) for one in lines):
        return ': expected quotes around a reference inside of brackets, ["${NAME}"]'
    return ""
