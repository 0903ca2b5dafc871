"""`Template`: how a rule names paths, such as `/v1.0/users/{id}/messages` and `/files/**`.

A segment is a literal, `{name}` or `*` for any one segment, or `**` at the end for all that follows.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from authz.core.rules.path import loosened

_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]+")
_PLACE: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_-]*\}|\*")
_REST: Final = "**"
_ANY: Final = "*"

_CARRIER: Final = "$batch"
"""Segment of OData that carries further requests (OData 4.01, section 11.7). Only its own name matches it."""
_ONE: Final = r"(?!(?i:\$batch))[^/]"


class NoTemplate(ValueError):
    """A text is no template; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template of paths.

    Attributes:
        text: As it is written.
        segments: Its segments: literals, `*` for any, and `**`, at the end only.
        slash: Whether a slash ends it.
    """

    text: str
    segments: tuple[str, ...] = field(compare=False)
    slash: bool = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a template.

        Raises:
            NoTemplate: It is none, or no path can match it.
        """
        if not text.startswith("/"):
            raise NoTemplate("expected a path that begins with /")
        parts = text[1:].split("/") if text != "/" else []
        slash = bool(parts) and parts[-1] == ""
        segments = tuple(_segment(part) for part in (parts[:-1] if slash else parts))
        if _REST in segments[:-1] or (slash and _REST in segments):
            raise NoTemplate("expected ** at the end only")
        return cls(text, segments, slash)

    @property
    def rest(self) -> bool:
        """Whether it ends in `**`."""
        return self.segments[-1:] == (_REST,)

    @property
    def fixed(self) -> tuple[str, ...]:
        """Its segments without `**`."""
        return self.segments[:-1] if self.rest else self.segments

    @property
    def has_literal(self) -> bool:
        """Whether one of its segments is no wildcard."""
        return any(each not in (_ANY, _REST) for each in self.segments)

    def example(self) -> str:
        """Return a path that matches it."""
        ends = "/" if self.slash or not self.segments else ""
        return "".join("/" + (each.strip("*") or "x") for each in self.segments) + ends

    def exact(self) -> str:
        """Return the expression that matches `RequestPath.exact`."""
        body = "".join("/" + (_one(each) or re.escape(each)) for each in self.fixed)
        if self.rest:
            return body + rf"(?:/{_ONE}+)*/?"
        return body + "/" if self.slash or not body else body

    def loose(self) -> str:
        """Return the expression that matches `RequestPath.loose`."""
        body = "".join("/" + (_one(each) or re.escape(loosened(each))) for each in self.fixed)
        return body + rf"(?:/{_ONE}+)*" if self.rest else body

    def covers(self, other: "Template") -> bool:
        """Whether every path that matches the other one matches this one, read loosely."""
        if not self.rest and (other.rest or len(self.fixed) != len(other.fixed)):
            return False
        if len(self.fixed) > len(other.fixed):
            return False
        pairs = zip(self.fixed, other.fixed, strict=False)
        if not all(_covers(mine, theirs) for mine, theirs in pairs):
            return False
        return not any(_is_carrier(each) for each in other.fixed[len(self.fixed) :])

    def meeting(self, other: "Template") -> str | None:
        """Return a path that matches both, read loosely; None if there is none."""
        short, long = sorted((self, other), key=lambda each: len(each.fixed))
        if len(short.fixed) < len(long.fixed) and not short.rest:
            return None
        both: list[str] = []
        for index, segment in enumerate(long.fixed):
            against = short.fixed[index] if index < len(short.fixed) else _ANY
            if not (_covers(segment, against) or _covers(against, segment)):
                return None
            both.append(against if segment == _ANY else segment)
        return "/" + "/".join("…" if each == _ANY else each for each in both)


def _segment(text: str) -> str:
    if _PLACE.fullmatch(text):
        return _ANY
    if text == _REST:
        return text
    if "*" in text or "{" in text or "}" in text:
        raise NoTemplate("expected {name}, * and ** as whole segments")
    if _SEGMENT.fullmatch(text) is None:
        raise NoTemplate(
            "expected segments of letters, digits and -._~!$&'()+,=:@ with one / between them: a path with "
            "another character matches {name}, * and ** only"
        )
    if not loosened(text):
        raise NoTemplate("expected no segment of dots only: no such path is let through")
    return text


def _one(segment: str) -> str | None:
    return f"{_ONE}+" if segment == _ANY else None


def _is_carrier(segment: str) -> bool:
    return loosened(segment).startswith(_CARRIER)


def _covers(mine: str, theirs: str) -> bool:
    if mine == _ANY:
        return not _is_carrier(theirs)
    return theirs != _ANY and loosened(mine) == loosened(theirs)
