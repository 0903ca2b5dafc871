"""Rules through a real Envoy with its edge cache: nothing gets past a rule, and each gives its own token."""

import json
import random
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final
from urllib.parse import unquote

import pytest

from support.programs.stack import World, claims, until
from support.proxy.pod import Pod, pod_of

HOST: Final = "graph.microsoft.com"
READ: Final = "https://graph.microsoft.com/User.Read"
MAIL: Final = "https://graph.microsoft.com/Mail.Read"

RULES: Final[list[dict[str, Any]]] = [
    {
        "name": "me",
        "methods": ["GET"],
        "paths": ["/v1.0/me", "/v1.0/me/calendar/**"],
        "scopes": [READ],
    },
    {"name": "no-mail", "paths": ["/v1.0/users/{id}/mail/**"], "deny": True},
    {"name": "users", "methods": ["GET", "POST"], "paths": ["/v1.0/users/**"], "scopes": [MAIL]},
    {
        "name": "create",
        "methods": ["POST", "DELETE"],
        "paths": ["/v1.0/me/events"],
        "scopes": [MAIL],
    },
]
INBOUND_RULES: Final[list[dict[str, Any]]] = [
    {"name": "read", "methods": ["GET"], "paths": ["/tasks/**"]},
    {"name": "never", "paths": ["/admin/**"], "deny": True},
]


@pytest.fixture(scope="module")
def pod(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod with rules in both directions, whose Envoy repeats answers for longer than any test takes."""
    changes = shared_world.config()
    changes["egress"]["graph"]["rules"] = RULES
    changes["inbound"]["agent"]["rules"] = INBOUND_RULES
    folder = tmp_path_factory.mktemp("rules")
    with pod_of(
        shared_world,
        folder,
        cache={"edge": {"max_ttl": "1h"}},
        egress=changes["egress"],
        inbound=changes["inbound"],
    ) as running:
        yield running


class Caller:
    """Sends requests byte by byte over one connection after another."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        self._file = self._socket.makefile("rb")

    def ask(self, method: str, target: str, token: str, *more: str) -> tuple[int, dict[str, Any]]:
        """Return status and body of the answer to a request."""
        lines = [f"{method} {target} HTTP/1.1", f"host: {HOST}", f"authorization: Bearer {token}"]
        lines += ["content-length: 0", *more, "", ""]
        self._socket.sendall("\r\n".join(lines).encode("latin-1"))
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self._file.readline().strip().decode("latin-1"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = self._file.read(int(headers.get("content-length", 0))) if method != "HEAD" else b""
        if headers.get("connection") == "close":
            self.close()
            self._connect()
        told = body and headers.get("content-type", "").endswith("json")
        return status, json.loads(body) if told else {}

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


@pytest.fixture
def caller(pod: Pod) -> Iterator[Caller]:
    """The agent, on its way out."""
    with closing(Caller(pod.sidecar.egress_port)) as made:
        yield made


def _scopes(answer: dict[str, Any]) -> set[str]:
    """Return the scopes of the token with which a request arrived."""
    arrived = dict(answer["headers"])["authorization"].removeprefix("Bearer ")
    return {*str(claims(arrived)["scp"]).split()} - {"openid", "profile"}


def test_each_rule_gives_the_token_that_it_says(pod: Pod, caller: Caller) -> None:
    """From the service, and again from Envoy's own cache."""
    token = pod.world.token()
    before = _checks(pod)
    for _ in range(3):
        assert {"User.Read"} == _scopes(caller.ask("GET", "/v1.0/me", token)[1])
        assert {"Mail.Read"} == _scopes(caller.ask("GET", "/v1.0/users/1", token)[1])
        assert {"Mail.Read"} == _scopes(caller.ask("DELETE", "/v1.0/me/events", token)[1])

    assert {("graph", "me"): 1, ("graph", "users"): 1, ("graph", "create"): 1} == _checks(
        pod
    ) - before


@pytest.mark.parametrize(
    ("method", "target", "status", "reason"),
    [
        ("DELETE", "/v1.0/me", 403, "rule_denied"),
        ("GET", "/v1.0/users/1/mail/2", 403, "rule_denied"),
        ("GET", "/v1.0/groups", 403, "rule_denied"),
        ("POST", "/v1.0/$batch", 403, "rule_denied"),
        ("GET", "/v1.0/ME", 400, "ambiguous_request"),
        ("GET", "/v1.0/me/", 400, "ambiguous_request"),
        ("GET", "/v1.0/users/1/Mail", 400, "ambiguous_request"),
        ("GET", "/v1.0/users/../groups", 400, "ambiguous_request"),
        ("GET", "/v1.0/users/1%2f..%2fgroups", 400, "ambiguous_request"),
        ("GET", "/v1.0/users/1/..;/groups", 400, "ambiguous_request"),
        ("GET", "//v1.0/me", 400, "ambiguous_request"),
        ("GET", "/v1.0/%6De", 400, "ambiguous_request"),
        ("GET", "/v1.0/me?_method=DELETE", 400, "ambiguous_request"),
    ],
)
def test_what_no_rule_allows_does_not_go_out(
    pod: Pod, caller: Caller, method: str, target: str, status: int, reason: str
) -> None:
    """Though the same user has just been let out to /v1.0/me, and Envoy repeats that."""
    token = pod.world.token()
    assert 200 == caller.ask("GET", "/v1.0/me", token)[0]
    assert 200 == caller.ask("GET", "/v1.0/users/1", token)[0]

    for _ in range(2):
        answered, problem = caller.ask(method, target, token)
        assert (status, reason) == (answered, problem["reason"])


@pytest.mark.parametrize(
    "header",
    [
        "x-http-method-override: DELETE",
        "X-HTTP-Method: DELETE",
        "x_http-method_override: DELETE",
        "x-method-override: DELETE",
        "X-Original-URL: /v1.0/groups",
        "x_rewrite_url: /v1.0/groups",
        "Script-Name: /v1.0",
        "path_info: /v1.0/groups",
        "HTTP_Method-Override: DELETE",
    ],
)
def test_a_header_that_names_another_request_is_refused(
    pod: Pod, caller: Caller, header: str
) -> None:
    """Also where Envoy would repeat the answer to the same request without it."""
    token = pod.world.token()
    for _ in range(2):
        assert 200 == caller.ask("GET", "/v1.0/me", token)[0]

    answered, problem = caller.ask("GET", "/v1.0/me", token, header)
    assert (400, "ambiguous_request") == (answered, problem["reason"])


def test_rules_of_an_inbound_route(pod: Pod) -> None:
    """What comes in is ruled by what the agent will see of it."""
    headers = {"authorization": f"Bearer {pod.world.token()}"}
    caller = pod.sidecar.caller
    for _ in range(2):
        assert 200 == caller.get("/tasks/1", headers=headers).status_code
        assert 403 == caller.post("/tasks/1", headers=headers).status_code
        assert 403 == caller.get("/admin", headers=headers).status_code
        assert 400 == caller.get("/Tasks/1", headers=headers).status_code
    overriding = headers | {"x-http-method-override": "DELETE"}
    assert 400 == caller.get("/tasks/1", headers=overriding).status_code


async def test_the_log_names_the_rule(pod: Pod, caller: Caller) -> None:
    """The service's with the scopes and resource of the token, Envoy's also where it repeats an answer."""
    token = pod.world.token("alice2")
    for _ in range(2):
        caller.ask("GET", "/v1.0/me/calendar/1", token)
    caller.ask("GET", "/v1.0/users/1/mail", token)

    records: dict[str, dict[str, Any]] = {}

    def recorded() -> bool:
        found = [record for record in pod.authz.events() if record["event"] == "check"]
        records.update({record["path"]: record for record in found})
        return "/v1.0/users/1/mail" in records

    await until(recorded)
    assert "no-mail" == records["/v1.0/users/1/mail"]["rule"]
    record = records["/v1.0/me/calendar/1"]
    assert ("me", READ, "https://graph.microsoft.com") == tuple(
        record[name] for name in ("rule", "scopes", "resource")
    )
    lines: list[dict[str, Any]] = []

    def logged() -> bool:
        entries = [json.loads(line) for line in pod.sidecar.envoy.log.splitlines() if "{" in line]
        lines[:] = [entry for entry in entries if entry.get("path") == "/v1.0/me/calendar/1"]
        return len(lines) >= 2

    await until(logged)
    assert [("me", None), ("me", "allow")] == [(line["rule"], line.get("edge")) for line in lines]


def _checks(pod: Pod) -> Counter[tuple[str, str]]:
    """Return how many Checks the service has allowed, by route and rule."""
    found: Counter[tuple[str, str]] = Counter()
    for line in pod.authz.admin("/metrics").text.splitlines():
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        if line.startswith("authz_rules_total{") and labels["decision"] == "allow":
            found[labels["route"], labels["rule"]] += int(float(line.rpartition(" ")[2]))
    return found


SEGMENTS: Final = (
    *("v1.0", "me", "users", "1", "mail", "events", "calendar", "groups", "$batch"),
    *("ME", "Users", "MAIL", "mail.", "V1.0", "events;a=b", "%6De", "%6d%65", "m%65"),
    *(
        "..",
        ".",
        "",
        "%2e%2e",
        "%2E",
        "..;",
        "a%2f..%2fb",
        "%2f",
        "%5c..",
        "..%5c",
        "\\..",
        "%252e%252e",
    ),
    *("%EF%BD%8De", "me%20", "me%00", "%c0%ae%c0%ae", "*", "{id}", "users%3f", "users%23", "me%09"),
)
STARTS: Final = (
    ("v1.0", "me"),
    ("v1.0", "users"),
    ("v1.0", "users", "1", "mail"),
    ("v1.0", "me", "events"),
    ("v1.0", "me", "calendar"),
    ("v1.0", "groups"),
    (),
)
ENDS: Final = (
    "",
    "",
    "",
    "/",
    "?a=b",
    "?_method=DELETE",
    "?x=/../me",
    "#me",
    "?%5fmethod=DELETE",
    "//",
)
METHODS: Final = ("GET", "GET", "GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "get", "Post")
HEADERS: Final = (
    *((), (), (), (), (), ()),
    ("x-http-method-override: DELETE",),
    ("x_http_method: PUT",),
    ("X-Original-URL: /v1.0/groups",),
)
_PLAIN: Final = 0.3
EXACT: Final = (
    ("GET", r"/v1\.0/me(/calendar(/.*)?)?", {"User.Read"}),
    ("ANY", r"/v1\.0/users/[^/]+/mail(/.*)?", None),
    ("GET POST", r"/v1\.0/users(/.*)?", {"Mail.Read"}),
    ("POST DELETE", r"/v1\.0/me/events", {"Mail.Read"}),
)
"""The rules once more, for a server that reads a path as freely as any."""


def _as_served(seen: dict[str, Any]) -> tuple[str, str]:
    """Return what a server serves that decodes twice, cuts parameters, resolves dots and ignores case."""
    headers = {name.replace("_", "-"): value for name, value in seen["headers"]}
    path, _, query = seen["path"].partition("?")
    path = headers.get("x-original-url", headers.get("x-rewrite-url", path))
    method = re.search(r"(?:^|[&;])_method=(\w+)", unquote(query), re.IGNORECASE)
    served = str(method[1] if method else seen["method"])
    served = headers.get("x-http-method-override", headers.get("x-http-method", served))
    parts: list[str] = []
    for part in re.split(r"[/\\]", unquote(unquote(path)).partition("?")[0].partition("#")[0]):
        plain = part.partition(";")[0]
        if plain == "..":
            parts[-1:] = []
        elif plain.strip(". \t\0"):
            parts.append(plain.rstrip(". \t\0").casefold())
    return served.upper(), "/" + "/".join(parts)


def _wanted(method: str, path: str) -> set[str] | None:
    """Return the scopes for what is served; None where it is denied."""
    for methods, pattern, scopes in EXACT:
        if (methods == "ANY" or method in methods.split()) and re.fullmatch(pattern, path):
            return scopes
    return None


def _some_request(choose: random.Random) -> tuple[str, str, tuple[str, ...]]:
    """Return method, target and further headers of a request: plain ones, which Envoy repeats, or any."""
    if choose.random() < _PLAIN:
        return *choose.choice((("GET", "/v1.0/me"), ("POST", "/v1.0/users/1"))), ()
    parts = [*choose.choice(STARTS), *choose.choices(SEGMENTS, k=choose.choice((0, 1, 1, 2)))]
    target = "/" + "/".join(parts) + choose.choice(ENDS)
    return choose.choice(METHODS), target, choose.choice(HEADERS)


def wander(pod: Pod, *, number: int, seed: int) -> Counter[str]:
    """Send random requests of few users, and return how they ended; fail where one got past a rule."""
    with closing(Caller(pod.sidecar.egress_port)) as caller:
        return _wandered(pod, caller, number=number, seed=seed)


def _wandered(pod: Pod, caller: Caller, *, number: int, seed: int) -> Counter[str]:
    choose = random.Random(seed)  # noqa: S311 - to be repeated
    tokens = [pod.world.token(user) for user in ("alice", "alice2", "alice3")]
    destination = pod.sidecar.destinations[HOST]
    ended: Counter[str] = Counter()
    for _ in range(number):
        method, target, headers = _some_request(choose)
        destination.received.clear()
        status, answer = caller.ask(method, target, choose.choice(tokens), *headers)
        if not destination.received:
            ended[str(answer.get("reason", status))] += 1
            continue
        assert status == 200
        (seen,) = destination.received
        arrived = {"method": seen.method, "path": seen.path, "headers": seen.headers}
        wanted = _wanted(*_as_served(arrived))
        assert wanted is not None, f"{method} {target} got past the rules as {_as_served(arrived)}"
        assert wanted == _scopes(arrived), f"{method} {target} has the token of another rule"
        ended["allowed"] += 1
    return ended


def test_nothing_gets_past_a_rule(pod: Pod) -> None:
    """However a path is written, whatever Envoy has repeated before."""
    before = sum(_checks(pod).values())
    ended = wander(pod, number=1500, seed=1)

    assert {"allowed", "rule_denied", "ambiguous_request"} <= ended.keys()
    # Most of what was allowed was repeated by Envoy's own cache.
    assert 0 < sum(_checks(pod).values()) - before < ended["allowed"] / 2


@pytest.mark.thorough
def test_nothing_gets_past_a_rule_in_many_requests(pod: Pod) -> None:
    """The same with other seeds."""
    ended = sum((wander(pod, number=5000, seed=seed) for seed in range(2, 5)), Counter())

    assert 15000 == ended.total()
