"""`authz check-config`: checks a configuration and prints every fault."""

import os
import sys
from collections.abc import Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from authz import __version__
from authz.cli.options import (
    FAULTY,
    FILE,
    UNMATCHED,
    config_option,
    file_argument,
    no_values_option,
)
from authz.cli.rendering_command import version_in
from authz.config import ConfigError, ConfigSource, missing_credentials
from authz.config.placeholders import stand_ins
from authz.doors.envoy.pairing import Match
from authz.envoy_config.counterpart import CounterpartFault, compare, read_envoy
from authz.process.wiring.pod_authority import open_pod_authority


@click.command("check-config")
@file_argument
@config_option
@click.option(
    "--prepare",
    is_flag=True,
    help="Also write the files of section https, for an init container: the app needs them when it starts.",
)
@click.option(
    "--envoy",
    "envoy_file",
    envvar="AUTHZ_ENVOY_CONFIG",
    type=FILE,
    help="Envoy's configuration beside it: exit status 1 if it was rendered from another one. "
    "Default: $AUTHZ_ENVOY_CONFIG, if it is set.",
)
@no_values_option
def check_config(
    file: Path | None,
    config_file: Path | None,
    *,
    prepare: bool,
    envoy_file: Path | None,
    without_values: bool,
) -> None:
    """Check a configuration and print every fault. Exit status 2 if there is one."""
    try:
        given = dict(os.environ)
        source = ConfigSource.find(file or config_file, given)
        values = stand_ins(source) if without_values else {}
        loaded = replace(source, environ=given | values).load(to_serve=not without_values)
        if prepare:
            open_pod_authority(loaded.config)
    except ConfigError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
    config = loaded.config
    # Where values have stand-ins, the pod's files are elsewhere.
    absent = () if without_values else missing_credentials(config, given)
    for notice in (*loaded.warnings, *absent):
        click.echo(f"warning: {notice}", err=True)
    click.echo(
        f"the configuration is valid: {_counted(config.inbound, 'inbound route')}, "
        f"{_counted(config.egress, 'egress route')}, {_counted(config.agents, 'agent')}, "
        f"{_counted(config.blueprints, 'blueprint')}"
    )
    if envoy_file is not None:
        _check_envoy(config, envoy_file)


def _counted(things: Sized, name: str) -> str:
    """Return how many there are, in words: `1 agent`, `2 agents`."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _check_envoy(config: Any, file: Path) -> None:
    """Say whether an Envoy configuration belongs to this one; end with status 1 if it does not."""
    try:
        found = compare(config, read_envoy(file))
    except CounterpartFault as fault:
        click.echo(f"authz: {fault}", err=True)
        sys.exit(FAULTY)
    if found.match is Match.MATCHED:
        click.echo(f"{file} was rendered from it")
        version = version_in(file)
        if version not in (None, __version__):
            click.echo(
                f"warning: {file} was rendered by authz {version}, and this is {__version__}: render it again "
                "(`authz envoy --like`) to have what has changed in between",
                err=True,
            )
        return
    if found.match is Match.UNKNOWN:
        click.echo(
            f"warning: {file} does not say what it was rendered from, so nobody can tell whether it belongs to "
            "this configuration",
            err=True,
        )
        return
    click.echo(
        f"authz: {file} was rendered from another configuration: render it again (`authz envoy`)",
        err=True,
    )
    for words, hosts in (("lacks", found.missing), ("has", found.too_many)):
        for host in hosts:
            click.echo(f"  it {words} the host {host}", err=True)
    if not (found.missing or found.too_many):
        click.echo(
            "  its hosts are the same; what it says about routes, or about section listen, is not",
            err=True,
        )
    sys.exit(UNMATCHED)
