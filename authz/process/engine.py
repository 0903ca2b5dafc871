"""`Engine`: everything that decides, built from one configuration and rebuilt when it changes.

Part of the composition root (`app`): it builds objects and hands them to one another; nothing is decided
here.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from authz.checks.prefetching import Prefetches
from authz.checks.service import CheckService
from authz.checks.steps import Snapshot
from authz.config import Config, compile_policy
from authz.config.compile import credentials, exchange_resource, issuers, trusted_hosts
from authz.config.proofs import proofs
from authz.core.answer import AnswerCache
from authz.core.cache import FailureCache, PrincipalCache, TokenCache
from authz.core.exchange import BlueprintAssertion
from authz.core.keys import RefreshPolicy
from authz.core.moment import Moment
from authz.core.record import CacheName
from authz.core.scopes import default_of
from authz.core.shares import Shares
from authz.doors.sidecar_api.issuer import TokenIssuer
from authz.entra.bulkheads import Bulkheads
from authz.entra.clients import Agents, Applications
from authz.entra.configured_http import http_client
from authz.entra.endpoints import Endpoints
from authz.entra.exchange import EntraExchange
from authz.entra.http import HttpClient
from authz.entra.key_vault import KeyVaults
from authz.entra.msal_transport import MsalTransport
from authz.entra.signing_keys import Issuer, SigningKeys
from authz.ports import Clock, Exchange, Observer, Timer
from authz.process.wiring.entra import Credentials
from authz.system.rounds import Rounds
from authz.tokens.caching import CachedExchange
from authz.tokens.proving import Proofs
from authz.tokens.pushing import PushedTokens
from authz.tokens.references import SubjectMemory

KEY_FETCHES = 4
"""Fetches of signing keys at a time, at least one for each tenant, in threads of their own."""
MOST_THREADS = 8192
"""Of each kind, threads that there can be. `Shares` bound how many there are."""
LEAST_FLIGHTS = 16
LEAST_EXCHANGES = 2
"""Smallest share of a client, however many clients there are."""
CREDENTIAL_INTERVAL = 1.0
"""Seconds between two looks at the credentials, for readiness."""


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
        observer: Observer,
        clock: Clock = time.time,
        timer: Timer = time.monotonic,
        vaults: KeyVaults | None = None,
    ) -> None:
        self._credentials = Credentials(environ, vaults or KeyVaults())
        self._observer = observer
        self._clock = clock
        self._timer = timer
        self._exchange_threads = ThreadPoolExecutor(MOST_THREADS, "exchange")
        self._key_threads = ThreadPoolExecutor(MOST_THREADS, "keys")
        self._credential_threads = ThreadPoolExecutor(1, "credentials")
        self._endpoints = Endpoints(timer)
        cache = config.cache
        self._principals = PrincipalCache(
            max_entries=cache.principals.max_entries, max_bytes=cache.principals.max_bytes
        )
        self._subjects = SubjectMemory(
            max_entries=config.subject.max_entries,
            max_bytes=config.subject.max_bytes,
            max_age=config.subject.max_age,
        )
        self._tokens = _token_cache(config)
        self._assertions = _token_cache(config)
        self._failures = FailureCache(max_entries=cache.failures.max_entries)
        self._assertion_failures = FailureCache(max_entries=cache.failures.max_entries)
        self.config = config
        self._parts = self._build(config)
        self._background: list[asyncio.Task[None]] = []
        self._was_ready = False
        self._retiring: set[asyncio.Task[None]] = set()
        self.pushed = PushedTokens(
            self._parts.snapshot.policy,
            self._parts.snapshot.tokens,
            clock=clock,
            timer=timer,
            margin=cache.tokens.margin,
        )
        self._prefetches = Prefetches(observer=observer, places=_prefetch_places(config))
        self.service = CheckService(
            self._parts.snapshot,
            principals=self._principals,
            subjects=self._subjects,
            observer=observer,
            clock=clock,
            timer=timer,
            prefetches=self._prefetches,
            prefetch_timeout=config.entra.exchange_timeout,
        )

        self.issuer = TokenIssuer(
            self._parts.snapshot,
            principals=self._principals,
            observer=observer,
            clock=clock,
            timer=timer,
        )

    def start(self) -> None:
        """Begin to fetch signing keys, and to look at credentials."""
        loop = asyncio.get_running_loop()
        parts = self._parts
        self._background = [
            loop.create_task(parts.keys.keep_fresh()),
            loop.create_task(self._look_at_credentials(parts)),
        ]

    def prepare(self, config: Config) -> "Version":
        """Build everything that a configuration needs, without deciding by it. Blocks: it reads files.

        Raises:
            Exception: Something cannot be built. The version in use stays as it is.
        """
        parts = self._build(config)
        parts.credential_faults = parts.standings.faults()
        return Version(config, parts)

    async def apply(self, version: "Version") -> None:
        """Decide by another configuration from now on. Nothing is lost: caches and keys stay.

        A cached token is met again where the exchange that it came from is the same, and Entra's address.
        """
        config, parts, old = version.config, version.parts, self._parts
        parts.keys.adopt(old.keys)
        await self._stop_background()
        await old.proofs.close()
        parts.proofs.adopt(old.proofs)
        self.config, self._parts = config, parts
        self._subjects.max_age = config.subject.max_age
        self._prefetches.places = _prefetch_places(config)
        self.service.prefetch_timeout = config.entra.exchange_timeout
        self.start()
        self.service.swap(parts.snapshot)
        self.issuer.swap(parts.snapshot)
        self.pushed.swap(parts.snapshot.policy, parts.snapshot.tokens)
        retiring = asyncio.get_running_loop().create_task(old.retire())
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def stop(self) -> None:
        """Stop fetching keys and take no further exchanges: nobody is left to wait for one."""
        await self._stop_background()
        await self._parts.proofs.close()
        await self.pushed.close()
        self._exchange_threads.shutdown(wait=False, cancel_futures=True)
        self._key_threads.shutdown(wait=False, cancel_futures=True)
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
            ready = self._parts.keys.serves_some() and (not clients or clients != faults.keys())
        self._was_ready = self._was_ready or ready
        return ready

    def missing(self) -> dict[str, Any]:
        """Return what is missing before all Checks can be answered; nothing when all is there."""
        return self._missing(self._faults())

    def unserved(self) -> set[tuple[str, str]]:
        """Return the kind and name of each issuer without keys and each client without a credential."""
        # Not those that are being proved for the first time: a start is no fault.
        faults = (self._parts.credential_faults or {}) | self._parts.proofs.unserved()
        return {
            *(("signing_keys", issuer) for issuer in self._parts.keys.missing()),
            *(("credential", client) for client in faults),
        }

    def servable(self) -> set[tuple[str, str]]:
        """Return the kind and name of each issuer with keys and of each client: what may become unserved."""
        return {
            *(("signing_keys", issuer) for issuer in self._parts.keys.ages()),
            *(("credential", client.name) for client in credentials(self.config)),
        }

    def _faults(self, *, with_proofs: bool = True) -> dict[str, str] | None:
        """Return why clients cannot be served, by name; None until somebody has looked."""
        faults, proofs = self._parts.credential_faults, self._parts.proofs
        if faults is None or not with_proofs:
            return faults
        if self._was_ready:
            return proofs.unserved() | faults
        return proofs.pending() | proofs.unserved() | faults

    def _missing(self, faults: Mapping[str, str] | None) -> dict[str, Any]:
        missing: dict[str, Any] = {}
        if issuers_without_keys := self._parts.keys.missing():
            missing["signing_keys"] = issuers_without_keys
        if faults is None:
            missing["credentials"] = "not read yet"
        elif faults:
            missing["credentials"] = dict(faults)
        return missing

    def refused_credentials(self) -> set[tuple[str, str]]:
        """Return name of the client and kind of each credential whose newest version Entra refuses."""
        return self._parts.standings.refused()

    def unreadable_credentials(self) -> dict[tuple[str, str], bool]:
        """Return whether a credential could not be read when it was last tried, by client and kind."""
        return self._parts.standings.unreadable()

    def proved_credentials(self) -> dict[tuple[str, str], bool]:
        """Return whether Entra has taken the newest version of a credential, by client and kind.

        Where credentials are not shown ahead, none is missing that nobody has needed yet.
        """
        proved = self._parts.standings.proved()
        if self.config.entra.prove_credentials:
            return proved
        refused = self.refused_credentials()
        return {key: accepted for key, accepted in proved.items() if accepted or key in refused}

    def credentials(self) -> dict[str, list[dict[str, Any]]]:
        """Return what is known of each client's credentials, in the order to try."""
        return self._parts.standings.described()

    def entries(self) -> dict[CacheName, int]:
        """Return how much each cache holds."""
        return {
            CacheName.PRINCIPALS: len(self._principals),
            CacheName.TOKENS: len(self._tokens),
            CacheName.ASSERTIONS: len(self._assertions),
            CacheName.ANSWERS: len(self._parts.snapshot.answers),
            CacheName.SUBJECTS: len(self._subjects),
        }

    def evictions(self) -> dict[CacheName, int]:
        """Return how many live entries of each cache were evicted so far."""
        return {
            CacheName.PRINCIPALS: self._principals.evictions,
            CacheName.TOKENS: self._tokens.evictions,
            CacheName.ASSERTIONS: self._assertions.evictions,
            CacheName.ANSWERS: self._parts.snapshot.answers.evictions,
            CacheName.SUBJECTS: self._subjects.evictions,
        }

    def circuits(self) -> dict[str, tuple[bool, int]]:
        """Return, for each tenant, whether its endpoint's circuit is open and how often it has opened."""
        return self._endpoints.circuits()

    def sweep(self) -> None:
        """Forget references that have ended. Called each second or so."""
        self._subjects.sweep(Moment(self._clock(), self._timer()))

    def key_ages(self) -> dict[str, float]:
        """Return the seconds since each issuer's keys were fetched."""
        return self._parts.keys.ages()

    def credential_expiries(self) -> dict[tuple[str, str], float]:
        """Return the seconds until certificates in use expire, by name of the client and kind."""
        return self._parts.standings.expiries()

    def check(self) -> None:
        """Raise what ended a background task, if a defect has: nothing must go stale unnoticed."""
        for task in self._background:
            if task.done():
                task.result()

    async def look_at_credentials(self) -> None:
        """Read every credential now, off the event loop: a file system may hang. New ones are proved."""
        await self._look(self._parts)

    async def _look_at_credentials(self, parts: "_Parts") -> None:
        rounds = Rounds("look at credential files")
        while True:
            with rounds.surviving():
                await self._look(parts)
            await asyncio.sleep(CREDENTIAL_INTERVAL)

    async def _look(self, parts: "_Parts") -> None:
        loop = asyncio.get_running_loop()
        faults = parts.standings.faults
        parts.credential_faults = await loop.run_in_executor(self._credential_threads, faults)
        parts.proofs.advance()

    async def _stop_background(self) -> None:
        tasks, self._background = self._background, []
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _build(self, config: Config) -> "_Parts":
        clients = len(credentials(config))
        places = Shares(config.limits.exchanges, holders=clients, least=LEAST_EXCHANGES)
        http = http_client(config, pool_size=places.total)
        hosts = trusted_hosts(config)
        transport = MsalTransport(http, hosts=hosts, timer=self._timer)
        applications = Applications(
            config.entra.authority,
            transport,
            {
                client: [self._credentials.of(client, entry, config) for entry in entries]
                for client, entries in credentials(config).items()
            },
            self._clock,
            self._timer,
        )
        exchange = EntraExchange(
            applications=applications,
            agents=Agents(config.entra.authority, transport, self._clock, self._timer),
            assertion_scope=default_of(exchange_resource(config)),
            cached=lambda inner: self._cached(inner, config, assertions=True),
            authority=config.entra.authority,
            endpoints=self._endpoints,
            bulkheads=Bulkheads(self._exchange_threads, places),
            timer=self._timer,
            timeout=config.entra.exchange_timeout,
        )
        trusted = [
            Issuer(
                settings.issuer,
                settings.tenant_id,
                settings.metadata_url,
                settings.aliases,
                settings.required,
            )
            for settings in issuers(config)
        ]
        fetches = Shares(KEY_FETCHES, holders=len({issuer.tenant_id for issuer in trusted}))
        keys_http = http_client(config, pool_size=fetches.total)
        keys = SigningKeys(
            trusted,
            http=keys_http,
            hosts=hosts,
            bulkheads=Bulkheads(self._key_threads, fetches),
            policy=RefreshPolicy(
                interval=config.entra.keys.refresh_interval,
                retry_interval=config.entra.keys.retry_interval,
                unknown_key_interval=config.entra.keys.unknown_key_interval,
            ),
            clock=self._clock,
            timer=self._timer,
        )
        tokens = self._cached(exchange, config, assertions=False)
        answers = AnswerCache(
            max_entries=config.cache.answers.max_entries, max_bytes=config.cache.answers.max_bytes
        )
        snapshot = Snapshot(compile_policy(config), keys, tokens, answers)
        shown = proofs(config) if config.entra.prove_credentials else {}
        proving = Proofs(
            {
                client: (
                    exchange.assertions if isinstance(proof, BlueprintAssertion) else tokens,
                    proof,
                )
                for client, proof in shown.items()
            },
            standings=applications.standings.of_clients,
            served=applications.standings.are_served,
            timer=self._timer,
        )
        return _Parts(applications, keys, snapshot, tokens, proving, (http, keys_http))

    def _cached(self, inner: Exchange, config: Config, *, assertions: bool) -> CachedExchange:
        return CachedExchange(
            inner,
            tokens=self._assertions if assertions else self._tokens,
            failures=self._assertion_failures if assertions else self._failures,
            name=CacheName.ASSERTIONS if assertions else CacheName.TOKENS,
            observer=self._observer,
            clock=self._clock,
            timer=self._timer,
            flight_timeout=config.entra.exchange_timeout,
            places=Shares(
                config.limits.max_flights,
                holders=len(credentials(config)),
                least=LEAST_FLIGHTS,
            ),
        )


class _Parts:
    """What one configuration version is made of."""

    def __init__(
        self,
        applications: Applications,
        keys: SigningKeys,
        snapshot: Snapshot,
        exchange: CachedExchange,
        proofs: Proofs,
        connections: Sequence[HttpClient],
    ) -> None:
        self.applications = applications
        self.standings = applications.standings
        self.keys = keys
        self.snapshot = snapshot
        self.proofs = proofs
        self._exchange = exchange
        self._connections = connections
        self.credential_faults: dict[str, str] | None = None
        """Why clients have no usable credential, by name; None until somebody has looked."""

    async def retire(self) -> None:
        """Close the connections, once the exchanges under way have ended."""
        await self._exchange.drain()
        for http in self._connections:
            http.close()


@dataclass(frozen=True, slots=True)
class Version:
    """A configuration and what was built of it, to be applied."""

    config: Config
    parts: _Parts


def _prefetch_places(config: Config) -> Shares:
    return Shares(config.limits.prefetches, holders=len(credentials(config)))


def _token_cache(config: Config) -> TokenCache:
    size = config.cache.tokens
    return TokenCache(max_entries=size.max_entries, max_bytes=size.max_bytes, margin=size.margin)
