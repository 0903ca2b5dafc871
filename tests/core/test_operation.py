"""What a message to an MCP server asks for: one reading, or none."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import AmbiguousRequest
from authz.core.operation import RESPONSE, Body, Operation, read_operation

TYPE = "application/json"


def body(content: object, **more: Any) -> Body:
    """Return a whole body: a document to write as JSON, or bytes."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Body(raw, **{"is_whole": True, "media_type": TYPE, **more})


def message(method: str, **parameters: Any) -> dict[str, Any]:
    """Return a request of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}


CALL = message("tools/call", name="search", arguments={"q": "x"})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (CALL, Operation("tools/call", "search")),
        (message("prompts/get", name="p"), Operation("prompts/get", "p")),
        (message("resources/read", uri="file:///a"), Operation("resources/read", "file:///a")),
        (message("initialize", protocolVersion="2025-11-25"), Operation("initialize")),
        (
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            Operation("notifications/initialized"),
        ),
        (message("tools/list", name="not of a tool"), Operation("tools/list")),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, Operation(RESPONSE)),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "m"}}, Operation(RESPONSE)),
    ],
)
def test_a_message_asks_for_one_operation(content: object, found: Operation) -> None:
    """And, where it is about one thing, for that."""
    read = body(content)

    assert [found, found] == [read_operation(read), read_operation(read)]
    assert found == read.operation


@pytest.mark.parametrize("media_type", [TYPE, f"{TYPE}; charset=utf-8", f'{TYPE};charset="UTF-8"'])
def test_a_message_is_json(media_type: str) -> None:
    """Of UTF-8, whether the header says so or not."""
    assert "search" == read_operation(body(CALL, media_type=media_type)).tool


def test_numbers_of_every_form_are_fine() -> None:
    """Fractions and exponents, as long as they are finite."""
    call = message("tools/call", name="search", arguments={"a": 1.5, "b": -2e10, "c": 12})

    assert "search" == read_operation(body(call)).tool


@pytest.mark.parametrize(
    "more",
    [
        {"is_whole": False},
        {"coding": "gzip"},
        {"media_type": ""},
        {"media_type": "text/plain"},
        {"media_type": "application/json-rpc"},
        {"media_type": f"{TYPE}; charset=utf-16"},
        {"method": "tools/list"},
        {"name": "other"},
        {"name": "=?base64?b3RoZXI=?="},
        {"name": "=?base64?//8=?="},
        {"name": "=?base64?b?="},
        {"method": ""},
    ],
)
def test_a_body_that_may_be_read_otherwise_is_refused(more: dict[str, Any]) -> None:
    """What Envoy has not sent whole, other forms of text, and headers that name another operation."""
    with pytest.raises(AmbiguousRequest):
        read_operation(body(CALL, **more))


def test_without_a_body_nothing_is_known() -> None:
    """Envoy was rendered before the route had a server."""
    with pytest.raises(AmbiguousRequest):
        read_operation(None)


def test_headers_that_agree_with_the_body_are_fine() -> None:
    """Also in the form for names that a header cannot hold, and where the operation names nothing."""
    encoded = f"=?base64?{base64.b64encode('süche'.encode()).decode()}?="
    call = message("tools/call", name="süche")

    assert "süche" == read_operation(body(call, method="tools/call", name=encoded)).tool
    assert "search" == read_operation(body(CALL, method="tools/call", name="search")).tool
    assert Operation("ping") == read_operation(body(message("ping"), method="ping", name="x"))


CALL_TEXT = json.dumps(CALL)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b'"tools/call"',
        f"[{CALL_TEXT}]".encode(),
        f"[{CALL_TEXT},{CALL_TEXT}]".encode(),
        f"{CALL_TEXT}{CALL_TEXT}".encode(),
        f"\ufeff{CALL_TEXT}".encode(),
        CALL_TEXT.encode("utf-16"),
        CALL_TEXT.replace("search", "se\\ud800arch").encode(),
        CALL_TEXT.encode().replace(b"search", b"se\xffarch"),
        CALL_TEXT.replace('"2.0"', '"1.0"').encode(),
        CALL_TEXT.replace('"jsonrpc": "2.0", ', "").encode(),
        CALL_TEXT.replace('"x"', "NaN").encode(),
        CALL_TEXT.replace('"x"', "1e999").encode(),
        CALL_TEXT.replace('"x"', "-Infinity").encode(),
        CALL_TEXT.replace('"x"', "9" * 5000).encode(),
        CALL_TEXT.replace('"x"', "[" * 9000 + "]" * 9000).encode(),
        # Two readers choose two of these.
        CALL_TEXT.replace('"method"', '"method": "ping", "method"').encode(),
        CALL_TEXT.replace('"method"', '"\\u006dethod": "ping", "method"').encode(),
        CALL_TEXT.replace('"name"', '"name": "other", "name"').encode(),
        CALL_TEXT.replace('"params"', '"params": {"name": "other"}, "params"').encode(),
        CALL_TEXT.replace('"q"', '"q": 1, "q"').encode(),
        # Some readers ignore the case of keys, or what follows a NUL.
        CALL_TEXT.replace('"id"', '"Method": "ping", "id"').encode(),
        CALL_TEXT.replace('"arguments"', '"Name": "other", "arguments"').encode(),
        CALL_TEXT.replace('"arguments"', '"name\\u0000": "other", "arguments"').encode(),
        # A request and a response at once: to some it is the one, to some the other.
        CALL_TEXT.replace('"id"', '"result": {}, "id"').encode(),
        CALL_TEXT.replace('"id"', '"error": {}, "id"').encode(),
        json.dumps({"jsonrpc": "2.0", "id": 1}).encode(),
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}).encode(),
        json.dumps(message("tools/call")).encode(),
        json.dumps(message("tools/call", name="")).encode(),
        json.dumps(message("tools/call", name=["search"])).encode(),
        json.dumps(message("tools/call", name="a\nb")).encode(),
        json.dumps(message("tools/call", name="a" * 2000)).encode(),
        json.dumps(message("tools call")).encode(),
        json.dumps(message("Tools/Call", name="search")).encode(),
        json.dumps(message("tools/call/", name="search")).encode(),
        json.dumps(message("tools/call", name="é" * 200)).encode(),
        json.dumps(message("") | {"method": 5}).encode(),
        json.dumps(message("ping") | {"params": ["search"]}).encode(),
    ],
)
def test_what_readers_of_json_differ_on_is_refused(content: bytes) -> None:
    """Batches, keys twice, and whatever is no plain message of JSON-RPC."""
    with pytest.raises(AmbiguousRequest):
        read_operation(body(content))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["search", "delete"]), st.dictionaries(st.text(max_size=8), JSON, max_size=4)
)
def test_the_tool_is_what_any_reader_finds(name: str, more: dict[str, Any]) -> None:
    """Whatever else is in the message."""
    document = {"more": more, **message("tools/call", **more) | {"id": more}}
    document["params"] |= {"name": name}
    read = body(document)
    try:
        found = read_operation(read)
    except AmbiguousRequest:
        return

    assert name == found.tool == json.loads(read.content)["params"]["name"]


def test_long_keys_are_not_normalized() -> None:
    """To do that takes the square of their length in time, and they are none of those that count."""
    document = {**CALL, "a" + "\u0301\u0316" * 30_000: 1}

    assert "search" == read_operation(body(document)).tool


def test_a_body_does_not_print() -> None:
    """It is the caller's."""
    assert "search" not in repr(body(CALL))
