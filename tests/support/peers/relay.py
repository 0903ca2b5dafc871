"""A program that passes connections on: `python -m support.peers.relay LISTEN TARGET [LISTEN TARGET ...]`.

An address is `HOST:PORT`, or the path of a Unix socket, which is reached from other network namespaces too.
"""

import asyncio
import sys
from contextlib import suppress


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(listen: str, target: str) -> asyncio.Server:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.rpartition(":")
        try:
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    if listen.startswith("/"):
        return await asyncio.start_unix_server(take, listen)
    host, _, port = listen.rpartition(":")
    return await asyncio.start_server(take, host, int(port))


async def _main(addresses: list[str]) -> None:
    pairs = zip(addresses[::2], addresses[1::2], strict=True)
    servers = [await _serve(listen, target) for listen, target in pairs]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
