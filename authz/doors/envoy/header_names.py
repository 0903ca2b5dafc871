"""`OddNames`: the names among a request's headers that a decision depends on, whatever their values are.

Envoys send the same few sets of names again and again, so what is found in one is remembered. What follows
from it is decided in `authz.core`.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from authz.core.baggage import CARRIERS
from authz.core.header_name import spellings
from authz.core.rules.overriding import OVERRIDING

OWN_PREFIX: Final = "x-authz-"
LONGEST_KNOWN: Final = 1024
"""Characters of all names together that are remembered; what is longer is looked at each time."""
_MOST_KNOWN: Final = 1024


def _as_read(*prefixes: str) -> tuple[str, ...]:
    """Return the prefixes in each spelling that an app may read as the same name.

    Our own Envoy removes headers with underscores on the way in; Istio's lets them pass.
    """
    return tuple(spelling for prefix in prefixes for spelling in spellings(prefix))


_OWN: Final = _as_read(OWN_PREFIX)
_OWN_AND_CARRIERS: Final = _as_read(OWN_PREFIX, *CARRIERS)


class OddNames(NamedTuple):
    """Names of one request's headers.

    Attributes:
        own: Those that no client sends: they start with `x-authz-`.
        own_and_carriers: The same with those that carry baggage beside `baggage`.
        overriding: One by which some servers take the request for another; empty where there is none.
    """

    own: tuple[str, ...]
    own_and_carriers: tuple[str, ...]
    overriding: str


def odd_names(headers: Iterable[str]) -> OddNames:
    """Find them among the names of all headers, which are in lower case."""
    # A line each. No name of HTTP has a line feed; in one that has, more is found, never less.
    names = "\n".join(headers)
    return _known(names) if len(names) <= LONGEST_KNOWN else _found(names)


def _found(names: str) -> OddNames:
    each = names.split("\n")
    return OddNames(
        tuple(name for name in each if name.startswith(_OWN)),
        tuple(name for name in each if name.startswith(_OWN_AND_CARRIERS)),
        next((name for name in each if name in OVERRIDING), ""),
    )


_known: Final = lru_cache(maxsize=_MOST_KNOWN)(_found)
