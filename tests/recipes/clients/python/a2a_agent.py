"""An agent of the A2A SDK, by JSON-RPC, REST and gRPC: answers in two parts. The second says who called."""

import asyncio
import json
import os

import grpc
import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

PORT, GRPC_PORT = int(os.environ["PORT"]), os.environ["GRPC_PORT"]


class Echo(AgentExecutor):
    """Says first that it has begun, then who called."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Answer in two artifacts."""
        state = context.call_context.state
        if "grpc_context" in state:
            headers = dict(state["grpc_context"].invocation_metadata())
        else:
            headers = state["headers"]
        names = ("authorization", "x-authz-subject")
        task = new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        await updater.add_artifact([new_text_part("first")])
        seen = {name: headers.get(name) for name in names}
        await updater.add_artifact([new_text_part(json.dumps(seen))])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """End the task."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


async def healthz(_: Request) -> PlainTextResponse:
    """Answer that the agent is there."""
    return PlainTextResponse("ok")


async def main() -> None:
    """Serve all three."""
    card = AgentCard(name="echo", version="1", capabilities=AgentCapabilities(streaming=True))
    handler = DefaultRequestHandler(Echo(), InMemoryTaskStore(), card)
    rpc = grpc.aio.server()
    add_A2AServiceServicer_to_server(GrpcHandler(handler), rpc)
    rpc.add_insecure_port(f"127.0.0.1:{GRPC_PORT}")
    await rpc.start()
    routes = [
        Route("/healthz", healthz),
        *create_agent_card_routes(card),
        *create_jsonrpc_routes(handler, "/rpc"),
        *create_rest_routes(handler, path_prefix="/rest"),
    ]
    await uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=PORT)).serve()


asyncio.run(main())
