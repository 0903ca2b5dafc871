"""The emulated Entra, in a process of its own: what it costs must not hide in ours.

As a program: serves until told to end, and leaves `ca.pem` and `emulator.json` in the folder given.
`Entra` is what the bench knows of it, and asks it by its own endpoints.
"""

import http.client
import json
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from authz_dev.emulator import Emulator
from bench.population import populated

READY: Final = "emulator.json"
_OK: Final = 200
_CLIENT_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_EXCHANGE: Final = "api://AzureADTokenExchange/.default"


class Entra:
    """The running emulator, asked over one kept connection: what it answers is what it takes itself.

    Args:
        folder: Where the program left its files.
    """

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / READY).read_text())
        self.authority: str = about["authority"]
        self.ca_file = Path(about["ca_file"])
        self.tenant: dict[str, Any] = about["tenants"][0]
        self.tenant_id: str = self.tenant["tenant_id"]
        self.blueprint: dict[str, Any] = self.tenant["blueprints"][0]
        self.agent: str = self.blueprint["agents"][0]["client_id"]
        agents = [agent["client_id"] for agent in self.blueprint["agents"]]
        self.cold_agents: list[str] = agents[2:]
        people = [u["object_id"] for u in self.tenant["users"] if u["username"].startswith("user-")]
        self.users: list[str] = people
        self._control = urlsplit(about["control_url"]).path
        where = urlsplit(self.authority)
        self._connection = http.client.HTTPSConnection(
            where.hostname or "",
            where.port,
            context=ssl.create_default_context(cafile=str(self.ca_file)),
            timeout=30,
        )

    def mint(self, user: str | None = None, **more: Any) -> str:
        """Return a user's new token for the blueprint, unlike every other one."""
        order = {"audience": self.blueprint["client_id"], "user": user or self.users[0], **more}
        return str(self._ask("POST", f"{self._control}/mint", json.dumps(order))["access_token"])

    def calls(self) -> dict[str, int]:
        """Return how many token calls there were, by leg."""
        return self._ask("GET", f"{self._control}/calls")

    def keys(self) -> dict[str, Any]:
        """Return the tenant's signing keys (RFC 7517)."""
        return self._ask("GET", f"/{self.tenant_id}/discovery/v2.0/keys")

    def ask_t1(self, agent: str) -> tuple[str, float]:
        """Ask for an agent's T1; return it with the seconds that the answer took."""
        return self._token(
            {
                "client_id": self.blueprint["client_id"],
                "client_secret": self.blueprint["client_secret"],
                "grant_type": "client_credentials",
                "scope": _EXCHANGE,
                "fmi_path": agent,
            }
        )

    def ask_obo(self, agent: str, t1: str, user_token: str, scope: str) -> tuple[str, float]:
        """Ask for the agent's token for a user; return it with the seconds that the answer took."""
        return self._token(
            {
                "client_id": agent,
                "client_assertion": t1,
                "client_assertion_type": _CLIENT_ASSERTION,
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": user_token,
                "requested_token_use": "on_behalf_of",
                "scope": f"{scope} openid profile offline_access",
            }
        )

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _token(self, form: Mapping[str, str]) -> tuple[str, float]:
        body = urlencode(form)
        started = time.perf_counter()
        answer = self._ask("POST", f"/{self.tenant_id}/oauth2/v2.0/token", body)
        return str(answer["access_token"]), time.perf_counter() - started

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        form = path.endswith("/token")
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        headers = {"content-type": kind} if body else {}
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
        except OSError:
            # It was idle for too long, and so was closed by the other side.
            self._connection.close()
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
        content = response.read()
        if response.status != _OK:
            raise RuntimeError(f"the emulator answered {response.status}: {content[:300]!r}")
        answer: dict[str, Any] = json.loads(content)
        return answer


def main(folder: Path) -> None:
    """Serve until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with Emulator(populated()) as emulator:
        emulator.write(folder)
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
