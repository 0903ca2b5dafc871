"""How this process gives memory back. What it may have in memory is bounded where it is taken."""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 128 * 1024


def give_back() -> None:
    """Let large blocks go back to the system as soon as they are free (mallopt(3)).

    By default glibc raises its threshold with each such block that is freed, up to 32 MiB. Buffers of
    connections that come and go then leave holes: half as much again was measured. Other C libraries have no
    such setting and need none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
