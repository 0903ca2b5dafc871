"""Scopes and their resources: Microsoft Graph has several names, and each means the same."""

import pytest

from authz.core.scopes import (
    GRAPH,
    default_beside,
    default_of,
    fits_app_token,
    is_default,
    resource_of,
)


@pytest.mark.parametrize(
    ("scope", "resource"),
    [
        ("api://orders/Orders.Read", "api://orders"),
        ("api://Orders/sub/Orders.Read", "api://orders/sub"),
        ("https://api.example//Read", "https://api.example"),
        ("User.Read", GRAPH),
        ("https://graph.microsoft.com/User.Read", GRAPH),
        ("https://graph.microsoft.us/.default", GRAPH),
        ("https://dod-graph.microsoft.us/.default", GRAPH),
        ("https://microsoftgraph.chinacloudapi.cn/.default", GRAPH),
        ("00000003-0000-0000-C000-000000000000/.default", GRAPH),
    ],
)
def test_a_scope_belongs_to_one_resource(scope: str, resource: str) -> None:
    """In every cloud, whether or not it is written in lower case."""
    assert resource == resource_of(scope)


def test_default_is_asked_of_the_resource_as_it_is_written() -> None:
    """Entra compares what it knows with what is sent, so nothing is changed but the slash."""
    assert "api://Orders/.default" == default_beside("api://Orders/Orders.Read")
    assert "api://Orders/.default" == default_of("api://Orders/") == default_of("api://Orders")


@pytest.mark.parametrize(
    ("scopes", "fits"),
    [
        (["api://a/.default"], True),
        (["api://a/Read"], False),
        (["api://a/.default", "api://a/Read"], False),
        ([], False),
    ],
)
def test_a_token_without_user_is_asked_for_by_one_default_scope(
    scopes: list[str], fits: bool
) -> None:
    """Single permissions are a user's to consent to."""
    assert fits == fits_app_token(scopes)
    assert all(map(is_default, scopes)) or not fits
