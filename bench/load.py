"""h2load: sends the same request again and again, and says when each answer came.

The generator is a C program that takes little of the machine, so what is measured is the other side.
"""

import shutil
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PATIENCE: Final = 20.0


class LoadError(Exception):
    """What was measured is not what was meant; the message says what came instead."""


@dataclass(frozen=True, slots=True)
class Target:
    """One request, as h2load sends it.

    Attributes:
        url: Where to.
        headers: Besides those that h2load sends by itself.
        body: Sent by POST; None for a GET.
        socket: Unix socket to connect to instead of the URL's host.
        http2: Whether to speak HTTP/2 without TLS (gRPC does), else HTTP/1.1.
        connections: How many to spread the requests over. Left out: with HTTP/1.1 one for each
            request in flight, with HTTP/2 one for all, as Envoy has it towards the service.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    socket: Path | None = None
    http2: bool = False
    connections: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the load gave. Every answer had a 2xx status.

    Attributes:
        seconds: From the first request to the last answer.
        latencies: Microseconds of each request, in ascending order.
        bytes_read: Bytes of all answers' bodies.
    """

    seconds: float
    latencies: tuple[int, ...]
    bytes_read: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def bytes_each(self) -> float:
        """Mean size of an answer's body."""
        return self.bytes_read / len(self.latencies)

    def quantile(self, share: float) -> float:
        """Return the latency, in microseconds, within which that share of the answers came."""
        return float(self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))])

    @property
    def mean(self) -> float:
        """Mean latency in microseconds."""
        return statistics.fmean(self.latencies)


def find() -> None:
    """Make sure that h2load is there.

    Raises:
        LoadError: It is not; says how to get it.
    """
    if shutil.which("h2load") is None:
        raise LoadError(
            "h2load is missing. It comes with nghttp2: apt-get install nghttp2-client (Debian, "
            "Ubuntu), dnf install nghttp2 (Fedora)"
        )


def run(target: Target, *, seconds: float, in_flight: int) -> Run:
    """Send requests for some time, each as soon as another one has been answered.

    What is under way at the end does not count.

    Raises:
        LoadError: h2load failed, nothing was answered, or an answer had another status than 2xx.
    """
    connections = min(in_flight, target.connections or (1 if target.http2 else in_flight))
    streams = in_flight // connections
    with tempfile.TemporaryDirectory(prefix="authz-load-") as folder:
        log = Path(folder) / "log"
        command = ["h2load", "--duration", f"{round(seconds * 1000)}ms", "--clients",
                   str(connections), "--max-concurrent-streams", str(streams),
                   f"--log-file={log}"]  # fmt: skip
        command += [] if target.http2 else ["--h1"]
        for name, value in target.headers.items():
            command += ["--header", f"{name}: {value}"]
        if target.body is not None:
            body = Path(folder) / "body"
            body.write_bytes(target.body)
            command += ["--data", str(body)]
        if target.socket is not None:
            command.append(f"--base-uri=unix:{target.socket}")
        try:
            done = subprocess.run(
                [*command, target.url],
                capture_output=True,
                text=True,
                timeout=seconds + _PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"{target.url}: not every connection was accepted") from error
        if done.returncode:
            raise LoadError(f"h2load failed: {done.stderr.strip() or done.stdout.strip()}")
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    statuses = Counter(row[1] for row in rows)
    if not rows or any(not status.startswith("2") for status in statuses):
        answered = ", ".join(f"{count} x {status}" for status, count in statuses.items())
        raise LoadError(f"{target.url}: requests were answered {answered or 'not at all'}")
    starts = [int(row[0]) for row in rows]
    latencies = [int(row[2]) for row in rows]
    end = max(start + latency for start, latency in zip(starts, latencies, strict=True))
    return Run((end - min(starts)) / 1e6, tuple(sorted(latencies)), _bytes_read(done.stdout))


def _bytes_read(output: str) -> int:
    """Read the size of all bodies: `traffic: … total, … headers …, 24.41KB (25000) data`."""
    line = next(line for line in output.splitlines() if line.startswith("traffic:"))
    return int(line.rpartition("(")[2].partition(")")[0])
