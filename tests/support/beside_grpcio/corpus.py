"""The kept conversations: short ones, at least one for each broken rule, odd call and step, as bytes.

`python -m support.beside_grpcio --keep` writes them anew. They stay as they are when the generator changes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from support.beside_grpcio.conversations import conversation
from support.beside_grpcio.exchange import Heard
from support.beside_grpcio.mutations import FLIPPED, MUTATIONS
from support.beside_grpcio.oddities import ODDITIES
from support.beside_grpcio.run import serving
from support.beside_grpcio.speaker import Asked, Conversation

KEPT: Final = Path(__file__).parents[2] / "data" / "check_door" / "conversations.json"
_TRIES: Final = 25
_SEEDS: Final = range(4_000)


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept conversation.

    Attributes:
        about: Why it is kept.
        said: What the client says.
        outcomes: What becomes of its whole calls at our server, by stream; none where the connection ends.
        ended: Whether the connection ends.
    """

    about: str
    said: Conversation
    outcomes: dict[int, str]
    ended: bool


def outcomes(said: Conversation, heard: Heard) -> dict[int, str]:
    """Return what became of whole calls; nothing where the connection ended."""
    return {
        stream: str(heard.of(stream))
        for stream, asked in said.streams.items()
        if asked.whole and not asked.cancelled and not heard.ended
    }


def kept() -> list[Kept]:
    """Return the kept conversations."""
    found: list[Any] = json.loads(KEPT.read_text())
    return [
        Kept(
            each["about"],
            Conversation(
                [bytes.fromhex(part) for part in each["frames"]],
                each["steps"],
                {
                    int(stream): Asked(kind, bytes.fromhex(body), whole, cancelled)
                    for stream, (kind, body, whole, cancelled) in each["streams"].items()
                },
                each["mutation"],
                each["victim"],
                each["cuts"],
            ),
            {int(stream): outcome for stream, outcome in each["outcomes"].items()},
            each["ended"],
        )
        for each in found
    ]


def _candidates() -> Iterator[tuple[str, list[Conversation]]]:
    """Yield what there should be one of, and short conversations that have it, the shortest first."""
    tries = range(_TRIES)
    for mutation in MUTATIONS:
        if mutation != FLIPPED:
            yield mutation, [conversation(n, steps=n % 2, mutation=mutation) for n in tries]
    for oddity in ODDITIES:
        yield oddity, [conversation(n, steps=n % 2, mutation="", oddity=oddity) for n in tries]
    all_of_them = [conversation(seed, steps=4, mutation="") for seed in _SEEDS]
    for step in sorted({step for said in all_of_them for step in said.steps}):
        yield f"a step: {step}", [said for said in all_of_them if step in said.steps]


async def keep(folder: Path) -> int:
    """Write the conversations that are to be kept; return how many.

    Args:
        folder: For the sockets.
    """
    written: list[dict[str, object]] = []
    async with serving(folder) as servers:
        for about, found in _candidates():
            found.sort(key=lambda said: sum(map(len, said.frames)))
            for said in found[:_TRIES]:
                ours, theirs, _ = await servers.converse(said)
                if not ours.silent and not theirs.silent:
                    written.append(_written(about, said, ours))
                    break
    lines = ",\n".join(json.dumps(each) for each in written)
    KEPT.write_text(f"[\n{lines}\n]\n")
    return len(written)


def _written(about: str, said: Conversation, ours: Heard) -> dict[str, object]:
    return {
        "about": about,
        "mutation": said.mutation,
        "victim": said.victim,
        "ended": ours.ended,
        "outcomes": outcomes(said, ours),
        "steps": said.steps,
        "streams": {
            stream: [asked.kind, asked.body.hex(), asked.whole, asked.cancelled]
            for stream, asked in said.streams.items()
        },
        "cuts": said.cuts,
        "frames": [part.hex() for part in said.frames],
    }
