"""What several keys of routes must agree on: which flow goes with which client, and which hosts with what."""

from collections.abc import Iterator, Mapping
from typing import Final

from authz.config.consistency.origins import belongs
from authz.config.consistency.scope_checks import check_scopes
from authz.config.faults import Fault
from authz.config.sections.clients import Agent, Application
from authz.config.sections.hosts import EgressHost
from authz.config.sections.routes import MOST_SPELLINGS, Egress, Inbound
from authz.config.shown import cut, shown
from authz.core.exchange import Flow
from authz.core.request import normalize_host
from authz.core.subject import REFERENCES, SubjectSource

CLIENT_KEYS: Final = ("agent", "blueprint", "application")

CLIENT_OF_FLOW: Final[Mapping[Flow, tuple[str, ...]]] = {
    Flow.ON_BEHALF_OF: ("agent",),
    Flow.AUTONOMOUS: ("agent",),
    Flow.AGENT_USER: ("agent",),
    Flow.BLUEPRINT: ("blueprint",),
    Flow.APP: ("application", "blueprint"),
    Flow.APP_ON_BEHALF_OF: ("application", "blueprint"),
    Flow.NONE: (),
}
"""The keys of which an egress route has exactly one."""

_CARRIED: Final = REFERENCES | {SubjectSource.BEARER}
"""What an app can hand on; `Forward` and `SubjectSource` spell it alike."""


def check_prefetch(inbound: Mapping[str, Inbound], egress: Mapping[str, Egress]) -> Iterator[Fault]:
    """Return the faults of what inbound routes prefetch; names that lead nowhere are found elsewhere."""
    for name, route in inbound.items():
        for index, wanted in enumerate(route.prefetch):
            path, target = f"inbound.{name}.prefetch.{index}", egress.get(wanted)
            if wanted in route.prefetch[:index]:
                yield Fault(path, f"found {shown(wanted)} twice: expected each route once")
            elif target is not None and target.flow is Flow.NONE:
                yield Fault(path, f"found {shown(wanted)}, whose flow none gives no token")
            elif target is not None and target.rules:
                yield Fault(
                    path,
                    f"found {shown(wanted)}, which has rules: what the agent will ask for decides on its token",
                )
            elif target is not None and not target.scopes:
                yield Fault(
                    path, f"found {shown(wanted)}, which has no scopes and so no token of its own"
                )
            elif (
                target is not None
                and target.flow.is_delegated
                and not _CARRIED.intersection(route.forward).intersection(target.sources)
            ):
                yield Fault(
                    path,
                    f"found {shown(wanted)}, whose subject is {', '.join(target.sources)}, and forward is "
                    f"{', '.join(route.forward)}: the agent will not have it",
                )


def check_ended_hosts(routes: Mapping[str, Egress]) -> Iterator[Fault]:
    """Return the faults of hosts of plain HTTP at a name for which Envoy ends the app's TLS.

    Envoy knows that TLS by the name alone: a connection to the port of plain HTTP would be ended as well,
    and what the app takes for secret sent on without TLS.
    """
    ended = set(https_hosts(routes))
    for name, route in routes.items():
        for index, written in enumerate(route.hosts):
            host = EgressHost.of(written)
            bare = normalize_host(host.authority)[1]
            if host.plain and bare in ended:
                yield Fault(
                    f"egress.{name}.hosts.{index}",
                    f"found {shown(str(host))}, and with section https Envoy ends the app's TLS for {bare}: "
                    "expected another name for one of the two, or no section https",
                )


def check_references(
    inbound: Mapping[str, Inbound], egress: Mapping[str, Egress], agents: Mapping[str, Agent]
) -> Iterator[Fault]:
    """Return the faults of egress routes that wait for references which nobody gives them."""
    for name, route in egress.items():
        belonging = [each for each in inbound.values() if belongs(each, route, agents)]
        given = {forward.value for each in belonging for forward in each.forward}
        for index, source in enumerate(route.subject or ()):
            if source in REFERENCES and source.value not in given:
                yield Fault(
                    f"egress.{name}.subject.{index}",
                    f"found {source}, which no inbound route gives that calls the same client: "
                    f"expected {source} in its forward",
                )


def check_users(
    inbound: Mapping[str, Inbound],
    egress: Mapping[str, Egress],
    agents: Mapping[str, Agent],
    clients: Mapping[str, Mapping[str, Application]],
) -> Iterator[Fault]:
    """Return the faults of inbound routes that admit users whom no delegated route accepts.

    An exchange on behalf of a user runs in the tenant of its client, with a token for that client.

    Args:
        inbound: The inbound routes.
        egress: The egress routes.
        agents: The agents.
        clients: The applications and blueprints, by the key that names them.
    """
    for name, route in inbound.items():
        if not route.serves_users:
            continue
        delegated = [each for each in egress.values() if each.flow.is_delegated]
        if not any(belongs(route, each, agents) for each in delegated):
            continue
        askers = [
            asker
            for each in delegated
            # The token itself may be sent to any route; references only to those of the same client.
            if SubjectSource.BEARER in each.sources or belongs(route, each, agents)
            if (asker := _asker(each, agents, clients)) is not None
        ]
        tenants = {asker.tenant_id for asker in askers}
        audiences = {audience for asker in askers for audience in asker.accepted_audiences}
        for key, accepted in (("tenants", tenants), ("audiences", audiences)):
            for index, value in enumerate(getattr(route, key) or ()):
                if accepted and value not in accepted:
                    yield Fault(
                        f"inbound.{name}.{key}.{index}",
                        f"found {cut(value)}, whose users every delegated egress route would refuse: expected "
                        f"{' or '.join(map(cut, sorted(accepted)))}",
                    )


def _asker(
    route: Egress, agents: Mapping[str, Agent], clients: Mapping[str, Mapping[str, Application]]
) -> Application | None:
    """Return the client of an egress route, if what it names is there."""
    if route.agent is not None:
        agent = agents.get(route.agent)
        return None if agent is None else clients["blueprint"].get(agent.blueprint)
    if route.blueprint is not None:
        return clients["blueprint"].get(route.blueprint)
    return clients["application"].get(route.application or "")


def gives_references(routes: Mapping[str, Inbound]) -> bool:
    """Whether some route gives the app a reference."""
    return any(not REFERENCES.isdisjoint(route.forward) for route in routes.values())


def https_hosts(routes: Mapping[str, Egress]) -> list[str]:
    """Return the DNS names among the TLS hosts of egress routes: what a certificate can be for.

    One for a host of plain HTTP would promise TLS that it does not have.
    """
    # To some the app has a way through: that TLS is its own.
    read = [route for route in routes.values() if not route.tunnel]
    found = (EgressHost.of(host) for route in read for host in route.hosts)
    hosts = [host.authority for host in found if not (host.is_wildcard or host.plain)]
    bare = (host.partition(":")[0].rstrip(".") for host in hosts if not host.startswith("["))
    return sorted({host for host in bare if not host.replace(".", "").isdigit()})


def check_egress(
    routes: Mapping[str, Egress], agents: Mapping[str, Agent], *, callers_name_scopes: bool
) -> Iterator[Fault]:
    """Return the faults of egress routes.

    Args:
        routes: Egress routes by name.
        agents: Agents by name.
        callers_name_scopes: Whether callers of the HTTP API may name any scopes.
    """
    yield from _check_hosts(routes)
    for name, route in routes.items():
        path = f"egress.{name}"
        yield from _check_client(path, route, agents)
        yield from check_scopes(path, route, may_lack=callers_name_scopes)
        yield from _check_user_keys(path, route)
        yield from _check_tokens_hosts(path, route)
        if len(route.removed) > MOST_SPELLINGS:
            yield Fault(
                f"{path}.remove_headers",
                f"found {len(route.remove_headers)} names with {len(route.removed)} spellings, each hyphen written "
                f"as - or _: expected {MOST_SPELLINGS} spellings at most",
            )


def _check_hosts(routes: Mapping[str, Egress]) -> Iterator[Fault]:
    owner: dict[str, tuple[str, EgressHost]] = {}
    for name, route in routes.items():
        for index, written in enumerate(route.hosts):
            path, host = f"egress.{name}.hosts.{index}", EgressHost.of(written)
            shared = next((each for each in host.names if each in owner), None)
            if shared is not None:
                yield Fault(path, _twice(host, shared, *owner[shared]))
            for each in host.names:
                owner.setdefault(each, (path, host))


def _twice(host: EgressHost, shared: str, place: str, first: EgressHost) -> str:
    if host.authority != first.authority:
        return (
            f"found {shown(str(host))}, and {place} is {shown(str(first))}: a request for {shared} means both, "
            "expected one of them"
        )
    written = "" if host == first else f" as {shown(str(first))}"
    return f"found {shown(str(host))}, which {place} has already{written}: expected each host once"


def refused_host(route: Egress, host: EgressHost) -> str | None:
    """Return why a route's token may not be sent to a host; None if it may, or if there is no token."""
    if route.flow is Flow.NONE:
        return None
    if host.is_in_pod and not route.token_to_loopback:
        return (
            f"found {shown(str(host))}, where any container of the pod may listen, the agent too, and would "
            f"receive the token of flow {route.flow}: expected a host outside of the pod, or "
            "`token_to_loopback: true`"
        )
    return _refused_in_plain(route, host)


def _refused_in_plain(route: Egress, host: EgressHost) -> str | None:
    if not host.plain or route.flow is Flow.NONE or host.is_loopback:
        return None
    if host.is_wildcard:
        return (
            f"found {shown(str(host))}, where nothing proves a host that only a request names: expected hosts "
            f"by name, https://, or flow none instead of {route.flow}"
        )
    if not route.token_over_plain_http:
        return (
            f"found {shown(str(host))}, where anybody on the network could read the token of flow {route.flow}: "
            "expected https, or `token_over_plain_http: true`"
        )
    return None


def _check_tokens_hosts(path: str, route: Egress) -> Iterator[Fault]:
    """Return the faults of hosts that the route's token must not reach, and of the keys that allow it."""
    hosts = [EgressHost.of(host) for host in route.hosts]
    for index, host in enumerate(hosts):
        if (text := refused_host(route, host)) is not None:
            yield Fault(f"{path}.hosts.{index}", text)
    api = None if route.downstream is None else EgressHost.of_url(route.downstream.base_url)
    # Of loopback only the rule of plain HTTP: its callers are given the token itself when they ask for it.
    if api is not None and (text := _refused_in_plain(route, api)) is not None:
        yield Fault(f"{path}.downstream.base_url", text)
    in_plain = any(host.plain for host in (*hosts, *filter(None, [api])))
    switches = {
        "token_over_plain_http": (in_plain, "no host has http://"),
        "token_to_loopback": (
            any(host.is_in_pod or host.is_wildcard for host in hosts),
            "no host is on loopback",
        ),
    }
    for key, (has_effect, why_not) in switches.items():
        if not getattr(route, key):
            continue
        if route.flow is Flow.NONE:
            yield Fault(f"{path}.{key}", "does not go with flow none, which gives no token")
        elif hosts and not has_effect:
            yield Fault(f"{path}.{key}", f"has no effect: {why_not}")


def _check_client(path: str, route: Egress, agents: Mapping[str, Agent]) -> Iterator[Fault]:
    fitting = CLIENT_OF_FLOW[route.flow]
    given = [key for key in CLIENT_KEYS if getattr(route, key) is not None]
    for key in given:
        if key not in fitting:
            yield Fault(
                f"{path}.{key}",
                f"does not go with flow {route.flow}: expected "
                + (" or ".join(fitting) or "no client at all"),
            )
    usable = [key for key in given if key in fitting]
    if fitting and not given:
        yield Fault(f"{path}.{fitting[0]}", f"is missing: flow {route.flow} needs it")
    if len(usable) > 1:
        yield Fault(f"{path}.{usable[1]}", f"{usable[0]} is given as well: expected one of the two")
    if route.flow is Flow.AGENT_USER and route.agent in agents:
        assert route.agent is not None
        if agents[route.agent].agent_user is None:
            yield Fault(
                f"{path}.agent",
                f"found {shown(route.agent)}, which has no agent_user: flow agent_user needs one",
            )
    if route.workloads and fitting in {("agent",), ()}:
        yield Fault(
            f"{path}.workloads",
            f"does not go with flow {route.flow}: expected it at the agent"
            if fitting
            else "does not go with flow none, which gives no token",
        )


def _check_user_keys(path: str, route: Egress) -> Iterator[Fault]:
    if not route.flow.is_delegated:
        for key in ("subject", "requires", "leeway"):
            if key in route.model_fields_set and getattr(route, key) is not None:
                yield Fault(
                    f"{path}.{key}",
                    f"does not go with flow {route.flow}, which looks at no user's token",
                )
    yield from _check_sources(path, route)
    if route.push is not None and not route.flow.is_foreseeable:
        yield Fault(
            f"{path}.push",
            "does not go with flow none, which gives no token"
            if route.flow is Flow.NONE
            else f"does not go with flow {route.flow}, whose token depends on the request's user",
        )
    if route.flow is Flow.NONE and route.claims is not None:
        yield Fault(f"{path}.claims", "does not go with flow none, which gives no token")


def _check_sources(path: str, route: Egress) -> Iterator[Fault]:
    path, sources = f"{path}.subject", route.sources
    for index, source in enumerate(sources):
        if source in sources[:index]:
            yield Fault(f"{path}.{index}", f"found {source} twice: expected each only once")
        elif source is SubjectSource.NONE and index < len(sources) - 1:
            yield Fault(f"{path}.{index}", "found none before others: expected it at the end")
    if sources == (SubjectSource.NONE,):
        yield Fault(
            path,
            "found none alone, which never looks for a user: expected flow autonomous or app, "
            "or other sources before it",
        )
    elif SubjectSource.NONE in sources and not all("/" in scope for scope in route.scopes):
        yield Fault(
            path,
            "found none, and a scope without its resource: expected scopes such as "
            "https://graph.microsoft.com/User.Read, to know what to ask /.default of",
        )
