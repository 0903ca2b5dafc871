"""What a new version of the configuration changes in a running service, and what the next start changes.

`AT_START` is the only place that says so. What is read at start alone is put back by `in_effect` before any
part sees the new version: so no key can be half in effect. The log line, docs/configuration.md and
tests/app/test_effect.py are made of the same table.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from authz.config.consistency.checks import check
from authz.config.consistency.route_checks import https_hosts
from authz.config.faults import ConfigError, Fault
from authz.config.model import Config
from authz.config.sections.section import Section

_S = TypeVar("_S", bound=Section)
_DOORS: Final = "Servers and their sockets are made once."
_STOP: Final = "Kubernetes and a supervisor of several workers wait for what the start said."
_CACHES: Final = "A cache keeps what it holds across versions, and its bounds with that."
_DEADLINES: Final = "Belongs to the gRPC server."

AT_START: Final[Mapping[str, str]] = {
    "listen.grpc": _DOORS,
    "listen.checks": _DOORS,
    "listen.socket_mode": _DOORS,
    "listen.socket_group": _DOORS,
    "listen.admin": _DOORS,
    "listen.api": _DOORS,
    "listen.tls": f"{_DOORS} New contents of its files count from the next connection on.",
    "listen.workers": "Processes are started once.",
    "listen.max_connection_age": _DOORS,
    "listen.max_connection_age_grace": _DOORS,
    "listen.drain_delay": _STOP,
    "listen.drain_timeout": _STOP,
    "listen.workload_identity": "Belongs to the gRPC server, and to the Envoy that was rendered for it.",
    "https": "The app trusts the authority, and the hosts that it vouches for, as it read them at its own "
    "start. Further egress hosts wait as well.",
    "subject.max_entries": _CACHES,
    "subject.max_bytes": _CACHES,
    "cache.tokens": _CACHES,
    "cache.principals": _CACHES,
    "cache.failures": _CACHES,
    "limits.check_timeout": _DEADLINES,
    "limits.deadline_margin": _DEADLINES,
}
"""Keys that are read at start only, with the reason. With a section come all of its keys. Each other key is
in effect as soon as a version is applied."""


def in_effect(first: Config, new: Config) -> tuple[Config, list[str]]:
    """Return the new version with what is read at start as it was then, and the keys that wait for a start.

    Args:
        first: The configuration that the process started with.
        new: A version without faults.

    Raises:
        ConfigError: What is new does not go together with what waits for a start.
    """
    waiting = [key for key in AT_START if _value(first, key) != _value(new, key)]
    if first.https is not None and new.https is not None and "https" not in waiting:
        # The names that the authority vouches for are in its certificate.
        waiting += ["https"] if https_hosts(first.egress) != https_hosts(new.egress) else []
    merged = _merged(first, new, tuple(AT_START))
    if faults := check(merged, {}):
        keys = ", ".join(waiting)
        raise ConfigError(
            [
                Fault(each.path, f"{each.message} (until the next start, which {keys} waits for)")
                for each in faults
            ]
        )
    return merged, waiting


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _merged(first: _S, new: _S, keys: tuple[str, ...]) -> _S:
    """Return `new` with the values of `first` at some keys, and which of them were set: checks ask for it."""
    values = {name: getattr(new, name) for name in type(new).model_fields}
    were_set = set(new.model_fields_set)
    for name in {key.partition(".")[0] for key in keys}:
        inner = tuple(
            rest for head, _, rest in (key.partition(".") for key in keys) if head == name and rest
        )
        if inner:
            values[name] = _merged(getattr(first, name), getattr(new, name), inner)
            continue
        values[name] = getattr(first, name)
        were_set.discard(name)
        were_set |= {name} & first.model_fields_set
    return type(new).model_construct(_fields_set=were_set, **values)
