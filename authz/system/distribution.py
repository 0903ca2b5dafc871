"""The installed distribution: its name, its extras, and the stranger that shares the import package.

The distribution is `entra-authz`; the import package and the command are `authz`. On the public index the
distribution `authz` is another project's, which installs an import package of the same name. Where both are
installed, pip has overwritten files of one with files of the other.
"""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

NAME: Final = "entra-authz"
NAMESAKE: Final = "authz"


def advice(extra: str) -> str:
    """Return how to install an extra of this distribution."""
    return f"install the extra {extra} of {NAME}: pip install '.[{extra}]' in a checkout"


def development_advice() -> str:
    """Return how to get what is for development only, which no installation for production has."""
    return f"it is for development and not part of {NAME}: run it in a checkout, after `make setup` or `make demo`"


def has(*modules: str) -> bool:
    """Whether modules of an extra can be found. They are not imported, their parents are."""
    try:
        return all(find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:
        return False


def clash() -> str | None:
    """Return what is wrong with this environment when the other distribution is installed in it."""
    if not is_installed(NAMESAKE):
        return None
    return (
        f"the distribution {NAMESAKE!r} is installed here. It is another project's, and its files "
        f"replace files of {NAME}: uninstall it, then reinstall {NAME}"
    )


def is_installed(distribution: str) -> bool:
    """Whether this environment has a distribution of that name."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
