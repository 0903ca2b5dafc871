"""`Emulator`: the directory, the endpoints and the server put together."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from authz_dev.emulator.calls import Calls
from authz_dev.emulator.codes import Codes, DeviceCodes
from authz_dev.emulator.control import Control
from authz_dev.emulator.description import describe_tenants
from authz_dev.emulator.directory import Directory
from authz_dev.emulator.discovery import Discovery
from authz_dev.emulator.faults import Faults
from authz_dev.emulator.graph import Graph, GraphLog
from authz_dev.emulator.issuer import Issuer
from authz_dev.emulator.keys import KeyRing
from authz_dev.emulator.mint import FIRST, Mint
from authz_dev.emulator.population import default_directory
from authz_dev.emulator.provisioning import Provisioning
from authz_dev.emulator.server import TlsServer
from authz_dev.emulator.sign_in import DEVICE_PAGE, SignInPages
from authz_dev.emulator.token_endpoint import TokenEndpoint

_CONTROL_PATH = "/emulator"
_ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_HTTPS = 443
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


class Emulator:
    """A local Microsoft Entra over TLS, served from a thread of its own.

    `directory` defaults to `default_directory(seed)`. `host` and `port` (0: a free one) say where
    to listen; the certificate is valid for 127.0.0.1, ::1, localhost and every one of `names`.
    `authority` is the address it is known by, where that is not the one it listens on. `tls` is a
    folder with `tls.crt`, `tls.key` and `ca.crt`, in place of a certificate of its own. `clock` tells
    Unix seconds. `folder` takes `ca.pem`; by default a temporary one. The addresses are known once
    `start` has been called. Raises OSError for `tls`.
    """

    def __init__(
        self,
        directory: Directory | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        names: Sequence[str] = (),
        authority: str | None = None,
        tls: Path | None = None,
        clock: Callable[[], float] = time.time,
        seed: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.directory = default_directory(seed) if directory is None else directory
        self.faults = Faults()
        self.calls = Calls()
        self._clock = clock
        self._keys = KeyRing()
        self._graph_log = GraphLog()
        self._names = tuple(names)
        self._known_by = authority
        served = () if host in _WILDCARDS else (host,)
        self._server = TlsServer(host, port, (*served, *self._names), tls)
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="authz-emulator-"))
            # Not in `stop`: after it the emulator may be started again.
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self._server.ca_pem)
        self._issuer: Issuer | None = None
        self._mint: Mint | None = None
        self._app: Starlette | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and serve; raises OSError when the address cannot be used.

        After `stop` it resumes on the same port with the same keys and state.
        """
        listener = self._server.bind()
        if self._app is None:
            self._app = self._application()
        self._server.serve(self._app, listener)

    def stop(self) -> None:
        """Stop serving; open connections are cut."""
        self._server.stop()

    @property
    def authority(self) -> str:
        """The instance URL, without tenant and trailing slash."""
        return self._serving().authority

    @property
    def control_url(self) -> str:
        """Where the endpoints described in the package's docstring are."""
        return f"{self.authority}{_CONTROL_PATH}"

    @property
    def mint_url(self) -> str:
        """Where tokens are made to order."""
        return f"{self.control_url}/mint"

    @property
    def graph_url(self) -> str:
        """Microsoft Graph's root, version included: append `/me`."""
        return f"{self.authority}/v1.0"

    @property
    def graph_log(self) -> list[dict[str, Any]]:
        """Claims of the tokens Graph was called with, oldest first; never the tokens."""
        return self._graph_log.snapshot()

    def describe(self) -> dict[str, Any]:
        """The content of `emulator.json`: addresses, and what the directory holds, with secrets."""
        return {
            "authority": self.authority,
            "ca_file": str(self.ca_file),
            "control_url": self.control_url,
            "mint_url": self.mint_url,
            "graph_url": self.graph_url,
            "tenants": describe_tenants(self.directory),
        }

    def write(self, out: Path) -> None:
        """Write `out/ca.pem` and `out/emulator.json`; raises OSError."""
        out.mkdir(parents=True, exist_ok=True)
        ca_file = out.resolve() / "ca.pem"
        ca_file.write_bytes(self._server.ca_pem)
        self.ca_file = ca_file
        # At once, and last: who waits for the file finds all of it.
        unfinished = out / f"emulator.json.{os.getpid()}"
        unfinished.write_text(json.dumps(self.describe(), indent=2) + "\n")
        unfinished.replace(out / "emulator.json")

    def mint_user_token(
        self,
        *,
        tenant_id: str = FIRST,
        user: str | None = FIRST,
        audience: str = FIRST,
        scopes: Sequence[str] | None = None,
        client_id: str = FIRST,
        claims: Mapping[str, Any] | None = None,
        version: int | None = None,
        lifetime: float | None = None,
        header: Mapping[str, Any] | None = None,
        key: str = "current",
        alg: str = "RS256",
    ) -> str:
        """The token a user-facing client got for a user: what `POST mint_url` answers.

        Left out: the first tenant, its first user, its first blueprint as audience, the scope
        `access_agent`, the client `portal`, and the version of the audience. `user` is a UPN or
        object id, or None for an app-only token of `client_id`. `claims` and `header` are merged
        last; None removes a member. `lifetime` is in seconds from now and may be negative. `key`
        is `current`, `old` (before the last roll) or `foreign` (never published); `alg` any of
        RS/PS/HS 256 to 512 (HS with the public key's PEM as secret) or `none`.

        Raises MintError (a ValueError), which names the argument.
        """
        self._serving()
        assert self._mint is not None
        return self._mint.token(
            tenant_id=tenant_id,
            user=user,
            audience=audience,
            scopes=scopes,
            client_id=client_id,
            overrides=claims,
            version=version,
            lifetime=lifetime,
            header=header,
            key=key,
            alg=alg,
        )

    def roll_signing_key(self, *, withdraw_old: bool = False) -> None:
        """Sign with a new key; the old ones stay published unless `withdraw_old`."""
        self._keys.roll(withdraw_old=withdraw_old)

    def _serving(self) -> Issuer:
        if self._issuer is None:
            raise RuntimeError("the emulator has no address before it is started")
        return self._issuer

    def _application(self) -> Starlette:
        authority, *aliases = self._authorities()
        issuer = Issuer(authority, tuple(aliases), self._keys)
        mint = Mint(self.directory, issuer, self._clock)
        self._issuer, self._mint = issuer, mint
        codes, devices = Codes(), DeviceCodes()
        token = TokenEndpoint(
            self.directory,
            issuer,
            self.calls,
            self.faults,
            self._clock,
            self._server,
            codes,
            devices,
        )
        pages = SignInPages(self.directory, issuer, codes, devices, self._clock)
        discovery = Discovery(self.directory, issuer, self.faults, self._clock, self._server)
        graph = Graph(
            self.directory, issuer, self._graph_log, self.faults, self._clock, self._server
        )
        control = Control(
            self.directory,
            self._keys,
            mint,
            self.calls,
            self.faults,
            self._graph_log,
            self._clock,
        )
        metadata = "/.well-known/openid-configuration"
        return Starlette(
            routes=[
                Mount(_CONTROL_PATH, routes=control.routes()),
                Route("/common/discovery/instance", discovery.instance),
                Route("/v1.0", graph.document),
                Route("/v1.0/", graph.document),
                Route("/v1.0/me", graph.me),
                Route("/v1.0/me/messages", graph.messages),
                Route("/v1.0/whoami", graph.whoami),
                *Provisioning(self.directory, graph).routes(),
                Route("/v1.0/servicePrincipals(appId='{name}')", graph.service_principal),
                Route("/v1.0/servicePrincipals/{name}", graph.service_principal),
                Route("/{tenant}/oauth2/v2.0/authorize", pages.authorize, methods=["GET", "POST"]),
                Route("/{tenant}/oauth2/v2.0/devicecode", pages.start_device, methods=_ANY_METHOD),
                Route(DEVICE_PAGE, pages.device, methods=["GET", "POST"]),
                Route("/{tenant}/oauth2/v2.0/token", token.answer, methods=_ANY_METHOD),
                Route(f"/{{tenant}}/v2.0{metadata}", discovery.metadata_v2),
                Route(f"/{{tenant}}{metadata}", discovery.metadata_v1),
                Route("/{tenant}/discovery/v2.0/keys", discovery.keys_v2),
                Route("/{tenant}/discovery/keys", discovery.keys_v1),
            ]
        )

    def _authorities(self) -> list[str]:
        hosts = ["127.0.0.1", "localhost", *self._names]
        if self._server.host in _WILDCARDS:
            hosts = [*self._names, "127.0.0.1", "localhost"]
        else:
            hosts.insert(0, self._server.host)
        port = "" if self._server.port == _HTTPS else f":{self._server.port}"
        known_by = [] if self._known_by is None else [self._known_by]
        listens = [
            f"https://[{host}]{port}" if ":" in host else f"https://{host}{port}" for host in hosts
        ]
        return list(dict.fromkeys([*known_by, *listens]))
