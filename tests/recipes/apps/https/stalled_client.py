"""Asks for a large body and does not read it; tells how much of it was taken until nothing moved any more."""

import json
import os
import sys
from itertools import pairwise

import httpx

API, NAME = (os.environ[name] for name in ("API", "NAME"))
STILL = 100

with (
    httpx.Client(base_url=API, timeout=60) as reader,
    httpx.Client(base_url=API) as watcher,
    reader.stream("GET", f"/v1/bytes/{NAME}"),
):
    seen = [0]
    while len(seen) < STILL or not seen[-1] or any(a != b for a, b in pairwise(seen[-STILL:])):
        seen.append(watcher.get(f"/v1/sent/{NAME}").json()["sent"])
    json.dump({"sent": seen[-1]}, sys.stdout)
