"""Pushed tokens in Envoy's configuration: the filter that injects one, and what a caller sees without it.

The filter stands in the destination's cluster, after everything that the listener does, so nothing that
the agent sends can survive it (law 4).
"""

from datetime import timedelta
from typing import Final

from betterproto2 import Message
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLogFilter, ExtensionFilter
from envoy_data_plane.envoy.config.core.v3 import (
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Metadata,
    Node,
    SubstitutionFormatString,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.http.credential_injector.v3 import CredentialInjector
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpFilter,
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.extensions.http.injected_credentials.generic.v3 import Generic
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import SdsSecretConfig
from envoy_data_plane.google.protobuf import Any, Struct

from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.problem import describe

NODE: Final = Node(id="sidecar", cluster="authz")
"""Envoy takes secrets only under a name. The service believes the connection, not the name."""

METADATA: Final = "authz.push"
"""Metadata of an Envoy route whose token is pushed: `route`, for the access log."""

_FIRST_FETCH: Final = timedelta(seconds=5)
"""Envoy opens no listener before it has heard of every secret, but no longer than this. Without a secret
it refuses the requests that need it, so opening is safe, and the other routes work."""

_NO_TOKEN: Final = "response.code_details == 'failed_to_inject_credential'"
"""Envoy's own reason. An answer of the destination never has it, whatever its status."""


def injecting_filters(route: str, cluster: str) -> list[HttpFilter]:
    """Return the filters of a destination's cluster.

    Args:
        route: Name of the egress route, and so of the secret.
        cluster: Where the secret comes from.
    """
    return [
        _filter(
            "envoy.filters.http.credential_injector",
            CredentialInjector(
                # What the agent sent is replaced; without a token the request does not go out.
                overwrite=True,
                credential=TypedExtensionConfig(
                    name="envoy.http.injected_credentials.generic",
                    typed_config=Any.pack(
                        Generic(
                            credential=SdsSecretConfig(
                                name=route, sds_config=secret_source(cluster)
                            )
                        )
                    ),
                ),
            ),
        ),
        _filter("envoy.filters.http.upstream_codec", UpstreamCodec()),
    ]


def secret_source(cluster: str) -> ConfigSource:
    """Return where Envoy asks for secrets."""
    return ConfigSource(
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=_FIRST_FETCH,
        api_config_source=ApiConfigSource(
            api_type=ApiConfigSourceApiType.GRPC,
            transport_api_version=ApiVersion.V3,
            grpc_services=[GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=cluster))],
        ),
    )


def route_metadata(route: str) -> Metadata:
    """Return what the access log tells of a request without a Check."""
    return Metadata(filter_metadata={METADATA: Struct.from_dict({"route": route})})


def replies_without_token() -> LocalReplyConfig:
    """Return how Envoy says that it has no token: as the service would, and not as a bare 401.

    With 401 the agent would take its own credential for bad; waiting is what helps.
    """
    problem = describe(Deny(Reason.EXCHANGE_UNAVAILABLE))
    headers = dict(problem.headers)
    content_type = headers.pop("content-type")
    return LocalReplyConfig(
        mappers=[
            ResponseMapper(
                filter=AccessLogFilter(
                    extension_filter=ExtensionFilter(
                        name="envoy.access_loggers.extension_filters.cel",
                        typed_config=Any.pack(ExpressionFilter(expression=_NO_TOKEN)),
                    )
                ),
                status_code=problem.http_status,
                body_format_override=SubstitutionFormatString(
                    text_format_source=DataSource(inline_string=problem.body),
                    content_type=content_type,
                ),
                headers_to_add=[
                    HeaderValueOption(
                        header=HeaderValue(key=name, value=value),
                        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
                    )
                    for name, value in headers.items()
                ],
            )
        ]
    )


def _filter(name: str, config: Message) -> HttpFilter:
    return HttpFilter(name=name, typed_config=Any.pack(config))
