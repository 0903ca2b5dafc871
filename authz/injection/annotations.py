"""What a pod may ask for by annotation beside the label, and `faults`: why an annotation cannot be met."""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any, Final

from authz.core.address import LARGEST_PORT

PREFIX: Final = "authz/"
INJECTED: Final = "authz/injected"
"""Of a pod that was injected; its value is the version that did it."""
CONFIG: Final = "authz/config"
ENVOY_CONFIG: Final = "authz/envoy-config"
IDENTITY: Final = "authz/identity"
CLIENT_SECRET: Final = "authz/client-secret"
INTERCEPTION_CONFIG: Final = "authz/interception-config"
"""These name the pod's ConfigMaps and its Secret, where they differ from the defaults."""
INTERCEPTION: Final = "authz/interception"
"""Whether the pod's connections are redirected to Envoy."""
HTTPS: Final = "authz/https"
"""Whether Envoy ends TLS that the app starts itself."""
EXCLUDE_CIDRS: Final = "authz/exclude-cidrs"
EXCLUDE_PORTS: Final = "authz/exclude-ports"
"""What is reached directly where connections are redirected; lists separated by commas."""
ENABLED: Final = "enabled"

_NAMES: Final = (INJECTED, CONFIG, ENVOY_CONFIG, IDENTITY, CLIENT_SECRET, INTERCEPTION_CONFIG)
_SWITCHES: Final = (INTERCEPTION, HTTPS)
_ONLY_REDIRECTED: Final = (INTERCEPTION_CONFIG, EXCLUDE_CIDRS, EXCLUDE_PORTS)


def is_on(annotations: Mapping[str, Any], switch: str) -> bool:
    """Whether a pod asks for something."""
    return annotations.get(switch) == ENABLED


def faults(annotations: Mapping[str, Any], *, can_intercept: bool) -> Iterator[str]:
    """Return every fault of a pod's annotations.

    Args:
        annotations: The pod's.
        can_intercept: Whether there is an image for the container that redirects.
    """
    for name, value in annotations.items():
        if name.startswith(PREFIX):
            expected = _expected(name, value)
            if expected is not None:
                yield f"metadata.annotations[{name}]: {expected}"
    if not is_on(annotations, INTERCEPTION):
        for name in _ONLY_REDIRECTED:
            if name in annotations:
                yield (
                    f"metadata.annotations[{name}]: expected {INTERCEPTION}: {ENABLED} as well: nothing is "
                    "redirected without it"
                )
    elif not can_intercept:
        yield (
            f"metadata.annotations[{INTERCEPTION}]: there is no image that sets the rules: expected "
            "--intercept-image where pods are injected"
        )


def _expected(name: str, value: Any) -> str | None:
    if name in _NAMES:
        return None if isinstance(value, str) and value else "expected a name"
    if name in _SWITCHES:
        return None if value == ENABLED else f"expected {ENABLED}, or no such annotation"
    lists: dict[str, tuple[Callable[[str], bool], str]] = {
        EXCLUDE_CIDRS: (_is_network, "addresses, or networks with a length above 0"),
        EXCLUDE_PORTS: (_is_port, "ports"),
    }
    if name not in lists:
        return "is not known"
    test, what = lists[name]
    fits = isinstance(value, str) and all(map(test, value.split(",")))
    return None if fits else f"expected {what}, separated by commas"


def _is_network(text: str) -> bool:
    try:
        return ip_network(text, strict=False).prefixlen > 0
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    # Without leading zeros, which the script does not take.
    return text.isascii() and text.isdigit() and text[0] != "0" and int(text) <= LARGEST_PORT
