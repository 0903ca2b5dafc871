"""Log output: one JSON object a line (or readable text), from structlog and the standard library alike."""

import contextlib
import datetime as dt
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson
import structlog

from authz.observe.output import LogOutput

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LINE: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
PATIENCE: Final = 2.0
"""Seconds that the last lines have at the end of the program."""
_LIBRARIES: Final = ("uvicorn", "uvicorn.error", "asyncio", "grpc")


class _Settings:
    """What `configure_logging` was last told."""

    level = LEVELS["info"]
    is_json = False
    output: LogOutput | None = None
    """Where lines go; None for standard output, in the thread that writes."""


def configure_logging(*, level: str, style: str) -> None:
    """Set level and style; may be called again at any time, and takes effect at once.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json`, or `console` for people.
    """
    number = LEVELS[level]
    _Settings.level, _Settings.is_json = number, style == "json"
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(serializer=_dumps)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout is not None and sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(_STREAM),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(_STREAM)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer,
        ])
    )  # fmt: skip
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True


@contextlib.contextmanager
def log_output(*, patience: float = PATIENCE) -> Iterator[LogOutput]:
    """Let lines be written by a thread of their own during the block, so that nothing waits for a reader.

    Args:
        patience: Seconds that the last lines have at the end.
    """
    # Without standard output its number may be that of a connection.
    descriptor = None if sys.stdout is None else sys.stdout.fileno()
    output = LogOutput(descriptor, tell=_dropped)
    _Settings.output = output
    try:
        yield output
    finally:
        _Settings.output = None
        output.close(patience)


def _dropped(number: int) -> bytes:
    now = dt.datetime.now(dt.UTC)
    if not _Settings.is_json:
        return f"{now.isoformat()} [error] log records dropped number={number}\n".encode()
    return headed(
        head_of("error", "log records dropped", {"number": number}), {}, at=now.timestamp()
    )


def write_record(level: str, event: str, fields: dict[str, Any]) -> None:
    """Write one record on the path of a request: what structlog would write, at a fifth of its cost."""
    if _Settings.is_json:
        write_lines(level, [headed(head_of(level, event, {}), fields, at=time.time())])
    elif LEVELS[level] >= _Settings.level:
        getattr(structlog.get_logger(), level)(event, **fields)


def heads_are_used() -> bool:
    """Whether records are JSON, so that a part of one can be made in advance."""
    return _Settings.is_json


def head_of(level: str, event: str, fields: dict[str, Any]) -> bytes:
    """Make the part of a JSON record that is the same each time."""
    return orjson.dumps({"level": level, "event": event, **fields})[:-1] + b","


def headed(head: bytes, fields: dict[str, Any], *, at: float) -> bytes:
    """Make a line of a head and of what is particular, with the epoch second `at`."""
    fields["timestamp"] = dt.datetime.fromtimestamp(at, dt.UTC)
    return head + orjson.dumps(fields, option=_LINE)[1:]


def write_lines(level: str, lines: Sequence[bytes]) -> None:
    """Write lines that `headed` made, all of one level, at once."""
    if LEVELS[level] < _Settings.level:
        return
    _write(lines)


def _write(lines: Sequence[bytes]) -> None:
    if _Settings.output is not None:
        _Settings.output.write(lines)
    elif sys.stdout is not None:
        sys.stdout.buffer.write(b"".join(lines))
        sys.stdout.buffer.flush()


class _Stream:
    """Log output as a text file, for structlog and the standard library."""

    @staticmethod
    def write(text: str) -> None:
        """Write a line."""
        _write([text.encode(errors="backslashreplace")])

    @staticmethod
    def flush() -> None:
        """Nothing is kept back."""


_STREAM: Final = _Stream()


def _dumps(record: Any, **options: Any) -> str:
    try:
        return orjson.dumps(record, default=options.get("default")).decode()
    except TypeError:
        # Text that is no Unicode, a number beyond 64 bits: a record must not fail for one value.
        return json.dumps(record, default=repr)
