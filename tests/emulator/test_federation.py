"""Foreign issuers by their two documents: which are trusted, with which keys, and when a new key counts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from authz_dev.emulator.entities import Application
from authz_dev.emulator.federation import KEYS, METADATA, FederationError, trust
from emulator.scene import ASSERTION_TYPE, EXCHANGE, Scene

CLUSTER = "https://kubernetes.default.svc.cluster.local"
SUBJECT = "system:serviceaccount:agent:agent"


def jwk(key: rsa.RSAPrivateKey, kid: str = "cluster", **members: str) -> dict[str, Any]:
    """A key as the API server publishes it."""
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**public, "use": "sig", "alg": "RS256", "kid": kid, **members}


def present(scene: Scene, key: Any, algorithm: str = "RS256", **changes: Any) -> list[int]:
    """The error codes that a service account's token leads to; none for success."""
    now = int(time.time())
    claims = {
        "iss": CLUSTER,
        "sub": SUBJECT,
        "aud": ["api://AzureADTokenExchange"],
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        **changes,
    }
    token = jwt.encode(claims, key, algorithm, headers={"kid": "cluster"})
    answer = scene.as_blueprint(
        client_secret=None,
        client_assertion_type=ASSERTION_TYPE,
        client_assertion=token,
        scope=EXCHANGE,
    )
    codes: list[int] = answer.json().get("error_codes", [])
    return codes


@pytest.fixture
def federated(fresh_scene: Scene, issuer: Path) -> Scene:
    """A scene whose first blueprint trusts the cluster."""
    directory = fresh_scene.emulator.directory
    blueprint = directory.application(fresh_scene.tenant_id, fresh_scene.blueprint["client_id"])
    assert isinstance(blueprint, Application)
    directory.add_federated_credential(blueprint, trust(issuer, SUBJECT))
    return fresh_scene


def test_a_service_accounts_token_proves_the_blueprint(
    federated: Scene, cluster_key: rsa.RSAPrivateKey
) -> None:
    """As the kubelet projects it: signed by the cluster, for Entra's exchange and nobody else."""
    assert present(federated, cluster_key) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": f"{CLUSTER}/"}, 700211),
        ({"iss": CLUSTER.upper()}, 700211),
        ({"sub": "system:serviceaccount:agent:default"}, 700213),
        ({"aud": [CLUSTER]}, 700214),
        ({"aud": ["api://AzureADTokenExchange", CLUSTER]}, 700214),
        ({"exp": 1}, 700024),
    ],
    ids=["slash", "capitals", "subject", "audience", "two-audiences", "expired"],
)
def test_a_token_must_match_to_the_letter(
    federated: Scene, cluster_key: rsa.RSAPrivateKey, changes: dict[str, Any], code: int
) -> None:
    """Issuer, subject, the one audience, and time."""
    assert present(federated, cluster_key, **changes) == [code]


def test_only_rs256_is_taken(federated: Scene, cluster_key: rsa.RSAPrivateKey) -> None:
    """The same key with another algorithm does not count."""
    assert present(federated, cluster_key, "PS256") == [700027]


def test_a_new_key_counts_at_once_and_an_old_one_no_more(
    federated: Scene, issuer: Path, cluster_key: rsa.RSAPrivateKey
) -> None:
    """A cluster that was made anew has another key; its documents are replaced, and that is all."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert present(federated, other) == [700027]

    (issuer / KEYS).write_text(json.dumps({"keys": [jwk(other)]}))
    assert (present(federated, other), present(federated, cluster_key)) == ([], [700027])

    (issuer / KEYS).write_text(json.dumps({"keys": [jwk(other, "another")]}))
    assert present(federated, other) == [7000272]

    (issuer / KEYS).unlink()
    assert present(federated, other) == [7000272]


@pytest.mark.parametrize(
    ("document", "content", "complaint"),
    [
        (METADATA, "{", "is not JSON"),
        (METADATA, "[]", "is not a JSON object"),
        (METADATA, "{}", "must be an https address"),
        (METADATA, '{"issuer": "http://cluster.example"}', "must be an https address"),
        (METADATA, '{"issuer": "https://cluster.example "}', "issuer: must have"),
        (METADATA, json.dumps({"issuer": f"https://{'c' * 600}"}), "issuer: must have"),
        (KEYS, "{}", "has no RSA key"),
        (KEYS, '{"keys": [7, {"kty": "RSA", "kid": "a"}, {"kid": "b"}]}', "has no RSA key"),
    ],
)
def test_documents_that_entra_would_not_take_are_refused(
    issuer: Path, document: Path, content: str, complaint: str
) -> None:
    """At the start, by the name of the document or member."""
    (issuer / document).write_text(content)

    with pytest.raises(FederationError, match=complaint):
        trust(issuer, SUBJECT)


@pytest.mark.parametrize("subject", ["", " ", f"{SUBJECT} ", "s" * 601])
def test_a_subject_that_entra_would_not_take_is_refused(issuer: Path, subject: str) -> None:
    """Blanks at the ends block the exchange, so none is stored."""
    with pytest.raises(FederationError, match="subject: must have"):
        trust(issuer, subject)


def test_keys_for_anything_but_rs256_are_left_out(
    issuer: Path, cluster_key: rsa.RSAPrivateKey
) -> None:
    """Entra supports no other algorithm for federation."""
    elliptic = jwt.algorithms.ECAlgorithm.to_jwk(
        ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True
    )
    listed = [
        {**elliptic, "kid": "elliptic"},
        jwk(cluster_key, "encryption", use="enc"),
        jwk(cluster_key, "other", alg="RS512"),
        jwk(cluster_key, "good"),
    ]
    (issuer / KEYS).write_text(json.dumps({"keys": listed}))

    credential = trust(issuer, SUBJECT)

    assert (list(credential.keys), len(credential.keys)) == (["good"], 1)
