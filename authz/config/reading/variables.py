"""The `AUTHZ_…` environment variables that go before the configuration file, for images and pods."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from authz.config.faults import Notice, did_you_mean
from authz.config.sections.clients import CERTIFICATE_FILE, CLIENT_SECRET_FILE

CONFIG_VARIABLE: Final = "AUTHZ_CONFIG"
"""Names the configuration file."""


@dataclass(frozen=True, slots=True)
class Override:
    """One variable and the key it sets."""

    variable: str
    section: str
    key: str


OVERRIDES: Final = (
    Override("AUTHZ_LISTEN_GRPC", "listen", "grpc"),
    Override("AUTHZ_LISTEN_CHECKS", "listen", "checks"),
    Override("AUTHZ_LISTEN_ADMIN", "listen", "admin"),
    Override("AUTHZ_LISTEN_API", "listen", "api"),
    Override("AUTHZ_LISTEN_DIRECTION", "listen", "direction"),
    Override("AUTHZ_CA_FILE", "entra", "ca_file"),
    Override("AUTHZ_API_CA_FILE", "api", "ca_file"),
    Override("AUTHZ_LOG_LEVEL", "log", "level"),
    # Any of these turns the section on.
    Override("AUTHZ_HTTPS_CA_FILE", "https", "ca_file"),
    Override("AUTHZ_HTTPS_BUNDLE_FILE", "https", "bundle_file"),
    Override("AUTHZ_HTTPS_TRUSTSTORE_FILE", "https", "truststore_file"),
    Override("AUTHZ_HTTPS_KEY_FILE", "https", "key_file"),
)
OFF: Final = "off"
"""Value that stands for `null`, of the variables of `MAY_BE_OFF`."""
MAY_BE_OFF: Final = frozenset({"admin", "api", "checks"})
"""Keys of `listen`."""

ENTRA_AUTHORITIES: Final = "entra.ca_file or AUTHZ_CA_FILE"
"""Where authorities of Entra's certificate are named, for hints: key and variable, whichever is in use."""
API_AUTHORITIES: Final = "api.ca_file or AUTHZ_API_CA_FILE"
"""The same for the APIs that `/DownstreamApi` calls."""

_NAMES: Final = (
    CONFIG_VARIABLE,
    CERTIFICATE_FILE,
    CLIENT_SECRET_FILE,
    *(override.variable for override in OVERRIDES),
)


def override(data: Any, environ: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """Return the data as the environment changes it, and the variable behind each changed path.

    A variable that is empty counts as not set. Sections that are no mappings stay as they are: they
    have a fault already.
    """
    keys: dict[str, str] = {}
    if not isinstance(data, dict):
        return data, keys
    data = dict(data)
    for entry in OVERRIDES:
        value = environ.get(entry.variable)
        section = data.get(entry.section)
        if not value or not isinstance(section, dict | None):
            continue
        turned_off = entry.key in MAY_BE_OFF and value == OFF
        data[entry.section] = {**(section or {}), entry.key: None if turned_off else value}
        keys[f"{entry.section}.{entry.key}"] = entry.variable
    return data, keys


def variable_of(path: str, environ: Mapping[str, str]) -> str | None:
    """Return the variable that gives the value at a path, if one does."""
    for entry in OVERRIDES:
        if path == f"{entry.section}.{entry.key}" and environ.get(entry.variable):
            return entry.variable
    return None


def unknown_variables(environ: Mapping[str, str], keys: Iterable[str]) -> Iterator[Notice]:
    """Return a notice for each variable that looks like one of ours and is none.

    A Kubernetes Service called `authz` puts `AUTHZ_PORT` and its like into every pod, so only close
    misses count, and names that a key would have.

    Args:
        environ: The environment.
        keys: Keys of the configuration.
    """
    spelled = {f"AUTHZ_{key.replace('.', '_')}".upper(): key for key in keys}
    for name in sorted(environ):
        if name not in _NAMES and name in spelled:
            yield Notice(name, f"has no effect: expected {spelled[name]} in a configuration file")
            continue
        hint = did_you_mean(name, _NAMES, cutoff=0.85)
        if name not in _NAMES and hint:
            yield Notice(name, f"is not known and has no effect{hint}")
