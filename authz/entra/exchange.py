"""`EntraExchange`: carries out every token exchange, leg by leg, as Entra's pages describe them.

T1 and T2, the assertions inside the agent flows, have a cache and flights of their own: all users of an
agent share them. Which MSAL call a leg is, is in `authz.entra.msal_calls`; whether a token is for what was
asked for, in `authz.entra.audience`.
"""

import asyncio
import random
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, assert_never

from authz.core.budget import Budget
from authz.core.errors import EntraError, ExchangeThrottled, ExchangeUnavailable
from authz.core.exchange import (
    AgentAssertion,
    AgentIdentity,
    AppOnBehalfOf,
    AppToken,
    AsAgentUser,
    Autonomous,
    BlueprintAssertion,
    BlueprintToken,
    Client,
    IssuedToken,
    OnBehalfOf,
    SubjectToken,
    Target,
    TokenExchange,
)
from authz.core.record import CacheResult
from authz.core.throttle import ApplicationThrottled
from authz.entra.aadsts import BAD_ASSERTION, BAD_CREDENTIAL, REPLICATING
from authz.entra.answers import jwt_claims
from authz.entra.audience import may_be_for
from authz.entra.bulkheads import Bulkheads
from authz.entra.calls import Call
from authz.entra.clients import Agents, Applications
from authz.entra.endpoints import Endpoint, Endpoints, Question
from authz.entra.http import EndpointUnavailable
from authz.entra.msal_calls import aimed, for_client, on_behalf_of, user_argument, user_fic
from authz.ports import Exchange, Timer
from authz.tokens.caching import CachedExchange

REPLICATION_DELAYS: Final = (0.3, 0.9)
"""Seconds before the second and third try when the directory does not know something yet."""
REPLICATION_PERIOD: Final = 300.0
"""Seconds after we first met a client during which such an answer may mean "not yet"."""
SECOND_TRY: Final = 0.1
SECOND_TRY_SPREAD: Final = 0.3
"""Seconds before the second try after a failure of the endpoint: at least, and at most so many more."""
LEAST_TIME: Final = 0.5
"""Seconds that must be left for it."""
MOST_MET: Final = 10_000
"""Clients and agents remembered for that; callers of the HTTP API may name new ones all the time."""
ALWAYS_REPLICATING: Final = 70021
"""For this number Entra's page asks for retries on every request, even after a first success."""


def _may_replicate(error: EntraError) -> bool:
    """Whether waiting may help: not where a number of credentials comes for what was exchanged."""
    return error.code in REPLICATING and (error.by_credential or error.code not in BAD_CREDENTIAL)


def _unseen(_: CacheResult) -> None:
    """Take no interest in how a look-up ended."""


@dataclass(frozen=True, slots=True)
class _Asking:
    """One question to Entra.

    Attributes:
        client: In whose share of threads.
        client_id: The application that asks: the client's, or that of its agent.
        acquire: Asks; blocking.
        about: What is asked for.
        subject: The user's token that is sent, if one is.
    """

    client: Client
    client_id: str
    acquire: Callable[[], IssuedToken]
    about: TokenExchange
    subject: SubjectToken | None

    @property
    def question(self) -> Question:
        """What is asked and for whom, whichever of the user's tokens is sent."""
        return Question(self.client_id, self._user, _wanted(self.about))

    @property
    def _user(self) -> Hashable | None:
        if isinstance(self.about, AsAgentUser):
            return self.about.agent.user
        if self.subject is None:
            return None
        claims = jwt_claims(self.subject.secret.reveal()) or {}
        return str(claims.get("oid", "")) or self.subject.secret.digest()


class EntraExchange:
    """Every `TokenExchange`, by MSAL in worker threads.

    Args:
        applications: MSAL clients with credentials of their own.
        agents: MSAL clients of agent identities.
        assertion_scope: The cloud's token-exchange resource with `/.default`.
        cached: Puts a cache in front of an exchange; used for T1 and T2.
        authority: Entra's address without tenant.
        endpoints: The tenants' token endpoints, and whether they may be asked.
        bulkheads: Threads for MSAL, of which each client has a share.
        timer: Monotonic seconds, the clock of deadlines and periods.
        timeout: Seconds that one exchange may wait for its assertions.
        jitter: A number from 0 to 1, another one each time.
    """

    def __init__(
        self,
        *,
        applications: Applications,
        agents: Agents,
        assertion_scope: str,
        cached: Callable[[Exchange], CachedExchange],
        authority: str,
        endpoints: Endpoints,
        bulkheads: Bulkheads,
        timer: Timer,
        timeout: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._applications = applications
        self._agents = agents
        self._assertion_scope = assertion_scope
        self._authority = authority
        self._endpoints = endpoints
        self._bulkheads = bulkheads
        self._jitter = jitter
        self._timer = timer
        self._timeout = timeout
        self._first_met: dict[Client | AgentIdentity, float] = {}
        self.assertions = cached(self)

    async def __call__(self, exchange: TokenExchange, budget: Budget) -> IssuedToken:
        """Ask Entra.

        Raises:
            AuthzError: Entra refused, could not be reached, or issued what was not asked for.
        """
        budget.carried_out = False
        token = await self._carry_out(exchange, budget)
        if not may_be_for(token.secret, exchange.target.scopes):
            raise ExchangeUnavailable(
                "Entra issued a token for another audience than was asked for"
            )
        return token

    async def _carry_out(self, exchange: TokenExchange, budget: Budget) -> IssuedToken:
        match exchange:
            case BlueprintAssertion():
                return await self._blueprint_assertion(exchange, budget)
            case AgentAssertion() | Autonomous():
                return await self._as_agent(exchange, for_client, budget)
            case OnBehalfOf():
                call = partial(on_behalf_of, exchange.subject.secret)
                return await self._as_agent(exchange, call, budget, exchange.subject)
            case AsAgentUser():
                return await self._as_agent_user(exchange, budget)
            case BlueprintToken() | AppToken():
                return await self._as_application(exchange.client, exchange, for_client, budget)
            case AppOnBehalfOf():
                call = partial(on_behalf_of, exchange.subject.secret)
                return await self._as_application(
                    exchange.client, exchange, call, budget, exchange.subject
                )
            case _ as unreachable:
                assert_never(unreachable)

    async def _blueprint_assertion(
        self, exchange: BlueprintAssertion, budget: Budget
    ) -> IssuedToken:
        """T1: the blueprint names one of its agents (Entra page "agent-autonomous-app-oauth-flow")."""
        call = partial(for_client, fmi_path=exchange.agent.client_id)
        return await self._as_application(exchange.agent.blueprint, exchange, call, budget)

    async def _as_agent_user(self, exchange: AsAgentUser, budget: Budget) -> IssuedToken:
        """T1, T2, then `user_fic` (Entra page "agent-user-oauth-flow")."""
        agent = exchange.agent
        assert agent.user is not None
        target, user = self._assertion_target(exchange.target), user_argument(agent.user)
        assertion = AgentAssertion(replace(agent, user=None), target)

        async def attempt(seen: Callable[[CacheResult], None]) -> IssuedToken:
            t2 = await self._obtain(assertion, budget, seen)
            call = partial(user_fic, t2.secret, user)
            return await self._as_agent(exchange, call, budget)

        results: list[CacheResult] = []
        try:
            return await attempt(results.append)
        except EntraError as error:
            if error.code not in BAD_ASSERTION or CacheResult.HIT not in results:
                raise
        # A T2 from the cache that Entra no longer takes: its key was withdrawn. A fresh one decides.
        self.assertions.forget(assertion)
        return await attempt(_unseen)

    async def _as_agent(
        self,
        exchange: AgentAssertion | Autonomous | OnBehalfOf | AsAgentUser,
        call: Callable[..., Any],
        budget: Budget,
        subject: SubjectToken | None = None,
    ) -> IssuedToken:
        """Run a call as the agent identity, with T1 as its credential."""
        # The agent has one T1, whomever it acts as, and one MSAL client.
        agent, target = replace(exchange.agent, user=None), exchange.target
        assertion = BlueprintAssertion(agent, self._assertion_target(target))

        async def attempt(seen: Callable[[CacheResult], None]) -> IssuedToken:
            t1 = await self._obtain(assertion, budget, seen)
            acquire = partial(
                self._agents.acquire,
                agent,
                t1.secret,
                aimed(call, target),
                user_is_asked=subject is not None,
            )
            asking = _Asking(agent.blueprint, agent.client_id, acquire, exchange, subject)
            return await self._patiently(agent, asking, budget)

        results: list[CacheResult] = []
        try:
            return await attempt(results.append)
        except EntraError as error:
            if not error.by_credential or CacheResult.HIT not in results:
                raise
        # A T1 from the cache that Entra no longer takes: its key was withdrawn, or the blueprint's
        # credential was. A fresh one decides.
        self.assertions.forget(assertion)
        return await attempt(_unseen)

    async def _as_application(
        self,
        client: Client,
        exchange: TokenExchange,
        call: Callable[..., Any],
        budget: Budget,
        subject: SubjectToken | None = None,
    ) -> IssuedToken:
        """Run a call as an application with credentials of its own."""
        acquire = partial(
            self._applications.acquire,
            client,
            aimed(call, exchange.target),
            user_is_asked=subject is not None,
        )
        asking = _Asking(client, client.client_id, acquire, exchange, subject)
        return await self._patiently(client, asking, budget)

    async def _obtain(
        self,
        assertion: BlueprintAssertion | AgentAssertion,
        budget: Budget,
        seen: Callable[[CacheResult], None] = _unseen,
    ) -> IssuedToken:
        # The flight that waits here ends at the end of its budget. It may outlive the Check, and so may this.
        deadline = self._timer() + self._timeout
        try:
            return await self.assertions.obtain(
                assertion,
                deadline=deadline,
                needed_by=budget.needed_by,
                route=budget.route,
                seen=seen,
            )
        except ExchangeThrottled as error:
            # It is not about what needs the assertion, and must not be repeated for that as long.
            raise ApplicationThrottled(error.detail, retry_after=error.retry_after) from error

    def _assertion_target(self, target: Target) -> Target:
        # Not the route's claims: a challenge is answered where the resource token is issued.
        return Target(scopes=(self._assertion_scope,), policy_version=target.policy_version)

    async def _patiently(
        self, asker: Client | AgentIdentity, asking: _Asking, budget: Budget
    ) -> IssuedToken:
        """Ask, again a little later while the directory is replicating."""
        met = self._first_met.setdefault(asker, self._timer())
        if len(self._first_met) > MOST_MET:
            del self._first_met[next(iter(self._first_met))]
        for delay in REPLICATION_DELAYS:
            try:
                return await self._persistently(asking, budget)
            except EntraError as error:
                young = self._timer() - met < REPLICATION_PERIOD
                if error.code != ALWAYS_REPLICATING and not (young and _may_replicate(error)):
                    raise
            await asyncio.sleep(delay)
        return await self._persistently(asking, budget)

    async def _persistently(self, asking: _Asking, budget: Budget) -> IssuedToken:
        """Ask, once more if the endpoint failed and there is time. Token requests change nothing."""
        started = self._timer()
        try:
            return await self._ask(asking, budget)
        except EndpointUnavailable as error:
            wait = max(SECOND_TRY + self._jitter() * SECOND_TRY_SPREAD, error.retry_after or 0.0)
            now = self._timer()
            # The second try may well take as long as the first.
            ready = now + wait + max(LEAST_TIME, now - started)
            if ready > min(budget.needed_by, budget.ends) or self._endpoint(asking).is_open_for(
                asking.question
            ):
                raise
        await asyncio.sleep(wait)
        return await self._ask(asking, budget)

    async def _ask(self, asking: _Asking, budget: Budget) -> IssuedToken:
        """Ask in a worker thread of the client's share, until the budget is over at the latest."""
        endpoint, question = self._endpoint(asking), asking.question
        endpoint.check(question)
        loop = asyncio.get_running_loop()

        def begin() -> Callable[[], IssuedToken]:
            attempt = endpoint.begin(question, ends=budget.ends)

            def run() -> IssuedToken:
                now = self._timer()
                call = Call.within(needed_in=budget.needed_by - now, ends_in=budget.ends - now)
                call.begun = partial(setattr, budget, "carried_out", True)
                try:
                    with call.running():
                        return asking.acquire()
                finally:
                    settle = partial(endpoint.settle, attempt, question, call)
                    # At the end of the process the loop is gone before the threads are.
                    with suppress(RuntimeError):
                        loop.call_soon_threadsafe(settle)

            return run

        return await self._bulkheads.run(asking.client, begin)

    def _endpoint(self, asking: _Asking) -> Endpoint:
        return self._endpoints.of(self._authority, asking.client.tenant_id)


def _wanted(exchange: TokenExchange) -> Hashable:
    """Return what is asked for: an agent's assertion, or a token of the application itself."""
    return exchange.agent.client_id if isinstance(exchange, BlueprintAssertion) else exchange.flow
