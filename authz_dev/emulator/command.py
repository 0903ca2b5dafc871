"""`authz emulator`: runs the emulator until it is told to end."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from authz_dev.emulator.federation import FederationError, trust
from authz_dev.emulator.own_apis import ApiError, add_api
from authz_dev.emulator.service import Emulator

_LAST_PORT = 65_535
_ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said beyond the address; every one as in `Emulator`.

    `federated` has pairs of an issuer's folder (`federation.trust`) and a subject of its tokens. They
    prove the first blueprint of the first tenant. `apis` has pairs of an API's name and its scopes,
    `api_roles` of an API's name and its app roles; both are divided by commas (`own_apis.add_api`).
    """

    names: Sequence[str] = ()
    authority: str | None = None
    tls: Path | None = None
    seed: int | None = None
    federated: Sequence[tuple[Path, str]] = ()
    apis: Sequence[tuple[str, str]] = ()
    api_roles: Sequence[tuple[str, str]] = ()


def run(listen: str, out: Path, options: Options | None = None) -> int:
    """Serve on `listen` (HOST:PORT), leave `ca.pem` and `emulator.json` in `out`, and block.

    Prints one line when ready. Returns 0 after SIGTERM or SIGINT, 2 (with one line on standard
    error) when the address, the directory or an option cannot be used.
    """
    options = options or Options()
    try:
        host, port = _address(listen)
    except ValueError as error:
        return _fail(f"--listen {listen}: {error}")
    try:
        authority = None if options.authority is None else _authority(options.authority)
    except ValueError as error:
        return _fail(f"--authority {options.authority}: {error}")
    # Blocked, in every thread, and waited for: a handler would run in this thread only after whatever it
    # waits for, and a signal that comes just before the wait would not end it.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        try:
            emulator = Emulator(
                host=host,
                port=port,
                names=options.names,
                authority=authority,
                tls=options.tls,
                seed=options.seed,
            )
        except OSError as error:
            return _fail(f"--tls {options.tls}: {error.strerror or error}")
        try:
            for folder, subject in options.federated:
                _federate(emulator, folder, subject)
        except FederationError as error:
            return _fail(f"--federate: {error}")
        try:
            for name, (scopes, roles) in _apis(options).items():
                add_api(emulator.directory, name, scopes, roles)
        except ApiError as error:
            return _fail(f"--api: {error}")
        try:
            emulator.start()
        except OSError as error:
            return _fail(f"--listen {listen}: {error.strerror or error}")
        try:
            emulator.write(out)
        except OSError as error:
            emulator.stop()
            return _fail(f"--out {out}: {error.strerror or error}")
        click.echo(f"emulator ready: {emulator.authority} (files in {out})")
        signal.sigwait(_ENDING)
        emulator.stop()
        return 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not host:
        raise ValueError("must be HOST:PORT")
    if not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
        raise ValueError("the port must be a number from 0 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _authority(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ValueError("must be https://NAME or https://NAME:PORT")
    if url != f"https://{parts.netloc.lower()}":
        raise ValueError("must be in small letters and end with the name or the port")
    return url


def _federate(emulator: Emulator, folder: Path, subject: str) -> None:
    directory = emulator.directory
    applications = directory.applications(directory.tenants()[0].tenant_id)
    blueprint = next(one for one in applications if one.is_blueprint)
    credential = trust(folder, subject)
    taken = {(one.issuer, one.subject) for one in blueprint.federated_credentials}
    if (credential.issuer, credential.subject) in taken:
        raise FederationError(f"{subject}: the blueprint has a credential for it already")
    directory.add_federated_credential(blueprint, credential)


def _apis(options: Options) -> dict[str, tuple[str, str]]:
    """Scopes and roles of each API by its name; what is said of one API twice is added up."""
    found: dict[str, tuple[str, str]] = {}
    for name, scopes in options.apis:
        known, roles = found.get(name, ("", ""))
        found[name] = f"{known},{scopes}", roles
    for name, more in options.api_roles:
        scopes, roles = found.get(name, ("", ""))
        found[name] = scopes, f"{roles},{more}"
    return found


def _fail(message: str) -> int:
    click.echo(f"authz emulator: {message}", err=True)
    return 2
