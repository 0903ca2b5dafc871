"""The type of `inbound.<route>.forward`: what the app receives for the user's token."""

from typing import Any, Final

from authz.config.sections.values import Expected, Scalar
from authz.core.route import Forward

_FORWARDS: Final = frozenset(forward.value for forward in Forward)


def _forward(value: Any) -> tuple[Forward, ...]:
    names = value if isinstance(value, list | tuple) else [value]
    if not names or not all(isinstance(name, str) and name in _FORWARDS for name in names):
        raise Expected(f"expected one of {', '.join(Forward)}, or a list of some")
    found = tuple(Forward(name) for name in names)
    if len(set(found)) < len(found):
        raise Expected("expected each only once")
    if sum(name is not Forward.HANDLE for name in found) > 1:
        raise Expected("expected one of bearer, strip and placeholder, which share one header")
    return found


FORWARD: Final = Scalar(
    _forward,
    {
        "anyOf": [
            {"type": "string", "enum": list(Forward)},
            {
                "type": "array",
                "items": {"type": "string", "enum": list(Forward)},
                "minItems": 1,
                "uniqueItems": True,
            },
        ],
        "x-kind": "name or list of " + ", ".join(f"`{name}`" for name in Forward),
    },
)
