"""The ways a blueprint or application proves itself besides the secret in the body."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz_dev.emulator.entities import Application, FederatedCredential
from authz_dev.emulator.keys import b64url
from emulator.scene import ASSERTION_TYPE, EXCHANGE, Clock, Scene, claims_of

CLUSTER = "https://cluster.example"
WORKLOAD = "system:serviceaccount:agents:support"


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """The application's, or the foreign issuer's, private key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    """A self-signed certificate of `key`."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "support")])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )


@pytest.fixture
def blueprint(fresh_scene: Scene, certificate: x509.Certificate) -> Application:
    """The first blueprint, with the certificate registered."""
    directory = fresh_scene.emulator.directory
    found = directory.application(fresh_scene.tenant_id, fresh_scene.blueprint["client_id"])
    assert found is not None
    return directory.add_certificate(found, certificate)


def pem(key: rsa.RSAPrivateKey) -> str:
    """The private key as MSAL takes it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def present(scene: Scene, assertion: str) -> dict[str, Any]:
    """Leg 1 with a client assertion."""
    response = scene.as_blueprint(
        client_secret=None, client_assertion_type=ASSERTION_TYPE, client_assertion=assertion
    )
    body: dict[str, Any] = response.json()
    return body


def test_a_secret_may_come_in_the_basic_header(scene: Scene) -> None:
    """RFC 6749, section 2.3.1."""
    scene.session.auth = (scene.blueprint["client_id"], scene.blueprint["client_secret"])
    assert scene.as_blueprint(client_id=None, client_secret=None).status_code == 200


def test_a_basic_header_next_to_a_secret_is_refused(scene: Scene) -> None:
    """RFC 6749, section 2.3: not more than one method."""
    scene.session.auth = (scene.blueprint["client_id"], scene.blueprint["client_secret"])
    assert scene.as_blueprint().json()["error_codes"] == [9002313]


def test_msal_proves_a_blueprint_with_its_certificate(
    fresh_scene: Scene,
    blueprint: Application,
    key: rsa.RSAPrivateKey,
    certificate: x509.Certificate,
) -> None:
    """MSAL's PS256 with `x5t#S256`, padded thumbprint and float times; `azpacr` becomes 2."""
    credential = {
        "private_key": pem(key),
        "public_certificate": certificate.public_bytes(Encoding.PEM).decode(),
    }
    app = fresh_scene.app(blueprint.client_id, credential)
    fmi_path = fresh_scene.agent["client_id"]
    result = app.acquire_token_for_client([EXCHANGE], fmi_path=fmi_path)
    assert claims_of(result["access_token"])["azpacr"] == "2"
    # MSAL reuses its assertion: the same `jti` must pass twice.
    other = app.acquire_token_for_client([EXCHANGE], fmi_path=fresh_scene.sibling["client_id"])
    assert "access_token" in other


def test_msal_proves_a_blueprint_with_a_sha1_thumbprint(
    fresh_scene: Scene,
    blueprint: Application,
    key: rsa.RSAPrivateKey,
    certificate: x509.Certificate,
) -> None:
    """MSAL's older form: RS256 with `x5t`."""
    thumbprint = certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303
    app = fresh_scene.app(blueprint.client_id, {"private_key": pem(key), "thumbprint": thumbprint})
    result = app.acquire_token_for_client([EXCHANGE], fmi_path=fresh_scene.agent["client_id"])
    assert "access_token" in result


Spoil = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda _, claims: claims.update(iss=str(uuid.uuid4())), 50048),
        (lambda _, claims: claims.update(iss="other", sub="other"), 700021),
        (lambda _, claims: claims.update(aud="https://elsewhere.example"), 50012),
        (lambda _, claims: claims.update(exp=time.time() - 1), 700024),
        (lambda _, claims: claims.update(nbf=time.time() + 600), 700024),
        (lambda _, claims: claims.pop("exp"), 700024),
        (lambda header, _: header.update({"x5t#S256": "unknown"}), 700027),
    ],
    ids=["iss", "client", "aud", "expired", "future", "endless", "thumbprint"],
)
def test_a_wrong_certificate_assertion_is_refused(
    fresh_scene: Scene,
    blueprint: Application,
    key: rsa.RSAPrivateKey,
    certificate: x509.Certificate,
    spoil: Spoil,
    code: int,
) -> None:
    """Each claim and the thumbprint is checked."""
    header = {"x5t#S256": b64url(certificate.fingerprint(hashes.SHA256()))}
    claims = assertion_claims(fresh_scene, blueprint)
    spoil(header, claims)
    body = present(fresh_scene, jwt.encode(claims, key, "PS256", headers=header))
    assert body["error_codes"] == [code]


def test_a_certificate_assertion_of_another_key_is_refused(
    fresh_scene: Scene, blueprint: Application, certificate: x509.Certificate
) -> None:
    """The thumbprint alone proves nothing."""
    header = {"x5t#S256": b64url(certificate.fingerprint(hashes.SHA256()))}
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    claims = assertion_claims(fresh_scene, blueprint)
    body = present(fresh_scene, jwt.encode(claims, other, "PS256", headers=header))
    assert body["error_codes"] == [700027]


def test_an_expired_certificate_is_refused(
    fresh_scene: Scene,
    blueprint: Application,
    key: rsa.RSAPrivateKey,
    certificate: x509.Certificate,
    clock: Clock,
) -> None:
    """1000502 when the certificate has run out."""
    clock.ahead = 40 * 86_400
    header = {"x5t#S256": b64url(certificate.fingerprint(hashes.SHA256()))}
    claims = assertion_claims(fresh_scene, blueprint) | {"exp": clock() + 600}
    body = present(fresh_scene, jwt.encode(claims, key, "PS256", headers=header))
    assert body["error_codes"] == [1000502]


def assertion_claims(scene: Scene, blueprint: Application) -> dict[str, Any]:
    """A good client assertion of the blueprint."""
    return {
        "aud": f"{scene.emulator.authority}/{scene.tenant_id}/oauth2/v2.0/token",
        "iss": blueprint.client_id,
        "sub": blueprint.client_id,
        "exp": time.time() + 600,
        "jti": str(uuid.uuid4()),
    }


@pytest.fixture
def federated(fresh_scene: Scene, blueprint: Application, key: rsa.RSAPrivateKey) -> Scene:
    """A scene where a workload of a cluster may act as the blueprint."""
    fresh_scene.emulator.directory.add_federated_credential(
        blueprint, FederatedCredential(CLUSTER, WORKLOAD, keys={"cluster": key.public_key()})
    )
    return fresh_scene


def workload_token(key: rsa.RSAPrivateKey, kid: str = "cluster", **changes: Any) -> str:
    """A projected service-account token."""
    claims = {
        "iss": CLUSTER,
        "sub": WORKLOAD,
        "aud": ["api://AzureADTokenExchange"],
        "exp": int(time.time()) + 3600,
    }
    return jwt.encode(claims | changes, key, "RS256", headers={"kid": kid})


def test_msal_proves_a_blueprint_with_a_workloads_token(
    federated: Scene, key: rsa.RSAPrivateKey
) -> None:
    """Workload identity federation, the credential of production clusters."""
    app = federated.app(
        federated.blueprint["client_id"], {"client_assertion": lambda: workload_token(key)}
    )
    result = app.acquire_token_for_client([EXCHANGE], fmi_path=federated.agent["client_id"])
    assert claims_of(result["access_token"])["azpacr"] == "2"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": f"{CLUSTER}/"}, 700211),
        ({"sub": "system:serviceaccount:agents:other"}, 700213),
        ({"aud": "https://kubernetes.default"}, 700214),
        ({"exp": 1}, 700024),
        ({"kid": "rotated"}, 7000272),
    ],
    ids=["issuer", "subject", "audience", "expired", "key"],
)
def test_a_workloads_token_must_match_its_credential(
    federated: Scene, key: rsa.RSAPrivateKey, changes: dict[str, Any], code: int
) -> None:
    """Issuer, subject, audience, time and key are compared one by one."""
    body = present(federated, workload_token(key, **changes))
    assert (body["error_codes"], body["error"]) == ([code], "invalid_client")


def test_a_workloads_token_with_a_wrong_signature_is_refused(federated: Scene) -> None:
    """Signed by someone else under the known key id."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert present(federated, workload_token(other))["error_codes"] == [700027]


@pytest.fixture
def managed(fresh_scene: Scene, blueprint: Application) -> Scene:
    """A scene where the managed identity `reports` may act as the blueprint."""
    directory = fresh_scene.emulator.directory
    identity = directory.application(fresh_scene.tenant_id, fresh_scene.reports["client_id"])
    assert identity is not None
    issuer = f"{fresh_scene.emulator.authority}/{fresh_scene.tenant_id}/v2.0"
    directory.add_federated_credential(
        blueprint, FederatedCredential(issuer, identity.principal_id)
    )
    return fresh_scene


def test_a_managed_identity_proves_a_blueprint(managed: Scene) -> None:
    """Entra's own app-only token for the exchange resource is a federated credential."""
    assert "access_token" in present(managed, managed_identity_token(managed))


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"idtyp": "user"}, 700229),
        ({"xms_ficinfo": "CAAQABgAIAAoAjAA"}, 700231),
        ({"aud": "00000003-0000-0000-c000-000000000000"}, 700214),
    ],
    ids=["user", "chained", "audience"],
)
def test_a_managed_identitys_token_must_be_fit_for_exchange(
    managed: Scene, claims: dict[str, Any], code: int
) -> None:
    """No user tokens, no chains, no other audience."""
    body = present(managed, managed_identity_token(managed, claims))
    assert body["error_codes"] == [code]


def managed_identity_token(scene: Scene, claims: dict[str, Any] | None = None) -> str:
    """What the instance metadata service would give."""
    return scene.emulator.mint_user_token(
        user=None,
        client_id=scene.reports["client_id"],
        audience="api://AzureADTokenExchange",
        claims=claims,
    )
