"""What several keys of one inbound route must agree on: which client it calls, and whom it serves.

What it has to do with egress routes is in `route_checks`.
"""

from collections.abc import Iterator, Mapping

from authz.config.consistency.route_checks import CLIENT_KEYS
from authz.config.faults import Fault
from authz.config.sections.cors import ANY_ORIGIN, Cors
from authz.config.sections.routes import Inbound
from authz.config.shown import shown
from authz.core.principal import SubjectType


def check_inbound(routes: Mapping[str, Inbound]) -> Iterator[Fault]:
    """Return the faults of inbound routes."""
    for name, route in routes.items():
        path = f"inbound.{name}"
        given = [key for key in CLIENT_KEYS if getattr(route, key) is not None]
        for key in given[1:]:
            yield Fault(f"{path}.{key}", f"{given[0]} is given as well: expected one of the two")
        if not given:
            for key in ("audiences", "tenants"):
                if getattr(route, key) is None:
                    yield Fault(
                        f"{path}.{key}",
                        "is missing: expected it, or one of agent, blueprint and application, "
                        "from which it follows",
                    )
        yield from _check_subjects(path, route)
        yield from _check_demands(path, route)
        if route.cors is not None:
            yield from _check_cors(f"{path}.cors", route.cors)


def _check_subjects(path: str, route: Inbound) -> Iterator[Fault]:
    if not route.serves_applications or route.roles or route.actors:
        return
    if SubjectType.APPLICATION in route.served:
        yield Fault(
            f"{path}.subjects",
            "applications are served without roles or actors: any application can get a token "
            "without roles, so expected one of the two",
        )
    elif not route.actor_blueprints:
        yield Fault(
            f"{path}.subjects",
            "agent identities are served without roles, actors or actor_blueprints: any agent can get a token "
            "without roles, so expected one of the three",
        )


def _check_demands(path: str, route: Inbound) -> Iterator[Fault]:
    if not route.serves_users:
        of_users = {"scopes": "have", "user_roles": "have", "auth_context": "has"}
        for key, verb in of_users.items():
            if getattr(route, key):
                yield Fault(f"{path}.{key}", f"{verb} no effect: subjects names no user")
    elif route.user_roles and route.roles and not route.serves_applications:
        yield Fault(
            f"{path}.user_roles",
            "roles is given as well, and counts for users where no application is served: expected one of the two",
        )


def _check_cors(path: str, cors: Cors) -> Iterator[Fault]:
    if ANY_ORIGIN in cors.origins and cors.credentials:
        yield Fault(
            f"{path}.credentials",
            "found true beside the origin *: any web page could call as the browser's user, expected the origins by name",
        )
    if ANY_ORIGIN in cors.origins and len(cors.origins) > 1:
        yield Fault(f"{path}.origins", "found * beside other origins: expected * alone, or no *")
    for key in ("origins", "methods", "headers", "expose"):
        values = getattr(cors, key)
        for place, value in enumerate(values):
            if value in values[:place]:
                yield Fault(
                    f"{path}.{key}.{place}", f"found {shown(value)} twice: expected it once"
                )
