"""`authz emulator`: a local Entra for development, where it is installed."""

import sys
from pathlib import Path
from typing import Any

import click

from authz.cli.options import FOLDER
from authz.system.distribution import development_advice


@click.command()
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    help="HOST:PORT; port 0 takes a free one.",
)
@click.option(
    "--out",
    required=True,
    type=FOLDER,
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
    type=FOLDER,
    help="Folder with tls.crt, tls.key and ca.crt, in place of a certificate of its own.",
)
@click.option(
    "--seed", type=int, help="The same directory each time, client secrets included: a number."
)
@click.option(
    "--federate",
    "federated",
    nargs=2,
    type=(FOLDER, str),
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
        from authz_dev.emulator.command import Options, run  # noqa: PLC0415 - not in every installation
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: {development_advice()}") from error

    sys.exit(run(listen, out, Options(**options)))
