"""What Envoy's configuration says of the edge cache: its two filters, its script, and what it is told.

The cache itself is `edge_cache.lua`, which Envoy runs. What an answer says to it is in `ext_authz`.
"""

from importlib.resources import files
from typing import Final

from betterproto2 import Message
from envoy_data_plane.envoy.config.core.v3 import DataSource, Metadata, TypedExtensionConfig
from envoy_data_plane.envoy.config.route.v3 import FilterConfig
from envoy_data_plane.envoy.extensions.common.matching.v3 import ExtensionWithMatcher
from envoy_data_plane.envoy.extensions.filters.common.matcher.action.v3 import SkipFilter
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua, LuaPerRoute
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.matching.common_inputs.network.v3 import (
    DynamicMetadataInput,
    DynamicMetadataInputPathSegment,
)
from envoy_data_plane.envoy.extensions.matching.input_matchers.metadata.v3 import (
    Metadata as MetadataInputMatcher,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    StringMatcher,
    ValueMatcher,
)
from envoy_data_plane.google.protobuf import Any, Struct
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig as MatcherExtension
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherList,
    MatcherMatcherListFieldMatcher,
    MatcherMatcherListPredicate,
    MatcherMatcherListPredicateSinglePredicate,
    MatcherOnMatch,
)

from authz.core.exchange import Flow
from authz.doors.envoy.ext_authz import EDGE_VERSION
from authz.envoy_config.document import packed

EDGE_CACHE: Final = "authz.edge_cache"
"""Name of both filters, by which Envoy finds the script for them."""

EDGE_EXTENSION: Final = {"authz.edge": EDGE_VERSION}
"""How a route tells the service that its answers may be repeated."""

EDGE_RULES_EXTENSION: Final = {"authz.edge.rules": EDGE_VERSION}
"""How a route with rules tells the service that the script tells its requests apart by method and path."""

RULED: Final = "#"
"""What ends the name of such a route in Envoy. The script looks for it; no route of the service has it."""

EDGE: Final = "authz.edge"
"""Dynamic metadata of the script."""

_DECISION: Final = "decision"
_ALLOWED: Final = ValueMatcher(string_match=StringMatcher(exact="allow"))
"""What the script says there of a request that it has answered."""


def script() -> str:
    """Return the program, as it is shipped."""
    return files(__package__).joinpath("edge_cache.lua").read_text("utf-8")


def asking_filter() -> HttpFilter:
    """Return the filter that stands before ext_authz.

    It has no script of its own: two filters with one script each would have two memories.
    """
    # A route is chosen before; the headers that an answer sets cannot change where a request goes.
    return HttpFilter(name=EDGE_CACHE, typed_config=packed(Lua(clear_route_cache=False)))


def learning_filter() -> HttpFilter:
    """Return the filter that stands after ext_authz: the same, but skipped where an answer was repeated.

    A hit is what should be fast, and running a script only for it to find nothing to do takes its time.
    """
    repeated = MatcherMatcherListPredicateSinglePredicate(
        input=_extension(
            "envoy.matching.inputs.dynamic_metadata",
            DynamicMetadataInput(
                filter=EDGE, path=[DynamicMetadataInputPathSegment(key=_DECISION)]
            ),
        ),
        custom_match=_extension(
            "envoy.matching.matchers.metadata_matcher",
            MetadataInputMatcher(value=_ALLOWED),
        ),
    )
    skip = MatcherOnMatch(action=_extension("skip", SkipFilter()))
    matcher = Matcher(
        matcher_list=MatcherMatcherList(
            matchers=[
                MatcherMatcherListFieldMatcher(
                    predicate=MatcherMatcherListPredicate(single_predicate=repeated), on_match=skip
                )
            ]
        )
    )
    lua = asking_filter()
    assert lua.typed_config is not None
    delegate = ExtensionWithMatcher(
        extension_config=TypedExtensionConfig(name=lua.name, typed_config=lua.typed_config),
        xds_matcher=matcher,
    )
    return HttpFilter(name=EDGE_CACHE, typed_config=packed(delegate))


def with_script() -> dict[str, Any]:
    """Return what a route configuration says to the filters: one script, and so one memory."""
    source = DataSource(inline_string=script())
    return {EDGE_CACHE: packed(LuaPerRoute(source_code=source))}


def without_script() -> dict[str, Any]:
    """Return what a route says to the filters when they have nothing to do on it."""
    # The filter is not even built for the request, which costs less than one that does nothing.
    return {EDGE_CACHE: packed(FilterConfig(disabled=True))}


def route_facts(route: str, flow: Flow | None) -> Metadata:
    """Return what the service says of a route in each answer, for the log line of a repeated one."""
    facts = {"route": route, **({"flow": flow.value} if flow is not None else {})}
    return Metadata(filter_metadata={EDGE: Struct.from_dict(facts)})


def unless_repeated() -> MetadataMatcher:
    """Return when ext_authz asks: always, but for a request that the script has answered.

    A client cannot set dynamic metadata. Where there is none, ext_authz asks.
    """
    return MetadataMatcher(
        filter=EDGE,
        path=[MetadataMatcherPathSegment(key=_DECISION)],
        value=_ALLOWED,
        invert=True,
    )


def _extension(name: str, config: Message) -> MatcherExtension:
    return MatcherExtension(name=name, typed_config=packed(config))
