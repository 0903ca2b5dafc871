"""Opens a WebSocket as an agent would; `websockets` reads the proxy variables by itself."""

import asyncio
import os
import ssl
import sys

import websockets


async def main(url: str, authorization: str) -> None:
    """Open one, or fail as the library does."""
    connection = await websockets.connect(
        url,
        additional_headers={"Authorization": authorization},
        ssl=ssl.create_default_context(cafile=os.environ["TRUSTED"]),
        subprotocols=[websockets.Subprotocol("chat")],
    )
    # The server of the test knows no frames, so there is no goodbye to wait for.
    connection.transport.abort()


asyncio.run(main(*sys.argv[1:]))
