"""`authz demo`: the tour, where it is installed."""

import sys

import click

from authz.system.distribution import development_advice


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the outcome for machines.")
@click.option("--keep", is_flag=True, help="Leave everything running, and print what to try.")
@click.option("--verbose", is_flag=True, help="Print what each party sent, held and saw as well.")
def demo(*, as_json: bool, keep: bool, verbose: bool) -> None:
    """Take the tour: real Envoy, an unmodified agent, the local Entra."""
    try:
        from authz_dev.demo.command import run  # noqa: PLC0415 - not in every installation
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: {development_advice()}") from error

    sys.exit(run(as_json=as_json, keep=keep, verbose=verbose))
