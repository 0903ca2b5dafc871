"""`authz drain-envoy`: has the Envoy beside this service close its connections."""

import click

from authz.envoy_config.administration import AdministrationError, drain


@click.command("drain-envoy")
@click.option("--admin", default="127.0.0.1:15000", show_default=True, help="HOST:PORT.")
def drain_envoy(admin: str) -> None:
    """Have the Envoy beside this service close its connections with their next answers.

    For a hook that runs before the pod stops: callers that keep connections open go elsewhere.
    """
    try:
        drain(admin)
    except AdministrationError as error:
        raise click.ClickException(str(error)) from error
