"""`inbound.<route>.resource`: which URLs are taken, what is published of a route, and what is advised."""

from typing import Any, Final

import pytest

from authz.config.compile import compile_policy
from authz.config.consistency.advice import advice
from authz.config.faults import Notice
from authz.config.rendered import mark_of
from authz.core.resource import ProtectedResource
from config.samples import APP, CLIENT, TENANT, changed, faults_of, load_data

URL: Final = "https://agent.example.com/mcp"
OTHER: Final = "11111111-0000-4000-8000-000000000002"
LOGIN: Final = "https://login.microsoftonline.com"
WITH_URI: Final = {"blueprints.support.audiences": [CLIENT, URL]}


def published(**changes: Any) -> ProtectedResource | None:
    """Return what is published of the route, with these changes and the URL."""
    found = {key.replace("__", "."): value for key, value in changes.items()}
    config = load_data(changed({"inbound.chat.resource": URL, **found}))
    return compile_policy(config).inbound["chat"].resource


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://agent.example.com",
        "https://agent.example.com/",
        "https://agent.example.com:8443/a/b.c/~d/e-f_g/",
        "https://a/..b/.c/d..",
        "https://[2001:db8::1]/mcp",
        "http://localhost:8000/mcp",
        "http://127.0.0.1:8000",
        "http://[::1]:8000/mcp",
    ],
)
def test_url_in_the_spelling_of_clients_is_taken(url: str) -> None:
    """As it is written."""
    found = published(inbound__chat__resource=url)

    assert found is not None
    assert url == found.identifier


@pytest.mark.parametrize(
    "url",
    [
        "agent.example.com/mcp",
        "//agent.example.com/mcp",
        "api://agent/mcp",
        "HTTPS://agent.example.com/mcp",
        "https://Agent.example.com/mcp",
        "https://agent.example.com/mcp?a=b",
        "https://agent.example.com/mcp#a",
        "https://user@agent.example.com/mcp",
        "https://user:word@agent.example.com/mcp",
        "https://agent.example.com/a/../mcp",
        "https://agent.example.com/..",
        "https://agent.example.com/./mcp",
        "https://agent.example.com//mcp",
        "https://agent.example.com/mcp//",
        "https://agent.example.com/a%2fmcp",
        "https://agent.example.com/mcp%20",
        'https://agent.example.com/"',
        "https://agent.example.com/a b",
        "https://agent.example.com/mcp\n",
        "https://agent.example.com\\mcp",
        "https://agent.example.com:443/mcp",
        "https://agent.example.com:0/mcp",
        "https://agent.example.com:65536/mcp",
        "http://localhost:80/mcp",
        "http://agent.example.com/mcp",
        "http://127.0.0.2/mcp",
        "http://localhost.example.com/mcp",
        "https://*.example.com/mcp",
        "https:///mcp",
        "",
        5,
    ],
)
def test_any_other_spelling_is_a_fault(url: Any) -> None:
    """Clients compare it to the letter, and Envoy has the path in one spelling only."""
    faults = faults_of(lambda: load_data(changed({"inbound.chat.resource": url})))

    assert ["inbound.chat.resource"] == [fault.path for fault in faults]


def test_url_among_the_audiences_is_what_tokens_are_asked_for_by() -> None:
    """A client sends the URL as `resource` too, and Entra takes one resource only (AADSTS9010010)."""
    config = load_data(changed({"inbound.chat.resource": URL, **WITH_URI}))
    route = compile_policy(config).inbound["chat"]

    expected = ProtectedResource(URL, (f"{LOGIN}/{TENANT}/v2.0",), (f"{URL}/access_agent",))
    assert (expected, URL) == (route.resource, route.requirement.resource)


def test_url_that_is_no_audience_leaves_what_tokens_are_asked_for_by() -> None:
    """The URI that Entra proposes."""
    found = published()

    assert found is not None
    assert (f"api://{CLIENT}/access_agent",) == found.scopes


@pytest.mark.parametrize(
    ("changes", "scope"),
    [
        ({"inbound__chat__scopes": []}, ".default"),
        ({"inbound__chat__scopes": [], "inbound__chat__roles": ["Agent.Use"]}, ".default"),
        ({"inbound__chat__roles": ["Agent.Use"]}, "access_agent"),
    ],
)
def test_route_without_scopes_is_asked_for_by_what_was_granted(
    changes: dict[str, Any], scope: str
) -> None:
    """For a user whatever was consented to, for an application its roles."""
    found = published(**changes)

    assert found is not None
    assert (f"api://{CLIENT}/{scope}",) == found.scopes


def test_every_tenant_that_is_accepted_has_its_issuer() -> None:
    """In the order of the configuration, in the cloud of the authority."""
    anyone = {"audiences": [CLIENT], "tenants": [OTHER, TENANT], "resource": URL}
    found = published(
        inbound__chat=anyone,
        egress={},
        entra__authority="https://login.microsoftonline.us",
    )

    assert found is not None
    cloud = "https://login.microsoftonline.us"
    assert (f"{cloud}/{OTHER}/v2.0", f"{cloud}/{TENANT}/v2.0") == found.issuers


def test_nothing_is_published_unless_it_is_configured() -> None:
    """And the mark of Envoy's configuration stays as it was."""
    plain = load_data(changed({}))

    assert compile_policy(plain).inbound["chat"].resource is None
    assert mark_of(plain) != mark_of(load_data(changed({"inbound.chat.resource": URL})))


def test_envoy_that_repeats_nothing_is_rendered_as_before() -> None:
    """The paths are in its configuration only to keep its edge cache from them."""
    edge = {"cache.edge": {"max_ttl": 0}}
    plain = load_data(changed(edge))

    assert mark_of(plain) == mark_of(load_data(changed({"inbound.chat.resource": URL, **edge})))


ROUTES: Final[dict[str, dict[str, Any]]] = {
    "agent": {"agent": "assistant"},
    "blueprint": {"blueprint": "support"},
    "application": {"application": "portal"},
    "none": {"audiences": [CLIENT], "tenants": [TENANT]},
}


@pytest.mark.parametrize("called", ROUTES)
@pytest.mark.parametrize("is_audience", [False, True])
def test_url_that_is_no_audience_is_advised_against(called: str, *, is_audience: bool) -> None:
    """Whatever the route calls: Entra refuses what clients send (AADSTS9010010)."""
    route = {**ROUTES[called], "scopes": ["access_agent"], "resource": URL}
    changes: dict[str, Any] = {"inbound.chat": route, "egress": {}}
    if is_audience and called == "none":
        route["audiences"] = [CLIENT, URL]
    elif is_audience:
        client, audience = (
            ("applications.portal", APP)
            if called == "application"
            else ("blueprints.support", CLIENT)
        )
        changes[f"{client}.audiences"] = [audience, URL]

    notices = list(advice(load_data(changed(changes))))

    expected = Notice(
        "inbound.chat.resource",
        "is not among the audiences: clients send it to Entra as `resource`, which Entra refuses beside scopes of "
        "another one (AADSTS9010010): expected it as an Application ID URI in Entra, and in audiences",
    )
    assert ([] if is_audience else [expected]) == [
        each for each in notices if "resource" in each.path
    ]
