"""What the person in front of the terminal sees: what is started, what happened, what to try next."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from authz.demo.scenario import Result
from authz.demo.stage import LOOPBACK, Stage, Started

_WIDEST: Final = 140
_RESULT_WIDTH: Final = 24
_HOW_WIDTH: Final = 84
_BESIDE_HOW: Final = 36
_THROTTLE: Final = {"kind": "status", "status": 429, "retry_after": 5, "count": 3}
_SHOWN_ELSEWHERE: Final = ("api_saw", "app_called", "entra_calls", "status", "reason")


class Report:
    """Writes for people: to standard output, or beside machine-readable output to standard error."""

    def __init__(self, *, beside_json: bool) -> None:
        console = Console(stderr=beside_json)
        width = min(console.width, _WIDEST) if console.is_terminal else _WIDEST
        self._console = Console(stderr=beside_json, width=width, highlight=False)

    def opening(self) -> None:
        """Say what this is."""
        self._console.print(
            "[bold]authz demo[/]  an unmodified agent behind a real Envoy: what it may do, "
            "and what the APIs it calls get to see\n"
        )

    def started(self, started: Started) -> None:
        """Say what runs now."""
        width = min(_HOW_WIDTH, self._console.width - _BESIDE_HOW)
        self._console.print(
            f"  [green]✓[/] {started.name:<15} {escape(started.how):<{width}} "
            f"[dim]{started.seconds * 1000:6.0f} ms[/]"
        )

    def results(self, results: Sequence[Result]) -> None:
        """Show every scenario, and in full those that went otherwise than expected."""
        table = Table(
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
            header_style="bold",
        )
        table.add_column("scenario", no_wrap=True)
        table.add_column("caller sent")
        table.add_column("agent held")
        table.add_column("the API saw", overflow="fold")
        table.add_column("result", max_width=_RESULT_WIDTH)
        table.add_column("Entra", justify="right", no_wrap=True)
        table.add_column("ms", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for result in results:
            table.add_row(
                result.scenario.name,
                escape(result.scenario.sent),
                escape(result.scenario.held),
                escape(_seen(result.observed["api_saw"])),
                escape(_told(result.observed)),
                str(result.observed["entra_calls"]),
                f"{result.seconds * 1000:.0f}",
                "[green]✓[/]" if result.ok else "[bold red]✗[/]",
            )
        self._console.print()
        self._console.print(table)
        self._console.print()
        for result in results:
            if not result.ok:
                self._console.print(f"[bold red]✗ {result.scenario.name}[/]")
                self._console.print(
                    f"    expected {json.dumps(result.scenario.expected)}", markup=False
                )
                self._console.print(f"    observed {json.dumps(result.observed)}", markup=False)

    def closing(self, results: Sequence[Result], seconds: float, *, kept: bool) -> None:
        """Sum up."""
        passed = sum(result.ok for result in results)
        calls = sum(result.observed["entra_calls"] for result in results)
        colour = "green" if passed == len(results) else "red"
        self._console.print(
            f"[bold {colour}]{passed} of {len(results)} scenarios as expected[/], "
            f"{calls} calls to Entra, {seconds:.1f} s in all"
        )
        if not kept:
            self._console.print(
                "Next: [bold]authz demo --keep[/] leaves everything running for you to play with"
            )

    def invitation(self, stage: Stage) -> None:
        """Print lines to paste into another terminal."""
        ports, paths, emulator = stage.ports, stage.paths, stage.emulator
        curl = f"curl -s --cacert {paths.entra_ca}"
        mint = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])'"
        self._console.print("\n[bold]Everything keeps running. Ctrl-C ends it.[/]")
        for title, line in (
            ("Alice signs in", f"TOKEN=$({curl} {emulator.mint_url} -d '{{}}' | {mint})"),
            (
                "Alice asks the agent, which asks the orders API (also /my-profile, /whoami)",
                f'curl -si http://{LOOPBACK}:{ports.inbound}/my-orders -H "Authorization: Bearer $TOKEN"',
            ),
            (
                "a timer in the agent's pod, nobody signed in (also /jobs/desk, /jobs/payroll)",
                f"curl -si http://{LOOPBACK}:{ports.app}/jobs/nightly",
            ),
            (
                "Entra throttles the next 3 calls",
                f"{curl} {emulator.control_url}/faults -d '{json.dumps(_THROTTLE)}'",
            ),
            (
                "Entra signs with a new key",
                f"{curl} -X POST {emulator.control_url}/keys/roll",
            ),
            ("what Entra was asked", f"{curl} {emulator.control_url}/calls"),
            ("metrics", f"curl -s http://{LOOPBACK}:{ports.authz_admin}/metrics | grep ^authz_"),
            ("decisions", f"tail -f {stage.logs()['authz']}"),
            ("the configuration", f"cat {paths.config}"),
            ("Envoy's configuration", f"cat {paths.bootstrap}"),
        ):
            self._console.print(f"[dim]# {escape(title)}[/]")
            # One line each, however narrow the terminal: they are to be pasted.
            self._console.print(line, markup=False, soft_wrap=True)

    def failure(self, message: str) -> None:
        """Say why there was no demo."""
        console = Console(stderr=True, highlight=False)
        console.print(f"[bold red]authz demo:[/] {escape(message)}", soft_wrap=True)


def _seen(api_saw: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> str:
    if api_saw is None:
        return "nothing"
    if isinstance(api_saw, Mapping):
        # Whether an agent acts is in the machine-readable form; here the name says as much.
        return " ".join(f"{name}={value}" for name, value in api_saw.items() if name != "agent")
    return "; ".join(map(_seen, api_saw))


def _told(observed: Mapping[str, Any]) -> str:
    main = (str(observed[name]) for name in ("status", "reason") if observed.get(name))
    more = (
        f"{name}={', '.join(value) if isinstance(value, list) else value}"
        for name, value in observed.items()
        if name not in _SHOWN_ELSEWHERE
    )
    return " ".join((*main, *more))
