"""A message and a stream by the A2A SDK, in the binding of BINDING. The proxy is the environment's."""

import asyncio
import json
import os
import sys
from importlib.metadata import version

import grpc
from a2a.client import ClientConfig, ClientFactory
from a2a.client.client import Client, ClientCallContext
from a2a.client.errors import A2AClientError
from a2a.helpers import get_stream_response_text, new_text_message
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Role, SendMessageRequest

BINDING, TARGET, TOKEN = (os.environ[name] for name in ("BINDING", "TARGET", "TOKEN"))


def client(*, streaming: bool) -> Client:
    """Return a client of the agent."""
    interface = AgentInterface(url=TARGET, protocol_binding=BINDING, protocol_version="1.0")
    card = AgentCard(
        name="echo",
        version="1",
        capabilities=AgentCapabilities(streaming=True),
        supported_interfaces=[interface],
    )
    config = ClientConfig(
        streaming=streaming,
        supported_protocol_bindings=[BINDING],
        grpc_channel_factory=grpc.aio.insecure_channel,
    )
    return ClientFactory(config).create(card)


async def texts(token: str | None, *, streaming: bool) -> list[str]:
    """Send a message, and return the texts of what comes back."""
    request = SendMessageRequest(message=new_text_message("hello", role=Role.ROLE_USER))
    sent = {} if token is None else {"Authorization": f"Bearer {token}"}
    context = ClientCallContext(service_parameters=sent, timeout=60)
    async with client(streaming=streaming) as caller:
        answers = [part async for part in caller.send_message(request, context=context)]
    return [text for text in map(get_stream_response_text, answers) if text]


async def main() -> None:
    """Call without a token, for one answer, and for a stream."""
    try:
        denied = str(await texts(None, streaming=False))
    except A2AClientError as error:
        denied = str(error)
    (whole,) = await texts(TOKEN, streaming=False)
    first, seen = await texts(TOKEN, streaming=True)
    found = {
        "version": version("a2a-sdk"),
        "denied": denied,
        "whole": whole.partition("\n")[0],
        "stream": first,
        "seen": json.loads(seen),
    }
    json.dump(found, sys.stdout)


asyncio.run(main())
