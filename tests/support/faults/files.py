"""Files that cannot be read as they should: missing, empty, garbage, half written, or hanging."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BAD_CERTIFICATES: Final[dict[str, bytes | None]] = {
    "missing": None,
    "empty": b"",
    "garbage": b"-----BEGIN CERTIFICATE-----\nAAAA\n",
}
"""What lies where a file of certificates should, by name; None for nothing."""


def laid(file: Path, content: bytes | None) -> Path:
    """Put this content in the place of a file, at one stroke; None for none. Returns the file."""
    if content is None:
        file.unlink(missing_ok=True)
    else:
        fresh = file.with_name(f"{file.name}.fresh")
        fresh.write_bytes(content)
        fresh.replace(file)
    return file


def hanging(file: Path) -> Path:
    """Put a FIFO in the place of a file: whoever opens it as usual waits for ever. Returns the file."""
    fresh = file.with_name(f"{file.name}.fresh")
    os.mkfifo(fresh)
    fresh.replace(file)
    return file


@contextmanager
def spoiled(file: Path, content: bytes | None, *, hang: bool = False) -> Iterator[Path]:
    """Let a file be spoiled through the block; its own content is back afterwards."""
    good = file.read_bytes()
    try:
        yield hanging(file) if hang else laid(file, content)
    finally:
        laid(file, good)
