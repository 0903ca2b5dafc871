"""`/healthz` before an app, for the program that waits for it."""

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class Health:
    """Answers `/healthz`, and passes everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        is_health = scope["type"] == "http" and scope["path"] == "/healthz"
        await (Response() if is_health else self._app)(scope, receive, send)
