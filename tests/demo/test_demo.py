"""The whole demo as a program: its results, its output, and what it leaves behind."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz_dev.demo.tour import tour
from support.programs.demo import Demo, Ended, running, short_folder

PROGRAM = str(Path(sys.executable).with_name("authz"))
SCENARIOS = [
    "on-behalf-of-user",
    "on-behalf-of-user-warm",
    "repeated-by-envoy",
    "on-behalf-of-second-user",
    "on-behalf-of-user-graph",
    "autonomous",
    "agent-user",
    "blueprint",
    "app-on-behalf-of",
    "app",
    "app-token-pushed",
    "what-the-agent-receives",
    "placeholder",
    "handle",
    "stolen-reference",
    "rule-allows",
    "rule-exchanges-other-scopes",
    "rule-denied",
    "rule-encoded-path",
    "rule-other-case",
    "tool-allowed",
    "tool-widens-scopes",
    "tool-denied",
    "where-to-sign-in",
    "no-token",
    "wrong-audience",
    "expired",
    "missing-scope",
    "forged-signature",
    "forged-identity-header",
    "unknown-host",
    "consent-required",
    "conditional-access-challenge",
    "entra-throttled",
    "entra-down-warm-cache",
    "entra-down-cold",
    "key-rollover",
    "key-withdrawn",
    "user-token-never-leaves",
    "no-token-in-logs",
    "authz-down-egress",
    "authz-down",
]


def test_every_scenario_goes_as_expected(kept: Demo) -> None:
    """Whatever differs is shown with what was expected and observed."""
    document = kept.document()

    assert [one for one in document["scenarios"] if one["expected"] != one["observed"]] == []
    assert [one["name"] for one in document["scenarios"] if not one["ok"]] == []
    assert document["ok"] is True


def test_every_scenario_is_played_in_order(kept: Demo) -> None:
    """The one that stops the service is the last."""
    assert [one["name"] for one in kept.document()["scenarios"]] == SCENARIOS


def test_standard_output_is_the_document_alone(kept: Demo) -> None:
    """Programs read it: nothing but the members of the contract, and text for people elsewhere."""
    document = kept.document()

    assert set(document) == {"scenarios", "ok"}
    assert {frozenset(one) for one in document["scenarios"]} == {
        frozenset({"name", "expected", "observed", "ok", "entra_calls", "ms"})
    }
    assert "scenarios as expected" in kept.stderr


def test_warm_requests_ask_entra_nothing(kept: Demo) -> None:
    """Cold takes two calls, warm none, and a second user shares the agent's assertion."""
    calls = {one["name"]: one["entra_calls"] for one in kept.document()["scenarios"]}

    assert [calls[name] for name in SCENARIOS[:4]] == [2, 0, 0, 1]


def test_no_token_is_in_any_output_or_log(kept: Demo) -> None:
    """Nothing that any program wrote holds what starts like a JWT."""
    logs = {path.name: path.read_text() for path in kept.temporary.glob("authz-demo-*/*.log")}
    written = {**logs, "stdout": kept.stdout, "stderr": kept.stderr}

    assert set(logs) == {"agent.log", "authz.log", "envoy.log", "orders.log"}
    assert [name for name, text in written.items() if not text] == []
    assert [name for name, text in written.items() if "eyJ" in text] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="the lines to paste are made of curl")
def test_the_agents_own_jobs_work_at_once(kept: Demo) -> None:
    """Envoy repeats no decision from before the tour withdrew the key of its token."""
    done = subprocess.run(
        ["bash", "-c", kept.line_after("a timer in the agent's pod")],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip

    assert "HTTP/1.1 200 OK" in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="the lines to paste are made of curl")
def test_lines_to_paste_work(kept: Demo) -> None:
    """With what the demo prints, a person gets a token, and an answer through the agent."""
    lines = [kept.line_after("Alice signs in"), kept.line_after("Alice asks the agent")]
    environ = {"PATH": os.environ["PATH"]}

    pasted = subprocess.run(
        ["bash", "-c", "\n".join(lines)], env=environ, capture_output=True, text=True, check=True
    )

    assert pasted.stdout.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "}\n" == pasted.stdout[-2:]
    assert re.search(r'"by_an_agent":(\w+)', pasted.stdout)[1] == "true"  # type: ignore[index]

    # Alice is known by now, and still the next line shows what it says.
    throttled = subprocess.run(
        ["bash", "-c", kept.line_after("Entra throttles")],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "HTTP/1.1 503 Service Unavailable" in throttled.stdout
    assert '"reason":"exchange_throttled"' in throttled.stdout.replace(" ", "")

    described = subprocess.run(
        ["bash", "-c", kept.line_after("a client without a token")],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {"resource", "authorization_servers"} <= json.loads(described.stdout).keys()

    metrics = subprocess.run(
        ["bash", "-c", kept.line_after("metrics")],
        env=environ, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    names = {line.partition("{")[0].partition(" ")[0] for line in metrics}
    assert {"authz_checks_total", "authz_exchanges_total"} <= names
    assert [name for name in names if not name.endswith("_total")] == []


@pytest.mark.thorough
def test_signal_during_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """Cut short, it ends its programs, removes its files, and says by which signal."""
    with running(tmp_path) as demo:
        demo.wait_for(lambda: bool(demo.children()))
        children = demo.children()

        status = demo.end(signal.SIGTERM)

    assert status == 128 + signal.SIGTERM
    assert [pid for pid in children if _runs(pid)] == []
    assert list(demo.temporary.iterdir()) == []
    assert "ended by SIGTERM" in demo.stderr


@pytest.mark.thorough
def test_kept_demo_ends_with_all_it_started(ended: Ended) -> None:
    """After the scenarios Ctrl-C is the regular end: status 0, no process and no file is left."""
    assert len(ended.children) == 5  # four programs and the guardian
    assert ended.status == 0
    assert [pid for pid in ended.children if _runs(pid)] == []
    assert list(ended.demo.temporary.iterdir()) == []


@pytest.mark.thorough
def test_lines_are_readable_without_terminal_and_colour(ended: Ended) -> None:
    """In a pipe there is no escape sequence, a line for each scenario, and no token."""
    text = ended.demo.stdout
    lines = text.partition("Everything keeps running")[0].splitlines()
    played = [one for chapter in tour() for one in chapter.scenarios()]

    assert "\x1b" not in text
    assert [line for line in lines if len(line) > 120] == []
    assert [one.name for one in played] == SCENARIOS
    assert [
        one.words
        for one in played
        if not any(line.startswith(f"  ✓ {one.words}") for line in lines)
    ] == []
    assert f"{len(SCENARIOS)} of {len(SCENARIOS)} scenarios as expected" in text
    assert "eyJ" not in text


@pytest.mark.thorough
def test_the_opening_picture_shows_claims_before_and_after(ended: Ended) -> None:
    """What the agent got and what the API got, by name, and of neither token more than claims."""
    picture = ended.demo.stdout.partition("One call, decoded")[2].partition("Users:")[0]
    rows = {line.split()[-3]: line.split()[-2:] for line in picture.splitlines() if "  " in line}

    assert ["portal", "support-desk"] == rows["azp"]
    assert ["alice", "alice"] == rows["oid"]
    assert ["access_agent", "Orders.Read"] == rows["scp"]
    assert "11 = an agent" in picture


@pytest.mark.thorough
@pytest.mark.parametrize(("columns", "more"), [(80, []), (120, ["--verbose"])])
def test_terminal_of_that_width_shows_whole_lines(
    tmp_path: Path, columns: int, more: list[str]
) -> None:
    """No line is wider than it, none is wrapped; a wide one shows reasons, and `--verbose` the details."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", "TMPDIR": str(short_folder())}
    # `make` has the environment's programs in the path, and the program would name itself shortly then.
    environ["PATH"] = "/usr/bin:/bin"
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        environ.pop(name, None)
    process = subprocess.Popen(
        [PROGRAM, "demo", *more],
        stdout=follower,
        stderr=follower,
        env=environ,
        start_new_session=True,
    )
    os.close(follower)
    text = _read_all(leader)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r\n", "\n")
    lines = plain.splitlines()
    played = [one for chapter in tour() for one in chapter.scenarios()]

    assert 0 == process.wait(60)
    assert "\x1b[" in text
    # The lines to paste at the end may be longer: they begin with the path of the program.
    shown = [line for line in lines if PROGRAM not in line]
    assert [line for line in shown if len(line) > columns] == []
    assert [
        one.words
        for one in played
        if not any(line.startswith(f"  ✓ {one.words}") for line in lines)
    ] == []
    words = " ".join(plain.split())
    served = "  ✓ alice asks for her orders: the API sees support-desk for alice"
    refused = "  ✓ no token: 401, and the agent is not called"
    for line, status in ((served, "200"), (refused, "401")):
        assert f"{line:<72}  {status}" in [shown[:77].rstrip() for shown in lines]
    assert bool(more) is (" the agent is not called 401 missing_token " in words)
    assert (SCENARIOS if more else []) == [name for name in SCENARIOS if f" {name}: sent " in words]
    if more:
        assert "the API saw azp=support-desk oid=alice idtyp=user; 200; calls to Entra: 2;" in words
    assert f"  {PROGRAM} demo --keep  " in plain


@pytest.mark.thorough
def test_details_are_shown_when_asked_for(tmp_path: Path) -> None:
    """`--verbose`: by the scenario's name what was sent, held and seen."""
    with running(tmp_path, "--verbose") as demo:
        assert 0 == demo.process.wait(60)
    text = " ".join(demo.stdout.split())

    assert [name for name in SCENARIOS if f" {name}: sent " not in text] == []
    assert "the API saw azp=support-desk oid=alice idtyp=user; 200; calls to Entra: 2; " in text


@pytest.mark.thorough
def test_each_scenario_is_shown_as_it_ends(tmp_path: Path) -> None:
    """Cut short at its first line, it has shown that line, and not what would have come later."""
    with running(tmp_path) as demo:
        demo.wait_for(lambda: "alice asks for her orders" in demo.stdout)
        assert "scenarios as expected" not in demo.stdout
        demo.end(signal.SIGTERM)


@pytest.mark.thorough
def test_killed_demo_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    """Its guardian ends what it started and removes its files, after SIGKILL as well."""
    with running(tmp_path, "--keep") as demo:
        demo.wait_for(lambda: "# Envoy's configuration" in demo.stdout)
        children = demo.children()
        demo.process.kill()
        demo.process.wait()
    _wait_until(lambda: not any(_runs(pid) for pid in children))

    assert len(children) == 5
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.thorough
def test_demo_that_is_killed_at_its_start_leaves_nothing(tmp_path: Path) -> None:
    """From the first program on: each joins the guardian's group as it begins."""
    with running(tmp_path) as demo:
        demo.wait_for(lambda: len(demo.children()) > 1)
        demo.process.kill()
        children = demo.children()
        demo.process.wait()
    _wait_until(lambda: not any(_runs(pid) for pid in children))
    _wait_until(lambda: not list(demo.temporary.iterdir()))


@pytest.mark.thorough
def test_failure_to_start_is_one_clear_message(tmp_path: Path) -> None:
    """Where no socket can be, the demo says so, and leaves nothing behind."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()

    with running(tmp_path, temporary=deep) as demo:
        status = demo.process.wait(60)

    assert status == 1
    assert "socket path" in demo.stderr
    assert "Traceback" not in demo.stderr
    assert list(demo.temporary.iterdir()) == []


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)


def _read_all(terminal: int) -> str:
    """Return what is written to a terminal until its last writer has gone."""
    read = b""
    while True:
        try:
            more = os.read(terminal, 65536)
        except OSError:
            more = b""
        if not more:
            os.close(terminal)
            return read.decode()
        read += more


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
