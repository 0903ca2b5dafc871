"""How Envoy finds the addresses of a name. Clusters are made in `authz.envoy_config.clusters`."""

from typing import Final

from betterproto2 import Message
from envoy_data_plane.envoy.config.core.v3 import DnsResolverOptions, TypedExtensionConfig
from envoy_data_plane.envoy.extensions.clusters.common.dns.v3 import DnsLookupFamily
from envoy_data_plane.envoy.extensions.clusters.dns.v3 import DnsCluster
from envoy_data_plane.envoy.extensions.network.dns_resolver.cares.v3 import CaresDnsResolverConfig

from authz.envoy_config.document import packed

_SERVICES: Final = ".svc"
"""How a Service's name with its namespace ends. No name of the Internet does."""


def resolution(name: str, *, every: bool, of_cluster: bool) -> Message:
    """Return how a name is resolved.

    Args:
        name: The name.
        every: Whether each address is an endpoint of its own (our replicas) or a way to the same
            one (a name of the Internet, whose answers differ from time to time).
        of_cluster: Whether a name with one dot is a Service's, with its namespace.
    """
    return DnsCluster(
        respect_dns_ttl=True,
        # Both families; with addresses of one endpoint the faster one is used (RFC 8305).
        dns_lookup_family=DnsLookupFamily.ALL,
        all_addresses_in_single_endpoint=not every,
        typed_dns_resolver_config=None
        if _is_short(name, of_cluster=of_cluster)
        else absolute_names(),
    )


def _is_short(name: str, *, of_cluster: bool) -> bool:
    """Whether the pod's search list says what a name means: a Service's, alone or with its namespace."""
    return name.count(".") <= of_cluster or name.endswith(_SERVICES)


def absolute_names() -> TypedExtensionConfig:
    """Return a resolver that takes names as they are.

    Envoy's own puts each domain of the pod's search list behind a name first, and is content with the first
    answer but "no such name": a wildcard's address, or the refusal of a server that knows no names of others.
    """
    return TypedExtensionConfig(
        name="envoy.network.dns_resolver.cares",
        typed_config=packed(
            CaresDnsResolverConfig(
                dns_resolver_options=DnsResolverOptions(no_default_search_domain=True)
            )
        ),
    )
