"""What token endpoints answer, reduced to what is used, before MSAL gets to see it.

MSAL remembers parts of what it is given (an answer's `error` goes into the next request's telemetry header),
and takes members on trust that it then cannot read. So a refusal does not reach it at all, and of a token's
answer it gets members of known kinds only.
"""

import base64
import json
import re
import time
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from authz.core.errors import ExchangeUnavailable
from authz.entra.http import Answer, HttpClient

MAX_TOKEN_BYTES: Final = 64 * 1024
"""Envoy takes no larger headers."""
DAY: Final = 86400.0
"""Seconds for which a token is believed at most; Entra's live for an hour or so."""
DEFAULT_LIFETIME: Final = 300.0
"""Without `expires_in`, RFC 6749 section 5.1 leaves us to guess: low."""

# RFC 6750 section 2.1: b64token.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?")
_OK: Final = 200


class TokenRefused(Exception):
    """Entra refused. What it means is `refusals`.

    Attributes:
        answer: The parsed error answer (RFC 6749 section 5.2).
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__("refused")
        self.answer = answer


def reduced(answer: Answer) -> Answer:
    """Return a token endpoint's answer with what is used of it, for MSAL.

    Its `expires_in` is a whole number, and `refresh_after` is there if Entra said `refresh_in`: seconds.

    Raises:
        TokenRefused: It is a refusal.
        ExchangeUnavailable: It cannot be read, or the token is of no use.
    """
    document = _object(answer)
    if answer.status_code != _OK or "error" in document:
        raise TokenRefused(document)
    token = document.get("access_token")
    if not is_token(token):
        raise ExchangeUnavailable("Entra's answer holds no access token")
    if str(document.get("token_type", "Bearer")).lower() != "bearer":
        raise ExchangeUnavailable("Entra's answer holds no bearer token")
    if "id_token" in document and jwt_claims(document["id_token"]) is None:
        raise ExchangeUnavailable("Entra's answer holds an id_token that cannot be read")
    seconds = number(document.get("expires_in"))
    if seconds is not None and seconds <= 0:
        raise ExchangeUnavailable("Entra's answer holds a token that has ended")
    lifetime = int(min(DAY, DEFAULT_LIFETIME if seconds is None else seconds))
    members = {"access_token": token, "token_type": "Bearer", "expires_in": lifetime}
    if "refresh_in" in document:
        refresh = (
            None if isinstance(document["refresh_in"], str) else number(document["refresh_in"])
        )
        if refresh is None:
            raise ExchangeUnavailable("Entra's answer holds a refresh_in that is no number")
        if 0 < refresh < lifetime:
            members["refresh_after"] = refresh
    return Answer(_OK, json.dumps(members), {})


def is_token(value: object) -> bool:
    """Whether the value may stand in `Authorization` as a bearer token (RFC 6750 section 2.1)."""
    return (
        isinstance(value, str)
        and len(value) <= MAX_TOKEN_BYTES
        and _TOKEN.fullmatch(value) is not None
    )


def number(value: object) -> float | None:
    """Return a finite number, also one in decimal text, within plus and minus 10 to the 20th."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not isfinite(value):
        return None
    return float(max(-(10**20), min(10**20, value)))


def jwt_claims(token: object) -> dict[str, Any] | None:
    """Return the claims of a JWT, unverified: for what its holder may know. None if it is no JWT."""
    parts = token.split(".") if isinstance(token, str) else []
    if len(parts) < 2:  # noqa: PLR2004 - header and claims
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


class IdentityTransport:
    """What MSAL asks the host's metadata service through.

    MSAL keeps the token that it gets there, so what is no token, or has no end, must not reach it.

    Args:
        http: Sends requests.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def get(self, url: str, **arguments: Any) -> Answer:
        """Fetch a token of the identity.

        Raises:
            ExchangeUnavailable: No usable answer.
            ExchangeThrottled: Status 429.
        """
        answer = self._http.get(url, **arguments)
        if answer.status_code != _OK:
            return answer
        document = _object(answer)
        if not is_token(document.get("access_token")):
            raise ExchangeUnavailable("the metadata service's answer holds no access token")
        bounds = {"expires_in": DAY, "expires_on": time.time() + DAY}
        for name, most in bounds.items():
            if name in document:
                seconds = number(document[name])
                if seconds is None or seconds <= 0:
                    raise ExchangeUnavailable(f"the metadata service's {name} is of no use")
                document[name] = int(min(most, seconds))
        return Answer(_OK, json.dumps(document), answer.headers)

    def post(self, url: str, **arguments: Any) -> Answer:
        """Send a form."""
        return self._http.post(url, **arguments)

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()


def _object(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.text)
    except (ValueError, RecursionError) as error:
        raise ExchangeUnavailable("the answer is not JSON") from error
    if not isinstance(document, dict):
        raise ExchangeUnavailable("the answer is no JSON object")
    return document
