"""Fixtures: the rendered overlays, and the variables that a deployment gives.

Nothing here needs a cluster. Without kubectl what depends on it is skipped, and says so.
"""

import shutil

import pytest

from support.manifests import KUBERNETES, OVERLAYS, Manifests, render


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
    }
