"""What the person in front of the terminal sees: what is started, what happened, what to try next.

A line for each scenario, as it ends, readable in 80 columns. Of tokens, claims are shown and nothing else.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from authz.core.resource import METADATA
from authz_dev.demo.scenario import Result
from authz_dev.demo.stage import LOOPBACK, Stage, Started

_WIDEST: Final = 120
_WORDS_WIDTH: Final = 68
_OUTCOME_WIDTH: Final = 26
_WITH_OUTCOME: Final = 4 + _WORDS_WIDTH + 2 + _OUTCOME_WIDTH + 9
"""Columns of a terminal that has room for status, reason and time."""
_WITH_STATUS: Final = 4 + _WORDS_WIDTH + 2 + 3
"""Columns of one that has room for the status."""
_HOW_WIDTH: Final = 48
_INDENT: Final = 6
_THROTTLE: Final = {
    "kind": "status", "status": 429, "retry_after": 5, "count": 3, "match": {"leg": "agent_obo"},
}  # fmt: skip
_SHOWN_ELSEWHERE: Final = ("api_saw", "app_called", "entra_calls", "status", "reason")
_CLAIMS: Final = {
    "aud": "meant for",
    "azp": "caller",
    "oid": "on behalf of",
    "idtyp": "which is a",
    "scp": "scopes",
    "xms_act_fct": "caller's facets",
    "xms_par_app_azp": "its blueprint",
}
_AGENT: Final = "11"
"""What Entra puts among a caller's facets when it is an agent identity."""


class Report:
    """Writes for people: to standard output, or beside machine-readable output to standard error.

    Args:
        beside_json: Whether standard output is for a document.
        verbose: Whether each scenario gets its details.
        program: What to type to start this program.
    """

    def __init__(self, *, beside_json: bool, verbose: bool, program: str) -> None:
        console = Console(stderr=beside_json)
        width = min(console.width, _WIDEST) if console.is_terminal else _WIDEST
        self._console = Console(stderr=beside_json, width=width, highlight=False)
        self._verbose = verbose
        self._program = program

    def opening(self) -> None:
        """Say what this is."""
        self._console.print(
            "[bold]authz demo[/]  an unmodified agent behind a real Envoy, and what its APIs see\n"
        )

    def starting(self) -> None:
        """Say what takes a moment."""
        self._console.print(
            "  [dim]… an API, an agent and authz start; Envoy's configuration is rendered[/]"
        )

    def started(self, started: Started) -> None:
        """Say what runs now."""
        self._console.print(
            f"  [green]✓[/] {started.name:<15} {escape(started.how):<{_HOW_WIDTH}} "
            f"[dim]{started.seconds * 1000:5.0f} ms[/]"
        )

    def picture(
        self, before: Mapping[str, Any], after: Mapping[str, Any], name: Callable[[str], str]
    ) -> None:
        """Show what becomes of a token between its user and an API; ids by their names."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading in ("", "claim", "the agent got", "the API got"):
            table.add_column(heading, no_wrap=True, style=None if heading else "dim")
        for claim, meaning in _CLAIMS.items():
            values = [_claim(claims.get(claim), name) for claims in (before, after)]
            table.add_row(meaning, claim, *map(escape, values))
        self._console.print(
            "\n[bold]One call, decoded[/]: alice's token in, the agent's token out (names for ids)"
        )
        self._console.print(Padding(table, (0, 0, 0, 2)))

    def chapter(self, title: str) -> None:
        """Begin a group of scenarios."""
        self._console.print(f"\n[bold]{escape(title)}[/]")

    def result(self, result: Result) -> None:
        """Show how a scenario has ended; in full if it is otherwise than expected."""
        mark = "[green]✓[/]" if result.ok else "[bold red]✗[/]"
        line = f"  {mark} {escape(result.scenario.words):<{_WORDS_WIDTH}}"
        if self._console.width >= _WITH_OUTCOME:
            outcome = escape(_outcome(result.observed))
            line += f"  [dim]{outcome:<{_OUTCOME_WIDTH}}{result.seconds * 1000:5.0f} ms[/]"
        elif self._console.width >= _WITH_STATUS:
            line += f"  [dim]{escape(str(result.observed.get('status', '')))}[/]"
        self._console.print(line.rstrip())
        if self._verbose:
            self._details(_details(result), style="dim")
        if not result.ok:
            self._details(f"scenario {result.scenario.name}")
            self._details(f"expected {json.dumps(result.scenario.expected)}")
            self._details(f"observed {json.dumps(result.observed)}")

    def _details(self, text: str, style: str = "") -> None:
        self._console.print(Padding(Text(text, style), (0, 0, 0, _INDENT)))

    def closing(self, results: Sequence[Result], seconds: float, *, kept: bool) -> None:
        """Sum up."""
        passed = sum(result.ok for result in results)
        calls = sum(result.observed["entra_calls"] for result in results)
        colour = "green" if passed == len(results) else "red"
        self._console.print(
            f"\n[bold {colour}]{passed} of {len(results)} scenarios as expected[/], "
            f"{calls} calls to Entra, {seconds:.1f} s in all"
        )
        if not kept:
            self._console.print("Next:")
            for option, what in (
                ("--verbose", "shows what each party sent, held and saw"),
                ("--keep", "leaves everything running, with lines to paste"),
            ):
                line = f"  [bold]{escape(self._program)} demo {option}[/]  {what}"
                self._console.print(line, soft_wrap=True)

    def invitation(self, stage: Stage) -> None:
        """Print lines to paste into another terminal."""
        ports, paths, emulator = stage.ports, stage.paths, stage.emulator
        # Bodies end without a newline, and the prompt would follow them in the same line.
        curl = f'curl -s -w "\\n" --cacert {paths.entra_ca}'
        mint = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])'"
        sign_in = f"TOKEN=$({curl} {emulator.mint_url} -d '{{}}' | {mint})"
        described = f'curl -s -w "\\n" {stage.agent_url}{METADATA}'
        ask = f'curl -si -w "\\n" http://{LOOPBACK}:{ports.inbound}/my-orders -H "Authorization: Bearer $TOKEN"'
        throttle = f"{curl} {emulator.control_url}/faults -d '{json.dumps(_THROTTLE)}'"
        self._console.print("\n[bold]Everything keeps running. Ctrl-C ends it.[/]")
        for title, line in (
            ("a client without a token learns where to sign in", described),
            ("Alice signs in", sign_in),
            (
                "Alice asks the agent, which asks the orders API (also /my-profile, /my-mail, /whoami)",
                ask,
            ),
            (
                "a timer in the agent's pod, nobody signed in (also /jobs/desk, /jobs/payroll)",
                f'curl -si -w "\\n" http://{LOOPBACK}:{ports.app}/jobs/nightly',
            ),
            (
                "Entra throttles; Alice signs in again, because her former token is exchanged already",
                f"{throttle}; {sign_in}; {ask}",
            ),
            (
                "Entra signs with a new key",
                f"{curl} -X POST {emulator.control_url}/keys/roll",
            ),
            ("what Entra was asked", f"{curl} {emulator.control_url}/calls"),
            (
                "metrics",
                f"curl -s http://{LOOPBACK}:{ports.authz_admin}/metrics | grep '^authz_[a-z_]*_total'",
            ),
            ("decisions", f"tail -f {stage.logs()['authz']}"),
            ("the configuration", f"cat {paths.config}"),
            ("Envoy's configuration", f"cat {paths.bootstrap}"),
        ):
            self._console.print(f"[dim]# {escape(title)}[/]", soft_wrap=True)
            # One line each, however narrow the terminal: they are to be pasted.
            self._console.print(line, markup=False, soft_wrap=True)

    def failure(self, message: str) -> None:
        """Say why there was no demo."""
        console = Console(stderr=True, highlight=False)
        console.print(f"[bold red]authz demo:[/] {escape(message)}", soft_wrap=True)


def _claim(value: object, name: Callable[[str], str]) -> str:
    if value is None:
        return "-"
    text = str(value)
    return f"{_AGENT} = an agent" if _AGENT in text.split() else name(text)


def _details(result: Result) -> str:
    observed, held = result.observed, result.scenario.held or "nothing"
    return "; ".join(
        (
            f"{result.scenario.name}: sent {result.scenario.sent}",
            "the agent was not called" if held == "not called" else f"the agent held {held}",
            f"the API saw {_seen(observed['api_saw'])}",
            *filter(None, (_outcome(observed), _findings(observed))),
            f"calls to Entra: {observed['entra_calls']}",
            f"{result.seconds * 1000:.0f} ms",
        )
    )


def _seen(api_saw: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> str:
    if api_saw is None:
        return "nothing"
    if isinstance(api_saw, Mapping):
        # Whether an agent acts is in the machine-readable form; here the name says as much.
        return " ".join(
            f"{name}={value}"
            for name, value in api_saw.items()
            if name != "agent" and value is not None
        )
    return " and ".join(map(_seen, api_saw))


def _outcome(observed: Mapping[str, Any]) -> str:
    return " ".join(str(observed[name]) for name in ("status", "reason") if observed.get(name))


def _findings(observed: Mapping[str, Any]) -> str:
    found = (
        f"{name} {_words(value)}"
        for name, value in observed.items()
        if name not in _SHOWN_ELSEWHERE
    )
    return "; ".join(found)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
