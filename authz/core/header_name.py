"""Spellings of one header's name. CGI, and WSGI after it, has one variable for hyphen and underscore."""

from itertools import product


def canonical(name: str) -> str:
    """Return the spelling with hyphens alone, in lower case."""
    return name.lower().replace("_", "-")


def spelling_count(name: str) -> int:
    """Return how many spellings a name has."""
    return 1 << canonical(name).count("-")


def spellings(name: str) -> tuple[str, ...]:
    """Return each spelling that an app may read as the same name (RFC 3875 section 4.1.18).

    The canonical one is the first. Of a name with many hyphens they are very many: see `spelling_count`.
    """
    letters = ("-_" if letter == "-" else letter for letter in canonical(name))
    return tuple("".join(spelling) for spelling in product(*letters))
