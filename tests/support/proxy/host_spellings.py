"""How else a host may be written, by who wants a proxy's filter and its router to read it differently."""

from typing import Final

from hypothesis import strategies as st

from support.peers.http2_peer import http2_call
from support.proxy.edge import first_line

_PORTS: Final = (
    "", ":", ":80", ":443", ":+80", ":0x50", ":080", ":00080", ":-80", ":80.", ":80:", "::80", ":65616",
    ":http", ":8 0", ":1e2", ":\u0668\u0660", ":80;", ":80/", ":80?", ":80#", ":443:80", ":%38%30",
)  # fmt: skip
_DOTS: Final = ("", ".", "..", ".:", ".:80", ".:+80", "%2e", ".%00")
_BEFORE: Final = (
    "",
    "user@",
    "user:password@",
    "a,",
    "//",
    "http://",
    " ",
    "\t",
    "[",
    ".",
    "*.",
    "%67",
)
_AFTER: Final = (
    "",
    "]",
    "%eth0",
    "@evil.example",
    ",evil.example",
    " ",
    "\t",
    "/",
    "\\",
    "?",
    "#",
    ";",
)
_WIDTHS: Final = {"g": "\uff47", "o": "\u043e", "i": "\u0131", "s": "\u017f", ".": "\u3002"}
"""Letters that some software folds to the plain ones."""


def fixed(host: str) -> list[str]:
    """Return spellings of a host that have gone around a check somewhere, and their relatives."""
    return [
        host,
        host.upper(),
        host.title(),
        *(f"{host}{port}" for port in _PORTS),
        *(f"{host}{dots}" for dots in _DOTS),
        *(f"{before}{host}" for before in _BEFORE),
        *(f"{host}{after}" for after in _AFTER),
        *(host.replace(letter, other) for letter, other in _WIDTHS.items()),
    ]


def spellings(host: str) -> st.SearchStrategy[str]:
    """Return spellings at random: each part by itself may be what one reader overlooks."""
    letters = st.lists(st.booleans(), min_size=len(host), max_size=len(host)).map(
        lambda upper: "".join(
            letter.upper() if large else letter for letter, large in zip(host, upper, strict=True)
        )
    )
    free = st.text("0123456789:.@[]%+-x; ,", max_size=4)
    parts = st.tuples(
        st.sampled_from(_BEFORE),
        letters,
        st.sampled_from(_DOTS),
        st.sampled_from(_PORTS) | free,
        st.sampled_from(_AFTER),
    )
    return st.sampled_from(fixed(host)) | parts.map("".join) | st.tuples(letters, free).map("".join)


def requests(host: str, written: str, headers: str) -> list[bytes]:
    """Return the requests by HTTP/1.1 in which a host can stand: in the header, in the target, and in both.

    Args:
        host: As it should be written.
        written: As it is written.
        headers: Further lines, each with its end.
    """
    end = f"{headers}connection: close\r\n\r\n"
    texts = (
        f"GET / HTTP/1.1\r\nhost: {written}\r\n{end}",
        f"GET http://{written}/ HTTP/1.1\r\nhost: {written}\r\n{end}",
        f"GET http://{written}/ HTTP/1.1\r\nhost: {host}\r\n{end}",
        f"GET http://{written}/ HTTP/1.1\r\nhost: elsewhere.example\r\n{end}",
        f"GET http://elsewhere.example/ HTTP/1.1\r\nhost: {written}\r\n{end}",
        f"GET / HTTP/1.1\r\nhost: {host}\r\nhost: {written}\r\n{end}",
        f"GET / HTTP/1.1\r\nhost: elsewhere.example\r\nx-forwarded-host: {written}\r\n{end}",
        f"GET / HTTP/1.0\r\nhost: {written}\r\n{end}",
    )
    return [text.encode() for text in texts]


def send(port: int, host: str, written: str) -> None:
    """Send a host as it is written, in every place where it can stand, by HTTP/1.1 and HTTP/2."""
    for request in requests(host, written, "authorization: Bearer user-token\r\n"):
        first_line(port, request)
    token = ("authorization", "Bearer user-token")
    http2_call(port, written, headers=[token])
    http2_call(port, host, headers=[token, ("host", written)])
    http2_call(port, "elsewhere.example", headers=[token, ("host", written)])
