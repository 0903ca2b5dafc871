"""Everything that a client does, by httpx. The proxy is the environment's."""

import json
import os
import sys
from collections.abc import Iterator

import httpx

BASE, TOKEN, NAME, BODY = (os.environ[name] for name in ("BASE", "TOKEN", "NAME", "BODY"))


def chunks() -> Iterator[bytes]:
    """Read the body in parts, so that its length is not known."""
    with open(BODY, "rb") as file:  # noqa: PTH123
        while part := file.read(65536):
            yield part


with httpx.Client(base_url=BASE, timeout=60) as client:
    denied = client.get("/echo").status_code
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    found = {
        "version": httpx.__version__,
        "denied": denied,
        "kept": [client.get("/echo").status_code for _ in range(3)],
        "head": client.head("/echo").status_code,
        "options": client.options("/echo").status_code,
        "underscore": client.get("/underscore", headers={"client_id": "x"}).status_code,
    }
    with open(BODY, "rb") as file:  # noqa: PTH123
        length = {"content-length": str(os.fstat(file.fileno()).st_size)}
        found["upload"] = client.post("/digest", content=file, headers=length).text
    found["chunked"] = client.post("/digest", content=chunks()).text
    events = []
    with client.stream("GET", f"/events/{NAME}") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
                client.post(f"/seen/{NAME}")
    found["events"] = events
    found["gzip"] = client.get("/gzip").text[:8]
json.dump(found, sys.stdout)
