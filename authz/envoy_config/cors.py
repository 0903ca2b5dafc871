"""CORS on the way in (Fetch standard): what Envoy answers to web pages of other origins, before any decision.

A preflight has no token, so the service would refuse it. Refusals say as well which pages may read them.
"""

from typing import Final

from envoy_data_plane.envoy.config.route.v3 import FilterConfig
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import Cors as FilterOfCors
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import CorsPolicy
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from authz.config.sections.cors import Cors
from authz.envoy_config.document import packed

CORS: Final = "envoy.filters.http.cors"


def cors_filter() -> HttpFilter:
    """Return the filter. It stands before ext_authz."""
    return HttpFilter(name=CORS, typed_config=packed(FilterOfCors()))


def with_cors(cors: Cors) -> dict[str, Any]:
    """Return what a host says to the filter."""
    policy = CorsPolicy(
        # "*" in place of an origin is any to Envoy, which then answers with the page's own.
        allow_origin_string_match=[StringMatcher(exact=each) for each in cors.origins],
        allow_methods=", ".join(cors.methods),
        allow_headers=", ".join(cors.headers),
        expose_headers=", ".join(cors.expose),
        max_age=str(int(cors.max_age)),
        allow_credentials=cors.credentials,
        # Other pages' preflights have no token either, and the app answers none of them.
        forward_not_matching_preflights=False,
    )
    return {CORS: packed(policy)}


def without_cors() -> dict[str, Any]:
    """Return what a route says to the filter whose answers any page may read: the service says so itself."""
    return {CORS: packed(FilterConfig(disabled=True))}
