"""`conversation`: what a client says at random, by a seed; nine of ten keep to every rule."""

import random
from typing import Final

from support.beside_grpcio.mutations import FLIPPED, MUTATIONS
from support.beside_grpcio.oddities import ODDITIES
from support.beside_grpcio.speaker import Conversation, Plan, Speaker, last_call, request
from support.peers.check_door_peer import message

MUTATED: Final = 0.1
"""Part of the conversations in which a rule is broken, once."""
ODD: Final = 0.06
"""Part of the calls that are odd."""
_LONG: Final = 20_000
_SHORT: Final = 3_000


def _content(chance: random.Random) -> bytes:
    size = chance.choice([0, 1, 5, 30, 30, 300, 300, 3000, chance.randrange(_LONG)])
    return chance.choice([b"", b"later "]) + chance.randbytes(size)


def plan(chance: random.Random) -> Plan:
    """Return an ordinary call: its answer is its message."""
    body = message(_content(chance))
    fields = request(
        content_type=chance.choice(["application/grpc"] * 8 + ["application/grpc+proto"])
    )
    if chance.random() < 0.3:
        fields.append(("grpc-timeout", chance.choice(["100S", "99999999H", "20M", "90000000u"])))
    if chance.random() < 0.3:
        value = "".join(chance.choices("abc0 %-", k=chance.choice([1, 30, 2000]))).strip() or "x"
        fields.append((chance.choice(["x-request-id", "traceparent", "accept"]), value))
    if chance.random() < 0.1:
        fields.append(("content-length", str(len(body))))
    trailers = [("x-end", "1")] if chance.random() < 0.1 else None
    return Plan(fields, body, trailers)


def odd(chance: random.Random, kind: str = "") -> Plan:
    """Return an odd call: of that kind, or of any."""
    kind = kind or chance.choice(list(ODDITIES))
    found = ODDITIES[kind](chance, _content(chance)[:_SHORT])
    found.kind = kind
    return found


def _say_something(speaker: Speaker) -> None:
    chance = speaker.chance
    match chance.randrange(12):
        case 0 | 1 | 2:
            speaker.finish(speaker.begin(_any(chance)))
        case 3 | 4:
            speaker.begin(_any(chance))
        case 5 | 6 | 7 if speaker.under_way:
            speaker.go_on(chance.choice(list(speaker.under_way)))
        case 8 if speaker.said.streams and chance.random() < 0.5:
            speaker.give_up(speaker.known())
        case 9:
            speaker.change_settings()
        case 10:
            speaker.widen()
        case _:
            speaker.remark()


def _any(chance: random.Random) -> Plan:
    return odd(chance) if chance.random() < ODD else plan(chance)


def _cuts(chance: random.Random, size: int) -> list[int]:
    if size < 1500 and chance.random() < 0.05:
        step = chance.choice([1, 2, 3, 7])
        return list(range(step, size, step))
    return sorted(chance.randrange(size) for _ in range(chance.choice([0, 0, 1, 2, 5, 15])))


def conversation(
    seed: int, *, steps: int | None = None, mutation: str | None = None, oddity: str = ""
) -> Conversation:
    """Return what a client says.

    Args:
        seed: Equal seeds, equal conversations.
        steps: How much it says; None for by chance.
        mutation: The rule that it breaks; empty for none, None for by chance.
        oddity: An odd call that it makes besides.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    speaker = Speaker(chance)
    if mutation is None:
        mutation = chance.choice(list(MUTATIONS)) if chance.random() < MUTATED else ""
    count = chance.choice([3, 10, 30, 60]) if steps is None else steps
    speaker.greet()
    at = chance.randrange(count + 1)
    for number in range(count + 1):
        if number == at and oddity:
            speaker.finish(speaker.begin(odd(chance, oddity)))
        if number == at and mutation:
            speaker.said.mutation = mutation
            speaker.said.victim = MUTATIONS[mutation](speaker)
        if number < count:
            _say_something(speaker)
    speaker.end(last_call(chance))
    said = speaker.said
    if mutation == FLIPPED:
        place = chance.randrange(1, len(said.frames))
        data = bytearray(said.frames[place])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        said.frames[place] = bytes(data)
    said.cuts = _cuts(chance, sum(map(len, said.frames)))
    return said
