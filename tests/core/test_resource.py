"""What a client may learn of a resource before it has a token: paths, document, challenges (RFC 9728)."""

import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.core.request import CheckRequest
from authz.core.resource import METADATA, ProtectedResource
from support.fakes.properties import thorough

ISSUER: Final = "https://login.example/11111111-0000-4000-8000-000000000001/v2.0"
URL: Final = "https://agent.example.com/mcp"
SCOPES: Final = (f"{URL}/access_agent",)
RESOURCE: Final = ProtectedResource(URL, (ISSUER,), SCOPES)
OWN: Final = f"{METADATA}/mcp"


def reply(path: str, method: str = "GET") -> tuple[int, str] | None:
    """Return status and body of the answer to a request."""
    found = RESOURCE.reply_to(CheckRequest(method=method, path=path))
    return None if found is None else (found.status, found.body)


@pytest.mark.parametrize(
    ("identifier", "metadata_url", "paths"),
    [
        (URL, f"https://agent.example.com{METADATA}/mcp", (f"{METADATA}/mcp", METADATA)),
        ("https://a.example", f"https://a.example{METADATA}", (METADATA,)),
        ("https://a.example/", f"https://a.example{METADATA}", (METADATA,)),
        (
            "http://[::1]:8000/a/b/",
            f"http://[::1]:8000{METADATA}/a/b/",
            (f"{METADATA}/a/b/", METADATA),
        ),
    ],
)
def test_metadata_stands_between_host_and_path(
    identifier: str, metadata_url: str, paths: tuple[str, ...]
) -> None:
    """RFC 9728 section 3.1: a slash that ends the host is left out."""
    found = ProtectedResource(identifier, (ISSUER,))

    assert (metadata_url, paths) == (found.metadata_url, found.metadata_paths)


def test_document_says_where_to_sign_in_and_what_to_ask_for() -> None:
    """RFC 9728 section 2."""
    status, body = reply(OWN) or (0, "")

    assert (200, {
        "resource": URL,
        "authorization_servers": [ISSUER],
        "scopes_supported": list(SCOPES),
        "bearer_methods_supported": ["header"],
    }) == (status, json.loads(body))  # fmt: skip


def test_what_there_is_nothing_of_is_left_out() -> None:
    """RFC 9728 section 2: a list without elements is left out."""
    found = ProtectedResource(URL, ()).reply_to(CheckRequest(method="GET", path=OWN))

    assert found is not None
    assert {"resource", "bearer_methods_supported"} == json.loads(found.body).keys()


@pytest.mark.parametrize("path", [OWN, METADATA, f"{OWN}?", f"{METADATA}?a=/../b"])
@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("OPTIONS", 204)])
def test_both_paths_are_answered_to_whoever_reads(path: str, method: str, status: int) -> None:
    """The query counts for nothing."""
    found = reply(path, method)

    assert found is not None
    assert status == found[0]
    assert bool(found[1]) == (status == 200)


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "CONNECT", "TRACE", "get", "", "QUERY"]
)
def test_no_other_method_is_answered(method: str) -> None:
    """The app has its say on them."""
    assert reply(OWN, method) is None


PIECES: Final = st.sampled_from(
    [
        "/",
        ".",
        "..",
        "%2e",
        "%2f",
        "%70",
        ";",
        "#",
        "\\",
        "\0",
        " ",
        "mcp",
        "MCP",
        METADATA,
        OWN,
        "?",
    ]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=6).map("".join))
@thorough
def test_no_other_path_is_answered(path: str) -> None:
    """Whatever it is made of: it is one of the two to the last byte, but for the query."""
    answered = reply(path) is not None

    assert (path.split("?", maxsplit=1)[0] in {OWN, METADATA}) == answered


@pytest.mark.parametrize("reason", Reason)
def test_challenge_is_for_those_whom_another_token_helps(reason: Reason) -> None:
    """No token, a wrong one, one that lacks a scope: what to ask for is what was found to be lacking."""
    lacking = (f"{URL}/.default",) if reason is Reason.INSUFFICIENT_SCOPE else ()
    denial = Deny(reason, ask_for=lacking)

    told = RESOURCE.challenge(denial)

    expected = {
        Reason.MISSING_TOKEN: (RESOURCE.metadata_url, SCOPES),
        Reason.INVALID_TOKEN: (RESOURCE.metadata_url, SCOPES),
        Reason.INSUFFICIENT_SCOPE: (RESOURCE.metadata_url, lacking),
    }
    assert expected.get(reason, (None, ())) == (told.metadata_url, told.ask_for)
