"""The path of a request under rules: one reading, or none."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import AmbiguousRequest
from authz.core.rules.path import read_path

PLAIN = st.text(st.sampled_from("abcXYZ019-_~$'()+,=:@!&*é語 "), min_size=1, max_size=8).filter(
    lambda text: text.strip(". ") != ""
)


@pytest.mark.parametrize(
    ("target", "exact", "loose"),
    [
        ("/", "/", ""),
        ("/v1.0/me", "/v1.0/me", "/v1.0/me"),
        ("/v1.0/Me/", "/v1.0/Me/", "/v1.0/me"),
        ("/me?$select=id", "/me", "/me"),
        ("/me?", "/me", "/me"),
        ("/users('a%40b')/messages", "/users('a@b')/messages", "/users('a@b')/messages"),
        ("/%24value", "/$value", "/$value"),
        ("/a%20b", "/a b", "/a b"),
        ("/caf%C3%A9", "/café", "/café"),
        ("/Stra%C3%9Fe", "/Straße", "/strasse"),
        ("/admin.", "/admin.", "/admin"),
        ("/%EF%BC%AD%EF%BC%A5", "/\uff2d\uff25", "/me"),
        ("/a?b=/../c;d//e\\", "/a", "/a"),
        ("/ma%C4%B1l/%C4%B0D", "/ma\u0131l/\u0130D", "/mail/id"),
    ],
)
def test_a_path_has_an_exact_and_a_loose_form(target: str, exact: str, loose: str) -> None:
    """The loose one is what a server makes of it that ignores case, slashes at the end and the like."""
    found = read_path(target)

    assert (exact, loose) == (found.exact, found.loose)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "me",
        "http://graph.example/me",
        "//me",
        "/a//b",
        "/a//",
        "/./a",
        "/a/.",
        "/../a",
        "/a/..",
        "/a/../b",
        "/a/.../b",
        "/a/. /b",
        "/a/%20/b",
        "/a;b=1/c",
        "/..;/admin",
        "/a\\b",
        "/a b",
        '/a"b',
        "/a{b}",
        "/a|b",
        "/a^b",
        "/a`b",
        "/a<b>",
        "/a[1]",
        "/é",
        "/a\x00",
        "/a\nb",
        "/a#b",
        "/a?b#c",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%5Cb",
        "/%2e%2e/a",
        "/%2E/a",
        "/a%2e",
        "/%61dmin",
        "/a%2Db",
        "/a%5Fb",
        "/a%7Eb",
        "/a%7eb",
        "/a%3Bb",
        "/a%3Fb",
        "/a%23b",
        "/a%25b",
        "/a%252fb",
        "/a%00b",
        "/a%0ab",
        "/a%7Fb",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%ff",
        "/a%c0%afb",
        "/a%ed%a0%80",
        # Forms of a slash, a dot and a backslash; a line break; one that nobody sees.
        "/a%EF%BC%8Fb",
        "/%EF%BC%8E%EF%BC%8E/a",
        "/a%EF%BC%BCb",
        "/a%E2%80%A8b",
        "/a%E2%80%8Bb",
        "/a" + "%CC%81%CC%96" * 200,
        "/" + "a" * 5000,
        "/a?" + "a" * 20000,
    ],
)
def test_a_path_of_several_readings_is_refused(target: str) -> None:
    """Rules must not see one path, and the destination another."""
    with pytest.raises(AmbiguousRequest):
        read_path(target)


@pytest.mark.parametrize(
    "query",
    [
        "_method=DELETE",
        "a=1&_method=DELETE",
        "a=1;_method=DELETE",
        "_METHOD=delete",
        "%5fmethod=DELETE",
        "_method",
        "_method[]=DELETE",
        "$httpMethod=DELETE",
        "%24httpMethod=DELETE",
        "X-HTTP-Method-Override=DELETE",
        "x-http-method=DELETE",
        "x-method-override=DELETE",
        " _method=DELETE",
        "+_method=DELETE",
        ".method=DELETE",
        "%2Emethod=DELETE",
        "_method%00x=DELETE",
        "x_http_method_override=DELETE",
        "X-Original-URL=/other",
        "X-Rewrite-URL=/other",
    ],
)
def test_a_query_names_no_other_method(query: str) -> None:
    """Some frameworks serve the method that a parameter names."""
    with pytest.raises(AmbiguousRequest):
        read_path(f"/orders?{query}")


@pytest.mark.parametrize(
    "query", ["payment_method=card", "method=card", "a=_method", "%zz", "a%20b", "__method=x", "="]
)
def test_other_parameters_may_have_any_name(query: str) -> None:
    """They are the destination's business."""
    assert "/orders" == read_path(f"/orders?{query}").exact


@given(st.lists(PLAIN, min_size=1, max_size=5))
def test_every_segment_survives_its_encoding(segments: list[str]) -> None:
    """What a client encodes by the book is read as it was."""
    kept = "!$&'()*+,=:@~"
    path = "".join(f"/{quote(segment, safe=kept)}" for segment in segments)

    assert "".join(f"/{segment}" for segment in segments) == read_path(path).exact


@given(st.text(st.sampled_from("/.%aA2eEfF5cC;\\?#:é "), max_size=12))
def test_what_is_read_has_one_reading(text: str) -> None:
    """No dot segments, no empty ones, and nothing that decodes once more."""
    try:
        found = read_path(f"/{text}")
    except AmbiguousRequest:
        return

    segments = found.exact[1:].split("/")
    assert not {".", ".."} & set(segments)
    assert "" not in segments[:-1]
    assert not set("\\;%?#") & set(found.exact)
