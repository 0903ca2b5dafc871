"""Signing keys of trusted issuers, by OpenID Connect discovery: fetched ahead, kept through an outage.

When to fetch is decided in `authz.core.keys`; here is the fetching. One fetch per issuer at a time;
tokens with an unknown `kid` cause at most one per interval, for all callers together. Such a token is
refused once a key set without its key was fetched for it. Until then its caller is asked to wait.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
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
    UnknownKeys,
    parse_key_set,
)
from authz.entra.bulkheads import Bulkheads
from authz.entra.discovery import (
    MOST_OF_AN_ISSUER,
    DiscoveryFault,
    Documents,
    endpoint,
    read_document,
)
from authz.entra.http import Answer
from authz.entra.server_clock import ServerClock
from authz.ports import Clock, Timer

RETRY_SOON: Final = 1.0
LONGEST_SLEEP: Final = 30.0
"""Seconds between looks at the clocks: a suspended machine's wall clock moves, its monotonic one does not."""
LONGEST_FETCH: Final = 60.0
"""Seconds after which a fetch is given up. Its answers have a limit each; the system's resolver has not."""
MOST_WAITING: Final = 256
"""Requests that may wait for the keys of an issuer at a time. Anybody can send one."""
NOT_PUBLISHED: Final = (
    "the tenant publishes no such key; an application's own keys are not taken "
    "(docs/entra.md#keys-of-an-applications-own)"
)
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
    """What is known of one issuer. Times are monotonic seconds."""

    def __init__(self, issuer: Issuer, policy: RefreshPolicy) -> None:
        self.issuer = issuer
        self.keys: KeySet | None = None
        self.fetched_epoch = 0.0
        """Epoch second of the last good fetch: keys age while the machine is suspended, too."""
        self.attempted_at: float | None = None
        self.fault = "not fetched yet"
        """Why the last fetch has brought nothing."""
        self.settled = False
        """Whether a first attempt has ended, either way."""
        self.unknown = UnknownKeys(policy)
        self.fetch: asyncio.Task[None] | None = None
        self.sought: Counter[str] = Counter()
        """For which key ids requests are waiting."""


class SigningKeys:
    """The key sets of every trusted issuer.

    Args:
        issuers: Whom to trust.
        http: Fetches documents; blocking, so it runs in `bulkheads`.
        hosts: Hosts beside its own that a discovery document may name.
        bulkheads: Threads for fetches, of which each tenant has a share.
        policy: When to fetch.
        clock: Epoch seconds.
        timer: Monotonic seconds, the clock of deadlines and intervals.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        *,
        http: Documents,
        hosts: Collection[str] = (),
        bulkheads: Bulkheads,
        policy: RefreshPolicy,
        clock: Clock,
        timer: Timer,
    ) -> None:
        self._http = http
        self._hosts = hosts
        self._bulkheads = bulkheads
        self._policy = policy
        self._clock = clock
        self._timer = timer
        self.server_clock = ServerClock(clock)
        self._known = {issuer.name: _Keys(issuer, policy) for issuer in issuers}

    def adopt(self, other: "SigningKeys") -> None:
        """Take over what another instance knows of the same issuers, so that a reload starts warm."""
        self.server_clock.adopt(other.server_clock)
        for name, known in self._known.items():
            theirs = other._known.get(name)  # noqa: SLF001 - the same class
            if theirs is not None and theirs.issuer == known.issuer:
                known.keys, known.fetched_epoch = theirs.keys, theirs.fetched_epoch
                known.settled, known.fault = theirs.settled, theirs.fault
                # What a fetch under way brings does not come here: one of our own is due.
                ended = theirs.fetch is None
                known.attempted_at = theirs.attempted_at if ended else None
                known.unknown.adopt(theirs.unknown, asked=ended)

    def current(self, issuer: str, key_id: str) -> SigningKey | None:
        """Return a key that is trusted now, without waiting."""
        known = self._known.get(issuer)
        return known.keys.keys.get(key_id) if known is not None and known.keys is not None else None

    async def find(self, issuer: str, key_id: str, *, deadline: float) -> SigningKey:
        """Return the key, fetching once if it is unknown and a fetch is due.

        Raises:
            InvalidToken: The issuer has no such key: its key set was fetched for this one, and lacks it.
            KeysUnavailable: That is not known yet, because a fetch failed or is not due.
            DeadlineExceeded: The answer did not come before `deadline`.
        """
        known = self._known.get(issuer)
        if known is None:
            raise InvalidToken(TokenFault.ISSUER)
        # The first may have been under way before the key was published; then one of our own may be due.
        for _ in range(2):
            fetch = known.fetch or self._fetch_if_due(known, key_id)
            if fetch is None:
                break
            await self._wait(known, key_id, fetch, deadline)
            key = self.current(issuer, key_id)
            if key is not None:
                return key
        if known.keys is not None and known.unknown.is_absent(key_id):
            raise InvalidToken(TokenFault.UNKNOWN_KEY, NOT_PUBLISHED)
        wait = min(self._due(known), known.unknown.next_fetch()) - self._timer()
        raise KeysUnavailable(issuer, retry_after=max(RETRY_SOON, wait))

    async def _wait(
        self, known: _Keys, key_id: str, fetch: asyncio.Task[None], deadline: float
    ) -> None:
        if known.sought.total() >= MOST_WAITING:
            raise KeysUnavailable("too many requests wait for signing keys", retry_after=RETRY_SOON)
        known.sought[key_id] += 1
        try:
            # asyncio.wait leaves the fetch alone when this caller is cancelled or late.
            done, _ = await asyncio.wait({fetch}, timeout=max(0.0, deadline - self._timer()))
        finally:
            known.sought[key_id] -= 1
            if not known.sought[key_id]:
                del known.sought[key_id]
        if not done:
            raise DeadlineExceeded("waiting for signing keys", retry_after=RETRY_SOON)

    def missing(self) -> dict[str, str]:
        """Return the issuers without keys, and why: the service is not ready while there are any."""
        return {
            name: known.fault
            for name, known in self._known.items()
            if known.keys is None and (known.issuer.required or not known.settled)
        }

    def optional_missing(self) -> list[str]:
        """Return the issuers that have been asked, have no keys, and are done without."""
        return [
            name
            for name, known in self._known.items()
            if known.keys is None and known.settled and not known.issuer.required
        ]

    def serves_some(self) -> bool:
        """Whether each issuer has been asked, and callers of one at least can be verified."""
        required = [known for known in self._known.values() if known.issuer.required]
        has_keys = [known for known in required if known.keys is not None]
        return all(known.settled for known in required) and bool(has_keys or not required)

    def ages(self) -> dict[str, float]:
        """Return the seconds since each issuer's keys were fetched, for those that have some."""
        now = self._timer()
        return {
            name: now - known.keys.fetched_at
            for name, known in self._known.items()
            if known.keys is not None
        }

    async def keep_fresh(self) -> None:
        """Refresh every issuer's keys for as long as this task runs."""
        while True:
            now = self._timer()
            wait = LONGEST_SLEEP
            for known in self._known.values():
                due = self._due(known)
                if due > now:
                    wait = min(wait, due - now)
                elif known.fetch is None:
                    self._start(known)
            fetches = [known.fetch for known in self._known.values() if known.fetch is not None]
            if fetches:
                # An issuer that does not answer holds up nobody else's keys.
                await asyncio.wait(fetches, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(wait)

    def _due(self, known: _Keys) -> float:
        """Return the moment of the next refresh."""
        if known.keys is None:
            return self._policy.next_fetch(fetched_at=None, attempted_at=known.attempted_at)
        due = self._policy.next_fetch(
            fetched_at=known.keys.fetched_at, attempted_at=known.attempted_at
        )
        # Where the wall clock has gone further it may have been set, or the machine was suspended.
        left = known.fetched_epoch + self._policy.interval - self._clock()
        failed = known.attempted_at is not None and known.attempted_at > known.keys.fetched_at
        return due if failed else min(due, self._timer() + left)

    def _fetch_if_due(self, known: _Keys, key_id: str) -> asyncio.Task[None] | None:
        now = self._timer()
        if not known.unknown.may_ask(key_id, now):
            return None
        known.unknown.asked(now)
        return self._start(known, key_id)

    def _start(self, known: _Keys, cause: str | None = None) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._fetch(known, cause))
        known.fetch = task
        task.add_done_callback(lambda _: setattr(known, "fetch", None))
        return task

    async def _fetch(self, known: _Keys, cause: str | None) -> None:
        known.attempted_at, before = self._timer(), known.keys
        try:
            async with asyncio.timeout(LONGEST_FETCH):
                download = partial(self._download, known.issuer)
                document = await self._bulkheads.run(known.issuer.tenant_id, lambda: download)
            keys = parse_key_set(
                document,
                issuer=known.issuer.name,
                aliases=known.issuer.aliases,
                tenant_id=known.issuer.tenant_id,
                now=self._timer(),
            )
        except (AuthzError, MalformedKeySet, DiscoveryFault, TimeoutError) as error:
            # The last good set stays in use: an outage of Entra must not become one of ours.
            known.fault = str(error) or "took too long"
            _log.warning(
                "signing keys not refreshed",
                issuer=known.issuer.name,
                cause=known.fault,
                have_keys=known.keys is not None,
            )
        else:
            known.keys, known.fetched_epoch = keys, self._clock()
            # A key that was just withdrawn need not be looked for either.
            gone = set(before.keys) if before is not None else set()
            for key_id in gone.union(known.sought).difference(keys.keys):
                looked_for = key_id in gone or key_id == cause
                known.unknown.missed(key_id, keys.fetched_at, looked_for=looked_for)
            _tell_refused(keys, before)
        finally:
            known.settled = True

    def _download(self, issuer: Issuer) -> object:
        url = issuer.metadata_url
        metadata = read_document(self._get(url), url)
        stated = str(metadata.get("issuer", "")).replace("{tenantid}", issuer.tenant_id)
        if stated != issuer.name:
            shown = stated[:MOST_OF_AN_ISSUER]
            raise DiscoveryFault(f"{url} speaks for {shown!r}, expected {issuer.name!r}")
        keys_url = endpoint(metadata, "jwks_uri", url=url, hosts=self._hosts).geturl()
        return read_document(self._get(keys_url), keys_url)

    def _get(self, url: str) -> Answer:
        answer = self._http.get(url)
        self.server_clock.note(answer.headers)
        return answer


def _tell_refused(keys: KeySet, before: KeySet | None) -> None:
    """Log what was left out of a key set, once: not again with each refresh."""
    logged = set(before.refused) if before is not None else set()
    for key_id, fault in dict.fromkeys(keys.refused):
        # The document of several tenants lists keys of other issuers, which is as it should be.
        if fault is not KeyFault.ISSUER and (key_id, fault) not in logged:
            _log.warning(
                "signing key refused",
                issuer=keys.issuer,
                kid=key_id[:MOST_OF_A_KID],
                cause=fault.value,
            )
