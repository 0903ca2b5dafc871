"""The pod's connections reach Envoy though the agent knows of no proxy: real kernel, Envoy, curl and service.

Needs root and netfilter. Two network namespaces of the test stand for the pod and for the rest of the
world; the script, its variables, its rights and the users are those of the rendered component. There is no
kubelet and no network plugin.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.kubernetes.manifests import with_https
from support.kubernetes.namespaces import OTHER, POD, missing
from support.kubernetes.redirected import TOOLS, RedirectedPod

pytestmark = pytest.mark.system

WHOAMI: Final = "http://graph.microsoft.com/v1.0/whoami"
STATUS: Final = ("--output", "/dev/null", "--write-out", "%{http_code}")

URLLIB: Final = """\
import sys, urllib.request
url, token = sys.argv[1:]
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""

HTTPX: Final = """\
import sys, httpx
url, token = sys.argv[1:]
with httpx.Client(headers={"Authorization": f"Bearer {token}"}, http2=True) as client:
    print(client.get(url).text)
"""

TLS_NAME: Final = """\
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with socket.create_connection(("graph.microsoft.com", 443), timeout=10) as plain:
    try:
        with context.wrap_socket(plain, server_hostname=sys.argv[1]) as connection:
            shown = connection.getpeercert(binary_form=True)
            print("the pod's own" if b"authz" in shown else "the API")
    except OSError:
        print("refused")
"""

DATAGRAMS: Final = """\
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    sender.connect((host, port))
    try:
        sender.send(b"hello")
    except OSError as error:
        print(type(error).__name__)
"""

# No class of the library: those ask for the name of their own address, and here nobody knows it.
SERVER: Final = """\
import socket
listener = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
"""

# A segment of no connection that the kernel knows, as is left of one that it has forgotten.
STRAY: Final = """\
import socket, struct, sys
source, target = (socket.inet_aton(address) for address in sys.argv[1:])
data = b"GET / HTTP/1.1\\r\\n\\r\\n"
def segment(checksum):
    return struct.pack("!HHIIBBHHH", 40000, 80, 7, 7, 5 << 4, 0x18, 1024, checksum, 0) + data
whole = source + target + struct.pack("!BBH", 0, 6, len(segment(0))) + segment(0)
total = sum(struct.unpack(f"!{len(whole) // 2}H", whole)) if len(whole) % 2 == 0 else 0
total = (total & 0xFFFF) + (total >> 16)
total = (total & 0xFFFF) + (total >> 16)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
    try:
        raw.sendto(segment(~total & 0xFFFF), (sys.argv[2], 0))
    except PermissionError:
        print("refused")
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder that every user can read; pytest's own is closed to others."""
    found = Path(tempfile.mkdtemp(prefix="authz-redirected-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def pod(folder: Path) -> Iterator[RedirectedPod]:
    """Return the pod without rules and without Envoy."""
    reason = missing()
    if reason is not None:
        pytest.skip(f"nothing is redirected: {reason}")
    with RedirectedPod(with_https("client-secret-file"), folder) as running:
        yield running


@pytest.fixture(scope="module", params=["nft", "iptables", "iptables-legacy"])
def form(request: pytest.FixtureRequest, folder: Path) -> tuple[str, str]:
    """Return each form of the rules, and the folder whose programs make them."""
    form = str(request.param)
    if form != "iptables-legacy":
        return form, ""
    legacy = shutil.which("xtables-legacy-multi")
    if legacy is None:
        pytest.skip("there is no older iptables here")
    (programs := folder / "legacy").mkdir()
    for family in ("iptables", "ip6tables"):
        for name in (family, f"{family}-restore"):
            (programs / name).symlink_to(legacy)
    return "iptables", str(programs)


@pytest.fixture(scope="module")
def redirected(pod: RedirectedPod, form: tuple[str, str]) -> Iterator[RedirectedPod]:
    """Return the pod with rules and with Envoy, which passes TLS on; afterwards both are gone."""
    name, path = form
    before = pod.rules()
    done = pod.intercept("--form", name, path=path)
    assert done.returncode == 0, done.stderr
    with pod.envoy("pass-tls"):
        yield pod
    assert pod.intercept("--remove", path=path).returncode == 0
    assert _ours(pod.rules()) == _ours(before) == []


def _ours(rules: str) -> list[str]:
    return [line for line in rules.splitlines() if "authz" in line.lower()]


def _authorization(pod: RedirectedPod) -> tuple[str, str]:
    return "--header", f"Authorization: Bearer {pod.token}"


def test_api_hears_the_agent_and_not_the_user(redirected: RedirectedPod) -> None:
    """Plain curl, plain `http://`: Graph gets the agent's token for the user, over TLS."""
    status, body = redirected.curl(*_authorization(redirected), WHOAMI)

    assert status == 0
    claims = json.loads(body)
    assert claims["appid"] == redirected.agent_identity
    assert claims["upn"].startswith("alice@")


def test_python_does_too(redirected: RedirectedPod) -> None:
    """A client that reads no proxy variable, because there is none."""
    result = redirected.python(URLLIB, WHOAMI, redirected.token)

    assert json.loads(result.stdout)["appid"] == redirected.agent_identity, result.stderr


def test_call_without_user_is_refused(redirected: RedirectedPod) -> None:
    """No silent downgrade: the route acts for a user."""
    assert redirected.curl(*STATUS, WHOAMI) == (0, "401")


def test_ipv6_is_redirected(redirected: RedirectedPod) -> None:
    """The address decides nothing: Envoy goes by the host of the request."""
    before = redirected.arrived("segments")
    there = ("--connect-to", f"::[{OTHER[1]}]:80")

    status, body = redirected.curl(*there, *_authorization(redirected), WHOAMI)

    assert status == 0
    assert json.loads(body)["appid"] == redirected.agent_identity
    assert redirected.arrived("segments") == before


@pytest.mark.parametrize("address", OTHER)
def test_unknown_host_is_refused(redirected: RedirectedPod, address: str) -> None:
    """As with a proxy: by authz, with the reason, and nothing reaches the host."""
    before = redirected.arrived("segments")
    there = ("--connect-to", f"::[{address}]:80")

    status, body = redirected.curl(*there, *_authorization(redirected), "http://other.example/")

    assert (status, json.loads(body)["reason"]) == (0, "unknown_route")
    assert redirected.arrived("segments") == before


@pytest.mark.parametrize("address", OTHER)
def test_tls_goes_on_untouched(redirected: RedirectedPod, folder: Path, address: str) -> None:
    """The client sees the host's own certificate; Envoy's log has the name and the address."""
    there = ("--connect-to", f"::[{address}]:443", "--cacert", str(folder / "other.pem"))

    status, body = redirected.curl(*there, "https://other.example/")

    assert (status, body) == (0, f"other tls {POD[OTHER.index(address)]}")
    destination = f"[{address}]:443" if ":" in address else f"{address}:443"
    assert redirected.passed_on(destination)["tls_name"] == "other.example"


def test_service_without_tls_is_reached_without_the_users_token(redirected: RedirectedPod) -> None:
    """By a route of plain HTTP, through Envoy; TLS to the same name is another service, and goes on."""
    plain = redirected.curl(*_authorization(redirected), f"http://{TOOLS}/")
    secure = redirected.curl("--insecure", *_authorization(redirected), f"https://{TOOLS}/")

    # By the address that answered first.
    assert plain in [(0, f"other plain {address}") for address in POD]
    assert secure in [(0, f"other tls {address} with a token") for address in POD]


def test_tls_to_a_host_with_a_route_is_refused(redirected: RedirectedPod) -> None:
    """It could not be given a token; the agent means `http://`."""
    status, _ = redirected.curl("--insecure", "https://graph.microsoft.com/v1.0/whoami")

    assert status == 35


@pytest.mark.parametrize("https", [False, True])
@pytest.mark.parametrize("name", ["graph.microsoft.com.", "GRAPH.microsoft.com"])
def test_tls_by_another_spelling_is_not_passed_on(
    redirected: RedirectedPod, name: str, https: bool
) -> None:
    """Python asks for the name as the URL has it, with the root's dot: it is the same host (law 4)."""
    with redirected.envoy("pass-tls", https=https):
        said = redirected.as_agent(sys.executable, "-c", TLS_NAME, name).stdout

    # Nobody but Envoy's own chain for the plain name may have answered.
    assert said in ({"refused\n"} if name.endswith(".") or not https else {"the pod's own\n"})


def test_tls_that_envoy_may_end_gets_the_token(redirected: RedirectedPod, folder: Path) -> None:
    """With `https`, for a host with a route, by the agent's variables alone. Others go on untouched."""
    secure = WHOAMI.replace("http:", "https:")
    commands = {
        "curl": ["curl", "--silent", "--max-time", "10", *_authorization(redirected), secure],
        "urllib": [sys.executable, "-c", URLLIB, secure, redirected.token],
        "httpx": [sys.executable, "-c", HTTPX, secure, redirected.token],
    }

    with redirected.envoy("pass-tls", https=True):
        outcomes = {name: redirected.as_agent(*command) for name, command in commands.items()}
        _, other = redirected.curl("--cacert", str(folder / "other.pem"), "https://other.example/")
        strange = redirected.as_agent("curl", "--silent", "https://other.example/")
        without_user = redirected.as_agent("curl", "--silent", *STATUS, secure)

    for name, outcome in outcomes.items():
        assert outcome.returncode == 0, (name, outcome.stderr)
        assert json.loads(outcome.stdout)["appid"] == redirected.agent_identity, name
    assert other.startswith("other tls")
    # The pod's authority vouches for hosts of routes only, so what is passed on is still verified.
    assert strange.returncode == 60
    assert without_user.stdout == "401"


def test_what_the_agent_trusts_was_there_before_it(redirected: RedirectedPod) -> None:
    """The init container has written it, and the service has taken it up: no start has to wait."""
    there = {file.name: file.read_bytes() for file in redirected.trust.iterdir()}

    assert there.keys() == {"ca.pem", "bundle.pem", "truststore.p12"}
    assert there["ca.pem"] == redirected.prepared["ca.pem"]
    assert there["bundle.pem"] == redirected.prepared["bundle.pem"]


def test_the_agent_can_neither_read_the_key_nor_change_what_it_trusts(
    redirected: RedirectedPod,
) -> None:
    """By the users alone. That it has no such mount is what the manifests' tests see to."""
    key = redirected.trust.with_name("authz-ca") / "ca.key"

    assert redirected.as_agent("cat", key).returncode == 1
    assert redirected.as_agent("touch", redirected.trust / "ca.pem").returncode == 1
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("where", ["127.0.0.1:15001", "[::1]:15001"])
def test_nobody_is_led_back_to_envoy(redirected: RedirectedPod, where: str) -> None:
    """TLS that nobody has redirected ends at Envoy's own port."""
    before = redirected.statistic("cluster.untouched.upstream_cx_total")
    there = ("--connect-to", f"::{where}")

    status, _ = redirected.curl(*there, "--insecure", "https://other.example/")

    assert status == 35
    assert redirected.statistic("cluster.untouched.upstream_cx_total") == before


def test_what_stays_in_the_pod_is_not_redirected(redirected: RedirectedPod) -> None:
    """Loopback, and the pod's own address."""
    assert redirected.curl(*STATUS, "http://127.0.0.1:9902/livez") == (0, "200")
    assert redirected.curl(*STATUS, f"http://{POD[0]}:9902/livez") == (0, "200")


def test_callers_from_outside_are_answered(redirected: RedirectedPod) -> None:
    """Probes and metrics, of authz and of a server that the agent's own user runs."""
    server = redirected.pod.command([sys.executable, "-c", SERVER], redirected.users["agent"])
    with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for address in (POD[0], f"[{POD[1]}]"):
                answer = redirected.curl(
                    *STATUS,
                    *("--retry", "20", "--retry-connrefused", "--retry-delay", "1"),
                    f"http://{address}:9000/",
                    namespace=redirected.outside,
                )
                assert answer == (0, "200")
        finally:
            process.terminate()
    probe = redirected.curl(*STATUS, f"http://{POD[0]}:9902/livez", namespace=redirected.outside)
    assert probe == (0, "200")


@pytest.mark.parametrize("user", ["envoy", "authz"])
def test_excluded_user_goes_straight_out(redirected: RedirectedPod, user: str) -> None:
    """This is why nothing else may run as one of them; tests of the manifests and a policy see to it."""
    assert redirected.curl("http://other.example/", user=user)[1].startswith("other plain")


@pytest.mark.parametrize("address", OTHER)
def test_http3_is_refused_and_other_datagrams_are_not(
    redirected: RedirectedPod, address: str
) -> None:
    """The sender is told at once. Datagrams are not redirected: docs/interception.md says so."""
    quic, udp = redirected.arrived("quic"), redirected.arrived("datagrams")

    assert redirected.python(DATAGRAMS, address, "443").stdout == "PermissionError\n"
    assert redirected.python(DATAGRAMS, address, "8125").stdout == ""

    assert redirected.arrived("quic") == quic
    assert redirected.arrived("datagrams") == udp + 1


def test_segment_of_no_connection_does_not_leave(redirected: RedirectedPod) -> None:
    """The kernel would not redirect it, and it may hold the caller's token."""
    redirected.pod.set("netfilter/nf_conntrack_tcp_loose", 0)
    before = redirected.arrived("segments")

    outcome = redirected.pod.run(sys.executable, "-c", STRAY, POD[0], OTHER[0])

    assert (outcome.stdout, outcome.stderr) == ("refused\n", "")
    assert redirected.arrived("segments") == before


def test_rules_are_the_same_after_a_second_time(
    redirected: RedirectedPod, form: tuple[str, str]
) -> None:
    """An init container may run again."""
    before = redirected.rules()

    assert redirected.intercept("--form", form[0], path=form[1]).returncode == 0

    assert redirected.rules() == before
    assert _ours(before)


def test_bad_variable_changes_nothing(redirected: RedirectedPod, form: tuple[str, str]) -> None:
    """The script names it, and the rules stay."""
    before = redirected.rules()

    for name in ("EXCLUDE_UIDS", "ENVOY_PORT", "EXCLUDE_CIDRS", "EXCLUDE_PORTS"):
        result = redirected.intercept("--form", form[0], path=form[1], **{name: "bad"})
        assert result.returncode == 2
        assert name in result.stderr

    assert redirected.rules() == before


def test_excluded_networks_and_ports_are_reached_directly(
    redirected: RedirectedPod, form: tuple[str, str]
) -> None:
    """And only those; the next run takes it back."""

    def plain(address: str, port: int) -> str:
        there = ("--connect-to", f"::[{address}]:{port}")
        return redirected.curl(*there, "http://other.example/")[1][:11]

    networks = f"{OTHER[0]}/32,{OTHER[1]}"
    redirected.intercept("--form", form[0], path=form[1], EXCLUDE_CIDRS=networks)
    assert [plain(address, 80) for address in OTHER] == ["other plain"] * 2

    redirected.intercept("--form", form[0], path=form[1], EXCLUDE_PORTS="80")
    assert [plain(address, 80) for address in OTHER] == ["other plain"] * 2

    redirected.intercept("--form", form[0], path=form[1])
    assert "other plain" not in [plain(address, 80) for address in OTHER]


def test_nothing_leaves_without_envoy(redirected: RedirectedPod) -> None:
    """Refused at once, plain or TLS, by either family; no packet reaches the outside."""
    before = redirected.arrived("segments")

    with redirected.envoy(None):
        outcomes = [
            redirected.curl("--connect-to", f"::[{address}]:{port}", f"{scheme}://other.example/")
            for address in OTHER
            for scheme, port in (("http", 80), ("https", 443))
        ]
        outcomes.append(redirected.curl(*_authorization(redirected), WHOAMI))

    assert outcomes == [(7, "")] * 5
    assert redirected.arrived("segments") == before


def test_tls_can_be_refused(redirected: RedirectedPod) -> None:
    """`--transparent refuse-tls`: plain HTTP as ever, and no way around."""
    before = redirected.arrived("segments")

    with redirected.envoy("refuse-tls"):
        assert redirected.curl("--insecure", "https://other.example/")[0] == 35
        answer = redirected.curl(*STATUS, *_authorization(redirected), WHOAMI)

    assert answer == (0, "200")
    assert redirected.arrived("segments") == before


def test_envoy_starts_in_a_pod_without_ipv6(pod: RedirectedPod) -> None:
    """There is no ::1 then, and nothing to redirect there."""
    pod.pod.set("ipv6/conf/lo/disable_ipv6", 1)
    try:
        with pod.envoy("pass-tls"):
            assert pod.curl(*STATUS, "http://127.0.0.1:15001/") == (0, "403")
    finally:
        pod.pod.set("ipv6/conf/lo/disable_ipv6", 0)
