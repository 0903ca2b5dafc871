"""A name server of a test: what each name has, and domains whose server answers as the test says."""

import ipaddress
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from types import TracebackType
from typing import Final, Self

_HEAD: Final = struct.Struct("!6H")
_ANSWER: Final = struct.Struct("!HHHIH")
_SAME_NAME: Final = 0xC00C
"""Where the question's name stands in each message."""
_IN: Final = 1
_TTL: Final = 300
_RECORDS: Final = {4: 1, 6: 28}
"""Types of record, by version of IP: A and AAAA."""


class Code(IntEnum):
    """How an answer without records is to be read (RFC 1035 section 4.1.1)."""

    NOERROR = 0
    SERVFAIL = 2
    NXDOMAIN = 3
    REFUSED = 5


Said = Code | Sequence[str]
"""Addresses, or why there are none."""


class NameServer:
    """A server on a free loopback port (UDP), as a context manager.

    Args:
        names: What is said of a name, in lower case, for both families of addresses or for one
            (`("4", name)`, `("6", name)`). A name that begins with `*.` is a domain. Others do not exist.

    Attributes:
        asked: Names that somebody asked for.
    """

    def __init__(self, names: Mapping[str | tuple[str, str], Said]) -> None:
        self._names = dict(names)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.asked: set[str] = set()

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                question, client = self._socket.recvfrom(4096)
                if not question:
                    return
                self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        number, _, *_ = _HEAD.unpack_from(question)
        labels, place = [], _HEAD.size
        while length := question[place]:
            labels.append(question[place + 1 : place + 1 + length].decode())
            place += 1 + length
        end = place + 5
        (kind,) = struct.unpack_from("!H", question, place + 1)
        name = ".".join(labels).lower()
        self.asked.add(name)
        said = self._said(name, kind)
        code = said if isinstance(said, Code) else Code.NOERROR
        found = [] if isinstance(said, Code) else [ipaddress.ip_address(each) for each in said]
        packed = [each.packed for each in found if _RECORDS[each.version] == kind]
        # An authoritative answer, with recursion as asked for.
        head = _HEAD.pack(number, 0x8580 | code, 1, len(packed), 0, 0)
        records = [_ANSWER.pack(_SAME_NAME, kind, _IN, _TTL, len(each)) + each for each in packed]
        return head + question[_HEAD.size : end] + b"".join(records)

    def _said(self, name: str, kind: int) -> Said:
        version = {record: str(version) for version, record in _RECORDS.items()}.get(kind, "")
        domains = [key for key in self._names if isinstance(key, str) and key.startswith("*.")]
        for key in (
            (version, name),
            name,
            *(domain for domain in domains if name.endswith(domain[1:])),
        ):
            if key in self._names:
                return self._names[key]
        return Code.NXDOMAIN
