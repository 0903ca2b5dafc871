"""What can be done on the stage, and what can be seen there: calls, tokens, and the evidence of both."""

import base64
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Self

import httpx
import jwt

from authz_dev.demo.stage import LOOPBACK, Stage

_CLAIMS: Final = re.compile(r'claims="([A-Za-z0-9+/=]+)"')
_TOKEN_LIKE: Final = "eyJ"
_CHECKS: Final = "authz_checks_total{"
_REFUSED: Final = 400


class Visitor:
    """Calls the agent, and looks everywhere afterwards.

    Attributes:
        stage: Where.
        elapsed: Seconds that calls have taken so far.
        set_aside: A token kept for a later scenario.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.elapsed = 0.0
        self.set_aside = ""
        self._tokens: dict[str, str] = {}
        self._token_ids: set[str] = set()
        self._arrivals: list[dict[str, Any]] = []
        self._looked_at = {"orders": 0, "graph": 0}
        with ExitStack() as cleanup:
            self._stranger = cleanup.enter_context(socket.create_server((LOOPBACK, 0)))
            self._stranger.setblocking(False)
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def ask(self, path: str, token: str | None = None, **headers: str) -> httpx.Response:
        """Call the agent the way a client does: through Envoy, with a token or without."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return self._get(self.stage.ports.inbound, path, headers)

    def tick(self, path: str, **headers: str) -> httpx.Response:
        """Call the agent the way a timer inside its pod does: past Envoy, with nobody signed in."""
        return self._get(self.stage.ports.app, path, headers)

    def mint(self, user: str = "alice", **order: Any) -> str:
        """Return a new token of a user; `order` as in `Emulator.mint_user_token`."""
        token = self.stage.emulator.mint_user_token(user=f"{user}@contoso.example", **order)
        self._token_ids.add(jwt.decode(token, options={"verify_signature": False})["uti"])
        return token

    def token(self, user: str) -> str:
        """Return a user's token for the agent, the same one each time."""
        if user not in self._tokens:
            self._tokens[user] = self.mint(user)
        return self._tokens[user]

    def follow(self, url: str) -> dict[str, Any]:
        """Fetch a document without a token, and return it."""
        started = time.perf_counter()
        try:
            document: dict[str, Any] = self.stage.http.get(url).raise_for_status().json()
        finally:
            self.elapsed += time.perf_counter() - started
        return document

    @contextmanager
    def signing_in_anew(self) -> Iterator[None]:
        """Let every user sign in again, and go on with the former tokens afterwards."""
        before, self._tokens = self._tokens, {}
        try:
            yield
        finally:
            self._tokens = before

    def call_orders_directly(self, authorization: str) -> int:
        """Call the orders API from outside, past Envoy; return the status."""
        url = f"https://{LOOPBACK}:{self.stage.ports.orders}/orders"
        return self.stage.http.get(url, headers={"authorization": authorization}).status_code

    def agents_log(self) -> str:
        """Return what the agent app has written so far."""
        return self.stage.logs()["agent app"].read_text()

    @staticmethod
    def key_id(token: str) -> str:
        """Return the id of the key that a token says it is signed with."""
        key_id: str = jwt.get_unverified_header(token)["kid"]
        return key_id

    def name(self, identifier: str) -> str:
        """Return what the directory calls an object id or client id."""
        return self.stage.landscape.names.get(identifier, identifier)

    def before_and_after(self, user: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the claims of a user's token, and those of the last token that reached an API."""
        before = jwt.decode(self.token(user), options={"verify_signature": False})
        return before, self._arrivals[-1]["claims"]

    def stranger_url(self) -> str:
        """Return an address that belongs to nobody we know."""
        return f"http://{LOOPBACK}:{self._stranger.getsockname()[1]}/collect"

    def strangers_visits(self) -> int:
        """Return how many connections reached that address since the last look."""
        visits = 0
        while True:
            try:
                self._stranger.accept()[0].close()
            except BlockingIOError:
                return visits
            visits += 1

    def app_calls(self) -> int:
        """Return how many requests the agent app has seen, by its own access log."""
        return self.agents_log().count('"GET /')

    def new_arrivals(self) -> list[dict[str, Any]]:
        """Return what reached the APIs since the last look: why it was refused if it was, and claims."""
        known = len(self._arrivals)
        for api in self._looked_at:
            records = self._received(api)
            self._arrivals += records[self._looked_at[api] :]
            self._looked_at[api] = len(records)
        return self._arrivals[known:]

    def arrivals(self) -> int:
        """Return how many requests reached the APIs, as of the last look."""
        return len(self._arrivals)

    def scopes_at(self, api: str) -> list[str]:
        """Return the scopes of the last token that reached `graph` or `orders`."""
        return sorted(self._received(api)[-1]["claims"]["scp"].split())

    def entra_calls(self) -> int:
        """Return how many token requests Entra has seen so far."""
        return self.stage.emulator.calls.snapshot()["total"]

    def checks(self) -> int:
        """Return how many decisions Envoy has asked for so far, by the service's own metrics."""
        lines = self._metrics().splitlines()
        return sum(
            int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(_CHECKS)
        )

    def users_tokens_at_apis(self) -> int:
        """Return how many tokens reached an API so far that a user was given for the agent."""
        return sum(record["claims"].get("uti") in self._token_ids for record in self._arrivals)

    def token_like_texts(self) -> dict[str, int]:
        """Return how often every log, and the metrics, hold what starts like a JWT."""
        texts = {name: path.read_text() for name, path in self.stage.logs().items()}
        texts["metrics"] = self._metrics()
        return {name: text.count(_TOKEN_LIKE) for name, text in texts.items() if text}

    def _received(self, api: str) -> list[dict[str, Any]]:
        if api == "graph":
            return [{"refused": None, "claims": each} for each in self.stage.emulator.graph_log]
        url = f"https://{LOOPBACK}:{self.stage.ports.orders}/calls"
        calls: list[dict[str, Any]] = self.stage.http.get(url).json()
        return calls

    def _metrics(self) -> str:
        url = f"http://{LOOPBACK}:{self.stage.ports.authz_admin}/metrics"
        return self.stage.http.get(url).text

    def _get(self, port: int, path: str, headers: Mapping[str, str]) -> httpx.Response:
        started = time.perf_counter()
        try:
            return self.stage.http.get(f"http://{LOOPBACK}:{port}{path}", headers=dict(headers))
        finally:
            self.elapsed += time.perf_counter() - started


def outcome(answer: httpx.Response) -> dict[str, Any]:
    """Return what the client learns: status, and of a refusal why and what to do about it."""
    found: dict[str, Any] = {"status": answer.status_code}
    if answer.status_code < _REFUSED:
        return found
    found["reason"] = _reason(answer)
    if "retry-after" in answer.headers:
        found["retry_after"] = int(answer.headers["retry-after"])
    challenge = _CLAIMS.search(answer.headers.get("www-authenticate", ""))
    if challenge is not None:
        found["claims"] = sorted(json.loads(base64.b64decode(challenge[1]))["access_token"])
    return found


def _reason(answer: httpx.Response) -> str | None:
    kind = answer.headers.get("content-type")
    if kind == "application/problem+json":
        problem = answer.json()
    elif kind == "application/json":
        # A call of a tool: the problem is in the error that clients of MCP expect.
        problem = answer.json()["error"]["data"]
    else:
        return None
    reason: str = problem["reason"]
    return reason
