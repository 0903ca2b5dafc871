"""`Version`: what is built for one version of the configuration, and the `Workshop` that builds it.

Caches, threads and credentials outlast versions: they stay in the workshop. Which version is in use, and how
one follows the other, is in `authz.process.engine`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from authz.checks.steps import Snapshot
from authz.config import Config, compile_policy
from authz.config.compile import credentials, exchange_resource, issuers, trusted_hosts
from authz.config.proofs import proofs
from authz.config.rendered import Rendered
from authz.core.answer import AnswerCache
from authz.core.cache import FailureCache, TokenCache
from authz.core.exchange import BlueprintAssertion
from authz.core.keys import RefreshPolicy
from authz.core.policy import Policy
from authz.core.record import CacheName
from authz.core.scopes import default_of
from authz.core.shares import Shares
from authz.entra.bulkheads import Bulkheads
from authz.entra.clients import Agents, Applications
from authz.entra.configured_http import http_client
from authz.entra.endpoints import Endpoints
from authz.entra.exchange import EntraExchange
from authz.entra.http import HttpClient
from authz.entra.key_vault import KeyVaults
from authz.entra.msal_transport import MsalTransport
from authz.entra.signing_keys import Issuer, SigningKeys
from authz.entra.standings import Standings
from authz.ports import Clock, Exchange, Observer, Timer
from authz.process.wiring.entra import Credentials
from authz.tokens.caching import CachedExchange
from authz.tokens.proving import Proofs

KEY_FETCHES = 4
"""Fetches of signing keys at a time, at least one for each tenant, in threads of their own."""
MOST_THREADS = 8192
"""Of each kind, threads that there can be. `Shares` bound how many there are."""
LEAST_FLIGHTS = 16
LEAST_EXCHANGES = 2
"""Smallest share of a client, however many clients there are."""


class Version:
    """What one version of the configuration is made of."""

    def __init__(
        self,
        config: Config,
        rendered: Rendered,
        applications: Applications,
        keys: SigningKeys,
        snapshot: Snapshot,
        exchanges: Sequence[CachedExchange],
        proofs: Proofs,
        connections: Sequence[HttpClient],
    ) -> None:
        self.config = config
        self.rendered = rendered
        self.applications = applications
        self.standings = applications.standings
        self.keys = keys
        self.snapshot = snapshot
        self.proofs = proofs
        self._exchanges = exchanges
        self._connections = connections
        self.credential_faults: dict[str, str] | None = None
        """Why clients have no usable credential, by name; None until somebody has looked."""

    async def retire(self) -> None:
        """Close the connections, once the exchanges under way have ended."""
        for exchange in self._exchanges:
            await exchange.retire()
        for http in self._connections:
            http.close()

    async def close(self) -> None:
        """Give up the exchanges under way."""
        for exchange in self._exchanges:
            await exchange.close()


class Workshop:
    """What outlasts versions, and what of it is in each version.

    Args:
        config: The configuration to start with: it says how much the caches hold.
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
        clock: Clock,
        timer: Timer,
        vaults: KeyVaults,
    ) -> None:
        self._credentials = Credentials(environ, vaults)
        self._observer = observer
        self._clock = clock
        self._timer = timer
        self._exchange_threads = ThreadPoolExecutor(MOST_THREADS, "exchange")
        self._key_threads = ThreadPoolExecutor(MOST_THREADS, "keys")
        self._failures = FailureCache(max_entries=config.cache.failures.max_entries)
        self._assertion_failures = FailureCache(max_entries=config.cache.failures.max_entries)
        self.endpoints = Endpoints(timer)
        self.tokens = _token_cache(config)
        self.assertions = _token_cache(config)

    def close(self) -> None:
        """Take no further exchanges, and fetch no more keys."""
        self._exchange_threads.shutdown(wait=False, cancel_futures=True)
        self._key_threads.shutdown(wait=False, cancel_futures=True)

    def build(self, config: Config) -> Version:
        """Build everything that a configuration needs. Blocks: it reads files.

        Raises:
            Exception: Something cannot be built.
        """
        places = Shares(
            config.limits.exchanges, holders=len(credentials(config)), least=LEAST_EXCHANGES
        )
        http = http_client(config, pool_size=places.total)
        transport = MsalTransport(http, hosts=trusted_hosts(config), timer=self._timer)
        applications = self._applications(config, transport)
        exchange = EntraExchange(
            applications=applications,
            agents=Agents(config.entra.authority, transport, self._clock, self._timer),
            assertion_scope=default_of(exchange_resource(config)),
            cached=lambda inner: self._cached(inner, config, assertions=True),
            authority=config.entra.authority,
            endpoints=self.endpoints,
            bulkheads=Bulkheads(self._exchange_threads, places),
            timer=self._timer,
            timeout=config.entra.exchange_timeout,
        )
        tokens = self._cached(exchange, config, assertions=False)
        keys, keys_http = self._signing_keys(config)
        answers = AnswerCache(
            max_entries=config.cache.answers.max_entries, max_bytes=config.cache.answers.max_bytes
        )
        policy = compile_policy(config)
        return Version(
            config,
            Rendered(config, policy),
            applications,
            keys,
            Snapshot(policy, keys, tokens, answers),
            (tokens, exchange.assertions),
            self._proofs(config, policy, applications.standings, tokens, exchange.assertions),
            (http, keys_http),
        )

    def _applications(self, config: Config, transport: MsalTransport) -> Applications:
        return Applications(
            config.entra.authority,
            transport,
            {
                client: [self._credentials.of(client, entry, config) for entry in entries]
                for client, entries in credentials(config).items()
            },
            self._clock,
            self._timer,
        )

    def _signing_keys(self, config: Config) -> tuple[SigningKeys, HttpClient]:
        """Return the keys of the issuers that are trusted, and the connections that fetch them."""
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
        http = http_client(config, pool_size=fetches.total)
        keys = SigningKeys(
            trusted,
            http=http,
            hosts=trusted_hosts(config),
            bulkheads=Bulkheads(self._key_threads, fetches),
            policy=RefreshPolicy(
                interval=config.entra.keys.refresh_interval,
                retry_interval=config.entra.keys.retry_interval,
                unknown_key_interval=config.entra.keys.unknown_key_interval,
            ),
            clock=self._clock,
            timer=self._timer,
        )
        return keys, http

    def _proofs(
        self,
        config: Config,
        policy: Policy,
        standings: Standings,
        tokens: CachedExchange,
        assertions: CachedExchange,
    ) -> Proofs:
        shown = proofs(config, policy) if config.entra.prove_credentials else {}
        return Proofs(
            {
                client: (assertions if isinstance(proof, BlueprintAssertion) else tokens, proof)
                for client, proof in shown.items()
            },
            standings=standings.of_clients,
            served=standings.are_served,
            timer=self._timer,
        )

    def _cached(self, inner: Exchange, config: Config, *, assertions: bool) -> CachedExchange:
        return CachedExchange(
            inner,
            tokens=self.assertions if assertions else self.tokens,
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


def _token_cache(config: Config) -> TokenCache:
    size = config.cache.tokens
    return TokenCache(max_entries=size.max_entries, max_bytes=size.max_bytes, margin=size.margin)
