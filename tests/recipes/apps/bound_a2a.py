"""An A2A agent with tasks that wait for input: bound to their callers, or as the SDK leaves them."""

import os

from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard
from caller_as_user import CallerAsUser, a2a_user
from health import Health
from starlette.applications import Starlette


class Asking(AgentExecutor):
    """Asks back, and waits."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Begin a task, and ask for more."""
        task = context.current_task or new_task_from_user_message(context.message)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
        await TaskUpdater(event_queue, task.id, task.context_id).requires_input()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """End the task."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


card = AgentCard(name="asking", version="1", capabilities=AgentCapabilities())
handler = DefaultRequestHandler(Asking(), InMemoryTaskStore(), card)
inner = Starlette(routes=create_jsonrpc_routes(handler, "/a2a"))
app = Health(CallerAsUser(inner, a2a_user) if os.environ["BOUND"] else inner)
