"""The rows without Envoy: Checks straight to the Unix socket, and the HTTP API beside plain ASGI."""

from typing import Final

from bench import caller
from bench.checks import answer_bytes, request, target
from bench.documents import DELEGATED, INBOUND, RULED
from bench.load import Run, Target
from bench.rows import IN_FLIGHT, Effort, Lane, Row, summarize
from bench.scene import Scene

RATIOS: Final = {
    "check_vs_floor_direct": ("check_hit_direct", "floor_direct"),
    "check_vs_grpc_aio_direct": ("check_door_direct", "floor_direct"),
    "check_rules_vs_check": ("check_rules_direct", "check_door_direct"),
    "logged_vs_floor_direct": ("check_hit_logged", "floor_direct"),
    "inbound_vs_floor_direct": ("inbound_hit_direct", "floor_direct"),
}


def lanes(scene: Scene) -> list[Lane]:
    """Return what h2load measures: Checks over one connection, as Envoy has it; HTTP as programs do.

    Raises:
        LoadError: A Check was denied.
    """
    known = request("egress", DELEGATED, scene.user_token)
    ruled = request("egress", RULED, scene.user_token)
    inbound = request("inbound", INBOUND, scene.user_token)
    plan = (
        ("floor_direct", scene.floor_socket, known, scene.floor),
        ("check_hit_direct", scene.socket, known, scene.service),
        ("check_door_direct", scene.checks_socket, known, scene.service),
        ("check_rules_direct", scene.checks_socket, ruled, scene.service),
        ("check_hit_logged", scene.logging_socket, known, scene.logging_service),
        ("inbound_hit_direct", scene.socket, inbound, scene.service),
    )
    checks = [
        Lane(
            name,
            target(socket, prepared),
            server=server,
            answer_bytes=answer_bytes(f"unix:{socket}", prepared),
        )
        for name, socket, prepared, server in plan
    ]
    token = {"authorization": f"Bearer {scene.user_token}"}
    api = Target(f"http://{scene.api}/AuthorizationHeader/{DELEGATED}", token)
    return [
        *checks,
        Lane("asgi_direct", Target(f"http://{scene.upstream}/", token)),
        Lane("api_hit", api, server=scene.service),
    ]


def inbound_cold(scene: Scene, effort: Effort) -> Row:
    """Measure inbound Checks of tokens that were never seen: one RS256 verification each.

    Raises:
        LoadError: A Check was denied.
    """
    number = max(IN_FLIGHT, int(200 * effort.loaded))
    loaded: list[Run] = []
    single: list[Run] = []
    cpu: list[float] = []
    for _ in range(effort.rounds):
        for runs, in_flight in ((loaded, IN_FLIGHT), (single, 1)):
            fresh = [request("inbound", INBOUND, scene.entra.mint()) for _ in range(number)]
            before = scene.service.cpu_seconds()
            runs.append(
                caller.send(f"unix:{scene.socket}", fresh, number=number, in_flight=in_flight)
            )
            cpu.append((scene.service.cpu_seconds() - before) / number)
    return summarize("inbound_cold", loaded, single, server_cpu=cpu)
