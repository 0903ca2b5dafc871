"""What a request to an MCP server asks for: the operation and the tool, read from its JSON-RPC message.

Servers look at the body, and some at headers too (`Mcp-Method`, `Mcp-Name`). So the body alone decides, in a
form that every JSON reader reads alike, and headers that differ from it are refused.
"""

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

from authz.core.errors import AmbiguousRequest
from authz.core.folding import folded

CALL: Final = "tools/call"
RESPONSE: Final = "response"
"""Stands for a client's answer to what the server has asked; such a message has no method."""

_NAMED: Final = {
    CALL: "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
}
"""Operations about one thing, and the parameter that names it (MCP 2026-07-28, "Custom headers")."""
_MESSAGE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_PARAMETERS: Final = frozenset({"name", "uri", "_meta", "arguments"})
_METHOD: Final = re.compile(r"[A-Za-z0-9_$./-]{1,128}")
_TYPE: Final = re.compile(r"application/json *(?:; *(?i:charset=(\"?)utf-8\1) *)?")
_ENCODED: Final = re.compile(r"=\?base64\?([A-Za-z0-9+/]*=*)\?=")
_LONGEST_NAME: Final = 1024
_LONGEST_FOREIGN: Final = 128
"""The same of a name that is not all ASCII: to normalize many marks takes their square in time."""
_LONGEST_KEY: Final = 16
_LARGEST_ID: Final = 2**53 - 1
"""The largest number that every reader of JSON takes for itself (RFC 8259 section 6)."""


class Operation(NamedTuple):
    """What is asked of an MCP server.

    Attributes:
        method: Method of JSON-RPC, or `response`.
        name: The tool, the prompt or the resource that it is about; empty where it is about none.
    """

    method: str
    name: str = ""

    @property
    def tool(self) -> str:
        """The tool that is called; empty where none is."""
        return self.name if self.method == CALL else ""

    def loosened(self) -> "Operation":
        """Return what it is to a server that ignores case and forms of characters."""
        return Operation(loosened(self.method), loosened(self.name))


@dataclass(slots=True, repr=False, eq=False)
class Body:
    """The body of a request, as far as Envoy has sent it, and the headers that tell how to read it.

    Attributes:
        content: What was sent.
        is_whole: Whether that is all of it.
        media_type: Value of `content-type`.
        coding: Value of `content-encoding`.
        method: Value of `mcp-method`; None where there is none.
        name: Value of `mcp-name`; None where there is none.
        operation: What it asks for, once it was read.
        message_id: The `id` by which its sender knows an answer, once it was read; None where it awaits none.
    """

    content: bytes
    is_whole: bool
    media_type: str = ""
    coding: str = ""
    method: str | None = None
    name: str | None = None
    operation: Operation | None = None
    message_id: str | int | None = None

    def __repr__(self) -> str:
        return "Body(***)"


def read_operation(body: Body | None) -> Operation:
    """Read the one message of a body (JSON-RPC 2.0, as MCP restricts it).

    Raises:
        AmbiguousRequest: It is not whole, not one message, or readers of JSON may differ on it.
    """
    if body is None:
        raise AmbiguousRequest("Envoy has not sent the body: its configuration is of before")
    if body.operation is None:
        body.operation = _read(body)
    return body.operation


def _read(body: Body) -> Operation:
    if not body.is_whole:
        raise AmbiguousRequest("Envoy has not sent the whole body")
    if body.coding or _TYPE.fullmatch(body.media_type) is None:
        raise AmbiguousRequest("the body is not application/json, or it is encoded")
    message = _parsed(body.content)
    _check_spelling(message, _MESSAGE)
    if message.get("jsonrpc") != "2.0":
        raise AmbiguousRequest("the message is not one of JSON-RPC 2.0")
    if "method" not in message:
        if ("result" in message) == ("error" in message):
            raise AmbiguousRequest("the message has no method, and is no response")
        operation = Operation(RESPONSE)
    elif "result" in message or "error" in message:
        raise AmbiguousRequest("the message is request and response at once")
    else:
        operation = _requested(message)
    _check_headers(body, operation)
    body.message_id = _id_of(message) if operation.method != RESPONSE else None
    return operation


def _id_of(message: dict[str, Any]) -> str | int | None:
    found = message.get("id")
    is_number = isinstance(found, int) and not isinstance(found, bool) and abs(found) <= _LARGEST_ID
    is_text = isinstance(found, str) and len(found) <= _LONGEST_NAME and found.isprintable()
    return found if is_number or is_text else None


def _requested(message: dict[str, Any]) -> Operation:
    method, parameters = message["method"], message.get("params", {})
    if not isinstance(method, str) or _METHOD.fullmatch(method) is None:
        raise AmbiguousRequest("the method of the message is no name")
    if not isinstance(parameters, dict):
        raise AmbiguousRequest("the parameters of the message have no names")
    _check_spelling(parameters, _PARAMETERS)
    key = _NAMED.get(method)
    if key is None:
        if loosened(method).strip("/") in _NAMED:
            raise AmbiguousRequest("the method of the message is one about a name, in another form")
        return Operation(method)
    name = parameters.get(key)
    longest = _LONGEST_NAME
    if isinstance(name, str) and not name.isascii():
        longest = _LONGEST_FOREIGN
    if not isinstance(name, str) or not 0 < len(name) <= longest or not name.isprintable():
        raise AmbiguousRequest(f"the parameter {key} of {method} is no name")
    return Operation(method, name)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(
            # Given bytes, the parser takes a byte order mark and other encodings.
            content.decode(),
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except (ValueError, RecursionError):
        raise AmbiguousRequest("the body is no JSON that every reader reads alike") from None
    if not isinstance(found, dict):
        raise AmbiguousRequest("the body is not one JSON object: batches are not served")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(text)
    return found


def _check_spelling(found: dict[str, Any], known: frozenset[str]) -> None:
    """Refuse keys that some readers take for one of those that count."""
    for key in found:
        bare = key.strip("\0 ")
        if key not in known and len(bare) <= _LONGEST_KEY and loosened(bare) in known:
            raise AmbiguousRequest("the message has a key in another case or form")


def _check_headers(body: Body, operation: Operation) -> None:
    """Refuse headers that tell of another operation: some servers go by them (MCP 2026-07-28)."""
    pairs = ((body.method, operation.method), (body.name, operation.name or None))
    for header, value in pairs:
        if header is not None and value is not None and _decoded(header) != value:
            raise AmbiguousRequest("mcp-method or mcp-name differs from the body")


def _decoded(header: str) -> str | None:
    encoded = _ENCODED.fullmatch(header)
    if encoded is None:
        return header
    try:
        return base64.b64decode(encoded[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def loosened(text: str) -> str:
    """Return what a name is to a server that ignores case and forms of characters."""
    return folded(text).strip("\0 ")
