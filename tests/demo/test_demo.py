"""The whole demo as a program: its results, its output, and what it leaves behind."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from support.demo import Demo, Ended, running

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
def test_lines_to_paste_work(kept: Demo) -> None:
    """With what the demo prints, a person gets a token, and an answer through the agent."""
    lines = [kept.line_after("Alice signs in"), kept.line_after("Alice asks the agent")]
    environ = {"PATH": os.environ["PATH"]}

    pasted = subprocess.run(
        ["bash", "-c", "\n".join(lines)], env=environ, capture_output=True, text=True, check=True
    )

    assert pasted.stdout.splitlines()[0] == "HTTP/1.1 200 OK"
    assert re.search(r'"by_an_agent":(\w+)', pasted.stdout)[1] == "true"  # type: ignore[index]


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


def test_kept_demo_ends_with_all_it_started(ended: Ended) -> None:
    """After the scenarios Ctrl-C is the regular end: status 0, no process and no file is left."""
    assert len(ended.children) == 4
    assert ended.status == 0
    assert [pid for pid in ended.children if _runs(pid)] == []
    assert list(ended.demo.temporary.iterdir()) == []


def test_table_is_readable_without_terminal_and_colour(ended: Ended) -> None:
    """In a pipe there is no escape sequence, no row over 140 columns, and a row for each scenario."""
    text = ended.demo.stdout
    table = text.partition("Everything keeps running")[0].splitlines()
    rows = {line.split()[0]: line for line in table if line[:1].strip()}

    assert "\x1b" not in text
    assert [line for line in table if len(line) > 140] == []
    assert [name for name in SCENARIOS if not rows[name].rstrip().endswith(" ✓")] == []
    assert f"{len(SCENARIOS)} of {len(SCENARIOS)} scenarios as expected" in text
    assert "eyJ" not in text


def test_failure_to_start_is_one_clear_message(tmp_path: Path) -> None:
    """Where no socket can be, the demo says so, and leaves nothing behind."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()

    with running(deep) as demo:
        status = demo.process.wait(60)

    assert status == 1
    assert "socket path" in demo.stderr
    assert "Traceback" not in demo.stderr
    assert list(demo.temporary.iterdir()) == []


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
