"""`document`: a message of Envoy's API as the data that YAML shows; `packed`: one inside another, as `Any`.

The library has both (`to_dict`, `Any.pack`). They validate each message once more, and serialize what is
packed only to parse it: most of what many hosts would cost. Nothing here knows what a message is for.
"""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any as Anything
from typing import Final, cast

import betterproto2
from betterproto2 import FieldMetadata, Message, MessagePool
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.message_pool import default_message_pool

Convert = Callable[[Anything], Anything]

_LIBRARY: Final = Message.to_dict


class _Packed(Any):
    """An `Any` that keeps its message. What the library makes of it is the same."""

    def __init__(self, message: Message) -> None:
        super().__init__(type_url=default_message_pool.type_to_url[type(message)])
        self.message = message
        self._shown: Anything = None

    @property
    def shown(self) -> Anything:
        """The document of the message, made once: filters stand in the chain of each host."""
        if self._shown is None:
            self._shown = document(self.message)
        return self._shown

    def unpack(self, message_pool: MessagePool | None = None) -> Message | None:  # noqa: ARG002 - the library's
        """Return the message."""
        return self.message

    def __bytes__(self) -> bytes:
        return bytes(Any.pack(self.message))

    def __deepcopy__(self, _: Anything = None) -> "_Packed":
        # Nobody changes a message that has been packed.
        return self


def packed(message: Message) -> Any:
    """Return a message as what a field of type `Any` takes."""
    return _Packed(message)


def document(message: Message) -> Anything:
    """Return a message in the JSON form of protobuf, with the names of fields as Envoy's API has them.

    Source: "ProtoJSON Format" (protobuf.dev). Fields that are not set are left out.
    """
    if isinstance(message, _Packed):
        found = message.shown
        inside = found if _is_plain(type(message.message)) else {"value": found}
        return {"@type": message.type_url, **inside}
    if not _is_plain(type(message)):
        # Durations, wrappers and structs have a form of their own, which the library knows.
        return message.to_dict(casing=betterproto2.Casing.SNAKE)
    return {
        name: convert(value)
        for attribute, name, convert, shown_empty in _form(type(message))
        if (value := getattr(message, attribute)) is not None and (shown_empty or value)
    }


@cache
def _is_plain(kind: type[Message]) -> bool:
    """Whether the form of a type is made of its fields."""
    return kind.to_dict is _LIBRARY


@cache
def _form(kind: type[Message]) -> tuple[tuple[str, str, Convert, bool], ...]:
    """Return each field of a type: attribute, name, form, and whether an empty value is shown."""
    found = []
    for field in fields(cast(Anything, kind)):  # each message is a dataclass
        meta = FieldMetadata.get(field)
        is_message = meta.proto_type == betterproto2.TYPE_MESSAGE and not meta.repeated
        shown_empty = is_message or bool(meta.optional)
        found.append((field.name, field.name.rstrip("_"), _field(meta), shown_empty))
    return tuple(found)


def _field(meta: FieldMetadata) -> Convert:
    """Return what makes the form of a field's value."""
    if meta.map_meta is not None:
        each = _single(meta.map_meta[1])
        return lambda found: {key: each(value) for key, value in found.items()}
    one = _single(meta)
    return (lambda found: [one(value) for value in found]) if meta.repeated else one


def _single(meta: FieldMetadata) -> Convert:
    """Return what makes the form of one value."""
    if meta.proto_type == betterproto2.TYPE_MESSAGE:
        if meta.unwrap is None:
            return document
        wrapper: Anything = meta.unwrap()
        return lambda value: wrapper.from_wrapped(value).to_dict()
    if meta.proto_type == betterproto2.TYPE_ENUM:
        return lambda value: value.proto_name or value.name
    if meta.proto_type in betterproto2.INT_64_TYPES:
        return str
    if meta.proto_type == betterproto2.TYPE_BYTES:
        return lambda value: b64encode(value).decode()
    return lambda value: value
