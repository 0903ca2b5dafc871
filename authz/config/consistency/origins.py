"""Which inbound routes an egress route belongs to: whose references count there."""

from collections.abc import Mapping

from authz.config.sections.clients import Agent
from authz.config.sections.routes import Egress, Inbound


def belongs(inbound: Inbound, egress: Egress, agents: Mapping[str, Agent]) -> bool:
    """Whether an inbound route calls nobody but who calls out on the egress route.

    A route that names no client says nothing against it: the token it verified decides.
    """
    if inbound.agent is not None and egress.agent is not None:
        return inbound.agent == egress.agent
    blueprint = _blueprint(egress, agents)
    if inbound.agent is not None or inbound.blueprint is not None:
        return _blueprint(inbound, agents) == blueprint
    return inbound.application is None or inbound.application == egress.application


def _blueprint(route: Inbound | Egress, agents: Mapping[str, Agent]) -> str | None:
    if route.agent is None:
        return route.blueprint
    agent = agents.get(route.agent)
    return None if agent is None else agent.blueprint
