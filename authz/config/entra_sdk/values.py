"""`Variables`: the environment variables of the Entra SDK sidecar by their .NET keys."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from authz.config.entra_sdk.keys import Use, find_key, is_own, split, suggestion
from authz.config.faults import Fault, Notice

_NO_DOWNGRADE = frozenset({"agentidentity", "agentusername", "agentuserid"})
"""Keys whose loss would give the token of another identity: empty is not the same as absent."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable as the environment spells it."""

    name: str
    value: str


@dataclass(slots=True)
class Variables:
    """Variables by key, in any case and with either separator; empty ones count as absent.

    Attributes:
        faults: What is wrong with keys as such.
        notices: Which keys have no effect.
    """

    faults: list[Fault] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    _by_path: dict[tuple[str, ...], Variable] = field(default_factory=dict)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Variables":
        """Return the variables of an environment that are the sidecar's."""
        variables = cls()
        for name, value in environ.items():
            path = split(name)
            if is_own(path):
                variables._take(path, Variable(name, value))
        return variables

    def _take(self, path: tuple[str, ...], variable: Variable) -> None:
        first = self._by_path.get(path)
        if first is not None:
            self.faults.append(Fault(variable.name, f"is the same key as {first.name}"))
            return
        known = find_key(path)
        if not variable.value:
            if path[-1] in _NO_DOWNGRADE or path == ("azuread", "scopes"):
                text = "is empty: expected a value, or no such variable"
                self.faults.append(Fault(variable.name, text))
            return
        if known is None:
            closest = suggestion(path)
            if closest:
                text = f"is not known; did you mean {closest}?"
                self.faults.append(Fault(variable.name, text))
            else:
                self.notices.append(Notice(variable.name, "is not known and has no effect"))
        elif known.use is Use.REFUSED:
            self.faults.append(Fault(variable.name, known.meaning))
        elif known.use is Use.IGNORED:
            self.notices.append(Notice(variable.name, f"has no effect: {known.meaning}"))
        else:
            self._by_path[path] = variable

    def get(self, key: str) -> Variable | None:
        """Return the variable of a key."""
        return self._by_path.get(split(key))

    def value(self, key: str) -> str | None:
        """Return the value of a key."""
        found = self.get(key)
        return found.value if found else None

    def name(self, key: str) -> str:
        """Return how the environment spells a key; the key itself when it is absent."""
        found = self.get(key)
        return found.name if found else key

    def below(self, key: str) -> list[str]:
        """Return the next parts of the keys below a key, as spelled: numbers first, in order."""
        start = split(key)
        parts: dict[str, str] = {}
        for path, variable in self._by_path.items():
            if path[: len(start)] == start and len(path) > len(start):
                spelled = re.split("__|:", variable.name)[len(start)]
                parts.setdefault(path[len(start)], spelled)
        return sorted(
            parts.values(),
            key=lambda part: (not part.isdecimal(), int(part) if part.isdecimal() else 0, part),
        )

    def listed(self, key: str, separators: str) -> Iterator[Variable]:
        """Yield the entries of a list: of the text under the key, then of its numbered children.

        Args:
            key: The list's key.
            separators: Characters beside blanks that separate entries in text.
        """
        whole = self.get(key)
        if whole is not None:
            for entry in re.split(rf"[\s{re.escape(separators)}]+", whole.value):
                if entry:
                    yield Variable(whole.name, entry)
        for part in self.below(key):
            child = self.get(f"{key}__{part}")
            if child is not None:
                yield child
