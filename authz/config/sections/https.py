"""Section `https`: the files of the pod's own authority, and how long its certificates hold."""

from typing import Annotated

from pydantic import Field

from authz.config.sections.section import Section
from authz.config.sections.values import File, duration


class Https(Section):
    """HTTPS that the app starts itself, ended in Envoy by a certificate authority of the pod's own."""

    ca_file: File = Field(
        description="Where the authority's certificate is written, for the app to trust "
        "(`NODE_EXTRA_CA_CERTS`). A volume that the app has too, in memory.",
    )
    bundle_file: File | None = Field(
        default=None,
        description="Where it is written together with the system's authorities, for variables that "
        "replace them all (`SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`).",
    )
    truststore_file: File | None = Field(
        default=None,
        description="The same as a trust store for Java (`javax.net.ssl.trustStore`): PKCS #12, without a "
        "password.",
    )
    key_file: File = Field(
        description="Where the authority's key is kept, so that it outlives a restart of the container. A "
        "volume in memory that nobody else has.",
    )
    lifetime: Annotated[float, duration(least=600, most=90 * 86400)] = Field(
        default=86400.0,
        description="How long a host's certificate is valid. Envoy gets another one at half of it.",
    )
