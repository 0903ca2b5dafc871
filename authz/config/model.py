"""`Config`, the whole configuration: its sections, in the order of the file.

Each value of a `Config` has been checked. `authz.config.reading`, the only way to one, also looks
whether keys agree with one another (`authz.config.consistency`).
"""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import Field, model_validator

from authz.config.sections.api import Api
from authz.config.sections.clients import Agent, Application, Blueprint
from authz.config.sections.https import Https
from authz.config.sections.listen import Listen
from authz.config.sections.routes import Egress, Inbound
from authz.config.sections.section import Section
from authz.config.sections.settings import Cache, Entra, Limits, Log
from authz.config.sections.subject import Subject
from authz.config.sections.values import Name, duration


class Config(Section):
    """One version of the configuration.

    Raises:
        pydantic.ValidationError: A value is not what it should be.
    """

    listen: Listen = Field(default_factory=Listen, description="Where the service listens.")
    entra: Entra = Field(default_factory=Entra, description="How Microsoft Entra is reached.")
    blueprints: Mapping[Name, Blueprint] = Field(
        default_factory=dict, description="Agent identity blueprints, by a name of your own."
    )
    applications: Mapping[Name, Application] = Field(
        default_factory=dict, description="Ordinary app registrations, by a name of your own."
    )
    agents: Mapping[Name, Agent] = Field(
        default_factory=dict, description="Agent identities, by a name of your own."
    )
    inbound: Mapping[Name, Inbound] = Field(
        default_factory=dict, description="Routes from users to agents, by route name."
    )
    egress: Mapping[Name, Egress] = Field(
        default_factory=dict, description="Routes from agents to APIs, by route name."
    )
    api: Api = Field(default_factory=Api, description="What callers of `listen.api` may do.")
    https: Https | None = Field(
        default=None,
        description="HTTPS that the app starts itself, ended in Envoy. Off when left out.",
    )
    subject: Subject = Field(
        default_factory=Subject, description="References that are given to apps."
    )
    cache: Cache = Field(default_factory=Cache, description="What is kept in memory.")
    limits: Limits = Field(default_factory=Limits, description="Bounds on what requests may take.")
    log: Log = Field(default_factory=Log, description="What is logged.")
    reload_interval: Annotated[float, duration(most=3600)] = Field(
        default=5.0, description="Time between looks at the file for changes. `0` turns them off."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_entra_in_any_case(cls, data: Any) -> Any:
        # Without a section nobody would ask the environment for the authority.
        if isinstance(data, dict) and data.get("entra") is None:
            return {**data, "entra": {}}
        return data


def key_paths(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    """Return the keys that there are once each, joined by dots: not those of what has a name of its own."""
    for name, field in section.model_fields.items():
        kind: object = field.annotation
        choices = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        sections = [
            each for each in choices if isinstance(each, type) and issubclass(each, Section)
        ]
        for each in sections:
            yield from key_paths(each, f"{prefix}{name}.")
        if not sections and get_origin(kind) is not Mapping:
            yield f"{prefix}{name}"
