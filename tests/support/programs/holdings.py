"""What a process holds: its memory and its open files, as the kernel counts them."""

import re
from pathlib import Path


def most_memory(pid: int) -> int:
    """The most that a process has had so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024


def descriptors(pid: int) -> int:
    """How many files and connections a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
