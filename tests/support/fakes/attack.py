"""What every attack with a token has in common: it is tried at each door a token comes in by."""

from authz.core.decision import Deny
from authz.core.errors import InvalidToken, Reason, TokenFault
from authz.core.record import CheckRecord
from support.fakes.scene import DELEGATED_FLOWS, INBOUND, Scene


async def fault_of(token: str, scene: Scene | None = None) -> TokenFault:
    """Send a forged token through every route that verifies one, and return the fault that all found.

    Each must deny it as an invalid token, remember no principal of it, and ask Entra for nothing.
    """
    scene = scene or Scene()
    doors = [("inbound", INBOUND), *(("egress", flow.value) for flow in DELEGATED_FLOWS)]
    records = [await scene.check(scene.request(*door, token)) for door in doors]
    (fault,) = {_fault(record) for record in records}

    assert (0, []) == (len(scene.principals), scene.entra.calls)
    return fault


def _fault(record: CheckRecord) -> TokenFault:
    assert Deny(Reason.INVALID_TOKEN) == record.decision
    assert record.principal is None
    assert isinstance(record.error, InvalidToken)
    return record.error.fault


async def accepted(token: str, scene: Scene | None = None) -> bool:
    """Whether the inbound route lets the token pass: the proof that an attack starts from a good one."""
    scene = scene or Scene()
    return not isinstance((await scene.inbound(token)).decision, Deny)
