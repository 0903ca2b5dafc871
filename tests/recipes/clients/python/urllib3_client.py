"""Everything that a client does, by urllib3, whose proxy is named in code."""

import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version

import urllib3

BASE, TOKEN, NAME, BODY = (os.environ[name] for name in ("BASE", "TOKEN", "NAME", "BODY"))
PROXY = os.environ.get("http_proxy")


def chunks() -> Iterator[bytes]:
    """Read the body in parts, so that its length is not known."""
    with open(BODY, "rb") as file:  # noqa: PTH123
        while part := file.read(65536):
            yield part


pool = urllib3.ProxyManager(PROXY) if PROXY else urllib3.PoolManager()
denied = pool.request("GET", f"{BASE}/echo").status
token = {"Authorization": f"Bearer {TOKEN}"}
found = {
    "version": version("urllib3"),
    "denied": denied,
    "kept": [pool.request("GET", f"{BASE}/echo", headers=token).status for _ in range(3)],
    "head": pool.request("HEAD", f"{BASE}/echo", headers=token).status,
    "options": pool.request("OPTIONS", f"{BASE}/echo", headers=token).status,
    "underscore": pool.request(
        "GET", f"{BASE}/underscore", headers={**token, "client_id": "x"}
    ).status,
}
with open(BODY, "rb") as file:  # noqa: PTH123
    length = {**token, "Content-Length": str(os.fstat(file.fileno()).st_size)}
    sent = pool.request("POST", f"{BASE}/digest", headers=length, body=file)
found["upload"] = sent.data.decode()
sent = pool.request("POST", f"{BASE}/digest", headers=token, body=chunks(), chunked=True)
found["chunked"] = sent.data.decode()
events = []
stream = pool.request("GET", f"{BASE}/events/{NAME}", headers=token, preload_content=False)
for part in stream.stream():
    for line in part.decode().splitlines():
        if line.startswith("data: "):
            events.append(line.removeprefix("data: "))
            pool.request("POST", f"{BASE}/seen/{NAME}", headers=token)
found["events"] = events
squeezed = pool.request("GET", f"{BASE}/gzip", headers={**token, "Accept-Encoding": "gzip"})
found["gzip"] = squeezed.data.decode()[:8]
json.dump(found, sys.stdout)
