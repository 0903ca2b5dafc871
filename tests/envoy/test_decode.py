"""Decoding what Envoy asks is total: whatever is left out is empty, and nothing makes it fail."""

import asyncio

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from authz._pb.external_auth_pb2 import CheckRequest as WireRequest
from authz.core.decision import Deny
from authz.core.request import CheckRequest
from authz.doors.envoy.ext_authz import decode, encode
from support.fakes.properties import thorough
from support.fakes.scene import Scene

TEXT = st.text(max_size=40)


@st.composite
def wire_requests(draw: st.DrawFn) -> WireRequest:
    """Any request: fields present or not, headers of any name and value."""
    request = WireRequest()
    http = request.attributes.request.http
    http.method, http.host, http.path = draw(TEXT), draw(TEXT), draw(TEXT)
    names = TEXT | st.sampled_from(
        ["authorization", "traceparent", "x-request-id", "x-authz-subject", "x-authz-"]
    )
    for name, value in draw(st.dictionaries(names, TEXT, max_size=6)).items():
        http.headers[name] = value
    keys = TEXT | st.sampled_from(["authz.direction", "authz.route"])
    values = TEXT | st.sampled_from(["inbound", "egress"])
    for name, value in draw(st.dictionaries(keys, values, max_size=4)).items():
        request.attributes.context_extensions[name] = value
    request.attributes.source.principal = draw(TEXT)
    return request


def test_an_empty_request_is_an_empty_question() -> None:
    """Nothing is made up, and nothing is missing."""
    assert CheckRequest() == decode(WireRequest())


@pytest.mark.parametrize("gives_handles", [False, True])
def test_a_name_that_an_app_may_read_as_ours_is_ours(*, gives_handles: bool) -> None:
    """CGI and WSGI know no difference between underscore and hyphen; others are left alone."""
    ours = ["x-authz-subject", "x_authz_subject", "x-authz_subject", "x_authz-subject"]
    carriers = ["uberctx_a", "jaeger_baggage", "ot-baggage_a", "correlation_context"]
    request = WireRequest()
    for name in (*ours, *carriers, "x-authz", "xauthz-subject", "x.authz.subject", "x_request_id"):
        request.attributes.request.http.headers[name] = "somebody"

    found = decode(request, gives_handles=gives_handles).own_headers

    assert {*ours, *carriers * gives_handles} == {*found}


@thorough
@given(wire_requests())
def test_every_request_decodes_and_is_answered(wire: WireRequest) -> None:
    """From the wire to the wire: a decision for everything, and a denial for what is unknown."""
    request = decode(WireRequest.FromString(wire.SerializeToString()))
    scene = Scene()

    record = asyncio.run(scene.check(request))
    answer = encode(record)

    assert record.fault is None
    assert isinstance(record.decision, Deny) == (answer.status.code != 0)


@thorough
@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_as_such(content: bytes) -> None:
    """GRPC answers them with an error of its own, so the handler never sees one."""
    try:
        wire = WireRequest.FromString(content)
    except DecodeError:
        return

    assert isinstance(decode(wire), CheckRequest)
