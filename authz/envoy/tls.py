"""TLS from Envoy to others: whom it trusts, under which name, and with which certificate of its own."""

from collections.abc import Sequence
from pathlib import Path

from envoy_data_plane.envoy.config.core.v3 import DataSource, TransportSocket
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from authz.envoy.sidecar import is_ip


def upstream_tls(
    ca_file: Path,
    *,
    server_name: str = "",
    certificate: tuple[Path, Path] | None = None,
    protocols: Sequence[str] = (),
) -> TransportSocket:
    """Return the transport socket of a cluster.

    Args:
        ca_file: PEM file of the authorities to trust.
        server_name: Name or IP address that the certificate must hold. Without one, the cluster
            itself must demand a name for each request (`auto_san_validation`).
        certificate: PEM files of Envoy's own certificate chain and private key.
        protocols: Offered in ALPN (RFC 7301). A cluster that negotiates HTTP fills them in itself.
    """
    context = CommonTlsContext(
        # Envoy's own maximum for connections it opens is 1.2.
        tls_params=TlsParameters(
            tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2,
            tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
        ),
        validation_context=CertificateValidationContext(
            trusted_ca=_file(ca_file),
            match_typed_subject_alt_names=[_name(server_name)] if server_name else [],
        ),
        alpn_protocols=list(protocols),
    )
    if certificate is not None:
        chain, key = certificate
        context.tls_certificates = [
            TlsCertificate(certificate_chain=_file(chain), private_key=_file(key))
        ]
    return TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=Any.pack(
            UpstreamTlsContext(
                common_tls_context=context,
                # RFC 6066 section 3: an IP address is no server name.
                sni="" if is_ip(server_name) else server_name,
            )
        ),
    )


def _name(server_name: str) -> SubjectAltNameMatcher:
    kind = SubjectAltNameMatcherSanType
    return SubjectAltNameMatcher(
        san_type=kind.IP_ADDRESS if is_ip(server_name) else kind.DNS,
        matcher=StringMatcher(exact=server_name),
    )


def _file(path: Path) -> DataSource:
    return DataSource(filename=str(path))
