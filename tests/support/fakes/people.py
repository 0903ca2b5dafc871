"""Further users of a tenant, for tests that need many."""

from collections.abc import Iterator

from authz_dev.emulator.entities import User
from support.programs.stack import World


def people(world: World, number: int, client_id: str) -> list[str]:
    """Let the tenant have more users, for whom an administrator has consented, and return their ids.

    Args:
        world: Where.
        number: How many.
        client_id: To whose calls.
    """
    directory, tenant_id = world.emulator.directory, world.tenant_id
    graph = directory.resource(tenant_id, "https://graph.microsoft.com")
    client = directory.client(tenant_id, client_id)
    assert graph is not None
    assert client is not None
    directory.grant_scopes(client, graph, ["User.Read"], None)
    object_ids = [f"{index:08x}-0000-4000-8000-00000000feed" for index in range(number)]
    for object_id in object_ids:
        if directory.user(tenant_id, object_id) is None:
            username = f"{object_id[:8]}@{world.tenant['domain']}"
            directory.add_user(User(tenant_id, object_id, username, f"User {object_id[:8]}"))
    return object_ids


def crowd(world: World, number: int = 10) -> Iterator[str]:
    """Return tokens for the application `reports`, each of another user."""
    audience = world.reports["client_id"]
    return iter(
        [
            world.emulator.mint_user_token(user=person, audience=audience)
            for person in people(world, number, audience)
        ]
    )
