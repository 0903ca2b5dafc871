"""Clients of HTTP without TLS need no authorities; httpx reads a hundred for each, in 15 ms of a core."""

import ssl
from typing import Final

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody."""
