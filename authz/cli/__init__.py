"""The command line: the table of verbs. A verb is imported when it is called, so `--help` is instant."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, NamedTuple

import click

from authz import __version__
from authz.system.distribution import clash


class _Verb(NamedTuple):
    """Where a verb is, as `module:function`, and what it does."""

    place: str
    summary: str

    def load(self) -> click.Command:
        """Import it."""
        module, _, function = self.place.partition(":")
        command = getattr(import_module(module), function)
        assert isinstance(command, click.Command)
        return command


VERBS: Final[Mapping[str, _Verb]] = {
    "check-config": _Verb(
        "authz.cli.check_config:check_config", "Check a configuration, print every fault."
    ),
    "demo": _Verb("authz.cli.demo:demo", "Take the tour."),
    "drain-envoy": _Verb(
        "authz.cli.drain_envoy:drain_envoy", "Ask Envoy to close its connections."
    ),
    "emulator": _Verb("authz.cli.emulator:emulator", "Serve a local Entra, for development only."),
    "envoy": _Verb("authz.cli.envoy:envoy", "Print an Envoy configuration."),
    "inject": _Verb("authz.cli.inject:inject", "Add Envoy and authz to the pods of a manifest."),
    "inject-webhook": _Verb(
        "authz.cli.inject:inject_webhook", "Serve the webhook that injects into pods."
    ),
    "serve": _Verb("authz.cli.serve:serve", "Answer Envoy until SIGTERM."),
}


class _Verbs(click.Group):
    """A group that imports a verb when it is called, and lists them without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        del ctx
        verb = VERBS.get(cmd_name)
        return None if verb is None else verb.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of verbs."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="authz")
def main() -> None:
    """Envoy external authorization for Microsoft Entra Agent ID.

    Agents call APIs with tokens that they never hold: Envoy asks `authz serve` about every request.
    """
    if (fault := clash()) is not None:
        raise click.ClickException(fault)
