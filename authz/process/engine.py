"""`Engine`: everything that decides, built from one configuration and rebuilt when it changes.

Part of the composition root (`app`): it builds objects and hands them to one another; nothing is decided
here. What is built for each version is in `authz.process.version`.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from authz.checks.prefetching import Prefetches
from authz.checks.service import CheckService
from authz.config import Config
from authz.config.compile import credentials
from authz.config.rendered import Rendered
from authz.core.cache import PrincipalCache
from authz.core.moment import Moment
from authz.core.record import CacheName
from authz.core.session import SessionOwners
from authz.core.shares import Shares
from authz.doors.sidecar_api.issuer import TokenIssuer
from authz.entra.key_vault import KeyVaults
from authz.ports import Clock, RepeatObserver, Timer
from authz.process.version import Version, Workshop
from authz.system.rounds import Rounds
from authz.tokens.pushing import PushedTokens
from authz.tokens.references import SubjectMemory

CREDENTIAL_INTERVAL = 1.0
"""Seconds between two looks at the credentials, for readiness."""
CREDENTIAL_LOOKS = 50
"""Clients whose credentials are looked at each time, in turn: with more of them a round takes longer."""


class Engine:
    """The service with its caches, keys and credentials.

    Args:
        config: The configuration to start with.
        environ: Environment variables, for credentials that refer to some.
        observer: Is notified of everything.
        clock: Epoch seconds.
        timer: Monotonic seconds, the clock of deadlines.
        vaults: Certificates that Azure Key Vault holds, and how they are fetched.
    """

    def __init__(
        self,
        config: Config,
        *,
        environ: Mapping[str, str],
        observer: RepeatObserver,
        clock: Clock = time.time,
        timer: Timer = time.monotonic,
        vaults: KeyVaults | None = None,
    ) -> None:
        self._clock = clock
        self._timer = timer
        self._credential_threads = ThreadPoolExecutor(1, "credentials")
        self._workshop = Workshop(
            config,
            environ=environ,
            observer=observer,
            clock=clock,
            timer=timer,
            vaults=vaults or KeyVaults(),
        )
        cache = config.cache
        self._principals = PrincipalCache(
            max_entries=cache.principals.max_entries, max_bytes=cache.principals.max_bytes
        )
        self._subjects = SubjectMemory(
            max_entries=config.subject.max_entries,
            max_bytes=config.subject.max_bytes,
            max_age=config.subject.max_age,
        )
        self._version = self._workshop.build(config)
        self._background: list[asyncio.Task[None]] = []
        self._was_ready = False
        self._retiring: dict[asyncio.Task[None], Version] = {}
        self.pushed = PushedTokens(
            self._version.snapshot.policy,
            self._version.snapshot.tokens,
            clock=clock,
            timer=timer,
            margin=cache.tokens.margin,
        )
        self._sessions = SessionOwners(config.limits.mcp_sessions)
        self._prefetches = Prefetches(observer=observer, places=_prefetch_places(config))
        self.service = CheckService(
            self._version.snapshot,
            principals=self._principals,
            subjects=self._subjects,
            observer=observer,
            clock=clock,
            timer=timer,
            sessions=self._sessions,
            prefetches=self._prefetches,
            prefetch_timeout=config.entra.exchange_timeout,
        )

        self.issuer = TokenIssuer(
            self._version.snapshot,
            principals=self._principals,
            observer=observer,
            clock=clock,
            timer=timer,
        )

    def start(self) -> None:
        """Begin to fetch signing keys, and to look at credentials."""
        loop = asyncio.get_running_loop()
        version = self._version
        self._background = [
            loop.create_task(version.keys.keep_fresh()),
            loop.create_task(self._look_at_credentials(version)),
        ]

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self._version.config

    @property
    def rendered(self) -> Rendered:
        """What Envoys are rendered from, of the configuration in use."""
        return self._version.rendered

    def prepare(self, config: Config) -> Version:
        """Build everything that a configuration needs, without deciding by it. Blocks: it reads files.

        Raises:
            Exception: Something cannot be built. The version in use stays as it is.
        """
        version = self._workshop.build(config)
        version.credential_faults = version.standings.look()
        return version

    async def apply(self, version: Version) -> None:
        """Decide by another configuration from now on. Nothing is lost: caches and keys stay.

        A cached token is met again where the exchange that it came from is the same, and Entra's address.
        """
        config, old = version.config, self._version
        version.keys.adopt(old.keys)
        await self._stop_background()
        await old.proofs.close()
        version.proofs.adopt(old.proofs)
        self._version = version
        self._subjects.max_age = config.subject.max_age
        self._prefetches.places = _prefetch_places(config)
        self.service.prefetch_timeout = config.entra.exchange_timeout
        self._sessions.most = config.limits.mcp_sessions
        self.start()
        self.service.swap(version.snapshot)
        self.issuer.swap(version.snapshot)
        self.pushed.swap(version.snapshot.policy, version.snapshot.tokens)
        retiring = asyncio.get_running_loop().create_task(old.retire())
        self._retiring[retiring] = old
        retiring.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def stop(self) -> None:
        """Stop fetching keys and take no further exchanges: nobody is left to wait for one."""
        await self._stop_background()
        await self._version.proofs.close()
        await self.pushed.close()
        # Before their threads are gone: one that tries again would find none.
        for version in (self._version, *self._retiring.values()):
            await version.close()
        self._workshop.close()
        self._credential_threads.shutdown(wait=False, cancel_futures=True)

    def is_ready(self) -> bool:
        """Whether Checks can be answered: all, or those of some tenant and client, as configured.

        What Entra says of a credential counts until the service was ready once: an outage, or a secret that
        is replaced by a wrong one, must not take every replica out of service.
        """
        faults = self._faults(with_proofs=not self._was_ready)
        if self.config.listen.readiness == "all" or faults is None:
            ready = not self._missing(faults)
        else:
            clients = {client.name for client in credentials(self.config)}
            ready = self._version.keys.serves_some() and (not clients or clients != faults.keys())
        self._was_ready = self._was_ready or ready
        return ready

    def missing(self) -> dict[str, Any]:
        """Return what is missing before all Checks can be answered; nothing when all is there."""
        return self._missing(self._faults())

    def unserved(self) -> set[tuple[str, str]]:
        """Return the kind and name of each issuer without keys and each client without a credential."""
        # Not those that are being proved for the first time: a start is no fault.
        faults = (self._version.credential_faults or {}) | self._version.proofs.unserved()
        return {
            *(("signing_keys", issuer) for issuer in self._version.keys.missing()),
            *(("credential", client) for client in faults),
        }

    def servable(self) -> set[tuple[str, str]]:
        """Return the kind and name of each issuer with keys and of each client: what may become unserved."""
        return {
            *(("signing_keys", issuer) for issuer in self._version.keys.ages()),
            *(("credential", client.name) for client in credentials(self.config)),
        }

    def _faults(self, *, with_proofs: bool = True) -> dict[str, str] | None:
        """Return why clients cannot be served, by name; None until somebody has looked."""
        faults, proofs = self._version.credential_faults, self._version.proofs
        if faults is None or not with_proofs:
            return faults
        if self._was_ready:
            return proofs.unserved() | faults
        return proofs.pending() | proofs.unserved() | faults

    def _missing(self, faults: Mapping[str, str] | None) -> dict[str, Any]:
        missing: dict[str, Any] = {}
        if issuers := self._version.keys.missing():
            missing["signing_keys"] = issuers
        if faults is None:
            missing["credentials"] = "not read yet"
        elif faults:
            missing["credentials"] = dict(faults)
        return missing

    def refused_credentials(self) -> set[tuple[str, str]]:
        """Return name of the client and kind of each credential whose newest version Entra refuses."""
        return self._version.standings.refused()

    def unreadable_credentials(self) -> dict[tuple[str, str], bool]:
        """Return whether a credential could not be read when it was last tried, by client and kind."""
        return self._version.standings.unreadable()

    def proved_credentials(self) -> dict[tuple[str, str], bool]:
        """Return whether Entra has taken the newest version of a credential, by client and kind.

        Where credentials are not shown ahead, none is missing that nobody has needed yet.
        """
        proved = self._version.standings.proved()
        if self.config.entra.prove_credentials:
            return proved
        refused = self.refused_credentials()
        return {key: accepted for key, accepted in proved.items() if accepted or key in refused}

    def credentials(self) -> dict[str, list[dict[str, Any]]]:
        """Return what is known of each client's credentials, in the order to try."""
        return self._version.standings.described()

    def entries(self) -> dict[CacheName, int]:
        """Return how much each cache holds."""
        return {
            CacheName.PRINCIPALS: len(self._principals),
            CacheName.TOKENS: len(self._workshop.tokens),
            CacheName.ASSERTIONS: len(self._workshop.assertions),
            CacheName.ANSWERS: len(self._version.snapshot.answers),
            CacheName.SUBJECTS: len(self._subjects),
        }

    def evictions(self) -> dict[CacheName, int]:
        """Return how many live entries of each cache were evicted so far."""
        return {
            CacheName.PRINCIPALS: self._principals.evictions,
            CacheName.TOKENS: self._workshop.tokens.evictions,
            CacheName.ASSERTIONS: self._workshop.assertions.evictions,
            CacheName.ANSWERS: self._version.snapshot.answers.evictions,
            CacheName.SUBJECTS: self._subjects.evictions,
        }

    def circuits(self) -> dict[str, tuple[bool, int]]:
        """Return, for each tenant, whether its endpoint's circuit is open and how often it has opened."""
        return self._workshop.endpoints.circuits()

    def sweep(self) -> None:
        """Forget references that have ended. Called each second or so."""
        self._subjects.sweep(Moment(self._clock(), self._timer()))

    def key_ages(self) -> dict[str, float]:
        """Return the seconds since each issuer's keys were fetched."""
        return self._version.keys.ages()

    def optional_keys_missing(self) -> list[str]:
        """Return the issuers that the service does without while they have no keys."""
        return self._version.keys.optional_missing()

    def clock_difference(self) -> float | None:
        """Return the seconds by which our clock is ahead of Entra's; None before an answer of Entra's."""
        return self._version.keys.server_clock.difference

    def credential_expiries(self) -> dict[tuple[str, str], float]:
        """Return the seconds until certificates in use expire, by name of the client and kind."""
        return self._version.standings.expiries()

    def check(self) -> None:
        """Raise what ended a background task, if a defect has: nothing must go stale unnoticed."""
        for task in self._background:
            if task.done():
                task.result()

    async def look_at_credentials(self) -> None:
        """Read every credential now, off the event loop: a file system may hang. New ones are proved."""
        await self._look(self._version, None)

    async def _look_at_credentials(self, version: Version) -> None:
        rounds = Rounds("look at credential files")
        while True:
            with rounds.surviving():
                await self._look(version, CREDENTIAL_LOOKS)
            await asyncio.sleep(CREDENTIAL_INTERVAL)

    async def _look(self, version: Version, most: int | None) -> None:
        loop, look = asyncio.get_running_loop(), version.standings.look
        if version.credential_faults is None:
            most = None
        version.credential_faults = await loop.run_in_executor(self._credential_threads, look, most)
        version.proofs.advance()

    async def _stop_background(self) -> None:
        tasks, self._background = self._background, []
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _prefetch_places(config: Config) -> Shares:
    return Shares(config.limits.prefetches, holders=len(credentials(config)))
