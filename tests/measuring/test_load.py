"""h2load's answers are read right, and what is no good answer is no measurement."""

import pytest

from bench import load
from bench.load import LoadError, Target


@pytest.mark.usefixtures("h2load")
def test_each_request_is_counted_with_its_latency(web_server: str) -> None:
    """There is a latency for each answer, in order, and the bytes of all of them."""
    run = load.run(Target(f"{web_server}/"), seconds=0.3, in_flight=4)

    assert list(run.latencies) == sorted(run.latencies)
    assert run.latencies[0] <= run.quantile(0.5) <= run.quantile(0.99) <= run.latencies[-1]
    # What is under way at the end may have brought its bytes already.
    assert 100 * len(run.latencies) <= run.bytes_read <= 100 * (len(run.latencies) + 4)
    assert len(run.latencies) / run.seconds == run.rate


@pytest.mark.usefixtures("h2load")
def test_refused_requests_are_no_measurement(web_server: str) -> None:
    """The error says how many requests got which status."""
    with pytest.raises(LoadError, match=r"requests were answered \d+ x 403"):
        load.run(Target(f"{web_server}/denied"), seconds=0.3, in_flight=2)


def test_a_missing_h2load_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(LoadError, match="nghttp2-client"):
        load.find()
