"""Reads an answer in which Entra refuses: its OAuth `error` and AADSTS number become one of our errors.

The table of numbers (`aadsts.py`) only refines what the OAuth `error` says already; an unknown number falls
back to that.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from authz.core.errors import (
    ConsentRequired,
    EntraError,
    ExchangeMisconfigured,
    ExchangeRejected,
    ExchangeUnavailable,
    InteractionRequired,
    Unauthenticated,
)
from authz.entra.aadsts import BAD_CREDENTIAL, MEANINGS, OF_THE_APPLICATION

MICROSOFTS_PAGE: Final = "https://login.microsoftonline.com/error?code="
"""Where Microsoft explains a number, which follows."""

_BY_OAUTH_ERROR: Final[dict[str, type[EntraError]]] = {
    "interaction_required": InteractionRequired,
    "login_required": InteractionRequired,
    "consent_required": ConsentRequired,
    "invalid_grant": ExchangeRejected,
    "invalid_client": ExchangeMisconfigured,
    "unauthorized_client": ExchangeMisconfigured,
    "unsupported_grant_type": ExchangeMisconfigured,
    "invalid_request": ExchangeMisconfigured,
    "invalid_scope": ExchangeMisconfigured,
    "invalid_resource": ExchangeMisconfigured,
    "server_error": ExchangeUnavailable,
    "temporarily_unavailable": ExchangeUnavailable,
}

_NEVER_THE_USERS: Final = frozenset(
    {"invalid_client", "unauthorized_client", "unsupported_grant_type"}
)
"""What RFC 6749 section 5.2 says of the client. A number does not make it a user's: 50027, a malformed
assertion, is the client's own with `invalid_client`."""

_MOST: Final = 10**9
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
MAX_CHALLENGE: Final = 8192
"""Characters of a claims challenge that still go into a header."""
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")


def refusal(answer: Mapping[str, Any], *, user_is_asked: bool) -> EntraError:
    """Return the error that an OAuth error answer (RFC 6749 section 5.2) stands for.

    Args:
        answer: The parsed answer. Its description is not repeated: it can quote what was sent.
        user_is_asked: Whether a user's token was exchanged. If not, nobody can sign in again or consent,
            and what would be the user's fault is a matter of configuration.
    """
    code = first_code(answer)
    oauth_error = answer.get("error")
    meaning = MEANINGS.get(code or 0)
    if meaning is not None:
        kind = meaning.kind
    elif answer.get("suberror") == "consent_required":
        kind = ConsentRequired
    else:
        kind = _BY_OAUTH_ERROR.get(str(oauth_error), ExchangeUnavailable)
    of_the_client = isinstance(oauth_error, str) and oauth_error in _NEVER_THE_USERS
    if issubclass(kind, Unauthenticated) and (of_the_client or not user_is_asked):
        kind = ExchangeMisconfigured
    # RFC 6749 section 5.2: `invalid_grant` speaks of what is exchanged, such as another's user account.
    by_credential = (code in BAD_CREDENTIAL and oauth_error != "invalid_grant") or (
        oauth_error == "invalid_client" and code not in OF_THE_APPLICATION
    )
    return kind(
        f"{_word(oauth_error)} {_explained(code)} correlation_id={_word(answer.get('correlation_id'))}",
        code=code,
        claims=_challenge(answer.get("claims")) if issubclass(kind, Unauthenticated) else None,
        by_credential=by_credential,
    )


def _explained(code: int | None) -> str:
    """Return the number with its cause and fix, or with the address where Microsoft explains it."""
    if code is None:
        return "no AADSTS number"
    meaning = MEANINGS.get(code)
    if meaning is None:
        return f"AADSTS{code} ({MICROSOFTS_PAGE}{code})"
    return f"AADSTS{code} ({meaning.words}{'; ' if meaning.fix else ''}{meaning.fix})"


def first_code(answer: Mapping[str, Any]) -> int | None:
    """Return the first AADSTS number of an error answer."""
    codes = answer.get("error_codes")
    if isinstance(codes, list) and codes and type(codes[0]) is int and 0 < codes[0] < _MOST:
        return codes[0]
    description = answer.get("error_description")
    if isinstance(description, str) and description.startswith("AADSTS"):
        digits = description[len("AADSTS") :].partition(":")[0]
        return int(digits) if _DIGITS.fullmatch(digits) else None
    return None


def _challenge(value: object) -> str | None:
    """Keep a claims challenge that is a JSON object, in ASCII: it goes into a header."""
    try:
        challenge = json.loads(value) if isinstance(value, str) else None
        text = json.dumps(challenge, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None
    return text if isinstance(challenge, dict) and len(text) <= MAX_CHALLENGE else None


def _word(value: object) -> str:
    """Keep a short identifier; anything else could carry what it should not into a log."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else "?"
