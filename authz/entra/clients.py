"""MSAL's confidential clients: one per agent identity, one per credential of each application.

Blocking code, to be called in worker threads. MSAL speaks the protocol; caching, joining and repeating
of failures are ours (`authz.tokens.caching`), so all three are switched off in MSAL here, and nothing of one
answer is left in it for the next request.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, Final, assert_never

import msal
import structlog

from authz.core.errors import (
    EntraError,
    ExchangeMisconfigured,
    ExchangeThrottled,
    ExchangeUnavailable,
)
from authz.core.exchange import AgentIdentity, AgentUser, Client, IssuedToken
from authz.core.moment import Moment, earliest
from authz.core.secret import Secret
from authz.core.throttle import ApplicationThrottled
from authz.entra.answers import DAY, TokenRefused, jwt_claims, number, reduced
from authz.entra.calls import current
from authz.entra.credentials import Credential, Proof
from authz.entra.discovery import Metadata
from authz.entra.http import Answer, EndpointUnavailable, HttpClient
from authz.entra.refusals import refusal
from authz.entra.sources import CredentialAway, CredentialFault
from authz.ports import Clock, Standing, Timer

REFRESH_AT: Final = 0.75
"""Part of a token's life after which a successor is fetched, where Entra does not say `refresh_in`."""
MOST_AGENTS: Final = 1000
"""MSAL clients of agents kept; one takes a few kilobytes, and less than a millisecond to build."""

# MSAL logs answers that it cannot read, and they may hold tokens (law 5).
logging.getLogger("msal").addHandler(logging.NullHandler())
logging.getLogger("msal").propagate = False
_log = structlog.get_logger(__name__)


class NoTokenCache(msal.TokenCache):  # type: ignore[misc]
    """A token cache that keeps nothing: MSAL's own grows with every user and never shrinks."""

    def add(self, event: Mapping[str, Any], now: float | None = None) -> None:
        """Forget the event."""


class NoHttpCache(dict[str, Any]):
    """An HTTP cache that keeps nothing.

    MSAL keeps failures under a key without the user's assertion and without `fmi_path`, and would
    replay one user's or agent's failure to all others (law 8).
    """

    def __setitem__(self, key: str, value: object) -> None:
        """Forget the entry."""


class _Noting:
    """Sends requests to Entra, and notes in the thread's call whether the endpoint answers."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def get(self, url: str) -> Answer:
        """Fetch a document. That it is throttled is not about what somebody wants to ask next."""
        with _noted():
            try:
                return self._http.get(url)
            except ExchangeThrottled as error:
                raise ApplicationThrottled(error.detail, retry_after=error.retry_after) from error

    def post(self, url: str, **arguments: Any) -> Answer:
        """Send a form."""
        with _noted():
            try:
                return self._http.post(url, **arguments)
            except ExchangeThrottled as error:
                current().throttled = error.retry_after
                raise


@contextmanager
def _noted() -> Iterator[None]:
    call = current()
    call.answered = call.throttled = None
    call.begun()
    try:
        yield
    except EndpointUnavailable:
        call.answered = False
        raise
    except ExchangeThrottled:
        call.answered = True
        raise
    else:
        call.answered = True


class MsalTransport:
    """What MSAL sends its requests through: ours, with discovery documents that are looked at and kept.

    Every agent has an MSAL client of its own, and each asks for the same document first.

    Args:
        http: Sends requests.
        hosts: Hosts beside its own that a discovery document may name.
        timer: Monotonic seconds.
    """

    def __init__(
        self, http: HttpClient, *, hosts: Collection[str] = (), timer: Timer = time.monotonic
    ) -> None:
        self._http = _Noting(http)
        self._metadata = Metadata(self._http, hosts=hosts, timer=timer)

    def post(self, url: str, **arguments: Any) -> Answer:
        """Send a token request, and return what is used of the answer.

        Raises:
            TokenRefused: Entra refused. MSAL does not get to see it.
            EntraError: There is no usable answer.
        """
        return reduced(self._http.post(url, **arguments))

    def get(self, url: str, **_: Any) -> Answer:
        """Fetch a discovery document, or repeat it."""
        return self._metadata.get(url)

    def close(self) -> None:
        """Do nothing: the connections are shared."""


Acquire = Callable[[msal.ConfidentialClientApplication], Mapping[str, Any]]
"""One MSAL call that asks for a token."""


class Applications:
    """MSAL clients of applications that hold credentials, tried in the configured order.

    Args:
        authority: Entra's address without tenant.
        transport: What MSAL sends through.
        credentials: Of each client, in the order to try.
        clock: Epoch seconds.
        timer: Monotonic seconds.
    """

    def __init__(
        self,
        authority: str,
        transport: MsalTransport,
        credentials: Mapping[Client, Sequence[Credential]],
        clock: Clock,
        timer: Timer,
    ) -> None:
        self._clock = clock
        self._timer = timer
        self._authority = authority
        self._transport = transport
        self._credentials = credentials
        self._built: dict[tuple[Client, int], tuple[bytes, msal.ConfidentialClientApplication]] = {}
        self._taken: dict[Client, int] = {}
        """Position of the credential that Entra took last."""

    def acquire(self, client: Client, call: Acquire, *, user_is_asked: bool) -> IssuedToken:
        """Run an MSAL call as the client, with the first credential that Entra takes.

        Raises:
            EntraError: Entra refused, could not be reached, or no credential is usable.
        """
        refused: EntraError | None = None
        faults: list[CredentialFault] = []
        for position, credential, proof in self._proofs(client, faults):
            try:
                application = self._application(client, position, proof)
                now = Moment(self._clock(), self._timer())
                token = issued(application, call, now, user_is_asked=user_is_asked)
            except CredentialFault as fault:
                faults.append(fault)
            except EntraError as error:
                if not error.by_credential:
                    raise
                _log.error(
                    "credential refused",
                    **_facts(client, credential),
                    cause=str(error),
                    accepted_one_in_use=credential.refuse(proof, now=self._timer()),
                )
                refused = error
            else:
                self._taken[client] = position
                if credential.take(proof):
                    _log.info("credential accepted", **_facts(client, credential))
                return token
        if refused is not None:
            raise refused
        if faults:
            raise _unproved(client, faults[0])
        raise ExchangeMisconfigured(f"{client.name} has no credential")

    def faults(self) -> dict[str, str]:
        """Return why a client has no usable credential, by its name. Looks at each credential."""
        return {
            client.name: "; ".join(causes)
            for client, credentials in self._credentials.items()
            if (causes := _all_faults(credentials))
        }

    def refused(self) -> set[tuple[str, str]]:
        """Return the clients whose newest credentials Entra refuses, with the kind of each. Reads nothing."""
        return {
            (client.name, credential.kind)
            for client, credentials in self._credentials.items()
            for credential in credentials
            if credential.is_refused
        }

    def unreadable(self) -> dict[tuple[str, str], bool]:
        """Return whether a credential could not be read of late, by client and kind. Reads nothing."""
        found: dict[tuple[str, str], bool] = {}
        for client, credentials in self._credentials.items():
            for credential in credentials:
                key = client.name, credential.kind
                found[key] = found.get(key, False) or credential.fault is not None
        return found

    def standings(self) -> dict[Client, Standing]:
        """Return how each client stands with Entra, by the first credential that it takes. Reads nothing."""
        return {client: _standing(credentials) for client, credentials in self._credentials.items()}

    def are_served(self) -> set[Client]:
        """Return the clients of which Entra has taken a credential, be it an older version. Reads nothing."""
        return {
            client
            for client, credentials in self._credentials.items()
            if any(credential.accepted_in_use for credential in credentials)
        }

    def stands(self) -> dict[str, list[dict[str, Any]]]:
        """Return what is known of each client's credentials, in the order to try. Reads nothing."""
        return {
            client.name: [
                {
                    "credential": credential.described_as,
                    "standing": credential.standing.value,
                    "accepted_in_use": credential.accepted_in_use,
                    "fault": credential.fault,
                }
                for credential in credentials
            ]
            for client, credentials in self._credentials.items()
        }

    def proved(self) -> dict[tuple[str, str], bool]:
        """Return whether Entra has taken the newest version, by client and kind of those that are tried."""
        found: dict[tuple[str, str], bool] = {}
        for client, credentials in self._credentials.items():
            for credential in credentials:
                if credential.standing is Standing.UNREAD:
                    continue
                key = client.name, credential.kind
                is_accepted = credential.standing is Standing.ACCEPTED
                found[key] = is_accepted and found.get(key, True)
                if is_accepted:
                    break
        return found

    def expiries(self) -> dict[tuple[str, str], float]:
        """Return the seconds until certificates in use expire, by name of the client and kind. Reads nothing.

        In use are the one that Entra took last and those before it, which are tried first each time. Of
        several, the one that expires first counts.
        """
        now = self._clock()
        left: dict[tuple[str, str], float] = {}
        for client, credentials in self._credentials.items():
            # Until Entra has taken one, readiness has read those up to the first that can be read.
            last = self._taken.get(client, len(credentials) - 1)
            for credential in credentials[: last + 1]:
                if credential.expires_at is not None:
                    key = client.name, credential.kind
                    left[key] = min(left.get(key, inf), credential.expires_at - now)
        return left

    def _proofs(
        self, client: Client, faults: list[CredentialFault]
    ) -> Iterator[tuple[int, Credential, Proof]]:
        """Yield what to try in turn, what Entra refused of late last. Reads no further than asked."""
        put_off = []
        for position, credential in enumerate(self._credentials[client]):
            try:
                proofs = credential.proofs()
            except CredentialFault as fault:
                faults.append(fault)
                continue
            for proof in proofs:
                if credential.is_put_off(proof, now=self._timer()):
                    put_off.append((position, credential, proof))
                else:
                    yield position, credential, proof
        yield from put_off

    def _application(
        self, client: Client, position: int, proof: Proof
    ) -> msal.ConfidentialClientApplication:
        built = self._built.get((client, position))
        if built is not None and built[0] == proof.version:
            return built[1]
        application = build(self._authority, client.tenant_id, client.client_id,
                            proof.client_credential, self._transport)  # fmt: skip
        self._built[client, position] = (proof.version, application)
        return application


class Agents:
    """MSAL clients of agent identities, whose credential is a T1 handed in with each call."""

    def __init__(
        self, authority: str, transport: MsalTransport, clock: Clock, timer: Timer
    ) -> None:
        self._clock = clock
        self._timer = timer
        self._authority = authority
        self._transport = transport
        # By use, the latest last. Callers of the HTTP API may name new agents all the time.
        self._built: dict[AgentIdentity, msal.ConfidentialClientApplication] = {}
        self._lock = threading.Lock()
        # One MSAL client serves many threads, and MSAL asks it for the assertion inside the call.
        self._assertion = threading.local()

    def acquire(
        self, agent: AgentIdentity, assertion: Secret, call: Acquire, *, user_is_asked: bool
    ) -> IssuedToken:
        """Run an MSAL call as the agent identity, which `assertion` (T1) vouches for.

        Raises:
            EntraError: Entra refused or could not be reached.
        """
        application = self._application(agent)
        self._assertion.secret = assertion
        now = Moment(self._clock(), self._timer())
        try:
            return issued(application, call, now, user_is_asked=user_is_asked)
        finally:
            del self._assertion.secret

    def _application(self, agent: AgentIdentity) -> msal.ConfidentialClientApplication:
        with self._lock:
            application = self._built.pop(agent, None)
        if application is None:
            credential = {"client_assertion": self._reveal_assertion}
            application = build(self._authority, agent.blueprint.tenant_id, agent.client_id,
                                credential, self._transport)  # fmt: skip
        with self._lock:
            self._built[agent] = application
            if len(self._built) > MOST_AGENTS:
                del self._built[next(iter(self._built))]
        return application

    def _reveal_assertion(self) -> str:
        secret: Secret = self._assertion.secret
        return secret.reveal()


def build(
    authority: str, tenant_id: str, client_id: str, credential: object, transport: MsalTransport
) -> msal.ConfidentialClientApplication:
    """Make an MSAL client that keeps nothing. Asks for the tenant's discovery document.

    Raises:
        EntraError: The document could not be had.
    """
    try:
        return msal.ConfidentialClientApplication(
            client_id,
            client_credential=credential,
            authority=f"{authority}/{tenant_id}",
            instance_discovery=False,
            http_client=transport,
            token_cache=NoTokenCache(),
            http_cache=NoHttpCache(),
        )
    except (ValueError, KeyError) as error:
        raise ExchangeMisconfigured(
            f"no usable discovery document of tenant {tenant_id} at {authority}"
        ) from error


def issued(
    application: msal.ConfidentialClientApplication,
    call: Acquire,
    now: Moment,
    *,
    user_is_asked: bool,
) -> IssuedToken:
    """Run an MSAL call and translate its result dictionary.

    The token ends by its own `exp` on the wall clock, and when its lifetime has passed since `now`.

    Raises:
        EntraError: The result is an error, or no result that can be used.
    """
    try:
        answer = call(application)
    except TokenRefused as refused:
        raise refusal(refused.answer, user_is_asked=user_is_asked) from None
    token: str = answer["access_token"]
    ends = now.later(min(DAY, answer["expires_in"]))
    own = number((jwt_claims(token) or {}).get("exp"))
    if own is not None:
        ends = earliest(ends, now.epoch(own))
    lifetime = ends.left(now)
    if lifetime <= 0:
        raise ExchangeUnavailable(
            "Entra's answer holds a token that has ended, by the clock of this machine"
        )
    ahead: float = answer.get("refresh_after", lifetime)
    if ahead >= lifetime:
        ahead = lifetime * REFRESH_AT
    return IssuedToken(secret=Secret(token), expires_at=ends, refresh_at=now.later(ahead))


def user_argument(user: AgentUser) -> dict[str, str]:
    """Return MSAL's keyword for an agent's user account: by name, or by object id."""
    if user.username is not None:
        return {"username": user.username}
    assert user.object_id is not None
    return {"user_object_id": user.object_id}


def _unproved(client: Client, fault: CredentialFault) -> EntraError:
    text = f"{client.name}: {fault}"
    if isinstance(fault, CredentialAway):
        return ExchangeUnavailable(text)
    return ExchangeMisconfigured(text, by_credential=True)


def _facts(client: Client, credential: Credential) -> dict[str, str]:
    """Return what the log says of a credential: whose it is, its kind, and where it comes from."""
    return {
        "client": client.name,
        "client_id": client.client_id,
        "kind": credential.kind,
        "credential": credential.described_as,
    }


def _standing(credentials: Sequence[Credential]) -> Standing:
    """Return how a client stands. Those that are tried after one that Entra takes do not count."""
    refused = False
    for credential in credentials:
        match credential.standing:
            case Standing.ACCEPTED | Standing.UNPROVED as found:
                return found
            case Standing.REFUSED:
                refused = True
            case Standing.UNREAD:
                pass
            case _ as unreachable:
                assert_never(unreachable)
    return Standing.REFUSED if refused else Standing.UNREAD


def _all_faults(credentials: Sequence[Credential]) -> list[str]:
    """Return the faults of all credentials, or nothing if one is usable.

    After a usable one only those are looked at that Entra refused, or that could not be read: their files
    may have been put right.
    """
    causes, is_served = [], False
    for credential in credentials:
        if is_served and not credential.is_refused and credential.fault is None:
            continue
        try:
            credential.look()
        except CredentialFault as fault:
            causes.append(str(fault))
        else:
            is_served = True
    return [] if is_served else causes
