"""The whole bench with next to nothing measured: its output is what its readers rely on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from authz._pb.external_auth_pb2 import CheckResponse, DeniedHttpResponse
from authz._pb.http_status_pb2 import HttpStatus
from authz._pb.status_pb2 import Status
from authz.doors.envoy.grpc_server import ServerSettings
from authz_dev.demo.processes import free_ports
from bench import compare, edges, plot, run, straight, through_envoy
from bench.load import LoadError
from bench.rows import Effort
from support.proxy.ext_authz_server import ExtAuthzServer

pytestmark = pytest.mark.thorough

QUICK = Effort(rounds=1, loaded=0.3, single=0.3)
PERMISSION_DENIED = 7


@pytest.mark.usefixtures("h2load")
def test_one_run_has_every_row_and_ratio(tmp_path: Path) -> None:
    """The JSON document has the promised shape, and the picture can be drawn from it.

    Pushed tokens and edge hits ask for no Check, and a Check hit asks for one at each request.
    """
    results = run.measure(run.QUICK, announce=lambda _: None)
    results.write(tmp_path / "latest.json")
    document = json.loads((tmp_path / "latest.json").read_text())
    rows = {row["name"]: row for row in document["rows"]}

    assert {
        *(way.name for way in through_envoy.WAYS),
        *("floor", "floor_direct", "check_hit_direct", "check_door_direct", "check_hit_logged"),
        *("check_rules_direct", "inbound_hit_direct", "inbound_cold", "asgi_direct", "api_hit"),
        *(name for name in rows if name.startswith("workers_")),
    } == set(rows)
    assert "workers_1" in rows
    assert {
        **dict.fromkeys(("envoy", "pushed", "edge_hit", "edge_rules"), 0),
        **dict.fromkeys(("envoy_upstream", "pushed_upstream", "edge_upstream"), 0),
        **dict.fromkeys(("envoy_fast_upstream", "pushed_fast_upstream", "edge_fast_upstream"), 0),
        **dict.fromkeys(("check_hit", "check_door", "check_upstream", "floor"), 1),
    } == {
        name: round(row["checks_per_request"])
        for name, row in rows.items()
        if row["checks_per_request"] is not None
    }
    assert all(row["requests_per_second"] > 0 for row in rows.values())
    assert all(0 < row["p50_us"] <= row["p99_us"] for row in rows.values())
    assert {**through_envoy.RATIOS, **straight.RATIOS}.keys() <= document["ratios"].keys()
    assert all(ratio > 0 for ratio in document["ratios"].values())
    assert document["ratios"].keys() == document["ratio_ranges"].keys()
    assert 1 == document["figures"]["exchanges_for_200_checks_of_one_key"]
    assert 0 < document["figures"]["exchange_cpu_ms"]
    assert 0 < document["figures"]["exchange_cpu_ms_msal"]
    assert "exchange_vs_msal" in document["ratios"]
    assert 10_000_000 < document["figures"]["bytes_at_rest"]
    assert 0 < document["figures"]["render_3_s"]
    assert 0 < document["figures"]["secrets_held_3_s"]
    assert 0 <= document["figures"]["idle_cpu_ms_per_s_3"]
    situations = ("quiet_0k", "new_users_0k", "quiet_3", "scrape_3", "reload_3")
    slowest = [
        (document["figures"][f"hit_p999_ms_{each}"], document["figures"][f"hit_max_ms_{each}"])
        for each in situations
    ]
    assert all(0 < most_keep_to <= longest for most_keep_to, longest in slowest)
    assert {"processor", "cores", "python", "envoy"} <= document["machine"].keys()
    assert list(run.QUICK.levels) == [level["users"] for level in document["users"]]
    assert plot.draw(document).startswith("<svg")


@pytest.mark.usefixtures("h2load")
def test_another_server_gets_a_row_in_the_same_table() -> None:
    """Its row stands beside Envoy alone, the floor and ours, with its ratios."""
    with ExtAuthzServer(ServerSettings("127.0.0.1:0")) as server:
        results = compare.compare(server.address, "theirs", QUICK)

    assert ["envoy", "check_hit", "floor", "theirs"] == [row.name for row in results.rows]
    assert {"theirs_vs_envoy", "theirs_vs_check_hit", "theirs_vs_floor"} <= results.ratios.keys()


@pytest.mark.usefixtures("h2load")
def test_a_server_on_a_port_needs_no_health_service() -> None:
    """It serves ext_authz, and nothing else."""
    port = free_ports(1)[0]
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.floor", address]
    server = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
    try:
        results = compare.compare(address, "theirs", QUICK)
    finally:
        server.terminate()
        server.wait()

    assert "theirs_vs_floor" in results.ratios


@pytest.mark.usefixtures("h2load")
def test_parts_of_an_edge_hit_are_measured() -> None:
    """Each variant lets the request through without a Check."""
    results = edges.measure(QUICK, announce=lambda _: None)

    assert ["envoy", "edge_hit", *edges.VARIANTS, *edges.ALONE] == [
        row.name for row in results.rows
    ]


@pytest.mark.usefixtures("h2load")
def test_a_server_that_denies_gets_no_row() -> None:
    """What it answered is in the message."""
    with ExtAuthzServer(ServerSettings("127.0.0.1:0")) as server:
        server.answer = lambda _: CheckResponse(
            status=Status(code=PERMISSION_DENIED),
            denied_response=DeniedHttpResponse(status=HttpStatus(code=403), body="not today"),
        )

        with pytest.raises(LoadError, match="theirs: the request was answered with 403 not today"):
            compare.compare(server.address, "theirs", QUICK)
