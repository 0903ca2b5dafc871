"""Our subset of Envoy's messages against an independent codec of the full schema, in both directions.

`authz._pb` is generated from our own `.proto` files, where a wrong field number would be invisible: we
would understand ourselves. `envoy-data-plane` holds the full upstream schema. Values are written down by
field names (the JSON form), so a number that leads elsewhere cannot lead back to the same name.

That these tests can fail is tested as well: every field is renumbered once, and every one is found out.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import trustme
from betterproto2 import Casing
from betterproto2 import Message as FullMessage
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.service.auth import v3 as auth
from envoy_data_plane.envoy.service.discovery import v3 as discovery
from envoy_data_plane.envoy.type.v3 import StatusCode
from google.protobuf.any_pb2 import Any as WireAny
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from authz._pb import (
    attribute_context_pb2,
    base_pb2,
    discovery_pb2,
    external_auth_pb2,
    http_status_pb2,
    secret_pb2,
    status_pb2,
)
from authz.core.decision import Allow, Deny
from authz.core.errors import Reason
from authz.core.request import Authorization
from authz.core.request import CheckRequest as CoreRequest
from authz.core.secret import Secret
from authz.doors.envoy.ext_authz import decode, encode
from support.fakes.properties import thorough
from support.fakes.records import record_of
from support.fakes.workload import workload_certificate

REQUEST = external_auth_pb2.CheckRequest
RESPONSE = external_auth_pb2.CheckResponse
FULL: Mapping[type[Message], type[FullMessage]] = {
    REQUEST: auth.CheckRequest,
    RESPONSE: auth.CheckResponse,
    discovery_pb2.DiscoveryRequest: discovery.DiscoveryRequest,
    discovery_pb2.DiscoveryResponse: discovery.DiscoveryResponse,
    discovery_pb2.DeltaDiscoveryRequest: discovery.DeltaDiscoveryRequest,
    discovery_pb2.DeltaDiscoveryResponse: discovery.DeltaDiscoveryResponse,
    secret_pb2.Secret: tls.Secret,
}
OURS = {ours.DESCRIPTOR.full_name: ours for ours in FULL}
UPSTREAM = {ours.DESCRIPTOR.full_name: full for ours, full in FULL.items()}
FILES = (
    status_pb2,
    http_status_pb2,
    base_pb2,
    attribute_context_pb2,
    external_auth_pb2,
    discovery_pb2,
    secret_pb2,
)
BORROWED = {Struct.DESCRIPTOR.full_name, WireAny.DESCRIPTOR.full_name}
"""Messages of protobuf itself. What an `Any` holds here is always a secret."""

Json = dict[str, Any]
Way = tuple[FieldDescriptor, ...]


def described(message: type[Message]) -> Descriptor:
    """Return the descriptor of a generated class; the stubs know of two kinds."""
    return cast("Descriptor", message.DESCRIPTOR)


def owner(field: FieldDescriptor) -> Descriptor:
    """Return the message that a field belongs to."""
    assert field.containing_type is not None
    return field.containing_type


def is_ours(descriptor: Descriptor) -> bool:
    """Say whether a message is one we declare, and not one of protobuf's own."""
    return descriptor.full_name not in BORROWED


def is_map(field: FieldDescriptor) -> bool:
    """Say whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def ways(descriptor: Descriptor, before: Way = ()) -> Iterator[Way]:
    """Return the way from a message to each field that it can hold, at any depth."""
    for field in descriptor.fields:
        way = (*before, field)
        yield way
        if field.message_type is not None and not is_map(field) and is_ours(field.message_type):
            yield from ways(field.message_type, way)


WAYS = [way for message in FULL for way in ways(described(message))]
NAMES = [".".join((owner(p[0]).name, *(field.name for field in p))) for p in WAYS]


def one_value(field: FieldDescriptor, nested: Any, numbers: Iterator[int]) -> Any:
    """Return a value of a field that is not its default, as JSON; `nested` for a message."""
    number = next(numbers)
    if is_map(field):
        return {f"key-{number}": f"value-{number}"}
    if field.message_type is not None:
        value = nested if nested is not None else {}
        if field.message_type.full_name == WireAny.DESCRIPTOR.full_name:
            value = packed({"name": f"name-{number}"})
        elif not is_ours(field.message_type):
            value = {f"name-{number}": f"value-{number}"}
    elif field.enum_type is not None:
        value = field.enum_type.values[-1].name
    elif field.type == FieldDescriptor.TYPE_STRING:
        value = f"text-{number}"
    elif field.type == FieldDescriptor.TYPE_BYTES:
        value = b64encode(f"bytes-{number}".encode()).decode()
    else:
        value = 400 + number
    return [value] if field.is_repeated else value


def packed(secret: Json) -> Json:
    """Return an `Any` that holds a secret, as JSON."""
    return {"@type": f"type.googleapis.com/{secret_pb2.Secret.DESCRIPTOR.full_name}", **secret}


def only(way: Way) -> Json:
    """Return a message, as JSON, in which the last field of the way is set, and what leads to it."""
    numbers, nested = count(1), None
    for field in reversed(way):
        nested = {field.name: one_value(field, nested, numbers)}
    assert nested is not None
    return nested


def read_by_full(kind: str, wire: bytes) -> Json:
    """Return what the full schema reads, as JSON with our representation of HTTP status codes."""
    found: Json = plain(UPSTREAM[kind].parse(wire).to_dict(casing=Casing.SNAKE))
    return found


def plain(node: Any) -> Any:
    """Replace names of HTTP status codes, an enum upstream and a number with us."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    code = node.get("code")
    if isinstance(code, str) and len(node) == 1:
        return {"code": StatusCode.from_string(code).value}
    return {key: plain(value) for key, value in node.items()}


def as_json(message: Message) -> Json:
    """Return what a message of ours says, by field names."""
    found: Json = MessageToDict(message, preserving_proto_field_name=True)
    return found


def differences(ours: type[Message], said: Json) -> list[str]:
    """Exchange a message in both directions; return which reader did not read what was written."""
    kind = described(ours).full_name
    message = ParseDict(said, ours())
    wrong = []
    try:
        if as_json(message) != read_by_full(kind, message.SerializeToString()):
            wrong.append("the full schema reads something else")
    except (ValueError, KeyError):  # the second where what is read begins with a map
        wrong.append("the full schema meets a field of another type")
    try:
        if message != ours.FromString(bytes(UPSTREAM[kind].from_dict(said))):
            wrong.append("our subset reads something else")
    except DecodeError:
        wrong.append("our subset meets a field of another type")
    return wrong


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_field_means_the_same_to_both_sides(way: Way) -> None:
    """Each field we declare, alone in a message, is read under its own name by the other side."""
    assert [] == differences(OURS[owner(way[0]).full_name], only(way))


def rebuilt(kind: str, wrong: FieldDescriptor | None = None) -> type[Message]:
    """Return our message of that name, made anew, with a wrong number for one field if one is given."""
    pool = DescriptorPool()
    borrowed = (Struct.DESCRIPTOR.file, WireAny.DESCRIPTOR.file)
    for described_file in (*borrowed, *(module.DESCRIPTOR for module in FILES)):
        file = FileDescriptorProto()
        described_file.CopyToProto(file)
        for name, message in every_message(file.message_type, file.package):
            if wrong is not None and name == owner(wrong).full_name:
                renumber(message, wrong.name)
        pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(kind))


def every_message(messages: Any, prefix: str) -> Iterator[tuple[str, DescriptorProto]]:
    """Return each message with its full name, those declared inside others included."""
    for message in messages:
        name = f"{prefix}.{message.name}"
        yield name, message
        yield from every_message(message.nested_type, name)


def renumber(message: DescriptorProto, name: str) -> None:
    """Give a field the number of another field of its message; where it is alone, one that is free."""
    field = next(field for field in message.field if field.name == name)
    other = next((other for other in message.field if other.name != name), None)
    if other is None:
        field.number += 50
    else:
        field.number, other.number = other.number, field.number


@pytest.mark.parametrize("way", WAYS, ids=NAMES)
def test_wrong_number_is_found_out(way: Way) -> None:
    """The test above fails for a schema in which this one field has a wrong number, and for no other."""
    kind = owner(way[0]).full_name

    assert [] == differences(rebuilt(kind), only(way))
    assert [] != differences(rebuilt(kind, wrong=way[-1]), only(way))


def test_every_message_we_declare_is_exchanged() -> None:
    """No generated file, and no message in one, is left out of these tests."""
    generated = {path.name for path in Path(base_pb2.__file__).parent.glob("*_pb2.py")}
    declared = {
        name
        for module in FILES
        for name, message in every_message(as_proto(module.DESCRIPTOR), module.DESCRIPTOR.package)
        if not message.options.map_entry
    }

    assert generated == {f"{module.__name__.rpartition('.')[2]}.py" for module in FILES}
    assert declared == {owner(field).full_name for way in WAYS for field in way}


def as_proto(file: FileDescriptor) -> Any:
    """Return the messages that a file declares."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto.message_type


TEXT = st.text(max_size=12)
STRUCT = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**31), 2**31) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Return all values of a field, as JSON."""
    if is_map(field):
        return st.dictionaries(TEXT, TEXT, max_size=3)
    single: st.SearchStrategy[Any]
    if field.message_type is not None:
        if field.message_type.full_name == WireAny.DESCRIPTOR.full_name:
            single = messages(described(secret_pb2.Secret)).map(packed)
        else:
            single = messages(field.message_type) if is_ours(field.message_type) else STRUCT
    elif field.enum_type is not None:
        single = st.sampled_from([value.name for value in field.enum_type.values])
    elif field.type == FieldDescriptor.TYPE_STRING:
        single = TEXT
    elif field.type == FieldDescriptor.TYPE_BYTES:
        single = st.binary(max_size=12).map(lambda found: b64encode(found).decode())
    else:
        single = st.integers(0, 2**31 - 1)
    return st.lists(single, max_size=3) if field.is_repeated else single


def messages(descriptor: Descriptor) -> st.SearchStrategy[Json]:
    """Return all values of a message, as JSON: any fields, and of a oneof at most one."""
    parts = [
        st.fixed_dictionaries(
            {},
            optional={
                field.name: values(field)
                for field in descriptor.fields
                if field.containing_oneof is None
            },
        )
    ]
    parts += [
        st.one_of(st.just({}), *(st.fixed_dictionaries({f.name: values(f)}) for f in oneof.fields))
        for oneof in descriptor.oneofs
    ]
    return st.tuples(*parts).map(lambda found: {key: part[key] for part in found for key in part})


@pytest.mark.parametrize("ours", FULL, ids=lambda ours: ours.DESCRIPTOR.name)
@thorough
@given(data=st.data())
def test_any_message_means_the_same_to_both_sides(ours: type[Message], data: st.DataObject) -> None:
    """Fields in every combination, empty, repeated and nested."""
    said = data.draw(messages(described(ours)))

    assert [] == differences(ours, said)


def test_what_we_do_not_declare_is_ignored() -> None:
    """Envoy tells more than we read, and newer ones will tell even more."""
    said = {"attributes": {"request": {"http": {"method": "GET", "host": "a.example"}}}}
    full = auth.CheckRequest.from_dict(said)
    assert full.attributes is not None
    assert full.attributes.request is not None
    assert full.attributes.request.http is not None
    full.attributes.request.http.protocol = "HTTP/2"
    full.attributes.request.http.query = "a=b"
    full.attributes.destination = auth.AttributeContextPeer(
        address=core.Address(socket_address=core.SocketAddress(address="::1", port_value=1))
    )
    full.attributes.metadata_context = core.Metadata()

    assert said == as_json(REQUEST.FromString(bytes(full)))


def test_question_of_a_full_codec_is_decoded() -> None:
    """What Envoy asks arrives in our own words."""
    certificate, _ = workload_certificate(trustme.CA(), "spiffe://cluster.local/ns/a/sa/b")
    full = auth.CheckRequest(
        attributes=auth.AttributeContext(
            source=auth.AttributeContextPeer(certificate=quote(certificate)),
            request=auth.AttributeContextRequest(
                http=auth.AttributeContextHttpRequest(
                    method="GET",
                    host="a.example",
                    path="/items?q=1",
                    headers={"authorization": "Bearer token", "x-request-id": "r-1"},
                )
            ),
            context_extensions={"authz.direction": "egress", "authz.route": "graph"},
        )
    )

    expected = CoreRequest(
        method="GET",
        host="a.example",
        path="/items?q=1",
        authorization=Authorization("Bearer token"),
        direction="egress",
        route="graph",
        source_principal="spiffe://cluster.local/ns/a/sa/b",
        request_id="r-1",
    )
    assert expected == decode(REQUEST.FromString(bytes(full)))


def test_permission_is_read_by_a_full_codec() -> None:
    """Headers to set overwrite, headers to remove are named, the facts are metadata."""
    decision = Allow(authorization=Secret("token"), remove=("x-authz-old",))
    wire = encode(record_of(decision))

    full = auth.CheckResponse.parse(wire.SerializeToString())

    assert full.status is not None
    assert full.ok_response is not None
    (header,) = full.ok_response.headers
    assert header.header is not None
    assert 0 == full.status.code
    assert ("authorization", "Bearer token") == (header.header.key, header.header.value)
    assert core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD == (
        header.append_action
    )
    assert ["x-authz-old"] == full.ok_response.headers_to_remove
    assert full.dynamic_metadata is not None
    assert {
        "decision": "allow",
        "route": "graph",
        "flow": "autonomous",
    } == full.dynamic_metadata.to_dict()


@pytest.mark.parametrize("reason", Reason)
def test_refusal_is_read_by_a_full_codec(reason: Reason) -> None:
    """Every denial is a denial with status and body; never the error that an Envoy might let pass."""
    wire = encode(record_of(Deny(reason)))

    full = auth.CheckResponse.parse(wire.SerializeToString())

    assert (None, None) == (full.ok_response, full.error_response)
    assert full.denied_response is not None
    assert full.denied_response.status is not None
    assert full.status is not None
    assert full.status.code != 0
    assert full.denied_response.status.code >= 400
    assert reason.value in full.denied_response.body
