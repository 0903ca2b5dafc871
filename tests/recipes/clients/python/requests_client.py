"""Everything that a client does, by requests. The proxy is the environment's."""

import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version

import requests

BASE, TOKEN, NAME, BODY = (os.environ[name] for name in ("BASE", "TOKEN", "NAME", "BODY"))
PATIENCE = 60


def chunks() -> Iterator[bytes]:
    """Read the body in parts, so that its length is not known."""
    with open(BODY, "rb") as file:  # noqa: PTH123
        while part := file.read(65536):
            yield part


session = requests.Session()
denied = session.get(f"{BASE}/echo", timeout=PATIENCE).status_code
session.headers["Authorization"] = f"Bearer {TOKEN}"
found = {
    "version": version("requests"),
    "denied": denied,
    "kept": [session.get(f"{BASE}/echo", timeout=PATIENCE).status_code for _ in range(3)],
    "head": session.head(f"{BASE}/echo", timeout=PATIENCE).status_code,
    "options": session.options(f"{BASE}/echo", timeout=PATIENCE).status_code,
    "underscore": session.get(
        f"{BASE}/underscore", headers={"client_id": "x"}, timeout=PATIENCE
    ).status_code,
}
with open(BODY, "rb") as file:  # noqa: PTH123
    found["upload"] = session.post(f"{BASE}/digest", data=file, timeout=PATIENCE).text
found["chunked"] = session.post(f"{BASE}/digest", data=chunks(), timeout=PATIENCE).text
events = []
with session.get(f"{BASE}/events/{NAME}", stream=True, timeout=PATIENCE) as answer:
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"data: "):
            events.append(line.removeprefix(b"data: ").decode())
            session.post(f"{BASE}/seen/{NAME}", timeout=PATIENCE)
found["events"] = events
found["gzip"] = session.get(f"{BASE}/gzip", timeout=PATIENCE).text[:8]
json.dump(found, sys.stdout)
