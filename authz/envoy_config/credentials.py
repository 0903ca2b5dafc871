"""Pushed tokens in Envoy's configuration: the filter that injects one. Without one Envoy refuses (`replies`).

The filter stands in the destination's cluster, after everything that the listener does, so nothing that
the agent sends can survive it (law 4).
"""

from datetime import timedelta
from typing import Final

from betterproto2 import Message
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import (
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    BackoffStrategy,
    ConfigSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Metadata,
    Node,
    RetryPolicy,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.filters.http.credential_injector.v3 import CredentialInjector
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation as FilterOfHeaders,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.http.injected_credentials.generic.v3 import Generic
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import SdsSecretConfig
from envoy_data_plane.google.protobuf import Struct

from authz.envoy_config.document import packed
from authz.tokens.keeper import REFUSAL

NODE: Final = Node(id="sidecar", cluster="authz")
"""Envoy takes secrets only under a name. The service believes the connection, not the name."""

METADATA: Final = "authz.push"
"""Metadata of an Envoy route whose token is pushed: `route`, for the access log."""

REFUSAL_HEADER: Final = "x-authz-refusal"
"""Request header that holds it inside of Envoy. What an app sends so is removed before; this one after."""

_FIRST_FETCH: Final = timedelta(seconds=5)
"""Envoy opens no listener before it has heard of every secret, but no longer than this. Without a secret
it refuses the requests that need it, so opening is safe, and the other routes work."""
_ASK_AGAIN: Final = BackoffStrategy(
    base_interval=timedelta(milliseconds=500), max_interval=timedelta(seconds=2)
)
"""When Envoy asks again where the service was away. By itself it would wait for up to half a minute, for each
secret apart: so long a service that has just started would have tokens, and Envoy refuse what needs them."""


def injecting_filters(route: str, cluster: str) -> list[HttpFilter]:
    """Return the filters of a destination's cluster.

    Args:
        route: Name of the egress route, and so of the secret.
        cluster: Where the secret comes from.
    """
    return [
        # Before the token, so that the reply to a request without one can tell why.
        _injector(f"{REFUSAL}{route}", cluster, header=REFUSAL_HEADER),
        # What the agent sent is replaced; without a token the request does not go out.
        _injector(route, cluster),
        _filter(
            "envoy.filters.http.header_mutation",
            FilterOfHeaders(
                mutations=Mutations(request_mutations=[HeaderMutation(remove=REFUSAL_HEADER)])
            ),
        ),
        _filter("envoy.filters.http.upstream_codec", UpstreamCodec()),
    ]


def _injector(secret: str, cluster: str, *, header: str = "") -> HttpFilter:
    credential = SdsSecretConfig(name=secret, sds_config=secret_source(cluster))
    return _filter(
        "envoy.filters.http.credential_injector",
        CredentialInjector(
            overwrite=True,
            credential=TypedExtensionConfig(
                name="envoy.http.injected_credentials.generic",
                typed_config=packed(Generic(credential=credential, header=header)),
            ),
        ),
    )


def secret_source(cluster: str) -> ConfigSource:
    """Return where Envoy asks for secrets."""
    return ConfigSource(
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=_FIRST_FETCH,
        api_config_source=ApiConfigSource(
            api_type=ApiConfigSourceApiType.GRPC,
            transport_api_version=ApiVersion.V3,
            # The node lists all of Envoy's extensions, 60 kB, and there is a stream for each secret.
            set_node_on_first_message_only=True,
            grpc_services=[
                GrpcService(
                    envoy_grpc=GrpcServiceEnvoyGrpc(
                        cluster_name=cluster, retry_policy=RetryPolicy(retry_back_off=_ASK_AGAIN)
                    )
                )
            ],
        ),
    )


def route_metadata(route: str) -> Metadata:
    """Return what the access log tells of a request without a Check."""
    return Metadata(filter_metadata={METADATA: Struct.from_dict({"route": route})})


def _filter(name: str, config: Message) -> HttpFilter:
    return HttpFilter(name=name, typed_config=packed(config))
