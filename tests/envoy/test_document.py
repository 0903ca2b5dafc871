"""`document` and `packed` make of Envoy's messages what the library makes of them, without its cost."""

from copy import deepcopy
from pathlib import Path
from typing import Any as Anything

import pytest
import yaml
from betterproto2 import Casing, Message
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    Http2ProtocolOptions,
    Metadata,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import Endpoint
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthzPerRoute
from envoy_data_plane.google.protobuf import Any, Duration, Struct

from authz.envoy_config.document import document, packed

ROOT = Path(__file__).resolve().parents[2]
RENDERED = [
    path
    for path in sorted((ROOT / "kubernetes").rglob("envoy.yaml"))
    if "static_resources" in path.read_text()
]


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_whole_configuration_is_what_the_library_shows(path: Path) -> None:
    """Each field that is rendered anywhere, with messages unpacked by the library and by none."""
    bootstrap = Bootstrap.from_dict(yaml.safe_load(path.read_text()))
    expected = bootstrap.to_dict(casing=Casing.SNAKE)

    assert expected == document(bootstrap)
    assert expected == document(_repacked(bootstrap))


@pytest.mark.parametrize(
    "message",
    [
        HeaderValue(),
        HeaderValue(key="k"),
        DataSource(inline_string=""),
        DataSource(inline_bytes=b"\x00\xff"),
        Endpoint(),
        Http2ProtocolOptions(max_concurrent_streams=0, allow_connect=False),
        Metadata(filter_metadata={"a": Struct.from_dict({"n": 1.5, "list": [None, True, {}]})}),
        ExtAuthzPerRoute(disabled=False),
        Duration(seconds=1, nanos=500_000_000),
        Struct.from_dict({"a": {"b": [1, "2"]}}),
        TypedExtensionConfig(name="x"),
    ],
    ids=repr,
)
def test_empty_and_unusual_values_are_shown_alike(message: Message) -> None:
    """A field that is set to its default, bytes, and messages with a form of their own."""
    expected = message.to_dict(casing=Casing.SNAKE)

    assert expected == document(message)
    assert Any.pack(message).to_dict(casing=Casing.SNAKE) == document(packed(message))


def test_a_packed_message_is_an_any_to_the_library() -> None:
    """Whoever serializes or reads it finds what `Any.pack` gives; so does a copy."""
    message = HeaderValue(key="k", value="v")
    ours, theirs = packed(message), Any.pack(message)

    assert bytes(theirs) == bytes(ours) == bytes(deepcopy(ours))
    assert theirs.to_dict() == ours.to_dict()
    assert message == ours.unpack() == deepcopy(ours).unpack()


def _repacked(value: Anything) -> Anything:
    """Return a message in which `packed` has made each `Any`."""
    if isinstance(value, Any):
        inside = value.unpack()
        assert inside is not None
        return packed(_repacked(inside))
    if isinstance(value, Message):
        for name, found in list(vars(value).items()):
            if name != "_unknown_fields":
                setattr(value, name, _repacked(found))
    if isinstance(value, list):
        return [_repacked(each) for each in value]
    if isinstance(value, dict):
        return {key: _repacked(each) for key, each in value.items()}
    return value
