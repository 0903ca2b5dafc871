"""The demo, run once as a program of its own and kept running for the tests of this folder."""

import signal
from collections.abc import Iterator

import pytest

from support.programs.demo import Demo, Ended, running


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo after its scenarios, still running: `authz demo --json --keep`."""
    with running(tmp_path_factory.mktemp("kept"), "--json", "--keep") as demo:
        demo.wait_for(lambda: "# Envoy's configuration" in demo.stderr)
        yield demo


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The demo for people, kept running after its scenarios and then ended with Ctrl-C."""
    with running(tmp_path_factory.mktemp("ended"), "--keep") as demo:
        demo.wait_for(lambda: "# Envoy's configuration" in demo.stdout)
        children = demo.children()
        return Ended(demo, children, demo.end(signal.SIGINT))
