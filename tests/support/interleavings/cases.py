"""`Cases`: random requests of users and agents, attacks among them, and who must be in each one's token."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from authz.core.baggage import MEMBER
from authz.core.errors import Reason
from support.interleavings.explanations import LOST, Whose
from support.interleavings.fleet import ROUTES, Agent, Caller, Fleet
from support.interleavings.wire import Answer, Connections, Headers
from support.programs.stack import claims

OK: Final = 200
NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom an allowed request's token must be of.

    Attributes:
        clients: Client ids, one of which must have got it. Empty: the request must not be allowed.
        user: Object id of its user; None for an application's own.
        tenant: Its tenant.
    """

    clients: frozenset[str]
    user: str | None
    tenant: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        kind: Which kind of request it was.
        result: `right`, `refused` (as it must be), `wrong`, or the reason of a denial.
        whose: Whom it concerned.
        detail: What was wrong.
    """

    kind: str
    result: str
    whose: Whose
    detail: str = ""


class Cases:
    """Requests of one worker.

    Args:
        fleet: Who is called.
        seed: The same requests for the same one, whatever became of those before.
        wire: The worker's connections.
    """

    def __init__(self, fleet: Fleet, seed: str, wire: Connections) -> None:
        self._fleet = fleet
        self._seed = seed
        self._number = 0
        self._pick = Random(seed)  # noqa: S311 - to be repeated
        self._wire = wire
        self._kinds: tuple[tuple[Callable[[], Any], int], ...] = (
            (self._bearer, 30),
            (self._across, 25),
            (self._own, 10),
            (self._moving, 8),
            (self._account, 4),
            (self._reports, 6),
            (self._plain, 3),
            (self._inbound, 6),
            (self._forged, 4),
            (self._foreign_reference, 4),
            (self._two_users, 4),
            (self._wrong_tenant, 3),
            (self._no_token, 2),
        )

    async def next(self) -> Outcome:
        """Send one request and judge its answer."""
        self._number += 1
        self._pick = Random(f"{self._seed} {self._number}")  # noqa: S311 - to be repeated
        kinds, weights = zip(*self._kinds, strict=True)
        (kind,) = self._pick.choices(kinds, weights)
        outcome: Outcome = await kind()
        return outcome

    # Requests that are in order

    async def _bearer(self) -> Outcome:
        """The agent forwards its user's token."""
        agent = self._agent()
        caller = self._caller(agent.tenant_id)
        token, generation = self._fleet.token(caller, agent.blueprint, self._pick)
        return await self._egress(
            "bearer", agent, f"{agent.name}-graph", _bearer(token), caller, generation
        )

    async def _across(self) -> Outcome:
        """A user calls the agent, which has a reference only, and calls an API with it."""
        agent = self._fleet.agents[self._pick.choice(["desk", "clerk"])]
        caller = self._caller(agent.tenant_id)
        token, generation = self._fleet.token(caller, agent.blueprint, self._pick)
        arrived, headers = await self._call(agent, token, caller, generation, "across, in")
        if headers is None:
            return arrived
        reference = _reference(agent, headers)
        if reference is None:
            return self._wrong("across, in", arrived.whose, f"no reference in {headers}")
        return await self._egress(
            "across", agent, f"{agent.name}-graph", reference, caller, generation
        )

    async def _inbound(self) -> Outcome:
        """A user calls the agent."""
        agent = self._agent()
        caller = self._caller(agent.tenant_id)
        token, generation = self._fleet.token(caller, agent.blueprint, self._pick)
        outcome, _ = await self._call(agent, token, caller, generation, "inbound")
        return outcome

    async def _own(self) -> Outcome:
        """The agent calls for itself, whatever its request has in `Authorization`."""
        agent = self._agent()
        caller = self._caller(agent.tenant_id)
        token, _ = self._fleet.token(caller, agent.blueprint, self._pick)
        headers = _bearer(token) if self._pick.random() < 0.5 else ()
        return await self._egress("own", agent, f"{agent.name}-own", headers, None, None)

    async def _account(self) -> Outcome:
        """The agent calls as its own user account."""
        agent = self._fleet.agents["desk"]
        account = self._fleet.world.emulator.directory.user(
            agent.tenant_id, self._fleet.world.agent["agent_user"]
        )
        assert account is not None
        wanted = Wanted(frozenset({agent.client_id}), account.object_id, agent.tenant_id)
        return await self._ask(
            "account",
            agent,
            "desk-account",
            (),
            wanted,
            Whose(agent=agent.client_id, tenant=agent.tenant_id),
        )

    async def _moving(self) -> Outcome:
        """A route whose agent is changed by reloads: any that was in force meanwhile."""
        agent = self._fleet.agents["desk"]
        caller = self._caller(agent.tenant_id)
        token, generation = self._fleet.token(caller, agent.blueprint, self._pick)
        before = self._fleet.moving
        whose = Whose(caller.object_id, agent.client_id, agent.tenant_id, generation)
        answer = await self._send(agent, "moving", _bearer(token))
        wanted = Wanted(before | self._fleet.moving, caller.object_id, agent.tenant_id)
        return self._judge("moving", answer, wanted, whose, token)

    async def _reports(self) -> Outcome:
        """An ordinary application, for a user and for itself."""
        fleet, agent = self._fleet, self._fleet.agents["desk"]
        client = fleet.world.reports["client_id"]
        caller = self._caller(agent.tenant_id)
        token, generation = fleet.token(caller, client, self._pick)
        clients = frozenset({client})
        if self._pick.random() < 0.5:
            wanted, whose = (
                Wanted(clients, None, agent.tenant_id),
                Whose(None, client, agent.tenant_id),
            )
            return await self._ask("application", agent, "reports-own", (), wanted, whose)
        wanted = Wanted(clients, caller.object_id, agent.tenant_id)
        whose = Whose(caller.object_id, client, agent.tenant_id, generation)
        return await self._ask(
            "application for user", agent, "reports-graph", _bearer(token), wanted, whose
        )

    async def _plain(self) -> Outcome:
        """A destination without a token: what the app sent in `Authorization` does not go out."""
        agent = self._fleet.agents["desk"]
        caller = self._caller(agent.tenant_id)
        token, _ = self._fleet.token(caller, agent.blueprint, self._pick)
        answer = await self._send(agent, "plain", _bearer(token))
        whose = Whose(tenant=agent.tenant_id)
        if answer.status != OK:
            return Outcome("plain", _reason(answer), whose, _told(answer))
        if values := _values(answer, "authorization"):
            return self._wrong("plain", whose, f"sent {values}")
        return Outcome("plain", "right", whose)

    # Requests that nobody may make

    async def _forged(self) -> Outcome:
        """A token with another user's name in it, signed by nobody or by a key that Entra never had."""
        agent = self._agent()
        victim = self._caller(agent.tenant_id)
        forged = self._fleet.world.emulator.mint_user_token(
            tenant_id=agent.tenant_id,
            user=victim.object_id,
            audience=agent.blueprint,
            key="foreign",
        )
        return await self._refused("forged", agent, _bearer(forged))

    async def _foreign_reference(self) -> Outcome:
        """A reference that another agent was given."""
        desk, clerk = self._fleet.agents["desk"], self._fleet.agents["clerk"]
        caller = self._caller(desk.tenant_id)
        token, generation = self._fleet.token(caller, desk.blueprint, self._pick)
        outcome, headers = await self._call(
            clerk, token, caller, generation, "foreign reference, in"
        )
        if headers is None:
            return outcome
        reference = _reference(clerk, headers)
        assert reference is not None
        value = reference[0][1].removeprefix("Bearer ")
        return await self._refused("foreign reference", desk, (("baggage", f"{MEMBER}={value}"),))

    async def _two_users(self) -> Outcome:
        """One user's token beside another's reference: the route takes the token, or nothing."""
        agent = self._fleet.agents["desk"]
        victim, caller = self._caller(agent.tenant_id), self._caller(agent.tenant_id)
        hers, generation = self._fleet.token(victim, agent.blueprint, self._pick)
        outcome, headers = await self._call(agent, hers, victim, generation, "two users, in")
        if headers is None:
            return outcome
        reference = _reference(agent, headers)
        assert reference is not None
        token, generation = self._fleet.token(caller, agent.blueprint, self._pick)
        return await self._egress(
            "two users", agent, "desk-graph", (*_bearer(token), *reference), caller, generation
        )

    async def _wrong_tenant(self) -> Outcome:
        """A user of one tenant at the other one's agent."""
        desk, branch = self._fleet.agents["desk"], self._fleet.agents["branch"]
        here, there = (desk, branch) if self._pick.random() < 0.5 else (branch, desk)
        caller = self._caller(here.tenant_id)
        token, _ = self._fleet.token(caller, here.blueprint, self._pick)
        return await self._refused("wrong tenant", there, _bearer(token))

    async def _no_token(self) -> Outcome:
        """Nobody's request, or two people's in one header line."""
        agent = self._agent()
        first, second = (
            self._fleet.token(self._caller(agent.tenant_id), agent.blueprint, self._pick)[0]
            for _ in range(2)
        )
        headers = self._pick.choice(
            [
                (),
                (*_bearer(first), *_bearer(second)),
                (("authorization", f"Bearer {first},{second}"),),
            ]
        )
        return await self._refused("no token", agent, headers)

    # How they are sent, and judged

    def _agent(self) -> Agent:
        return self._pick.choice(list(self._fleet.agents.values()))

    def _caller(self, tenant_id: str) -> Caller:
        return self._pick.choice(self._fleet.callers[tenant_id])

    async def _send(self, agent: Agent, route: str, headers: Headers) -> Answer:
        host = ROUTES[agent.name][route]
        return await self._wire.get(
            agent.sidecar.egress_port, f"http://{host}/v1.0/me", host, headers
        )

    async def _egress(
        self,
        kind: str,
        agent: Agent,
        route: str,
        headers: Headers,
        caller: Caller | None,
        generation: int | None,
    ) -> Outcome:
        user = None if caller is None else caller.object_id
        wanted = Wanted(frozenset({agent.client_id}), user, agent.tenant_id)
        return await self._ask(
            kind,
            agent,
            route,
            headers,
            wanted,
            Whose(user, agent.client_id, agent.tenant_id, generation),
        )

    async def _ask(
        self, kind: str, agent: Agent, route: str, headers: Headers, wanted: Wanted, whose: Whose
    ) -> Outcome:
        answer = await self._send(agent, route, headers)
        sent = next(
            (value.removeprefix("Bearer ") for name, value in headers if name == "authorization"),
            "",
        )
        return self._judge(kind, answer, wanted, whose, sent)

    async def _refused(self, kind: str, agent: Agent, headers: Headers) -> Outcome:
        answer = await self._send(agent, f"{agent.name}-graph", headers)
        wanted = Wanted(NOBODY, None, agent.tenant_id)
        return self._judge(kind, answer, wanted, Whose(tenant=agent.tenant_id), "")

    async def _call(
        self, agent: Agent, token: str, caller: Caller, generation: int, kind: str
    ) -> tuple[Outcome, dict[str, str] | None]:
        """Call an agent as a user; the outcome, and the headers that arrived there if all is well."""
        answer = await self._wire.get(
            agent.sidecar.inbound_port, "/chat", "agent.example", _bearer(token)
        )
        whose = Whose(caller.object_id, None, agent.tenant_id, generation)
        if answer.status != OK:
            return Outcome(kind, _reason(answer), whose, _told(answer)), None
        headers = dict(json.loads(answer.body)["headers"])
        if (headers.get("x-authz-subject"), headers.get("x-authz-tenant")) != (
            caller.object_id,
            agent.tenant_id,
        ):
            return self._wrong(kind, whose, f"the agent saw {headers}"), None
        return Outcome(kind, "right", whose), headers

    def _judge(self, kind: str, answer: Answer, wanted: Wanted, whose: Whose, sent: str) -> Outcome:
        if answer.status != OK:
            if not wanted.clients:
                return Outcome(kind, "refused", whose)
            return Outcome(kind, _reason(answer), whose, _told(answer))
        values = _values(answer, "authorization")
        if len(values) != 1 or not values[0].startswith("Bearer "):
            return self._wrong(kind, whose, f"{len(values)} values of Authorization arrived")
        token = values[0].removeprefix("Bearer ")
        found = claims(token)
        if token == sent:
            return self._wrong(kind, whose, "the caller's own token arrived")
        is_user = wanted.user is not None
        right = (
            found["appid"] in wanted.clients
            and found["tid"] == wanted.tenant
            and found["idtyp"] == ("user" if is_user else "app")
            and (not is_user or found["oid"] == wanted.user)
            and MEMBER not in str(_values(answer, "baggage"))
        )
        if right:
            return Outcome(kind, "right", whose)
        identity = {name: found.get(name) for name in ("appid", "oid", "tid", "idtyp")}
        return self._wrong(kind, whose, f"{identity} in place of {wanted}")

    @staticmethod
    def _wrong(kind: str, whose: Whose, detail: str) -> Outcome:
        return Outcome(kind, "wrong", whose, detail)


def _bearer(token: str) -> Headers:
    return (("authorization", f"Bearer {token}"),)


def _reference(agent: Agent, headers: dict[str, str]) -> Headers | None:
    """What the agent sends on of what it was given."""
    name = "baggage" if agent.forward == "handle" else "authorization"
    return ((name, headers[name]),) if name in headers else None


def _values(answer: Answer, name: str) -> list[str]:
    return [value for key, value in json.loads(answer.body)["headers"] if key == name]


def _reason(answer: Answer) -> str:
    try:
        reason = str(json.loads(answer.body)["reason"])
    except (ValueError, KeyError, TypeError):
        return LOST
    return LOST if reason == Reason.AUTHZ_UNAVAILABLE else reason


def _told(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:300].decode(errors='replace')}"
