"""One running emulator for the whole directory, and fresh ones for tests that change it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from authz_dev.emulator import Emulator
from authz_dev.emulator.federation import KEYS, METADATA
from emulator.scene import Clock, Scene, trusting


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    """An emulator whose directory no test changes."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def scene(shared_emulator: Emulator) -> Iterator[Scene]:
    """A scene on the shared emulator, left without faults and counts."""
    shared_emulator.calls.reset()
    with trusting(shared_emulator) as session:
        yield Scene(shared_emulator, session)
    shared_emulator.faults.clear()


@pytest.fixture
def clock() -> Clock:
    """The clock of `fresh_scene`."""
    return Clock()


@pytest.fixture
def fresh_scene(clock: Clock) -> Iterator[Scene]:
    """A scene on an emulator of its own, for tests that change the directory, keys or time."""
    with Emulator(clock=clock) as emulator, trusting(emulator) as session:
        yield Scene(emulator, session)


@pytest.fixture(scope="session")
def cluster_key() -> rsa.RSAPrivateKey:
    """The key that a cluster signs service accounts' tokens with."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def issuer(tmp_path: Path, cluster_key: rsa.RSAPrivateKey) -> Path:
    """A folder with the two documents that the cluster publishes."""
    folder = tmp_path / "issuer"
    metadata = {
        "issuer": "https://kubernetes.default.svc.cluster.local",
        "jwks_uri": "https://172.18.0.2:6443/openid/v1/jwks",
    }
    public = jwt.algorithms.RSAAlgorithm.to_jwk(cluster_key.public_key(), as_dict=True)
    keys = {"keys": [{**public, "use": "sig", "alg": "RS256", "kid": "cluster"}]}
    for path, document in ((METADATA, metadata), (KEYS, keys)):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(json.dumps(document))
    return folder
