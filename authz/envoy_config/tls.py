"""TLS from Envoy to others: whom it trusts, under which name, and with which certificate of its own."""

from pathlib import Path

from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    ConfigSource,
    DataSource,
    PathConfigSource,
    TransportSocket,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    SdsSecretConfig,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from authz.core.address import is_ip
from authz.envoy_config.document import packed
from authz.envoy_config.settings import SECRET_NAMES, AuthzTls


def upstream_tls(ca_file: Path, *, server_name: str = "") -> TransportSocket:
    """Return the transport socket of a destination's cluster.

    Args:
        ca_file: PEM file of the authorities to trust.
        server_name: Name or IP address that the certificate must hold. Without one, the cluster
            itself must demand a name for each request (`auto_san_validation`).
    """
    context = _context()
    context.validation_context = CertificateValidationContext(
        trusted_ca=_file(ca_file),
        match_typed_subject_alt_names=[_name(server_name)] if server_name else [],
    )
    return _socket(context, server_name)


def authz_tls(settings: AuthzTls) -> TransportSocket:
    """Return the transport socket of the service's cluster."""
    context = _context()
    # A gRPC server hangs up on a client that does not name HTTP/2 (gRPC "Protocol over HTTP2").
    context.alpn_protocols = ["h2"]
    expected = CertificateValidationContext(
        match_typed_subject_alt_names=[_name(settings.server_name)]
    )
    if settings.secrets_folder is not None:
        certificate, authorities = (_secret(settings.secrets_folder, name) for name in SECRET_NAMES)
        context.tls_certificate_sds_secret_configs = [certificate]
        context.combined_validation_context = CommonTlsContextCombinedCertificateValidationContext(
            default_validation_context=expected,
            validation_context_sds_secret_config=authorities,
        )
        return _socket(context, settings.server_name)
    assert settings.ca_file is not None  # AuthzTls has one of the two
    expected.trusted_ca = _file(settings.ca_file)
    context.validation_context = expected
    if settings.certificate_file is not None and settings.key_file is not None:
        context.tls_certificates = [
            TlsCertificate(
                certificate_chain=_file(settings.certificate_file),
                private_key=_file(settings.key_file),
            )
        ]
    return _socket(context, settings.server_name)


def _context() -> CommonTlsContext:
    return CommonTlsContext(
        # Envoy's own maximum for connections it opens is 1.2.
        tls_params=TlsParameters(
            tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2,
            tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
        )
    )


def _socket(context: CommonTlsContext, server_name: str) -> TransportSocket:
    return TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=packed(
            UpstreamTlsContext(
                common_tls_context=context,
                # RFC 6066 section 3: an IP address is no server name.
                sni="" if is_ip(server_name) else server_name,
            )
        ),
    )


def _secret(folder: Path, name: str) -> SdsSecretConfig:
    return SdsSecretConfig(
        name=name,
        sds_config=ConfigSource(
            resource_api_version=ApiVersion.V3,
            # Envoy reads one secret of a file, and refuses a file of several.
            path_config_source=PathConfigSource(path=str(folder / f"{name}.yaml")),
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
