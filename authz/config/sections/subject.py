"""Section `subject`: how long references to users hold, and how many are held."""

from typing import Annotated

from pydantic import Field

from authz.config.sections.section import Section
from authz.config.sections.values import count, duration, size


class Subject(Section):
    """References to verified users, where `forward` says `placeholder` or `handle`. In memory."""

    max_age: Annotated[float, duration(least=1, most=86400)] = Field(
        default=1800.0,
        description="Time after which a reference ends, if the user's token does not end before. Longer "
        "than the agent works on one request. Each user gets a new one after half of it.",
    )
    max_entries: Annotated[int, count()] = Field(
        default=10_000,
        description="Most references held: users at a time. The least recently used is evicted, and is "
        "refused from then on.",
    )
    max_bytes: Annotated[int, size(least=65536)] = Field(
        default=64 * 1024**2, description="Most memory they take, estimated."
    )
