"""`python -m bench.edges`: an edge hit, beside the same with one part left out or built in another way.

It shows where the time goes, and what was tried. No part that is left out here could be left out in use.
docs/architecture.md says what came of it.
"""

import json
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from secrets import token_urlsafe
from typing import Any, Final

from rich.console import Console

from authz.envoy_config.edge_cache import EDGE_CACHE
from authz_dev.demo.processes import StartFailure
from bench import load, machine, rows, through_envoy
from bench.bootstraps import Bootstrap
from bench.load import LoadError
from bench.machine import Cores, pinned
from bench.results import Results
from bench.rows import Effort, Ratio
from bench.scene import Scene
from bench.through_envoy import WAYS, Way

_EFFORT: Final = Effort(rounds=15, loaded=0.7, single=0.1)
_EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
_MATCHER: Final = "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher"
_COMPOSITE: Final = "type.googleapis.com/envoy.extensions.filters.http.composite.v3"
_JWT_AUTHN: Final = (
    "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
)
_ROUTE: Final = "type.googleapis.com/envoy.config.route.v3"
_HEADER_INPUT: Final = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
_USERS: Final = 256
"""Users that are known to Envoy by their tokens."""
_BASE, _EDGE = (next(way for way in WAYS if way.name == name) for name in ("envoy", "edge_hit"))


def _skipped(bootstrap: Bootstrap, _: Scene) -> None:
    """Let the matcher of the learning filter skip ext_authz, in place of ext_authz's own condition."""
    filters, position, matcher = _around_ext_authz(bootstrap)
    extension = deepcopy(filters[position])
    del extension["typed_config"]["filter_enabled_metadata"]
    filters[position]["typed_config"] = {
        "@type": _MATCHER, "xds_matcher": matcher, "extension_config": extension,
    }  # fmt: skip


def _composed(bootstrap: Bootstrap, _: Scene) -> None:
    """Let a composite filter build ext_authz where it is needed alone."""
    filters, position, matcher = _around_ext_authz(bootstrap)
    execute = {"@type": f"{_COMPOSITE}.ExecuteFilterAction", "typed_config": filters[position]}
    matcher["on_no_match"] = {"action": {"name": "execute", "typed_config": deepcopy(execute)}}
    filters[position] = {
        "name": _EXT_AUTHZ,
        "typed_config": {
            "@type": _MATCHER,
            "xds_matcher": matcher,
            "extension_config": {
                "name": "composite",
                "typed_config": {"@type": f"{_COMPOSITE}.Composite"},
            },
        },
    }


def _early_kept(bootstrap: Bootstrap, _: Scene) -> None:
    """Leave headers that look like ours in the request."""
    del bootstrap.manager["early_header_mutation_extensions"]


def _trailers_kept(bootstrap: Bootstrap, _: Scene) -> None:
    """Leave trailers in the request."""
    filters = bootstrap.manager["http_filters"]
    filters[:] = [f for f in filters if f["name"] != "envoy.filters.http.header_mutation"]


def _one_route(bootstrap: Bootstrap, _: Scene) -> None:
    """Have one route for each host: no method is refused, and none has a second try of its own."""
    for host in bootstrap.manager["route_config"]["virtual_hosts"]:
        host["routes"] = host["routes"][-1:]


def _validated(bootstrap: Bootstrap, scene: Scene) -> None:
    """Let Envoy's own filter validate the token, and nothing of ours be there: it makes no token of it."""
    provider = {
        "local_jwks": {"inline_string": json.dumps(scene.entra.keys())},
        "forward": True,
        "jwt_cache_config": {"jwt_cache_size": _USERS},
    }
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "entra"}}
    bootstrap.manager["http_filters"][:0] = [
        {
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": _JWT_AUTHN,
                "providers": {"entra": provider},
                "rules": [rule],
            },
        }
    ]


def _routed(bootstrap: Bootstrap, scene: Scene) -> None:
    """Have a route for each user, who is known by the token, with what is put into its place."""
    for host in bootstrap.manager["route_config"]["virtual_hosts"]:
        routes = host.pop("routes")
        values = [f"Bearer {token_urlsafe(len(scene.user_token) * 3 // 4)}" for _ in range(_USERS)]
        known = {
            value: {"action": {"name": "user", "typed_config": _of_user(routes[-1], value)}}
            for value in (*values, f"Bearer {scene.user_token}")
        }
        rest = {"@type": f"{_ROUTE}.RouteList", "routes": routes}
        host["matcher"] = {
            "matcher_tree": {
                "input": {
                    "name": "authorization",
                    "typed_config": {"@type": _HEADER_INPUT, "header_name": "authorization"},
                },
                "exact_match_map": {"map": known},
            },
            "on_no_match": {"action": {"name": "others", "typed_config": rest}},
        }


def _of_user(route: dict[str, Any], value: str) -> dict[str, Any]:
    """Return the route of one user: without a Check, and with another token in `authorization`."""
    token = f"{value[:-1]}{'a' if value[-1] != 'a' else 'b'}"
    header = {
        "header": {"key": "authorization", "value": token},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    off = {"@type": f"{_ROUTE}.FilterConfig", "disabled": True}
    return {
        "@type": f"{_ROUTE}.Route",
        **route,
        "match": {"prefix": "/"},
        "typed_per_filter_config": {_EXT_AUTHZ: off, EDGE_CACHE: off},
        "request_headers_to_add": [header],
    }


def _around_ext_authz(bootstrap: Bootstrap) -> tuple[list[dict[str, Any]], int, dict[str, Any]]:
    """Return the filters, the place of ext_authz, and a copy of the matcher of the filter after it."""
    filters = bootstrap.manager["http_filters"]
    position = next(n for n, entry in enumerate(filters) if entry["name"] == _EXT_AUTHZ)
    return filters, position, deepcopy(filters[position + 1]["typed_config"]["xds_matcher"])


Change = Callable[[Bootstrap, Scene], None]

VARIANTS: Final[Mapping[str, Change]] = {
    "ext_authz_skipped": _skipped,
    "ext_authz_composed": _composed,
    "early_headers_kept": _early_kept,
    "trailers_kept": _trailers_kept,
    "one_route": _one_route,
    "route_for_each_user": _routed,
}
"""Of an edge hit."""
ALONE: Final[Mapping[str, Change]] = {"jwt_authn": _validated}
"""Of an Envoy with nothing of ours."""


def measure(effort: Effort, announce: Callable[[str], None]) -> Results:
    """Measure all variants in alternating rounds.

    Raises:
        LoadError: h2load is missing, or a request was answered otherwise than expected.
        StartFailure: A program did not come up.
    """
    load.find()
    facts, cores = machine.describe(), Cores.of_this_machine()
    with pinned(cores.others), Scene(cores) as scene:
        ways: list[Way] = [
            _BASE,
            _EDGE,
            *(_changed(_EDGE, name, change, scene) for name, change in VARIANTS.items()),
            *(_changed(_BASE, name, change, scene) for name, change in ALONE.items()),
        ]
        found = rows.measure(through_envoy.lanes(scene, ways), effort, announce=announce)
    ratios = {f"{name}_vs_envoy": Ratio.of(found[name], found[_BASE.name]) for name in found}
    return Results(machine=facts, rows=list(found.values()), ratios=ratios)


def _changed(way: Way, name: str, change: Change, scene: Scene) -> Way:
    return replace(way, name=name, change=lambda bootstrap: change(bootstrap, scene))


def main() -> None:
    """Measure and print."""
    console = Console()
    try:
        with console.status("") as status:
            results = measure(_EFFORT, status.update)
    except (LoadError, StartFailure) as error:
        console.print(f"bench: {error}", style="red", markup=False)
        sys.exit(1)
    results.show(console)


if __name__ == "__main__":
    main()
