"""Fixtures: a cluster of one real node, on which the laptop's script has run.

Without the node's programs each test is skipped, and says which variables would lead to them.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kubernetes.apiserver import CONTROLLERS, SERVER, missing
from support.kubernetes.engine import Engine
from support.kubernetes.engine import missing as no_engine
from support.kubernetes.images import (
    AUTHZ,
    DEVELOPMENT,
    SANDBOX,
    build_curl_image,
    build_development_image,
    build_images,
    build_sandbox_image,
    curl_image,
    envoy_image,
)
from support.kubernetes.real_cluster import RealCluster, up
from support.kubernetes.worker import reason_for_none


@pytest.fixture(scope="session")
def archive() -> Iterator[Path]:
    """Return a file with every image that the cluster needs, or skip."""
    reason = missing(*SERVER, CONTROLLERS) or reason_for_none() or no_engine()
    if reason is not None:
        pytest.skip(reason)
    # Not pytest's folder: it keeps the last three, and these are large.
    engine = Engine(Path(tempfile.mkdtemp(prefix="authz-image-")))
    try:
        build_images(engine)
        build_development_image(engine)
        build_sandbox_image(engine)
        build_curl_image(engine)
        file = engine.folder / "images.tar"
        images = (AUTHZ, DEVELOPMENT, SANDBOX, envoy_image(), curl_image())
        engine.podman("save", "--multi-image-archive", "--output", file, *images)
        yield file
    finally:
        engine.close()


@pytest.fixture(scope="session")
def cluster(archive: Path) -> Iterator[RealCluster]:
    """Return the cluster, with everything running that the script has applied."""
    # A path short enough for sockets in it, and open to every user.
    folder = Path(tempfile.mkdtemp(prefix="authz-"))
    folder.chmod(0o755)
    try:
        with up(archive, folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)
