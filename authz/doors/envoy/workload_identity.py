"""Which workload a certificate stands for: its one URI name, if that is a SPIFFE id.

An X.509-SVID has exactly one URI name (SPIFFE X509-SVID section 2). A DNS name may hold any text that its
authority lets pass, `spiffe://…` included. Who may do what is decided in `authz.core.route`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import grpc
from cryptography import x509

from authz._pb.attribute_context_pb2 import AttributeContext

_SCHEME: Final = "spiffe://"
_CERTIFICATES: Final = 1024
"""Certificates of Envoy's clients whose name is remembered."""


def spiffe_id(context: "grpc.aio.ServicerContext[Any, Any]") -> str | None:
    """Return the SPIFFE id of the peer's verified certificate, if it has exactly one URI name.

    gRPC has the names by type in `peer_uri`; `x509_subject_alternative_name` mixes all types.
    """
    names = context.auth_context().get("peer_uri", ())
    return _only_id([name.decode("ascii", "replace") for name in names])


def source_id(source: AttributeContext.Peer) -> str | None:
    """Return the SPIFFE id of the certificate that Envoy saw of its client, if it has exactly one URI name.

    Envoy's `principal` does not say what type of name it is (the first URI name, else the first DNS name,
    else the subject), so without the certificate there is no id.
    """
    return _id_of(source.certificate) if source.certificate else None


@lru_cache(maxsize=_CERTIFICATES)
def _id_of(encoded: str) -> str | None:
    try:
        certificate = x509.load_pem_x509_certificate(unquote_to_bytes(encoded))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    return _only_id(names.get_values_for_type(x509.UniformResourceIdentifier))


def _only_id(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 and names[0].startswith(_SCHEME) else None
