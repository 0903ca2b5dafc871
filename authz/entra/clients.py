"""MSAL's confidential clients: one per agent identity, one per credential of each application.

Blocking code, to be called in worker threads. What MSAL sends through, and what of it is switched off, is in
`authz.entra.msal_transport`; what is known of credentials, without a request, in `authz.entra.standings`.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msal
import structlog

from authz.core.errors import EntraError, ExchangeMisconfigured, ExchangeUnavailable
from authz.core.exchange import AgentIdentity, Client, IssuedToken
from authz.core.moment import Moment, earliest
from authz.core.secret import Secret
from authz.entra.answers import DAY, TokenRefused, jwt_claims, number
from authz.entra.credentials import Credential, Proof
from authz.entra.msal_transport import MsalTransport, build
from authz.entra.refusals import refusal
from authz.entra.sources import CredentialAway, CredentialFault
from authz.entra.standings import Standings
from authz.ports import Clock, Timer

REFRESH_AT: Final = 0.75
"""Part of a token's life after which a successor is fetched, where Entra does not say `refresh_in`."""
MOST_AGENTS: Final = 1000
"""MSAL clients of agents kept; one takes a few kilobytes, and less than a millisecond to build."""

_log = structlog.get_logger(__name__)


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
        self.standings = Standings(credentials, clock)

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
                self.standings.took(client, position)
                if credential.take(proof):
                    _log.info("credential accepted", **_facts(client, credential))
                return token
        if refused is not None:
            raise refused
        if faults:
            raise _unproved(client, faults[0])
        raise ExchangeMisconfigured(f"{client.name} has no credential")

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


class _Assertion(threading.local):
    """The T1 of the call that a thread is in: an MSAL client serves many threads, and asks for it then.

    It does not refer to `Agents`, so that the clients are freed with their last reference.
    """

    secret: Secret

    def reveal(self) -> str:
        """Return it as it goes to Entra."""
        return self.secret.reveal()


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
        self._assertion = _Assertion()

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
            credential = {"client_assertion": self._assertion.reveal}
            application = build(self._authority, agent.blueprint.tenant_id, agent.client_id,
                                credential, self._transport)  # fmt: skip
        with self._lock:
            self._built[agent] = application
            if len(self._built) > MOST_AGENTS:
                del self._built[next(iter(self._built))]
        return application


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
