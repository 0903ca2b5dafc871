"""Asks for tokens with the Microsoft 365 Agents SDK's own sidecar client, and prints what came of it.

SIDECAR_URL=… python m365_client.py TENANT AGENT USER_ID USER_NAME
"""

import asyncio
import json
import sys

from microsoft_agents.authentication.entra_auth_sidecar import SidecarAuth
from microsoft_agents.hosting.core import AgentAuthConfiguration

SCOPES = ["https://graph.microsoft.com/.default"]


async def main(tenant: str, agent: str, user_id: str, user_name: str) -> None:
    """Call every method that the client has, as the SDK does."""
    auth = SidecarAuth(AgentAuthConfiguration(tenant_id=tenant, client_id=agent, scopes=SCOPES))
    print(  # noqa: T201 - for the test that started it
        json.dumps(
            {
                "healthy": await auth.is_healthy(),
                "connection": await auth.get_access_token("https://graph.microsoft.com", SCOPES),
                "instance": (await auth.get_agentic_instance_token(tenant, agent))[0],
                "user by id": await auth.get_agentic_user_token(tenant, agent, user_id, SCOPES),
                "user by name": await auth.get_agentic_user_token(tenant, agent, user_name, SCOPES),
                "refused": await refusal(auth, tenant),
            }
        )
    )
    await auth.close()


async def refusal(auth: SidecarAuth, tenant: str) -> str:
    """What the client makes of an agent that it may not name."""
    try:
        await auth.get_agentic_instance_token(tenant, "99999999-0000-4000-8000-000000000009")
    except Exception as error:  # noqa: BLE001 - its type is the result
        return type(error).__name__
    return "none"


asyncio.run(main(*sys.argv[1:]))
