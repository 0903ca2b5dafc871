"""Files that hang, or are none: a read ends, and says why."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from authz.system.files import BoundedFile, FileFault
from support.faults.files import hanging

LARGEST = 64


def cause(path: Path) -> str:
    """Return why a file cannot be read."""
    with pytest.raises(FileFault) as fault:
        BoundedFile(path, max_bytes=LARGEST, patience=30).read()
    return str(fault.value)


def test_a_file_is_read_as_it_is_now(tmp_path: Path) -> None:
    """Each time."""
    path = tmp_path / "file"
    file = BoundedFile(path, max_bytes=LARGEST)
    path.write_bytes(b"one")
    first = file.read()
    path.write_bytes(b"x" * LARGEST)

    assert (b"one", b"x" * LARGEST) == (first, file.read())


def test_what_is_no_small_file_is_a_fault(tmp_path: Path) -> None:
    """With the cause; a FIFO that nobody writes to does not block."""
    hanging(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * (LARGEST + 1))

    assert "is no regular file" == cause(tmp_path / "fifo")
    assert "is no regular file" == cause(Path("/dev/zero"))
    assert "Is a directory" == cause(tmp_path)
    assert f"exceeds {LARGEST} bytes" == cause(tmp_path / "large")
    assert "No such file or directory" == cause(tmp_path / "none")
    assert "its name cannot be used" == cause(tmp_path / "nul\0")


def test_a_file_system_that_hangs_costs_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further reads fail at once while it hangs, and work again when it does not."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    released = threading.Event()
    opened = os.open

    def hanging(*arguments: Any) -> int:
        released.wait(30)
        return opened(*arguments)

    monkeypatch.setattr(os, "open", hanging)
    file = BoundedFile(path, max_bytes=LARGEST, patience=0.01)
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(FileFault, match="takes over"):
            file.read()
    left = threading.active_count() - before
    assert file._stuck is not None
    released.set()
    file._stuck.join(30)
    monkeypatch.setattr(os, "open", opened)

    assert 1 == left
    assert b"content" == BoundedFile(path, max_bytes=LARGEST).read()
    file._patience = 30
    assert b"content" == file.read()
