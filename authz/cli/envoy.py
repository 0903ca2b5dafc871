"""`authz envoy`: prints an Envoy configuration."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from authz.cli.options import (
    FAULTY,
    FILE,
    FOLDER,
    config_option,
    file_argument,
    no_values_option,
)
from authz.cli.rendering_command import headed, made_by, take_over
from authz.config import ConfigError, ConfigSource
from authz.config.placeholders import shown_in, stand_ins
from authz.core.request import Direction
from authz.envoy_config.counterpart import LARGEST
from authz.envoy_config.destinations import left_on_checks, reason_not_to_push
from authz.envoy_config.settings import (
    AppProtocol,
    AuthzTls,
    RenderError,
    SidecarSettings,
    Transparent,
)
from authz.envoy_config.text import is_json
from authz.system.distribution import advice

_TOO_LARGE: Final = (
    f"the result has more than {LARGEST >> 20} MiB, and check-config would not read it: as JSON each host of section "
    "https repeats all of them. Write YAML (--output envoy.yaml)"
)


_ADDRESS: Final = re.compile(r"\b(?:(inbound|app|egress|https|admin|statistics)|authz)_address\b")


@click.command()
@file_argument
@config_option
@click.option(
    "--inbound", help="Where callers of the agent arrive. [default: 0.0.0.0:8080, and [::]:8080]"
)
@click.option("--app", help="Where the agent listens. [default: 127.0.0.1:8000]")
@click.option(
    "--app-protocol",
    type=click.Choice(["http1", "http2", "same"]),
    help="What the agent speaks: HTTP/1.1, HTTP/2 without TLS (gRPC), or both, so that the caller's is used. "
    "[default: http1]",
)
@click.option("--egress", help="Where the agent sends its calls. [default: 127.0.0.1:15001]")
@click.option("--https", help="Where TLS of the agent itself is ended. [default: 127.0.0.1:15443]")
@click.option(
    "--transparent",
    type=click.Choice(["pass-tls", "refuse-tls"]),
    help="The pod's connections are redirected to the egress address: what to do with TLS.",
)
@click.option("--admin", help="Envoy's administration. [default: 127.0.0.1:15000]")
@click.option(
    "--statistics",
    help="Where Prometheus finds Envoy's statistics, at /stats/prometheus, such as 0.0.0.0:9903. [default: nowhere]",
)
@click.option(
    "--no-ipv6",
    "without_ipv6",
    is_flag=True,
    help="For kernels without IPv6: listen on 0.0.0.0 and 127.0.0.1 only, not on :: and ::1 as well.",
)
@click.option("--inbound-route", help="Inbound route, where the configuration has several.")
@click.option(
    "--egress-route",
    "egress_routes",
    multiple=True,
    metavar="ROUTE=HOST",
    help="Egress route of this agent and a host of it, where the routes have none; repeatable. "
    "Then no others are rendered.",
)
@click.option(
    "--health-path", "health_paths", multiple=True, help="Path that needs no token; repeatable."
)
@click.option(
    "--paths-as-sent",
    is_flag=True,
    help="The agent gets paths as callers write them, // and %2F included.",
)
@click.option("--authz-address", help="host:port or unix:PATH. [default: what listen.grpc says]")
@click.option("--authz-timeout", type=float, help="Seconds to wait for a decision. [default: 5]")
@click.option(
    "--inbound-idle",
    type=float,
    help="Seconds of silence until a caller's request ends. [default: 3600]",
)
@click.option(
    "--egress-idle", type=float, help="The same for the agent's own requests. [default: 3600]"
)
@click.option(
    "--websockets",
    type=click.Choice(["inbound", "egress"]),
    multiple=True,
    help="Let requests become WebSockets; may be given for both directions.",
)
@click.option("--authz-ca", type=FILE, help="Authorities of the service's certificate, PEM.")
@click.option("--authz-name", help="DNS name in the service's certificate.")
@click.option("--authz-certificate", type=FILE, help="Envoy's certificate towards the service.")
@click.option("--authz-key", type=FILE, help="Its private key.")
@click.option(
    "--authz-secrets",
    type=FOLDER,
    help="Folder with authz-certificate.yaml and authz-ca.yaml, Envoy's secrets that name them, in "
    "place of these options: renewed ones then count without a restart.",
)
@click.option(
    "--upstream-ca",
    type=FILE,
    help="Authorities trusted for destinations. [default: api.ca_file (AUTHZ_API_CA_FILE), else the system's]",
)
@no_values_option
@click.option(
    "--like",
    type=FILE,
    help="A configuration that this command rendered: take its options, from its first lines, but for those that "
    "are given here.",
)
@click.option(
    "--output",
    type=FILE,
    help="Write into this file in place of printing: the whole result, or nothing after a fault. It may be the one "
    "of --like. If its name ends in .json it becomes JSON, which Envoy reads in about half the time.",
)
@click.pass_context
def envoy(context: click.Context, /, **_: Any) -> None:
    """Print an Envoy configuration for this service's configuration: FILE, as with --config."""
    if (like := context.params["like"]) is not None:
        take_over(context, like)
    _render(context, **context.params)


def _render(
    context: click.Context,
    *,
    file: Path | None,
    config_file: Path | None,
    without_values: bool,
    output: Path | None,
    **options: Any,
) -> None:
    try:
        from authz.envoy_config.bootstrap import render_document  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: {advice('render')}") from error

    try:
        given = dict(os.environ)
        source = ConfigSource.find(file or config_file, given)
        values = stand_ins(source) if without_values else {}
        loaded = replace(source, environ=given | values).load()
        config = loaded.config
        settings = _sidecar_settings(options, config.api.ca_file)
        # The digest is for scripts without this program.
        digest = [f"authz.yaml: sha256 {loaded.digest}"] if source.path is not None else []
        text = headed(
            [*made_by(context), *digest],
            render_document(config, settings),
            as_json=output is not None and is_json(output),
        )
        _refuse_stand_ins(text, values)
        if len(text) > LARGEST:
            raise click.ClickException(_TOO_LARGE)
        _put(text, output)
        for name in left_on_checks(config, settings):
            cause = reason_not_to_push(config, settings)
            click.echo(f"note: egress.{name}: checked for each request: {cause}", err=True)
        if config.listen.checks and settings.authz_address not in (None, config.listen.grpc):
            click.echo(
                "note: listen.checks: Envoy asks at --authz-address, and not there", err=True
            )
    except ConfigError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
    except RenderError as error:
        raise click.ClickException(_ADDRESS.sub(_option, str(error))) from error


def _option(setting: re.Match[str]) -> str:
    """Return what an address is called on the command line."""
    return f"--{setting[1] or 'authz-address'}"


def _put(text: str, output: Path | None) -> None:
    """Print, or write a file whole: a reader finds the old one or the new one."""
    if output is None:
        click.echo(text, nl=False)
        return
    new = output.with_name(f"{output.name}.new")
    try:
        new.write_text(text, "utf-8")
        new.replace(output)
    except OSError as error:
        raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from None


def _refuse_stand_ins(text: str, values: dict[str, str]) -> None:
    if needed := shown_in(text, values):
        raise click.ClickException(
            f"the result needs values, --no-values or not: set {', '.join(needed)}"
        )


def _sidecar_settings(options: dict[str, Any], api_ca_file: Path | None) -> SidecarSettings:
    ca_file, name = options["authz_ca"], options["authz_name"]
    secrets_folder = options["authz_secrets"]
    if (ca_file is None and secrets_folder is None) != (name is None):
        raise RenderError("--authz-ca and --authz-name go together; or --authz-secrets and it")
    own = options["authz_certificate"], options["authz_key"]
    if name is None and any(own):
        raise RenderError("--authz-certificate and --authz-key need --authz-ca and --authz-name")
    tls = None
    if name is not None:
        tls = AuthzTls(ca_file, name, *own, secrets_folder)
    given = {
        "inbound_address": options["inbound"],
        "app_address": options["app"],
        "app_protocol": AppProtocol(options["app_protocol"]) if options["app_protocol"] else None,
        "egress_address": options["egress"],
        "https_address": options["https"],
        "transparent": Transparent(options["transparent"]) if options["transparent"] else None,
        "admin_address": options["admin"],
        "statistics_address": options["statistics"],
        "inbound_route": options["inbound_route"],
        "egress_hosts": _egress_hosts(options["egress_routes"]) or None,
        "health_paths": options["health_paths"] or None,
        "paths_as_sent": options["paths_as_sent"],
        "ipv6": not options["without_ipv6"],
        "authz_address": options["authz_address"],
        "authz_timeout": options["authz_timeout"],
        "inbound_idle_timeout": options["inbound_idle"],
        "egress_idle_timeout": options["egress_idle"],
        "websockets": frozenset(map(Direction, options["websockets"])),
        "authz_tls": tls,
        # Where both doors call the same APIs, they trust the same authorities.
        "upstream_ca_file": options["upstream_ca"] or api_ca_file,
    }
    return SidecarSettings(**{name: value for name, value in given.items() if value is not None})


def _egress_hosts(pairs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    hosts: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        route, _, host = pair.partition("=")
        hosts[route] = (*hosts.get(route, ()), host)
    return hosts
