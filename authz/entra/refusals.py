"""What Entra's refusals mean: AADSTS numbers to Reasons, in one table.

Entra asks clients not to branch on numbers, and gives no other way to tell consent from a wrong secret.
So the table only refines what the OAuth `error` says already; an unknown number falls back to that.
Numbers and meanings: Entra page "reference-error-codes".
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz.core.errors import (
    ConsentRequired,
    EntraError,
    ExchangeMisconfigured,
    ExchangeRejected,
    ExchangeThrottled,
    ExchangeUnavailable,
    InteractionRequired,
    Unauthenticated,
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an AADSTS number says.

    Attributes:
        kind: The error that it becomes.
        words: The cause, for the log and for docs/errors.md.
    """

    kind: type[EntraError]
    words: str


MEANINGS: Final[dict[int, Meaning]] = {
    # The user must do something, or somebody must consent.
    65001: Meaning(ConsentRequired, "nobody consented"),
    650051: Meaning(ConsentRequired, "partly consented"),
    65004: Meaning(ConsentRequired, "the user declined"),
    50105: Meaning(ConsentRequired, "the user is not assigned to the application"),
    82007: Meaning(ConsentRequired, "the agent chain lacks consent"),
    82014: Meaning(ConsentRequired, "an agent identity cannot be consented interactively"),
    50072: Meaning(InteractionRequired, "MFA enrolment"),
    50074: Meaning(InteractionRequired, "strong authentication"),
    50076: Meaning(InteractionRequired, "MFA"),
    50079: Meaning(InteractionRequired, "MFA enrolment"),
    50097: Meaning(InteractionRequired, "device authentication"),
    50158: Meaning(InteractionRequired, "an external challenge"),
    50173: Meaning(InteractionRequired, "grant revoked: a fresh sign-in"),
    53000: Meaning(InteractionRequired, "the device is not compliant"),
    53003: Meaning(InteractionRequired, "blocked by Conditional Access"),
    530032: Meaning(InteractionRequired, "blocked by a security policy"),
    530035: Meaning(InteractionRequired, "blocked by security defaults"),
    70043: Meaning(InteractionRequired, "sign-in frequency"),
    # The user's token is no good as an assertion.
    50013: Meaning(ExchangeRejected, "wrong audience, issuer or format"),
    500131: Meaning(ExchangeRejected, "wrong audience"),
    500133: Meaning(ExchangeRejected, "outside its time range"),
    50027: Meaning(ExchangeRejected, "malformed"),
    50034: Meaning(ExchangeRejected, "the user is not in the directory"),
    51004: Meaning(ExchangeRejected, "the user is not in the directory"),
    50057: Meaning(ExchangeRejected, "the user is disabled"),
    240002: Meaning(ExchangeRejected, "an id token"),
    # Our registration, credential, scope or permissions are wrong.
    50000: Meaning(ExchangeMisconfigured, "a user principal name where an object id belongs"),
    50001: Meaning(ExchangeMisconfigured, "resource disabled"),
    50012: Meaning(ExchangeMisconfigured, "certificate chain or thumbprint"),
    50048: Meaning(ExchangeMisconfigured, "assertion: subject is not issuer"),
    500011: Meaning(ExchangeMisconfigured, "resource unknown in the tenant"),
    650057: Meaning(ExchangeMisconfigured, "resource not among the requested permissions"),
    70001: Meaning(ExchangeMisconfigured, "application disabled"),
    70003: Meaning(ExchangeMisconfigured, "grant type"),
    70011: Meaning(ExchangeMisconfigured, "scope"),
    70021: Meaning(ExchangeMisconfigured, "no matching federated credential (yet)"),
    700016: Meaning(ExchangeMisconfigured, "application unknown in the tenant"),
    700022: Meaning(ExchangeMisconfigured, "several resources in one scope"),
    700023: Meaning(ExchangeMisconfigured, "no resource in the scope"),
    700024: Meaning(ExchangeMisconfigured, "client assertion outside its time range"),
    700025: Meaning(ExchangeMisconfigured, "public client with a credential"),
    700027: Meaning(ExchangeMisconfigured, "client assertion signature or key"),
    700030: Meaning(ExchangeMisconfigured, "certificate subject"),
    700211: Meaning(ExchangeMisconfigured, "no federated credential for the issuer"),
    700213: Meaning(ExchangeMisconfigured, "no federated credential for the subject"),
    700214: Meaning(ExchangeMisconfigured, "federated credential audience"),
    700223: Meaning(ExchangeMisconfigured, "federation chain"),
    700229: Meaning(ExchangeMisconfigured, "the assertion is not app-only"),
    700231: Meaning(ExchangeMisconfigured, "federation chain"),
    7000112: Meaning(ExchangeMisconfigured, "application disabled"),
    7000114: Meaning(ExchangeMisconfigured, "on-behalf-of not allowed"),
    7000214: Meaning(ExchangeMisconfigured, "certificate revoked"),
    7000215: Meaning(ExchangeMisconfigured, "wrong secret (or not replicated yet)"),
    7000218: Meaning(ExchangeMisconfigured, "no credential"),
    7000222: Meaning(ExchangeMisconfigured, "secret expired"),
    7000272: Meaning(ExchangeMisconfigured, "key of the federated token unknown"),
    7000274: Meaning(ExchangeMisconfigured, "client assertion key"),
    7000277: Meaning(ExchangeMisconfigured, "certificate revoked"),
    7002137: Meaning(ExchangeMisconfigured, "no federated credential for the subject"),
    82001: Meaning(ExchangeMisconfigured, "a blueprint may not have this app token"),
    82002: Meaning(ExchangeMisconfigured, "a blueprint may not act on behalf of"),
    900144: Meaning(ExchangeMisconfigured, "a parameter is missing"),
    900382: Meaning(ExchangeMisconfigured, "across clouds"),
    90002: Meaning(ExchangeMisconfigured, "tenant unknown"),
    9001023: Meaning(ExchangeMisconfigured, "grant not supported on this endpoint"),
    9002313: Meaning(ExchangeMisconfigured, "malformed request"),
    90014: Meaning(ExchangeMisconfigured, "a field is missing"),
    901002: Meaning(ExchangeMisconfigured, "v1 resource parameter"),
    1000502: Meaning(ExchangeMisconfigured, "certificate outside its validity"),
    1002012: Meaning(ExchangeMisconfigured, "scope must end in /.default"),
    # Entra itself.
    50196: Meaning(ExchangeThrottled, "the same request too often"),
    90055: Meaning(ExchangeThrottled, "tenant throttled"),
    90006: Meaning(ExchangeUnavailable, "transient fault at Entra"),
    90012: Meaning(ExchangeUnavailable, "transient fault at Entra"),
    90024: Meaning(ExchangeUnavailable, "transient fault at Entra"),
    90033: Meaning(ExchangeUnavailable, "transient fault at Entra"),
    50033: Meaning(ExchangeUnavailable, "transient fault at Entra"),
}
"""Every number that we tell apart; also the closed set of the metric label `code`."""

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

REPLICATING: Final = frozenset({70021, 700016, 7000215, 700213, 7002137})
"""Numbers that a directory gives for a while after something was created: worth a second try."""

BAD_CREDENTIAL: Final = frozenset(
    {
        50012, 50048, 70021, 700024, 700027, 700030, 700211, 700213, 700214, 700223, 700229,
        700231, 7000214, 7000215, 7000218, 7000222, 7000272, 7000274, 7000277, 7002137, 1000502,
    }
)  # fmt: skip
"""Numbers that speak of the credential itself: the next configured one may do."""

BAD_ASSERTION: Final = frozenset({50013, 500131, 500133})
"""Numbers that speak of the token that says for whom a request is: signature, issuer, audience or time."""

_OF_THE_APPLICATION: Final = frozenset({650052, 70001, 700016, 700025, 7000112, 7000114})
"""Numbers that come with `invalid_client` too, and of which no other credential is rid."""


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
    by_credential = code in BAD_CREDENTIAL or (
        oauth_error == "invalid_client" and code not in _OF_THE_APPLICATION
    )
    number = f"AADSTS{code}" if code else "no AADSTS number"
    words = f" ({meaning.words})" if meaning is not None else ""
    return kind(
        f"{_word(oauth_error)} {number}{words} correlation_id={_word(answer.get('correlation_id'))}",
        code=code,
        claims=_challenge(answer.get("claims")) if issubclass(kind, Unauthenticated) else None,
        by_credential=by_credential,
    )


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
