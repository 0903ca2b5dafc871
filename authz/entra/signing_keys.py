"""Signing keys of trusted issuers, by OpenID Connect discovery: fetched ahead, kept through an outage.

When to fetch is decided in `authz.core.keys`; here is the fetching. One fetch per issuer at a time,
whoever asks; a token with an unknown `kid` causes at most one per interval for everyone together.
"""

import asyncio
from collections.abc import Collection, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import structlog

from authz.core.errors import (
    AuthzError,
    DeadlineExceeded,
    InvalidToken,
    KeysUnavailable,
    TokenFault,
)
from authz.core.keys import (
    KeyFault,
    KeySet,
    MalformedKeySet,
    RefreshPolicy,
    SigningKey,
    parse_key_set,
)
from authz.entra.discovery import DiscoveryFault, Documents, endpoint, read_document
from authz.ports import Clock, Timer

RETRY_SOON: Final = 1.0
LONGEST_SLEEP: Final = 30.0
"""Seconds between looks at the clock: after a suspend the wall clock has moved, the loop's has not."""
MOST_OF_A_KID: Final = 100
"""Characters of a `kid` that the log shows."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Issuer:
    """One trusted issuer.

    Attributes:
        name: Its `iss`.
        tenant_id: The tenant it speaks for.
        metadata_url: Its OpenID Connect discovery document.
        aliases: The tenant's issuers of either token version; Entra states one of them per key.
        required: Whether there can be no service without its keys. One attempt is waited for anyhow.
    """

    name: str
    tenant_id: str
    metadata_url: str
    aliases: tuple[str, ...]
    required: bool = True


class _Keys:
    """What is known of one issuer."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.keys: KeySet | None = None
        self.attempted_at: float | None = None
        self.settled = False
        """Whether a first attempt has ended, either way."""
        self.asked_at: float | None = None
        self.fetch: asyncio.Task[None] | None = None


class SigningKeys:
    """The key sets of every trusted issuer.

    Args:
        issuers: Whom to trust.
        http: Fetches documents; blocking, so it runs in `executor`.
        hosts: Hosts beside its own that a discovery document may name.
        executor: Threads for fetches.
        policy: When to fetch.
        clock: Epoch seconds.
        timer: Monotonic seconds, the clock of deadlines.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        *,
        http: Documents,
        hosts: Collection[str] = (),
        executor: Executor,
        policy: RefreshPolicy,
        clock: Clock,
        timer: Timer,
    ) -> None:
        self._http = http
        self._hosts = hosts
        self._executor = executor
        self._policy = policy
        self._clock = clock
        self._timer = timer
        self._known = {issuer.name: _Keys(issuer) for issuer in issuers}

    def adopt(self, other: "SigningKeys") -> None:
        """Take over what another instance knows of the same issuers, so that a reload starts warm."""
        for name, known in self._known.items():
            theirs = other._known.get(name)  # noqa: SLF001 - the same class
            if theirs is not None and theirs.issuer == known.issuer:
                known.keys, known.attempted_at = theirs.keys, theirs.attempted_at
                known.asked_at, known.settled = theirs.asked_at, theirs.settled

    def current(self, issuer: str, key_id: str) -> SigningKey | None:
        """Return a key that is trusted now, without waiting."""
        known = self._known.get(issuer)
        return known.keys.keys.get(key_id) if known is not None and known.keys is not None else None

    async def find(self, issuer: str, key_id: str, *, deadline: float) -> SigningKey:
        """Return the key, fetching once if it is unknown and a fetch is due.

        Raises:
            InvalidToken: The issuer has no such key.
            KeysUnavailable: No keys of this issuer could be had yet.
            DeadlineExceeded: The answer did not come before `deadline`.
        """
        known = self._known.get(issuer)
        if known is None:
            raise InvalidToken(TokenFault.ISSUER)
        if known.fetch is not None:
            await self._wait(known.fetch, deadline)
        # That one may have been under way before the key was published; one of our own may be due.
        if self.current(issuer, key_id) is None:
            fetch = known.fetch or self._fetch_if_due(known)
            if fetch is not None:
                await self._wait(fetch, deadline)
        key = self.current(issuer, key_id)
        if key is not None:
            return key
        if known.keys is None:
            raise KeysUnavailable(issuer, retry_after=self._policy.retry_interval)
        raise InvalidToken(TokenFault.UNKNOWN_KEY)

    async def _wait(self, fetch: asyncio.Task[None], deadline: float) -> None:
        # asyncio.wait leaves the fetch alone when this caller is cancelled or late.
        done, _ = await asyncio.wait({fetch}, timeout=max(0.0, deadline - self._timer()))
        if not done:
            raise DeadlineExceeded("waiting for signing keys", retry_after=RETRY_SOON)

    def missing(self) -> list[str]:
        """Return the issuers without keys: the service is not ready while there are any."""
        return [
            name
            for name, known in self._known.items()
            if known.keys is None and (known.issuer.required or not known.settled)
        ]

    def serves_some(self) -> bool:
        """Whether each issuer has been asked, and callers of one at least can be verified."""
        required = [known for known in self._known.values() if known.issuer.required]
        has_keys = [known for known in required if known.keys is not None]
        return all(known.settled for known in required) and bool(has_keys or not required)

    def ages(self) -> dict[str, float]:
        """Return the seconds since each issuer's keys were fetched, for those that have some."""
        now = self._clock()
        return {
            name: now - known.keys.fetched_at
            for name, known in self._known.items()
            if known.keys is not None
        }

    async def keep_fresh(self) -> None:
        """Refresh every issuer's keys for as long as this task runs."""
        while True:
            now = self._clock()
            wait = LONGEST_SLEEP
            for known in self._known.values():
                due = self._policy.next_fetch(
                    fetched_at=known.keys.fetched_at if known.keys else None,
                    attempted_at=known.attempted_at,
                )
                if due > now:
                    wait = min(wait, due - now)
                elif known.fetch is None:
                    self._start(known)
            fetches = [known.fetch for known in self._known.values() if known.fetch is not None]
            if fetches:
                await asyncio.wait(fetches)
            else:
                await asyncio.sleep(wait)

    def _fetch_if_due(self, known: _Keys) -> asyncio.Task[None] | None:
        now = self._clock()
        if not self._policy.may_fetch_for_unknown_key(attempted_at=known.asked_at, now=now):
            return None
        known.asked_at = now
        return self._start(known)

    def _start(self, known: _Keys) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._fetch(known))
        known.fetch = task
        task.add_done_callback(lambda _: setattr(known, "fetch", None))
        return task

    async def _fetch(self, known: _Keys) -> None:
        known.attempted_at, before = self._clock(), known.keys
        loop = asyncio.get_running_loop()
        try:
            document = await loop.run_in_executor(self._executor, self._download, known.issuer)
            known.keys = parse_key_set(
                document,
                issuer=known.issuer.name,
                aliases=known.issuer.aliases,
                tenant_id=known.issuer.tenant_id,
                now=self._clock(),
            )
            _tell_refused(known.keys, before)
        except (AuthzError, MalformedKeySet, DiscoveryFault) as error:
            # The last good set goes on: an outage of Entra must not become one of ours.
            _log.warning(
                "signing keys not refreshed",
                issuer=known.issuer.name,
                cause=str(error),
                have_keys=known.keys is not None,
            )
        finally:
            known.settled = True

    def _download(self, issuer: Issuer) -> object:
        url = issuer.metadata_url
        metadata = read_document(self._http.get(url), url)
        stated = str(metadata.get("issuer", "")).replace("{tenantid}", issuer.tenant_id)
        if stated != issuer.name:
            raise DiscoveryFault(f"{url} speaks for {stated!r}, expected {issuer.name!r}")
        keys_url = endpoint(metadata, "jwks_uri", url=url, hosts=self._hosts).geturl()
        return read_document(self._http.get(keys_url), keys_url)


def _tell_refused(keys: KeySet, before: KeySet | None) -> None:
    """Log what was left out of a key set, once: not again with each refresh."""
    told = set(before.refused) if before is not None else set()
    for key_id, fault in dict.fromkeys(keys.refused):
        # The document of several tenants lists keys of other issuers, which is as it should be.
        if fault is not KeyFault.ISSUER and (key_id, fault) not in told:
            _log.warning(
                "signing key refused",
                issuer=keys.issuer,
                kid=key_id[:MOST_OF_A_KID],
                cause=fault.value,
            )
