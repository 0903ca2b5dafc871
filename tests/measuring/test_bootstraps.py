"""The changes that measuring needs leave Envoy's configuration valid, and what is measured in it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.envoy_config.messages import EXT_AUTHZ
from bench.bootstraps import ROUTER, Bootstrap
from support.proxy.envoy import validate

pytestmark = pytest.mark.thorough

HOST = "graph.example"
EDGE_CACHE = "authz.edge_cache"
_CLIENT = "22222222-0000-4000-8000-000000000001"


def _config(flow: str, **cache: Any) -> str:
    """A configuration with one egress route."""
    return json.dumps(
        {
            "listen": {"grpc": "unix:/run/authz.sock"},
            "blueprints": {
                "b": {
                    "tenant_id": "11111111-0000-4000-8000-000000000001",
                    "client_id": _CLIENT,
                    "credentials": [{"client_secret": {"env": "SECRET"}}],
                }
            },
            "agents": {
                "a": {"blueprint": "b", "agent_identity": "44444444-0000-4000-8000-000000000001"}
            },
            "egress": {
                "graph": {
                    "hosts": [HOST],
                    "flow": flow,
                    "agent": "a",
                    "scopes": ["https://graph.microsoft.com/.default"],
                }
            },
            **({"cache": cache} if cache else {}),
        }
    )


def _bootstrap(flow: str, **cache: Any) -> Bootstrap:
    return Bootstrap(_config(flow, **cache), authz_address=None, upstream="127.0.0.1:81")


def _filters(bootstrap: Bootstrap) -> list[str]:
    listener = yaml.safe_load(bootstrap.text)["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return [entry["name"] for entry in manager["http_filters"]]


@pytest.mark.parametrize("flow", ["on_behalf_of", "autonomous"])
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("direct", [False, True])
def test_every_variant_is_valid(flow: str, *, alone: bool, direct: bool, tmp_path: Path) -> None:
    """Envoy takes the configuration of each row."""
    bootstrap = _bootstrap(flow)
    if alone:
        bootstrap.without_us()
    if direct:
        bootstrap.answer_directly(HOST)

    done = validate(bootstrap.text, tmp_path)

    assert 0 == done.returncode, done.stderr


@pytest.mark.parametrize("flow", ["on_behalf_of", "autonomous"])
def test_envoy_alone_has_nothing_of_ours(flow: str) -> None:
    """Only the router is left, and nothing leads to the service."""
    bootstrap = _bootstrap(flow)

    bootstrap.without_us()

    assert [ROUTER] == _filters(bootstrap)
    assert "ext_authz" not in bootstrap.text
    assert "/run/authz.sock" not in bootstrap.text


def test_a_pushed_token_is_still_injected_where_routes_answer_by_themselves() -> None:
    """The filters of the cluster move to the listener, right before the router."""
    bootstrap = _bootstrap("autonomous")

    bootstrap.answer_directly(HOST)

    injector = "envoy.filters.http.credential_injector"
    mutation = "envoy.filters.http.header_mutation"
    assert [injector, injector, mutation, ROUTER] == _filters(bootstrap)[-4:]
    assert 2 == bootstrap.text.count(f'"{injector}"')


def test_a_token_pushed_for_another_host_is_not_injected() -> None:
    """What is measured is one route; the others' tokens have no place in its requests."""
    bootstrap = _bootstrap("autonomous")

    bootstrap.answer_directly("other.example")

    assert "credential_injector" not in bootstrap.text


def test_the_edge_cache_can_be_left_out() -> None:
    """With no time to live there is no Lua, and every request is a Check."""
    cached, plain = _bootstrap("on_behalf_of"), _bootstrap("on_behalf_of", edge={"max_ttl": 0})

    assert EDGE_CACHE in _filters(cached)
    assert EDGE_CACHE not in _filters(plain)
    assert EXT_AUTHZ in _filters(plain)
