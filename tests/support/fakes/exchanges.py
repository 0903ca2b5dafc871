"""Token exchanges to test with: one of each flow, and any at all for properties."""

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

from authz.core.exchange import (
    AgentAssertion,
    AgentIdentity,
    AgentUser,
    AppOnBehalfOf,
    AppToken,
    AsAgentUser,
    Autonomous,
    BlueprintAssertion,
    BlueprintToken,
    Client,
    OnBehalfOf,
    SubjectToken,
    Target,
    TokenExchange,
)
from authz.core.secret import Secret
from support.fakes.clock import START
from support.fakes.tenant import AGENT, AGENT_USER, BLUEPRINT, TENANT

BLUEPRINT_CLIENT: Final = Client("blueprint", TENANT, BLUEPRINT)
AGENT_IDENTITY: Final = AgentIdentity(
    "agent", AGENT, BLUEPRINT_CLIENT, AgentUser(object_id=AGENT_USER)
)
GRAPH: Final = Target(("https://graph.microsoft.com/.default",), policy_version="v1")


def on_behalf_of(
    user: str = "alice",
    *,
    agent: AgentIdentity = AGENT_IDENTITY,
    target: Target = GRAPH,
    expires_at: float = START + 3600.0,
) -> OnBehalfOf:
    """Return the exchange of an agent that acts for the user whose token has this text."""
    return OnBehalfOf(agent, target, SubjectToken(Secret(user), expires_at))


def one_of_each(subject: str = "alice") -> list[TokenExchange]:
    """Return one exchange of each flow, alike in everything that they share."""
    token = SubjectToken(Secret(subject), START + 3600.0)
    agent_flows: list[Callable[[AgentIdentity, Target], TokenExchange]] = [
        BlueprintAssertion, AgentAssertion, Autonomous, AsAgentUser,
    ]  # fmt: skip
    client_flows: list[Callable[[Client, Target], TokenExchange]] = [BlueprintToken, AppToken]
    return [
        *(flow(AGENT_IDENTITY, GRAPH) for flow in agent_flows),
        *(flow(BLUEPRINT_CLIENT, GRAPH) for flow in client_flows),
        OnBehalfOf(AGENT_IDENTITY, GRAPH, token),
        AppOnBehalfOf(BLUEPRINT_CLIENT, GRAPH, token),
    ]


# Few values for each part, so that hypothesis also draws exchanges that differ in one part only.
_WORDS: Final = st.sampled_from(["a", "b", "ab", "a b", '"a","b"', "null", "é"])
_CLIENTS: Final = st.builds(Client, st.just("client"), _WORDS, _WORDS)
_USERS: Final = st.none() | st.builds(AgentUser, _WORDS) | st.builds(AgentUser, st.none(), _WORDS)
_AGENTS: Final = st.builds(AgentIdentity, st.just("agent"), _WORDS, _CLIENTS, _USERS)
_TARGETS: Final = st.builds(
    Target, st.lists(_WORDS, max_size=3).map(tuple), st.none() | _WORDS, _WORDS
)
_SUBJECTS: Final = st.builds(SubjectToken, _WORDS.map(Secret), st.just(START))

EXCHANGES: Final[st.SearchStrategy[TokenExchange]] = st.one_of(
    st.builds(BlueprintAssertion, _AGENTS, _TARGETS),
    st.builds(AgentAssertion, _AGENTS, _TARGETS),
    st.builds(OnBehalfOf, _AGENTS, _TARGETS, _SUBJECTS),
    st.builds(Autonomous, _AGENTS, _TARGETS),
    st.builds(AsAgentUser, _AGENTS, _TARGETS),
    st.builds(BlueprintToken, _CLIENTS, _TARGETS),
    st.builds(AppOnBehalfOf, _CLIENTS, _TARGETS, _SUBJECTS),
    st.builds(AppToken, _CLIENTS, _TARGETS),
)
