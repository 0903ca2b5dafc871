"""An API for trying things out: it answers each request with the claims of the token that it was sent.

It verifies nothing. It listens on 127.0.0.1, on the port that is its argument.
"""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Api(BaseHTTPRequestHandler):
    """Answers what a token says; never the token."""

    def do_GET(self) -> None:
        """Answer with the claims; with null where there is no JWT."""
        _, _, rest = self.headers.get("authorization", "").partition(".")
        payload, _, _ = rest.partition(".")
        padded = payload + "=" * (-len(payload) % 4)
        claims = json.loads(base64.urlsafe_b64decode(padded)) if payload else None
        body = json.dumps({"claims": claims}, indent=2).encode() + b"\n"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
