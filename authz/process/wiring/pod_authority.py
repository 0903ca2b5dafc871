"""The pod's authority and its certificates as section `https` describes them; None where there is none."""

import time

from authz.config import Config, ConfigError
from authz.config.consistency.route_checks import https_hosts
from authz.config.faults import Fault
from authz.config.shown import shown_file
from authz.pod_ca.authority import PodAuthority
from authz.pod_ca.certificates import PodCertificates
from authz.pod_ca.files import open_authority, publish


def open_pod_authority(config: Config) -> PodAuthority | None:
    """Return the pod's authority, whose files are written now.

    Raises:
        ConfigError: A file cannot be read or written.
    """
    https = config.https
    if https is None:
        return None
    try:
        authority = open_authority(https.key_file, https_hosts(config.egress), now=time.time())
        publish(authority, https.ca_file, https.bundle_file, https.truststore_file)
    except OSError as error:
        fault = Fault(
            "https",
            f"{shown_file(error.filename or https.key_file)}: cannot be written: {error.strerror}",
        )
        raise ConfigError([fault]) from error
    return authority


def pod_certificates(config: Config) -> PodCertificates | None:
    """Return the certificates that this authority gives out.

    Raises:
        ConfigError: A file cannot be read or written.
    """
    authority = open_pod_authority(config)
    if authority is None or config.https is None:
        return None
    return PodCertificates(
        authority, lifetime=config.https.lifetime, clock=time.time, timer=time.monotonic
    )
