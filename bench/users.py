"""What a cached user costs: memory of the service, and the latency of hits, at several numbers of users."""

import random
import statistics
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from authz_dev.emulator import Emulator
from bench import caller, documents
from bench.checks import request, target
from bench.documents import DELEGATED
from bench.entra import Entra
from bench.load import Run, Target
from bench.programs import TICK, Measured, wait
from bench.rows import Ratio
from bench.scene import Scene

_CHUNK: Final = 4000
_IN_FLIGHT: Final = 64
_ROOM: Final = {"max_entries": 1_000_000, "max_bytes": 8 * 1024**3}


@dataclass(frozen=True, slots=True)
class Level:
    """The service with so many users cached; medians over the rounds.

    Attributes:
        users: Users, each with a verified token and an exchanged one.
        resident_mb: Memory of the process.
        bytes_per_user: Memory since the smallest level, for each user since then.
        p50_us: Latency of a hit of a random user, one Check at a time.
        p99_us: The same, of the slowest hundredth.
        cpu_us: The service's processor time for each hit.
        latency_ratio: `p50_us` over that of a service with the smallest level's users.
        cpu_ratio: The same of `cpu_us`.
    """

    users: int
    resident_mb: float
    bytes_per_user: float | None
    p50_us: float
    p99_us: float
    cpu_us: float
    latency_ratio: Ratio
    cpu_ratio: Ratio

    def described(self) -> dict[str, Any]:
        """Return what is told of it; the ratios are told with all others."""
        told = asdict(self)
        del told["latency_ratio"], told["cpu_ratio"]
        return told


def ratios(levels: Sequence[Level]) -> dict[str, Ratio]:
    """Return what the largest level's hits take of the smallest one's."""
    least, most = _short(levels[0].users), _short(levels[-1].users)
    return {
        f"hit_latency_{most}_vs_{least}": levels[-1].latency_ratio,
        f"hit_cpu_{most}_vs_{least}": levels[-1].cpu_ratio,
    }


def measure(
    crowds: "tuple[Crowd, Crowd]",
    levels: Sequence[int],
    *,
    rounds: int,
    hits: int,
    announce: Callable[[str], None] = lambda _: None,
) -> list[Level]:
    """Fill one service level by level, and compare its hits with those of a service with few users.

    Args:
        crowds: The service with few users, and the one that is filled.
        levels: Numbers of users.
        rounds: Of hits, at each level.
        hits: Of each round.
        announce: Hears what is measured.

    Raises:
        LoadError: A Check was denied.
    """
    few, many = crowds
    few.fill(levels[0])
    found: list[Level] = []
    first: int | None = None
    for users in levels:
        announce(f"filling up to {users:,} users")
        many.fill(users)
        resident = many.program.resident_bytes()
        first = first if first is not None else resident
        announce(f"hits of {users:,} users")
        more = users - levels[0]
        pairs = [(few.hits(hits), many.hits(hits)) for _ in range(rounds)]
        found.append(
            Level(
                users=users,
                resident_mb=round(resident / 1e6, 1),
                bytes_per_user=round((resident - first) / more) if more else None,
                p50_us=statistics.median(hit.p50 for _, hit in pairs),
                p99_us=statistics.median(hit.p99 for _, hit in pairs),
                cpu_us=round(statistics.median(hit.cpu for _, hit in pairs), 1),
                latency_ratio=Ratio.of_pairs([hit.p50 / base.p50 for base, hit in pairs]),
                cpu_ratio=Ratio.of_pairs([hit.cpu / base.cpu for base, hit in pairs]),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Hits:
    """Microseconds of hits: latencies, and the service's processor time for each."""

    p50: float
    p99: float
    cpu: float


@dataclass(slots=True)
class Crowd:
    """A service and the users it knows.

    Attributes:
        program: The service.
        socket: Where it listens.
        mint: Makes a new user's token.
        checks: A Check of each user so far.
    """

    program: Measured
    socket: Path
    mint: Callable[[], str]
    checks: list[bytes] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - repeatable

    def fill(self, users: int) -> None:
        """Let new users send their first Check, until there are so many."""
        with ThreadPoolExecutor(1) as sender:
            # One chunk is sent while the next one is signed.
            sending = []
            while len(self.checks) < users:
                number = min(_CHUNK, users - len(self.checks))
                chunk = self.new(number)
                self.checks += chunk
                sending.append(sender.submit(self.send, chunk, _IN_FLIGHT))
                if len(sending) > 1:
                    sending.pop(0).result()
            for last in sending:
                last.result()
        self.program.forget_log()

    def hits(self, number: int) -> _Hits:
        """Let random users send another one, one at a time."""
        drawn = self._random.choices(self.checks, k=number)
        before = self.program.cpu_seconds()
        run = self.send(drawn, 1)
        # Less than what the system's clock tells apart is told as that.
        cpu = max(self.program.cpu_seconds() - before, TICK) / number
        return _Hits(run.quantile(0.50), run.quantile(0.99), cpu * 1e6)

    def hit(self) -> Target:
        """Return what h2load sends for a hit, of one user."""
        return target(self.socket, self.checks[0])

    def new(self, number: int) -> list[bytes]:
        """Return the first Checks of new users."""
        return [request("egress", DELEGATED, self.mint()) for _ in range(number)]

    def send(self, checks: Sequence[bytes], in_flight: int) -> Run:
        """Send each Check once.

        Raises:
            LoadError: One was denied.
        """
        address = f"unix:{self.socket}"
        return caller.send(address, checks, number=len(checks), in_flight=in_flight)


@contextmanager
def crowds(scene: Scene) -> Iterator[tuple[Crowd, Crowd]]:
    """Run two services without users, whose exchanges cost nothing.

    Raises:
        StartFailure: One did not come up.
    """
    folder = scene.folder / "users"
    folder.mkdir()
    with Emulator() as emulator, _crowds(scene, emulator, folder) as both:
        yield both


@contextmanager
def _crowds(scene: Scene, emulator: Emulator, folder: Path) -> Iterator[tuple[Crowd, Crowd]]:
    emulator.write(folder)
    entra = Entra(folder)
    entra.close()

    def mint() -> str:
        user = str(uuid.uuid4())
        return emulator.mint_user_token(audience=entra.blueprint["client_id"], claims={"oid": user})

    found: list[Crowd] = []
    try:
        for name in ("few", "many"):
            socket = folder / f"{name}.sock"
            config = documents.document(
                entra,
                folder,
                grpc=f"unix:{socket}",
                cache=dict.fromkeys(("tokens", "principals", "answers"), _ROOM),
            )
            found.append(Crowd(scene.serve(name, config, module="bench.crowd"), socket, mint))
        wait([crowd.program for crowd in found])
        yield found[0], found[1]
    finally:
        scene.stop(*(crowd.program for crowd in found))


def _short(number: int) -> str:
    return f"{number // 1000}k" if number % 1000 == 0 else str(number)
