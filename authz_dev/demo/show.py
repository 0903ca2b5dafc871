"""The whole show: build the stage, play the tour, report, and clean up whatever happens."""

import json
import time
from typing import Final

import click
import httpx

from authz.config import ConfigError
from authz.envoy_config.settings import RenderError
from authz_dev.demo.processes import Interrupted, Interruption, StartFailure
from authz_dev.demo.report import Report
from authz_dev.demo.scenario import Result, play
from authz_dev.demo.stage import Stage
from authz_dev.demo.tour import tour
from authz_dev.demo.visitor import Visitor

_FAILED: Final = 1
_SIGNALLED: Final = 128


def show(*, as_json: bool, keep: bool, verbose: bool, program: str) -> int:
    """Run the demo; arguments and result are those of `command.run`. `program` is what starts it."""
    report = Report(beside_json=as_json, verbose=verbose, program=program)
    with Interruption() as interruption:
        try:
            return _perform(report, interruption, as_json=as_json, keep=keep)
        except Interrupted as interrupted:
            report.failure(f"ended by {interrupted}; everything is stopped and removed")
            return _SIGNALLED + interrupted.number
        except (StartFailure, ConfigError, RenderError, httpx.HTTPError, OSError) as failure:
            report.failure(str(failure) or type(failure).__name__)
            return _FAILED


def _perform(report: Report, interruption: Interruption, *, as_json: bool, keep: bool) -> int:
    began = time.monotonic()
    report.opening()
    report.starting()
    with Stage(interruption, report.started) as stage:
        with Visitor(stage) as visitor:
            results = _play(report, interruption, visitor)
        ok = all(result.ok for result in results)
        if as_json:
            _print_json(results, ok=ok)
        report.closing(results, time.monotonic() - began, kept=keep)
        if keep:
            stage.restart()
            report.invitation(stage)
            interruption.wait()
    return 0 if ok else _FAILED


def _play(report: Report, interruption: Interruption, visitor: Visitor) -> list[Result]:
    results: list[Result] = []
    for chapter in tour():
        title: str | None = chapter.title
        for scenario in chapter.scenarios():
            interruption.check()
            result = play(scenario, visitor)
            if not results and result.ok:
                report.picture(*visitor.before_and_after("alice"), visitor.name)
            if title is not None:
                report.chapter(title)
                title = None
            report.result(result)
            results.append(result)
    return results


def _print_json(results: list[Result], *, ok: bool) -> None:
    document = {"scenarios": [result.as_json() for result in results], "ok": ok}
    click.echo(json.dumps(document, indent=2))
