"""A program that stands for a cluster's DNS: `-m support.peers.service_names ADDRESS`, at port 53 there.

It knows the Services that kubectl lists, by their full names and IPv4, and nothing else.
"""

import json
import socket
import struct
import subprocess
import sys
from typing import Final

_SUFFIX: Final = ".svc.cluster.local"
_A: Final = 1
_FOUND: Final = 0x8580
_NO_SUCH_NAME: Final = 0x8583


def _services() -> dict[str, str]:
    command = ["kubectl", "get", "services", "--all-namespaces", "--output", "json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        f"{item['metadata']['name']}.{item['metadata']['namespace']}{_SUFFIX}": item["spec"][
            "clusterIP"
        ]
        for item in json.loads(listed)["items"]
    }


def _question(query: bytes) -> tuple[str, int, int]:
    """Return name and type of what is asked, and where it ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode().lower())
        at += length + 1
    (kind,) = struct.unpack_from("!H", query, at + 1)
    return ".".join(labels), kind, at + 5


def _main(address: str) -> None:
    known: dict[str, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            query, client = server.recvfrom(4096)
            name, kind, end = _question(query)
            if name.endswith(_SUFFIX) and name not in known:
                known = _services()
            found = known.get(name)
            answer = b""
            if found is not None and kind == _A:
                answer = struct.pack("!HHHIH", 0xC00C, _A, 1, 5, 4) + socket.inet_aton(found)
            flags = _FOUND if found is not None else _NO_SUCH_NAME
            counts = struct.pack("!HHHHH", flags, 1, int(bool(answer)), 0, 0)
            server.sendto(query[:2] + counts + query[12:end] + answer, client)


if __name__ == "__main__":
    _main(sys.argv[1])
