"""The AADSTS numbers that we tell apart: what each means, and what an operator does about it.

Entra asks clients not to branch on numbers, and gives no other way to tell consent from a wrong secret.
Numbers and meanings: Entra page "reference-error-codes". How an answer is read: `refusals.py`.
"""

from dataclasses import dataclass
from typing import Final

from authz.core.errors import (
    ConsentRequired,
    EntraError,
    ExchangeMisconfigured,
    ExchangeRejected,
    ExchangeThrottled,
    ExchangeUnavailable,
    InteractionRequired,
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an AADSTS number says.

    Attributes:
        kind: The error that it becomes.
        words: The cause, for the log and for docs/errors.md.
        fix: What an operator does about it, for both as well; empty where that follows from the reason.
    """

    kind: type[EntraError]
    words: str
    fix: str = ""


_CONSENT: Final = {
    65001: "nobody consented",
    650051: "partly consented",
    65004: "the user declined",
    50105: "the user is not assigned to the application",
    82007: "the agent chain lacks consent",
    82014: "an agent identity cannot be consented interactively",
}
"""Somebody must consent, or assign the user."""

_INTERACTION: Final = {
    50072: "MFA enrolment",
    50074: "strong authentication",
    50076: "MFA",
    50079: "MFA enrolment",
    50097: "device authentication",
    50158: "an external challenge",
    50173: "grant revoked: a fresh sign-in",
    53000: "the device is not compliant",
    53003: "blocked by Conditional Access",
    530032: "blocked by a security policy",
    530035: "blocked by security defaults",
    70043: "sign-in frequency",
    50058: "nobody is signed in",
}
"""The user must do something."""

_REJECTED: Final = {
    50013: "wrong audience, issuer or format",
    500131: "wrong audience",
    500133: "outside its time range",
    50027: "malformed",
    50034: "the user is not in the directory",
    51004: "the user is not in the directory",
    50057: "the user is disabled",
    240002: "an id token",
    54005: "the authorization code was already redeemed",
    70000: "the grant is not valid",
    70008: "the grant has expired",
    70016: "the user has not signed in yet",
    70018: "wrong device code",
    70020: "the device code has expired",
    500112: "another redirect URI than the code's",
    501481: "the code verifier does not match",
    501491: "the code challenge has the wrong size",
    700082: "the grant has expired, unused",
}
"""The user's token is no good as an assertion."""

# fmt: off
_CONFIGURATION: Final = {
    50000: ("a user principal name where an object id belongs", "give `agent_user` the account's object id"),
    50001: ("resource disabled", "enable the resource's service principal in the tenant"),
    50012: ("certificate chain or thumbprint", "register the certificate that the file holds; send the whole chain"),
    50048: ("assertion: subject is not issuer", "authz builds this assertion: the certificate or the client id does not fit the registration"),
    500011: ("resource unknown in the tenant", "correct the resource in `scope`, or create its service principal in the tenant"),
    650057: ("resource not among the requested permissions", "add the resource to the application's API permissions"),
    70001: ("application disabled", "enable the application"),
    70003: ("grant type", "let the application use the grant"),
    70011: ("scope", "correct `scope`"),
    70021: ("no matching federated credential (yet)", "compare issuer, subject and audience of the federated credential; a new one takes minutes"),
    700016: ("application unknown in the tenant", "compare `tenant_id` with the tenant of the client id; a new application takes minutes"),
    700022: ("several resources in one scope", "name one resource in `scope`"),
    700023: ("no resource in the scope", "name a resource in `scope`, or `.default`"),
    700024: ("client assertion outside its time range", "set the machine's clock; see whether the projected token is renewed"),
    700025: ("public client with a credential", "turn off public client flows, or register a credential"),
    700027: ("client assertion signature or key", "register the certificate that signs, with the thumbprint that the log names"),
    700030: ("certificate subject", "register a certificate of the expected subject"),
    700211: ("no federated credential for the issuer", "compare the issuer of the federated credential with the token's `iss`"),
    700213: ("no federated credential for the subject", "compare the subject of the federated credential with the token's `sub`"),
    700214: ("federated credential audience", "set the audience of the federated credential to `api://AzureADTokenExchange`"),
    700223: ("federation chain", "prove the blueprint with a token that was not got by federation"),
    700229: ("the assertion is not app-only", "prove the blueprint with a token of a workload, not of a user"),
    700231: ("federation chain", "prove the blueprint with a token that was not got by federation"),
    7000112: ("application disabled", "enable the application"),
    7000114: ("on-behalf-of not allowed", "allow the application to act on behalf of users"),
    7000214: ("certificate revoked", "replace the certificate"),
    7000215: ("wrong secret (or not replicated yet)", "put the secret's value into the file, not its id; a new one takes a minute"),
    7000218: ("no credential", "name a credential of the client"),
    7000222: ("secret expired", "make a new secret and put it into the file"),
    7000272: ("key of the federated token unknown", "see whether Entra reaches the issuer's keys; a new key takes minutes"),
    7000274: ("client assertion key", "register the certificate that signs"),
    7000277: ("certificate revoked", "replace the certificate"),
    7002137: ("no federated credential for the subject", "compare the subject of the federated credential with the token's `sub`"),
    82001: ("a blueprint may not have this app token", "give the agent identity the permission, not the blueprint"),
    82002: ("a blueprint may not act on behalf of", "name an agent: a blueprint cannot act on behalf of a user"),
    900144: ("a parameter is missing", "report it: authz left out a parameter"),
    900382: ("across clouds", "use one cloud's names for authority and resource"),
    90002: ("tenant unknown", "correct `tenant_id`"),
    9001023: ("grant not supported on this endpoint", "report it: authz asked the wrong endpoint"),
    9002313: ("malformed request", "report it: authz sent a malformed request"),
    90014: ("a field is missing", "report it: authz left out a field"),
    901002: ("v1 resource parameter", "report it: authz sent a parameter of v1"),
    1000502: ("certificate outside its validity", "renew the certificate"),
    1002012: ("scope must end in /.default", "end `scope` in `/.default`"),
    50011: ("the redirect URI is none of the application's", ""),
    50194: ("the application is not multi-tenant", "give `tenant_id` the application's own tenant"),
    82018: ("an agentic application cannot sign a user in", "let the caller sign in with an application of its own"),
    90100: ("a parameter is empty or not valid", "compare `agent_identity` with the agent identities of this blueprint"),
    700021: ("the client assertion names another application", "compare `client_id` with the credential's application"),
    700054: ("the response type is not enabled", ""),
    900561: ("not a POST of a form", "see whether a proxy rewrites requests to Entra"),
    9010010: ("the resource parameter does not match the scopes", "name one resource in `scope`"),
}
"""Our registration, credential, scope or permissions are wrong: the cause, and the fix where it is known."""
# fmt: on

_THROTTLING: Final = {
    50196: "the same request too often",
    90055: "tenant throttled",
}
"""Entra wants fewer requests."""

_TRANSIENT: Final = {
    90006: "transient fault at Entra",
    90012: "transient fault at Entra",
    90024: "transient fault at Entra",
    90033: "transient fault at Entra",
    50033: "transient fault at Entra",
}
"""Entra itself has a fault."""

_BY_KIND: Final[dict[type[EntraError], dict[int, str]]] = {
    ConsentRequired: _CONSENT,
    InteractionRequired: _INTERACTION,
    ExchangeRejected: _REJECTED,
    ExchangeThrottled: _THROTTLING,
    ExchangeUnavailable: _TRANSIENT,
}

MEANINGS: Final[dict[int, Meaning]] = {
    **{code: Meaning(ExchangeMisconfigured, *texts) for code, texts in _CONFIGURATION.items()},
    **{
        code: Meaning(kind, words)
        for kind, rows in _BY_KIND.items()
        for code, words in rows.items()
    },
}
"""Every number that we tell apart; also the closed set of the metric label `code`."""

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

OF_THE_APPLICATION: Final = frozenset({650052, 70001, 700016, 700025, 7000112, 7000114})
"""Numbers that come with `invalid_client` too, and of which no other credential is rid."""
