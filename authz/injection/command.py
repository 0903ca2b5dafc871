"""`authz inject-webhook`: runs the webhook until SIGTERM or SIGINT."""

import asyncio
import signal

import click
import structlog
import uvloop

from authz.doors.http_server import ServerTls
from authz.injection.parts import Additions
from authz.injection.webhook import InjectionWebhook
from authz.observe.logging import configure_logging, log_output
from authz.system.allocator import give_back

_log = structlog.get_logger("authz")


def run(listen: str, tls: ServerTls, additions: Additions) -> int:
    """Serve until SIGTERM or SIGINT. Returns 1, with one line on standard error, when that cannot be."""
    give_back()
    configure_logging(level="info", style="json")
    try:
        with log_output():
            uvloop.run(_serve(listen, tls, additions))
    except OSError as error:
        click.echo(f"authz inject-webhook: {listen}: {error.strerror or error}", err=True)
        return 1
    return 0


async def _serve(listen: str, tls: ServerTls, additions: Additions) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    webhook = InjectionWebhook(listen, tls, additions)
    await webhook.start()
    _log.info("serving", listen=f"{listen.rpartition(':')[0]}:{webhook.port}")
    await ended.wait()
    await webhook.stop()
    _log.info("stopped")
