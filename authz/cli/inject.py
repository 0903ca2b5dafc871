"""`authz inject` and `authz inject-webhook`: Envoy and authz put into pods."""

import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from authz.cli.options import FAULTY, FILE
from authz.doors.http_server import ServerTls
from authz.injection.command import run
from authz.injection.manifests import NOTHING, ManifestError, inject_manifest
from authz.injection.parts import Additions

_LARGEST: Final = 16 * 1024**2
"""Bytes of a manifest, which is held in memory several times. Kubernetes takes objects of 1.5 MiB or so."""

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


@click.command()
@click.option(
    "-f", "--file", "file", required=True, type=click.File("rb"), help="Manifest, or - for stdin."
)
@_with_injection_options
def inject(file: Any, **options: Any) -> None:
    """Print a manifest with Envoy and authz in each pod that has the label authz/inject: enabled."""
    try:
        text, done = inject_manifest(_text(file), Additions(**options))
    except ManifestError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
    if not done:
        click.echo(f"authz: {NOTHING}", err=True)
        sys.exit(FAULTY)
    click.echo(text, nl=False)
    for name in done:
        click.echo(f"injected: {name}", err=True)


def _text(file: BinaryIO) -> str:
    """Read a manifest.

    Raises:
        ManifestError: It is no text, or has no end.
    """
    content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ManifestError(f"--file: has more than {_LARGEST // 1024**2} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ManifestError("--file: is no text in UTF-8") from error


@click.command("inject-webhook")
@click.option("--listen", default="[::]:8443", show_default=True, help="HOST:PORT.")
@click.option("--certificate", required=True, type=FILE, help="Certificate chain, PEM.")
@click.option("--key", required=True, type=FILE, help="Its private key, PEM.")
@_with_injection_options
def inject_webhook(listen: str, certificate: Path, key: Path, **options: Any) -> None:
    """Serve the admission webhook that puts Envoy and authz into new pods."""
    try:
        tls = ServerTls(certificate, key)
    except OSError as error:
        raise click.ClickException(f"--certificate, --key: {error.strerror or error}") from error
    sys.exit(run(listen, tls, Additions(**options)))
