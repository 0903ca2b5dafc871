"""`FakeTenant`, an Entra tenant in memory: its key, its issuers, and the tokens it gives out.

Its tokens have the claims of Entra's real ones. No network and no token endpoint live here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from jwt.algorithms import RSAAlgorithm

from authz.core.keys import KeySet, SigningKey
from authz.core.token import Expectation
from support.fakes.jws import Signer, compact, private_key, rs256

TENANT: Final = "11111111-aaaa-4aaa-8aaa-111111111111"
OTHER_TENANT: Final = "22222222-bbbb-4bbb-8bbb-222222222222"
AUDIENCE: Final = "b1b1b1b1-0000-4000-8000-000000000001"
BLUEPRINT: Final = AUDIENCE
AGENT: Final = "a1a1a1a1-0000-4000-8000-000000000001"
AGENT_USER: Final = "a2a2a2a2-0000-4000-8000-000000000002"
CLIENT: Final = "c1c1c1c1-0000-4000-8000-000000000001"
USER: Final = "e1e1e1e1-0000-4000-8000-000000000001"
LIFETIME: Final = 3600.0

ABSENT: Final = object()
"""As the value of a claim or header: leave it out."""


class FakeTenant:
    """One tenant with one signing key.

    Args:
        tenant_id: Its GUID.
        clock: Epoch seconds; tokens are valid from now for `LIFETIME`.
        key_id: `kid` of its signing key.
    """

    def __init__(
        self, tenant_id: str = TENANT, *, clock: Callable[[], float], key_id: str = "key-1"
    ) -> None:
        self.tenant_id = tenant_id
        self.issuer = f"https://login.microsoftonline.com/{tenant_id}/v2.0"
        self.issuer_v1 = f"https://sts.windows.net/{tenant_id}/"
        self.key_id = key_id
        self.key = private_key(f"{tenant_id} {key_id}")
        self._clock = clock

    def expectation(self, *audiences: str, leeway: float = 60.0) -> Expectation:
        """Return the demand for a token of this tenant, of either version."""
        issuers = {self.issuer: self.tenant_id, self.issuer_v1: self.tenant_id}
        return Expectation(frozenset(audiences or (AUDIENCE,)), issuers, leeway)

    def signing_key(self, issuer: str | None = None) -> SigningKey:
        """Return the public half, bound to the v2 issuer or to the one given."""
        return SigningKey(self.key_id, issuer or self.issuer, self.key.public_key())

    def key_set(self, issuer: str | None = None) -> KeySet:
        """Return everything that verifies tokens of one of the tenant's issuers."""
        key = self.signing_key(issuer)
        return KeySet(key.issuer, {key.key_id: key}, self._clock())

    def jwk(self, **changes: object) -> dict[str, Any]:
        """Return the key as the tenant's JWKS publishes it."""
        published = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        entry = {"kty": "RSA", "use": "sig", "kid": self.key_id, "issuer": self.issuer}
        return _changed({**entry, "n": published["n"], "e": published["e"]}, changes)

    def user_token(self, audience: str = AUDIENCE, /, **changes: object) -> str:
        """Mint a human's v2 token; keywords replace claims."""
        return self.mint(self.user_claims(audience), changes)

    def v1_user_token(self, audience: str = AUDIENCE, /, **changes: object) -> str:
        """Mint a human's v1 token; keywords replace claims."""
        v1: dict[str, object] = {"iss": self.issuer_v1, "ver": "1.0", "azp": ABSENT}
        return self.mint(_changed(self.user_claims(audience), {**v1, "appid": CLIENT}), changes)

    def app_token(self, audience: str = AUDIENCE, /, **changes: object) -> str:
        """Mint an ordinary application's own token; keywords replace claims."""
        app = {"idtyp": "app", "oid": CLIENT, "sub": CLIENT, "azp": CLIENT, "roles": ["Agent.Call"]}
        return self.mint(_changed(self.user_claims(audience), {**app, "scp": ABSENT}), changes)

    def agent_token(self, audience: str = AUDIENCE, /, **changes: object) -> str:
        """Mint an autonomous agent's own token; keywords replace claims."""
        agent = {"idtyp": "app", "oid": AGENT, "sub": AGENT, **_ACTING_AGENT, "xms_sub_fct": "11 9"}
        return self.mint(_changed(self.user_claims(audience), {**agent, "scp": ABSENT}), changes)

    def agent_user_token(self, audience: str = AUDIENCE, /, **changes: object) -> str:
        """Mint the token of an agent that acts as its own user account; keywords replace claims."""
        agent_user = {"idtyp": "user", "oid": AGENT_USER, **_ACTING_AGENT, "xms_sub_fct": "13 9"}
        return self.mint(_changed(self.user_claims(audience), agent_user), changes)

    def agent_for_user_token(self, audience: str = AUDIENCE, /, **changes: object) -> str:
        """Mint the token of an agent that acts for a human; keywords replace claims."""
        acting = {"idtyp": "user", **_ACTING_AGENT, "xms_sub_fct": "1 7"}
        return self.mint(_changed(self.user_claims(audience), acting), changes)

    def user_claims(self, audience: str = AUDIENCE) -> dict[str, Any]:
        """Return the claims of a human's v2 token."""
        now = int(self._clock())
        return {
            "aud": audience,
            "iss": self.issuer,
            "iat": now,
            "nbf": now,
            "exp": now + int(LIFETIME),
            "azp": CLIENT,
            "azpacr": "0",
            "oid": USER,
            "scp": "access_as_user",
            "sub": "pairwise-of-the-user",
            "tid": self.tenant_id,
            "uti": "token-id-1",
            "ver": "2.0",
        }

    def mint(
        self,
        claims: Mapping[str, Any],
        changes: Mapping[str, object] | None = None,
        *,
        headers: Mapping[str, object] | None = None,
        sign: Signer | None = None,
    ) -> str:
        """Sign any claims, as Entra would unless told otherwise."""
        return self.mint_payload(_changed(claims, changes or {}), headers=headers, sign=sign)

    def mint_payload(
        self,
        payload: Mapping[str, Any] | bytes,
        *,
        headers: Mapping[str, object] | None = None,
        sign: Signer | None = None,
    ) -> str:
        """Sign any payload at all, JSON or not."""
        header = {"typ": "JWT", "alg": "RS256", "kid": self.key_id}
        return self.sign_raw(_changed(header, headers or {}), payload, sign)

    def sign_raw(
        self,
        header: Mapping[str, Any] | bytes,
        payload: Mapping[str, Any] | bytes,
        sign: Signer | None = None,
    ) -> str:
        """Sign any header and payload with the tenant's key, or as told."""
        return compact(header, payload, sign or rs256(self.key))


_ACTING_AGENT: Final = {"azp": AGENT, "xms_act_fct": "9 11 3", "xms_par_app_azp": BLUEPRINT}


def _changed(values: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in {**values, **changes}.items() if value is not ABSENT}
