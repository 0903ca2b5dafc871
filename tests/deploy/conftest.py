"""Fixtures: the rendered overlays, and the variables that a deployment gives.

Nothing here needs a cluster. Without kubectl what depends on it is skipped, and says so.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kubernetes.engine import Engine, missing
from support.kubernetes.images import build_development_image, build_images
from support.kubernetes.manifests import KUBERNETES, OVERLAYS, Manifests, render


@pytest.fixture(scope="session")
def kubectl() -> str:
    """Return the path of kubectl, or skip."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not on PATH: the rendered manifests are not tested")
    return found


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, kubectl: str) -> Manifests:
    """Return each overlay in turn."""
    return render(KUBERNETES / str(request.param))


@pytest.fixture
def identity() -> dict[str, str]:
    """Return the variables that a filled-in env.example gives to authz."""
    return {
        "TENANT_ID": "11111111-1111-4111-8111-111111111111",
        "CLIENT_ID": "22222222-2222-4222-8222-222222222222",
        "AGENT_IDENTITY": "33333333-3333-4333-8333-333333333333",
        "SCOPE": "access_agent access_as_user",
    }


@pytest.fixture(scope="session")
def images(kubectl: str) -> Iterator[Engine]:
    """Return an engine that has built authz's image, or skip."""
    reason = missing()
    if reason is not None:
        pytest.skip(f"the image is not built: {reason}")
    # Not pytest's folder: it keeps the last three, and these are large.
    engine = Engine(Path(tempfile.mkdtemp(prefix="authz-image-")))
    try:
        build_images(engine)
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def development_images(images: Engine) -> Engine:
    """Return the engine with the image of kubernetes/kind as well."""
    build_development_image(images)
    return images
