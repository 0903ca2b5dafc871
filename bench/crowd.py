"""The service for very many users: `authz serve`, but for what asks Entra.

In its place stands an `Exchange` that makes up an access token at once, as long as a real one and unlike
every other. 100,000 exchanges by MSAL would take the machine longer than the rest of the bench, and the
cache, whose size and hits are measured here, does not know who issued what it holds.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from authz.config import ConfigSource
from authz.core.budget import Budget
from authz.core.exchange import IssuedToken, TokenExchange
from authz.core.moment import Moment
from authz.core.secret import Secret
from authz.process import app, version

_TOKEN_BYTES: Final = 1150
"""Random bytes in a token; as text a third more."""
_LIFETIME: Final = 3600.0


class InstantExchange:
    """Issues a token without asking anyone. Takes the arguments of what it replaces."""

    def __init__(self, *, cached: Callable[["InstantExchange"], Any], **_: Any) -> None:
        self.assertions = cached(self)

    async def __call__(self, _: TokenExchange, __: Budget) -> IssuedToken:
        """Make up a token."""
        now = Moment(time.time(), time.monotonic())
        token = Secret(secrets.token_urlsafe(_TOKEN_BYTES))
        return IssuedToken(token, now.later(_LIFETIME), now.later(_LIFETIME - 300))


if __name__ == "__main__":
    vars(version)["EntraExchange"] = InstantExchange
    sys.exit(app.run(ConfigSource(Path(sys.argv[1]), os.environ)))
