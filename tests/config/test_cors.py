"""`inbound.<route>.cors`: which web pages are named, and which configurations are faults."""

from typing import Any

import pytest

from authz.config.rendered import mark_of
from authz.config.sections.cors import EXPOSED, HEADERS, METHODS
from config.samples import changed, faults_of, load_data

CORS = "inbound.chat.cors"
APP = "https://app.example.com"


@pytest.mark.parametrize(
    "origin",
    [
        APP,
        "*",
        "https://app.example.com:8443",
        "http://localhost:3000",
        "http://[::1]:3000",
        "vscode-webview://abc123",
    ],
)
def test_an_origin_as_browsers_send_it_is_taken(origin: str) -> None:
    """With what clients of MCP need by default."""
    cors = load_data(changed({CORS: {"origins": [origin]}})).inbound["chat"].cors

    assert cors is not None
    assert ((origin,), METHODS, HEADERS, EXPOSED, False, 600.0) == (
        cors.origins,
        cors.methods,
        cors.headers,
        cors.expose,
        cors.credentials,
        cors.max_age,
    )


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.com",
        "https://App.example.com",
        "https://app.example.com/",
        "https://app.example.com/chat",
        "https://*.example.com",
        "https://user@app.example.com",
        "https://app.example.com:0",
        "null",
        "https://app.example.com\n",
        " *",
        "",
    ],
)
def test_anything_else_is_no_origin(origin: str) -> None:
    """No page would ever send it."""
    (fault,) = faults_of(lambda: load_data(changed({CORS: {"origins": [origin]}})))

    assert f"{CORS}.origins.0" == fault.path
    assert (
        "expected an origin as browsers send it, such as https://app.example.com" in fault.message
    )


@pytest.mark.parametrize(
    ("cors", "key", "message"),
    [
        (
            {"origins": ["*"], "credentials": True},
            "credentials",
            (
                "found true beside the origin *: any web page could call as the browser's user, expected the origins by "
                "name"
            ),
        ),
        (
            {"origins": [APP, "*"]},
            "origins",
            "found * beside other origins: expected * alone, or no *",
        ),
        ({"origins": [APP, APP]}, "origins.1", f"found '{APP}' twice: expected it once"),
        (
            {"origins": [APP], "headers": ["X-Trace", "x-trace"]},
            "headers.1",
            "found 'x-trace' twice: expected it once",
        ),
        ({"origins": [APP], "expose": ["a", "a"]}, "expose.1", "found 'a' twice: expected it once"),
        (
            {"origins": [APP], "methods": ["GET", "GET"]},
            "methods.1",
            "found 'GET' twice: expected it once",
        ),
        (
            {"origins": [APP], "headers": ["*"]},
            "headers.0",
            "found '*': expected the name of a header",
        ),
        (
            {"origins": [APP], "methods": ["post"]},
            "methods.0",
            "found 'post': expected a method in capitals, such as GET",
        ),
    ],
)
def test_a_fault_says_what_was_expected(cors: dict[str, Any], key: str, message: str) -> None:
    """At the key that should change."""
    faults = faults_of(lambda: load_data(changed({CORS: cors})))

    assert [(f"{CORS}.{key}", message)] == [(each.path, each.message) for each in faults]


@pytest.mark.parametrize("origin", ["https://app.example.com:443", "http://app.example.com:80"])
def test_browsers_leave_the_port_of_a_scheme_out(origin: str) -> None:
    """So no page sends such an origin."""
    (fault,) = faults_of(lambda: load_data(changed({CORS: {"origins": [origin]}})))

    assert "expected no port: browsers leave" in fault.message
    load_data(changed({CORS: {"origins": ["https://app.example.com:80"]}}))


def test_origins_are_needed() -> None:
    """Nobody is let in by an empty section."""
    faults = faults_of(lambda: load_data(changed({CORS: {"max_age": "1h"}})))

    assert [f"{CORS}.origins"] == [each.path for each in faults]


def test_envoys_configuration_depends_on_it() -> None:
    """And on no public path, which the service knows alone."""
    without = mark_of(load_data(changed({})))

    assert without == mark_of(load_data(changed({"inbound.chat.public_paths": ["/healthz"]})))
    marks = {
        without,
        mark_of(load_data(changed({CORS: {"origins": [APP]}}))),
        mark_of(load_data(changed({CORS: {"origins": [APP], "max_age": "1h"}}))),
    }
    assert 3 == len(marks)
