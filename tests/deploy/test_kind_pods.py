"""`kubernetes/kind` runs: what its script applies, as containers, with the demo's scenarios from outside.

Needs root and packages of the operating system. `support.kubernetes.laptop` says how the script runs without
a cluster, `support.kubernetes.node` what stands for kubelet, network and DNS.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from authz_dev.emulator import default_directory
from authz_dev.emulator.entities import Client
from support.kubernetes.engine import Engine
from support.kubernetes.images import AUTHZ
from support.kubernetes.laptop import Laptop, checkout, missing, up

pytestmark = pytest.mark.system

TOKEN_FILE = "/var/run/secrets/azure/tokens/azure-identity-token"
TENANT = default_directory(1).tenants()[0].tenant_id


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder that every user can read; pytest's own is closed to others."""
    found = Path(tempfile.mkdtemp(prefix="authz-kind-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def laptop(development_images: Engine, kubectl: str, folder: Path) -> Iterator[Laptop]:
    """Return the laptop on which the script has run, and everything runs that it applied."""
    if (reason := missing()) is not None:
        pytest.skip(f"there is no network between the pods: {reason}")
    with up(development_images, kubectl, checkout(folder / "checkout")) as found:
        yield found


def _user(name: str) -> str:
    """Return the object id of a person in the emulator's directory."""
    found = default_directory(1).user(TENANT, f"{name}@contoso.example")
    assert found is not None
    return found.object_id


def _client(name: str) -> str:
    """Return the client id of an application or agent in the emulator's directory."""
    directory = default_directory(1)
    clients: list[Client] = [*directory.applications(TENANT)]
    for one in directory.applications(TENANT):
        clients += directory.agents(TENANT, one.client_id)
    (found,) = [one.client_id for one in clients if one.name == name]
    return found


def test_the_products_image_cannot_be_an_entra(images: Engine) -> None:
    """The emulator is not in it."""
    result = images.attempt("run", "--rm", "--network=none", AUTHZ, "emulator", "--out", "/tmp/x")  # noqa: S108

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: authz_dev is missing")


def test_the_agent_acts_for_its_users(laptop: Laptop) -> None:
    """One call of Entra for a user, none for him again: T1 is there already, for the token that is pushed."""
    before = laptop.entra_calls()
    alice, calls = laptop.mint("alice"), []
    for token in (alice, alice, laptop.mint("alice2")):
        status, body = laptop.ask("/my-orders", token)
        assert (status, body.get("by_an_agent")) == (200, True), body
        calls.append(laptop.entra_calls() - before)
    seen = [call["claims"] for call in laptop.calls()[-3:]]

    assert calls == [1, 1, 2]
    assert [claims["oid"] for claims in seen] == [_user(n) for n in ("alice", "alice", "alice2")]
    assert {claims["azp"] for claims in seen} == {_client("support-desk")}


def test_graph_sees_the_agent_acting_for_the_user(laptop: Laptop) -> None:
    """Another host, another route, the same user; Graph's tokens are of version 1."""
    status, body = laptop.ask("/my-profile", laptop.mint("alice"))

    assert (status, body["userPrincipalName"]) == (200, "alice@contoso.example")
    assert laptop.emulator("graph")[-1]["appid"] == _client("support-desk")


@pytest.mark.parametrize(
    ("path", "actor", "idtyp"),
    [("/jobs/nightly", "support-desk", "app"), ("/jobs/desk", "support-desk", "user")],
)
def test_the_agent_acts_by_itself(laptop: Laptop, path: str, actor: str, idtyp: str) -> None:
    """As itself, and as its own user account."""
    status, body = laptop.ask(path, laptop.mint("alice"))

    assert status == 200, body
    assert (body["called_by"]["azp"], body["called_by"]["idtyp"]) == (_client(actor), idtyp)
    assert body["called_by"]["oid"] != _user("alice")


def test_the_blueprint_reads_the_directory(laptop: Laptop) -> None:
    """A token of the blueprint itself, for Graph alone."""
    status, _ = laptop.ask(
        f"/jobs/directory?app_id={_client('support-desk')}", laptop.mint("alice")
    )

    assert status == 200
    assert laptop.emulator("graph")[-1]["appid"] == _client("support blueprint")


@pytest.mark.parametrize(
    ("order", "status", "reason"),
    [
        (None, 401, "missing_token"),
        ({"audience": _client("orders"), "scopes": ["Orders.Read"]}, 401, "invalid_token"),
        ({"lifetime": -3600}, 401, "invalid_token"),
        ({"scopes": ["profile.read"]}, 403, "insufficient_scope"),
        ({"key": "foreign"}, 401, "invalid_token"),
        ({"alg": "none"}, 401, "invalid_token"),
    ],
    ids=["none", "wrong-audience", "expired", "missing-scope", "forged", "unsigned"],
)
def test_a_bad_caller_does_not_reach_the_agent(
    laptop: Laptop, order: dict[str, Any] | None, status: int, reason: str
) -> None:
    """The refusal is authz's own; neither the app nor an API hears of it, and Entra is not asked."""
    token = None
    if order is not None:
        genuine = jwt.get_unverified_header(laptop.mint())["kid"]
        token = laptop.mint(**order, header={"kid": genuine})
    before = (laptop.app_calls(), len(laptop.calls()), laptop.entra_calls())

    answer, body = laptop.ask("/my-orders", token)

    assert (answer, body["reason"]) == (status, reason)
    assert (laptop.app_calls(), len(laptop.calls()), laptop.entra_calls()) == before


def test_identity_headers_of_the_caller_do_not_count(laptop: Laptop) -> None:
    """What the caller calls himself is removed; what was verified is there."""
    forged = ("x-authz-subject: admin", "x-authz-admin: true")

    status, seen = laptop.ask("/whoami", laptop.mint("alice"), *forged)

    assert (status, seen["x-authz-subject"]) == (200, _user("alice"))
    assert "x-authz-admin" not in seen


def test_a_host_without_route_is_refused(laptop: Laptop) -> None:
    """Prompt injection ends at Envoy."""
    status, body = laptop.ask("/fetch?url=http://stranger.example/", laptop.mint("alice"))

    assert (status, body["reason"]) == (403, "unknown_route")


@pytest.mark.parametrize(
    ("user", "reason"), [("bob", "consent_required"), ("carol", "interaction_required")]
)
def test_what_entra_refuses_reaches_the_caller(laptop: Laptop, user: str, reason: str) -> None:
    """Consent and Conditional Access are the user's to mend."""
    status, body = laptop.ask("/my-orders", laptop.mint(user))

    assert (status, body["reason"]) == (401, reason)


def test_throttling_is_passed_on(laptop: Laptop) -> None:
    """A fault of the emulator: 429 with a time to wait, for one user's exchange."""
    fault = {"kind": "status", "target": "token", "status": 429, "retry_after": 7, "count": 1}
    laptop.emulator("faults", {**fault, "match": {"leg": "agent_obo"}})

    status, body = laptop.ask("/my-orders", laptop.mint("alice3"))

    assert (status, body["reason"]) == (503, "exchange_throttled")


def test_the_agent_cannot_read_the_credential(laptop: Laptop) -> None:
    """The container of authz alone has the token of the service account. The agent has neither socket."""

    def read(name: str, path: str) -> int:
        code = f"open({path!r}).read()"
        return laptop.node.within("agent", name, "python", "-c", code).returncode

    assert (read("authz", TOKEN_FILE), read("agent", TOKEN_FILE)) == (0, 1)
    for name in ("authz.sock", "checks.sock"):
        connect = f"import socket; socket.socket(socket.AF_UNIX).connect('/run/authz/{name}')"
        held = laptop.node.within("agent", "authz", "python", "-c", connect)
        found = laptop.node.within("agent", "agent", "python", "-c", connect)
        assert (held.stderr, "No such file" in found.stderr) == ("", True)
    assert "No such file" in laptop.node.within("agent", "envoy", "cat", TOKEN_FILE).stderr
    secrets = laptop.node.within("agent", "agent", "env").stdout
    assert "AZURE" not in secrets
    assert "TENANT_ID" not in secrets


def test_the_network_policy_lets_the_pod_reach_what_it_needs_alone(laptop: Laptop) -> None:
    """The pods' port is open from the agent's pod; another port, and the way back to its app, are not."""

    def reaches(name: str, address: str, port: int) -> bool:
        code = f"import socket; socket.create_connection(({address!r}, {port}), 3)"
        return laptop.node.within(name, name, "python", "-c", code).returncode == 0

    emulator, orders, agent = (
        laptop.node.address(name) for name in ("emulator", "orders", "agent")
    )
    assert [reaches("agent", emulator, 8443), reaches("agent", orders, 8443)] == [True, True]
    assert [reaches("agent", emulator, 80), reaches("agent", "10.96.0.200", 443)] == [False, False]
    assert [reaches("orders", agent, 9902), reaches("orders", agent, 8080)] == [False, False]
    assert reaches("emulator", orders, 8443) is False


def test_nothing_can_be_written_where_the_root_is_read_only(laptop: Laptop) -> None:
    """As the manifests say: only what is mounted for it."""
    for pod, container in (
        ("agent", "agent"),
        ("agent", "authz"),
        ("emulator", "emulator"),
        ("orders", "orders"),
    ):
        done = laptop.node.within(pod, container, "python", "-c", "open('/opt/x', 'w')")
        who = laptop.node.within(pod, container, "python", "-c", "import os; print(os.getuid())")
        assert "Read-only file system" in done.stderr
        assert int(who.stdout) == (10001 if container == "agent" else 65532)


def test_the_lines_to_paste_work(laptop: Laptop) -> None:
    """`ask.sh` shows the answer and what the API saw, and prints commands that do the same in a shell."""
    asked = subprocess.run(
        laptop.node.command(laptop.script.with_name("ask.sh"), "alice", "/my-orders"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line for line in asked.splitlines() if line.startswith(("token=", "printf", "curl"))]

    pasted = subprocess.run(
        laptop.node.command("sh", "-c", "\n".join(lines)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "HTTP/1.1 200 OK" in asked
    assert "HTTP/1.1 200 OK" in pasted
    assert f'"azp":"{_client("support-desk")}"' in pasted.rpartition('"refused":null')[2]
    assert "eyJ" not in asked + pasted


def test_new_signing_keys_are_found_and_old_ones_are_no_more(laptop: Laptop) -> None:
    """A token of the new key passes; one of the withdrawn key is refused; the agent's own T1 is renewed."""
    old = laptop.mint("alice")
    laptop.emulator("keys/roll", {"withdraw_old": True})

    renewed, body = laptop.ask("/my-orders", laptop.mint("alice3"))
    refused, why = laptop.ask("/my-orders", old)

    assert renewed == 200, body
    assert (refused, why["reason"]) == (401, "invalid_token")


def test_only_the_agents_tokens_reached_the_api(laptop: Laptop) -> None:
    """After all of the above: none of the users' own, and none was refused."""
    calls = laptop.calls()

    assert {call["refused"] for call in calls} == {None}
    assert {call["claims"]["azp"] for call in calls} == {_client("support-desk")}
    assert {call["claims"]["aud"] for call in calls} == {_client("orders")}


def test_envoy_asks_about_users_alone(laptop: Laptop) -> None:
    """What the agent does by itself it did above, with tokens that Envoy was given ahead."""
    assert laptop.routes_asked_about() == {"orders", "graph"}


def test_no_token_is_in_any_log(laptop: Laptop) -> None:
    """Of no container, whatever happened above."""
    logs = {
        f"{pod}/{name}": text
        for pod in ("emulator", "orders", "agent")
        for name, text in laptop.node.logs(pod).items()
    }

    assert [
        name
        for name in ("agent/agent", "agent/envoy", "agent/authz", "orders/orders")
        if not logs[name]
    ] == []
    assert [name for name, text in logs.items() if "eyJ" in text] == []


def test_without_the_emulator_known_tokens_go_on(laptop: Laptop) -> None:
    """Told to end it ends at once, with status 0; what is cached is served, what is not is a 503."""
    warm, cold = laptop.mint("alice"), laptop.mint("alice2")
    assert laptop.ask("/my-orders", warm)[0] == 200
    began = time.monotonic()

    status = laptop.node.stop("emulator", "emulator")
    known, unknown = laptop.ask("/my-orders", warm), laptop.ask("/my-orders", cold)

    assert (status, time.monotonic() - began < 20) == (0, True)
    assert known[0] == 200
    assert (unknown[0], unknown[1]["reason"]) == (503, "exchange_unavailable")


def test_without_authz_nothing_passes(laptop: Laptop) -> None:
    """Fails closed."""
    laptop.node.kill("agent", "authz")

    assert laptop.ask("/my-orders", "any")[0] == 503
