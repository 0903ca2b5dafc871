"""The verbs of the command line. Each imports what it needs, so that `--help` is instant."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from authz import __version__
from authz.system.distribution import advice, clash, development_advice

_CONFIG_HELP = (
    "Configuration file (YAML). Default: $AUTHZ_CONFIG; without either, the environment keys of the "
    "Entra SDK sidecar (AzureAd__TenantId, ...)."
)
FAULTY = 2
"""Exit status for a configuration with faults."""
UNMATCHED = 1
"""Exit status for an Envoy configuration that was rendered from another configuration."""


_FILE = click.Path(path_type=Path, dir_okay=False, exists=False)
_FOLDER = click.Path(path_type=Path, file_okay=False, exists=False)
_config_option = click.option(
    "--config",
    "config_file",
    envvar="AUTHZ_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help=_CONFIG_HELP,
)
_file_argument = click.argument(
    "file", required=False, type=click.Path(path_type=Path, dir_okay=False)
)


_no_values_option = click.option(
    "--no-values",
    "without_values",
    is_flag=True,
    help="${NAME} of the file needs no value where the variable is not set: for identifiers, scopes and "
    "credentials, which are not in Envoy's configuration.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="authz")
def main() -> None:
    """Envoy external authorization for Microsoft Entra Agent ID.

    Agents call APIs with tokens that they never hold: Envoy asks `authz serve` about every request.
    """
    if (fault := clash()) is not None:
        raise click.ClickException(fault)


@main.command(short_help="Answer Envoy until SIGTERM.")
@_file_argument
@_config_option
def serve(file: Path | None, config_file: Path | None) -> None:
    """Answer Envoy until SIGTERM. SIGHUP looks for a new configuration at once.

    FILE is the configuration, as with --config.
    """
    from authz.config import ConfigError, load  # noqa: PLC0415
    from authz.process.supervisor import SEAT_VARIABLE, supervise  # noqa: PLC0415

    config_file = file or config_file
    environ = dict(os.environ)
    seat = environ.pop(SEAT_VARIABLE, None)
    try:
        if seat is None and load(config_file, environ).config.listen.workers > 1:
            sys.exit(supervise(config_file, environ))
        from authz.process.app import WorkerSeat, run  # noqa: PLC0415

        place = None
        if seat is not None:
            address, report_to, lifeline = seat.rsplit(" ", 2)
            place = WorkerSeat(address, int(report_to), int(lifeline))
        sys.exit(run(config_file, environ, place))
    except ConfigError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)


@main.command("check-config", short_help="Check a configuration, print every fault.")
@_file_argument
@_config_option
@click.option(
    "--prepare",
    is_flag=True,
    help="Also write the files of section https, for an init container: the app needs them when it starts.",
)
@click.option(
    "--envoy",
    "envoy_file",
    envvar="AUTHZ_ENVOY_CONFIG",
    type=_FILE,
    help="Envoy's configuration beside it: exit status 1 if it was rendered from another one. "
    "Default: $AUTHZ_ENVOY_CONFIG, if it is set.",
)
@_no_values_option
def check_config(
    file: Path | None,
    config_file: Path | None,
    *,
    prepare: bool,
    envoy_file: Path | None,
    without_values: bool,
) -> None:
    """Check a configuration and print every fault. Exit status 2 if there is one."""
    from authz.config import ConfigError, load, missing_credentials  # noqa: PLC0415

    try:
        path, given = file or config_file, dict(os.environ)
        values = _stand_ins(path, given) if without_values else {}
        loaded = load(path, given | values, to_serve=not without_values)
        if prepare:
            from authz.process.wiring.pod_authority import open_pod_authority  # noqa: PLC0415

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
        f"the configuration is valid: {len(config.inbound)} inbound and {len(config.egress)} "
        f"egress routes, {len(config.agents)} agents, {len(config.blueprints)} blueprints"
    )
    if envoy_file is not None:
        _check_envoy(config, envoy_file)


def _check_envoy(config: Any, file: Path) -> None:
    """Say whether an Envoy configuration belongs to this one; end with status 1 if it does not."""
    from authz.doors.envoy.pairing import Match  # noqa: PLC0415
    from authz.envoy_config.counterpart import CounterpartFault, compare, read_envoy  # noqa: PLC0415

    try:
        found = compare(config, read_envoy(file))
    except CounterpartFault as fault:
        click.echo(f"authz: {fault}", err=True)
        sys.exit(FAULTY)
    if found.match is Match.MATCHED:
        click.echo(f"{file} was rendered from it")
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
        click.echo("  its hosts are the same; what it says about routes is not", err=True)
    sys.exit(UNMATCHED)


def _stand_ins(file: Path | None, environ: dict[str, str]) -> dict[str, str]:
    """Return values for variables that a configuration file refers to and that are not set."""
    from authz.config.placeholders import stand_ins  # noqa: PLC0415
    from authz.config.reading.overrides import CONFIG_VARIABLE  # noqa: PLC0415

    named = environ.get(CONFIG_VARIABLE)
    path = file or (Path(named) if named else None)
    return stand_ins(path, environ) if path is not None else {}


@main.command(short_help="Print an Envoy configuration.")
@_file_argument
@_config_option
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
@click.option("--authz-ca", type=_FILE, help="Authorities of the service's certificate, PEM.")
@click.option("--authz-name", help="DNS name in the service's certificate.")
@click.option("--authz-certificate", type=_FILE, help="Envoy's certificate towards the service.")
@click.option("--authz-key", type=_FILE, help="Its private key.")
@click.option(
    "--authz-secrets",
    type=_FOLDER,
    help="Folder with authz-certificate.yaml and authz-ca.yaml, Envoy's secrets that name them, in "
    "place of these options: renewed ones then count without a restart.",
)
@click.option(
    "--upstream-ca",
    type=_FILE,
    help="Authorities trusted for destinations. [default: the system's]",
)
@_no_values_option
def envoy(
    file: Path | None, config_file: Path | None, *, without_values: bool, **options: Any
) -> None:
    """Print an Envoy configuration for this service's configuration: FILE, as with --config."""
    from authz.config import ConfigError, load  # noqa: PLC0415

    try:
        from authz.envoy_config.bootstrap import render  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: {advice('render')}") from error
    from authz.envoy_config.destinations import left_on_checks, reason_not_to_push  # noqa: PLC0415
    from authz.envoy_config.settings import RenderError  # noqa: PLC0415

    try:
        given, path = dict(os.environ), file or config_file
        values = _stand_ins(path, given) if without_values else {}
        loaded = load(path, given | values)
        config = loaded.config
        settings = _sidecar_settings(options)
        text = render(config, settings)
        _refuse_stand_ins(text, values)
        made_by = _made_by(click.get_current_context())
        # For scripts without this program.
        source = f"# authz.yaml: sha256 {loaded.digest}\n" if path is not None else ""
        click.echo(made_by + source + text, nl=False)
        for name in left_on_checks(config, settings):
            cause = reason_not_to_push(config, settings)
            click.echo(f"note: egress.{name}: checked for each request: {cause}", err=True)
    except ConfigError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
    except RenderError as error:
        raise click.ClickException(str(error)) from error


def _made_by(context: click.Context) -> str:
    """Return comment lines with the command that made what follows, so that it can be run again."""
    words = ["authz", context.info_name or ""]
    for option in context.command.params:
        if context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT:
            value = context.params[option.name or ""]
            # An argument has no name on the command line.
            named = isinstance(option, click.Option)
            for each in value if isinstance(value, tuple) else (value,):
                words += [option.opts[0]] if named else []
                words += [] if each is True else [str(each)]
    command = "".join(
        character if character.isprintable() else "?" for character in shlex.join(words)
    )
    lines = [
        "Envoy's configuration, rendered and not written by hand. After a change render it again, by"
    ]
    return "".join(f"# {line}\n" for line in (*lines, f"  {command}"))


def _refuse_stand_ins(text: str, values: dict[str, str]) -> None:
    from authz.config.placeholders import shown_in  # noqa: PLC0415

    if needed := shown_in(text, values):
        raise click.ClickException(
            f"the result needs values, --no-values or not: set {', '.join(needed)}"
        )


def _sidecar_settings(options: dict[str, Any]) -> Any:
    from authz.core.request import Direction  # noqa: PLC0415
    from authz.envoy_config.settings import (  # noqa: PLC0415
        AppProtocol,
        AuthzTls,
        RenderError,
        SidecarSettings,
        Transparent,
    )

    ca_file, name = options["authz_ca"], options["authz_name"]
    secrets_folder = options["authz_secrets"]
    if (ca_file is None and secrets_folder is None) != (name is None):
        raise RenderError("--authz-ca and --authz-name go together; or --authz-secrets and it")
    tls = None
    if name is not None:
        own = options["authz_certificate"], options["authz_key"]
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
        "upstream_ca_file": options["upstream_ca"],
    }
    return SidecarSettings(**{name: value for name, value in given.items() if value is not None})


def _egress_hosts(pairs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    hosts: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        route, _, host = pair.partition("=")
        hosts[route] = (*hosts.get(route, ()), host)
    return hosts


@main.command("drain-envoy", short_help="Ask Envoy to close its connections.")
@click.option("--admin", default="127.0.0.1:15000", show_default=True, help="HOST:PORT.")
def drain_envoy(admin: str) -> None:
    """Have the Envoy beside this service close its connections with their next answers.

    For a hook that runs before the pod stops: callers that keep connections open go elsewhere.
    """
    from authz.envoy_config.administration import AdministrationError, drain  # noqa: PLC0415

    try:
        drain(admin)
    except AdministrationError as error:
        raise click.ClickException(str(error)) from error


_injection_options = (
    click.option("--image", help="Image of authz. [default: authz of this version]"),
    click.option("--envoy-image", help="Image of Envoy. [default: the one of kubernetes/base]"),
    click.option(
        "--intercept-image",
        help="Image with sh and nft. Without it, no pod may ask for authz/interception.",
    ),
    click.option(
        "--csi-driver",
        "csi_drivers",
        multiple=True,
        help="Driver whose csi volumes an app may have; may be repeated. [default: none]",
    ),
    click.option(
        "--native-sidecars", "native", is_flag=True, help="Needs Kubernetes 1.29: see the docs."
    ),
)


def _with_injection_options(command: Any) -> Any:
    for option in reversed(_injection_options):
        command = option(command)
    return command


@main.command(short_help="Add Envoy and authz to the pods of a manifest.")
@click.option(
    "-f", "--file", "file", required=True, type=click.File("r"), help="Manifest, or - for stdin."
)
@_with_injection_options
def inject(file: Any, **options: Any) -> None:
    """Print a manifest with Envoy and authz in each pod that has the label authz/inject: enabled."""
    from authz.injection.manifests import NOTHING, ManifestError, inject_manifest  # noqa: PLC0415
    from authz.injection.parts import Additions  # noqa: PLC0415

    try:
        text, done = inject_manifest(file.read(), Additions(**options))
    except ManifestError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
    if not done:
        click.echo(f"authz: {NOTHING}", err=True)
        sys.exit(FAULTY)
    click.echo(text, nl=False)
    for name in done:
        click.echo(f"injected: {name}", err=True)


@main.command("inject-webhook", short_help="Serve the webhook that injects into pods.")
@click.option("--listen", default="[::]:8443", show_default=True, help="HOST:PORT.")
@click.option("--certificate", required=True, type=_FILE, help="Certificate chain, PEM.")
@click.option("--key", required=True, type=_FILE, help="Its private key, PEM.")
@_with_injection_options
def inject_webhook(listen: str, certificate: Path, key: Path, **options: Any) -> None:
    """Serve the admission webhook that puts Envoy and authz into new pods."""
    from authz.doors.http_server import ServerTls  # noqa: PLC0415
    from authz.injection.command import run  # noqa: PLC0415
    from authz.injection.parts import Additions  # noqa: PLC0415

    try:
        tls = ServerTls(certificate, key)
    except OSError as error:
        raise click.ClickException(f"--certificate, --key: {error.strerror or error}") from error
    sys.exit(run(listen, tls, Additions(**options)))


@main.command(short_help="Take the two-minute tour.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome for machines.")
@click.option("--keep", is_flag=True, help="Leave everything running, and print what to try.")
@click.option("--verbose", is_flag=True, help="Print what each party sent, held and saw as well.")
def demo(*, as_json: bool, keep: bool, verbose: bool) -> None:
    """Take the two-minute tour: real Envoy, an unmodified agent, the local Entra."""
    try:
        from authz_dev.demo.command import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: {development_advice()}") from error

    sys.exit(run(as_json=as_json, keep=keep, verbose=verbose))


@main.command(short_help="Serve a local Entra, for development only.")
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    help="HOST:PORT; port 0 takes a free one.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for emulator.json and ca.pem.",
)
@click.option("--name", "names", multiple=True, help="DNS name in its own certificate; repeatable.")
@click.option(
    "--authority",
    metavar="URL",
    help="The https address it is known by, where a Service or a proxy stands in front.",
)
@click.option(
    "--tls",
    type=_FOLDER,
    help="Folder with tls.crt, tls.key and ca.crt, in place of a certificate of its own.",
)
@click.option(
    "--seed", type=int, help="The same directory each time, client secrets included: a number."
)
@click.option(
    "--federate",
    "federated",
    nargs=2,
    type=(_FOLDER, str),
    multiple=True,
    metavar="DIR SUBJECT",
    help="Folder with .well-known/openid-configuration and openid/v1/jwks of an issuer, and whose "
    "tokens of it prove the first blueprint; repeatable.",
)
@click.option(
    "--api",
    "apis",
    nargs=2,
    type=str,
    multiple=True,
    metavar="NAME SCOPES",
    help="An API of your own, api://NAME, and its scopes, divided by commas. Who may call orders may "
    "call it. Repeatable.",
)
@click.option(
    "--api-roles",
    nargs=2,
    type=str,
    multiple=True,
    metavar="NAME ROLES",
    help="App roles of an API of your own, for app-only tokens, divided by commas; repeatable.",
)
def emulator(listen: str, out: Path, **options: Any) -> None:
    """Serve a strict local Entra for development and tests. Never for production.

    Anyone who reaches it gets tokens for anybody.
    """
    try:
        from authz_dev.emulator.command import Options, run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: {development_advice()}") from error

    sys.exit(run(listen, out, Options(**options)))


if __name__ == "__main__":
    main()
