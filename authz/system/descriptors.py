"""How many files and connections this process may have open."""

import resource
from typing import Final

_MOST: Final = 65536
"""More is of no use here, and some libraries walk over all of them."""


def raise_limit() -> int:
    """Let this process open as many files as it may, within reason; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST if soft == resource.RLIM_INFINITY else soft
