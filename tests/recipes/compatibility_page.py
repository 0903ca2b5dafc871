"""Makes docs/compatibility.md of the table that the tests run: `python -m recipes.compatibility_page FILE`.

What was tried is in `compatibility`; nothing here runs a client.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from recipes.compatibility import (
    A2A_CLIENTS,
    A2A_MEANINGS,
    CLIENTS,
    MEANINGS,
    OTHERS,
    REFUSED,
    RPC_CLIENTS,
    RPC_MEANINGS,
    SERVERS,
    TESTS,
    Client,
    Fact,
    Needs,
)

_HEAD: Final = """\
# Compatibility

Clients and servers that were tried with a real Envoy, rendered by `authz envoy`, `authz serve` and an emulated Entra. This
page is made from the table that the tests run (`make docs`), and a test compares the two: each row is a test.

The clients are unmodified: their own defaults, and the settings that the table names. *To the agent* means that a client calls the
agent through Envoy's inbound listener (a browser opens its page at a health path, which needs no token). *From the agent* means that the agent calls an API, `http://api.example`, through Envoy as its
proxy; Envoy exchanges the token and starts TLS. For `https://` see [docs/https.md](https.md).
"""


def page() -> str:
    """Return the page, as Markdown."""
    return "\n".join(
        [
            _HEAD,
            "## Clients of HTTP",
            "",
            "Each of them does all of this, in both directions, unless its row says otherwise:",
            "",
            *_list(MEANINGS),
            "- offers: where Apache HttpClient offers `Upgrade: TLS/1.2` (5.4 to everybody, 5.4.4 to proxies), and `curl --http2` offers `h2c`, the offer is left aside",
            "",
            f"Tests: `{TESTS}`, run by `make test-recipes` and, where the client is a program of the operating system,",
            "`make test-system`. A version with `+` is the oldest one that was tried.",
            "",
            *_clients(CLIENTS),
            "",
            "## Clients of gRPC",
            "",
            "The agent's Envoy is rendered with `--app-protocol http2`. By the proxy variable these clients ask for a connection to port 80 of the API; Envoy",
            "reads the calls in it, exchanges the token and starts TLS. Each client does, in both directions:",
            "",
            *_list(RPC_MEANINGS),
            "",
            *_clients(RPC_CLIENTS),
            "",
            "## Clients of A2A",
            "",
            "Both ends are the SDK's. On the way out the agent that is called has no TLS of its own (`token_over_plain_http`). Each client does, in both directions:",
            "",
            *_list(A2A_MEANINGS),
            "",
            *_clients(A2A_CLIENTS),
            "",
            "## Servers",
            "",
            *_facts("server", "result", SERVERS),
            "",
            "## Also tried",
            "",
            *_facts("client", "result", OTHERS),
            "",
            "## Refused or changed on purpose",
            "",
            *_facts("what", "result, and why", REFUSED),
            "",
        ]
    )


def _list(meanings: Mapping[str, str]) -> list[str]:
    return [f"- {name}: {meaning}" for name, meaning in meanings.items()]


def _clients(clients: Iterable[Client]) -> list[str]:
    return _table(
        ("client", "version", "to the agent", "from the agent", "run by", "not possible"),
        [
            (
                client.name,
                client.version.removesuffix("."),
                client.http.get("inbound", "not tried"),
                _way_out(client),
                "`make test-recipes`" if client.needs is Needs.RECIPES else "`make test-system`",
                "; ".join(f"{name}: {reason}" for name, reason in client.without.items()),
            )
            for client in clients
        ],
    )


def _way_out(client: Client) -> str:
    version = client.http.get("egress")
    if version is None:
        return client.egress
    route = "; a route for the agent itself (`autonomous`)" if client.own else ""
    return f"{version}, by {client.egress}{route}"


def _facts(subject: str, result: str, facts: Iterable[Fact]) -> list[str]:
    rows = [(fact.what, fact.result, f"`{fact.test}`") for fact in facts]
    return _table((subject, result, "test"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
