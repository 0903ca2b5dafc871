"""An agent that knows nothing of tokens, proxies and meshes, as a program: it calls what it is asked to call.

`GET /?url=URL` calls the URL with the `Authorization` that came, and answers with the headers that came, and
with status and body of the call. The arguments are its address and ports.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx


class _Agent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        came = {name.lower(): value for name, value in self.headers.items()}
        told: dict[str, Any] = {"headers": came}
        for url in parse_qs(urlsplit(self.path).query).get("url", ()):
            answer = httpx.get(url, headers={"authorization": came["authorization"]})
            told |= {"status": answer.status_code, "body": answer.text}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: requests hold tokens."""


if __name__ == "__main__":
    host, *ports = sys.argv[1:]
    for port in ports:
        Thread(target=ThreadingHTTPServer((host, int(port)), _Agent).serve_forever).start()
