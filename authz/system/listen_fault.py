"""Says why an address cannot be listened on, without the address, which the caller names already."""

import os
import socket


def words(error: OSError | RuntimeError) -> str:
    """Return what the system says, without what libraries add to it: `Address already in use`."""
    if isinstance(error, OSError) and error.errno is not None:
        # Numbers of name resolution are others (`EAI_NONAME` and so on).
        if isinstance(error, socket.gaierror):
            return error.strerror or str(error)
        return os.strerror(error.errno)
    return str(error)
