"""Streams, uploads and downloads by httpx, HTTP/1.1 or HTTP/2."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator

import httpx

API, NAME, BODY = (os.environ[name] for name in ("API", "NAME", "BODY"))


def _blocks() -> Iterator[bytes]:
    with open(BODY, "rb") as file:  # noqa: PTH123
        while block := file.read(65536):
            yield block


with httpx.Client(base_url=API, http2=os.environ["VERSION"] == "2", timeout=60) as client:
    events = []
    with client.stream("GET", f"/v1/stream/{NAME}") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
                client.post(f"/v1/seen/{NAME}")
    up = client.post("/v1/digest", content=_blocks()).json()["digest"]
    digest = hashlib.sha256()
    with client.stream("GET", f"/v1/bytes/{NAME}") as answer:
        for chunk in answer.iter_bytes():
            digest.update(chunk)
version = answer.http_version.removeprefix("HTTP/")
json.dump({"events": events, "up": up, "down": digest.hexdigest(), "version": version}, sys.stdout)
