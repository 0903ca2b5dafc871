"""What an API demands of a token when it refuses one: the claims challenge of `WWW-Authenticate`.

Grammar: RFC 9110 section 11.6.1. Meaning: Entra page "claims-challenge". What is done about it is `server`.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

from authz.core.exchange import declares_capability
from authz.core.grammar import HEADER_NAME

MAX_CHALLENGE: Final = 8192
"""Characters of a challenge's claims that are passed on to Entra."""
_INSUFFICIENT_CLAIMS: Final = "insufficient_claims"
_PART: Final = re.compile(
    rf"""[ \t,]*(?:
        (?P<name>{HEADER_NAME})[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^ \t,"]+))
        |(?P<scheme>{HEADER_NAME})(?=[ \t,]|$)
    )""",
    re.VERBOSE,
)


def demanded_claims(values: Iterable[str]) -> str | None:
    """Return the claims that an API wants in a token, as JSON text; None where it demands none.

    A demand for client capabilities is none: whether tokens live for a day is not the API's to say.

    Args:
        values: Values of `WWW-Authenticate`.
    """
    for value in values:
        for scheme, parameters in _challenges(value):
            if scheme == "bearer" and parameters.get("error") == _INSUFFICIENT_CLAIMS:
                claims = _claims(parameters.get("claims", ""))
                if claims is not None:
                    return claims
    return None


def _challenges(value: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield scheme and parameters of each challenge, up to what is none."""
    scheme, parameters, position = "", dict[str, str](), 0
    while part := _PART.match(value, position):
        position = part.end()
        if part["scheme"] is not None:
            yield scheme, parameters
            scheme, parameters = part["scheme"].lower(), {}
        else:
            text = part["plain"] if part["quoted"] is None else part["quoted"]
            parameters.setdefault(part["name"].lower(), re.sub(r"\\(.)", r"\1", text))
    yield scheme, parameters


def _claims(encoded: str) -> str | None:
    plain = encoded.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        found = json.loads(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True))
        # One spelling for each meaning: the text is part of the cache key.
        text = json.dumps(found, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not found or len(text) > MAX_CHALLENGE:
        return None
    return None if declares_capability(text) else text
