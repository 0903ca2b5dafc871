"""Stand-ins for `${NAME}` of a configuration that is only rendered: what they stand for is not in the result.

Identifiers, scopes and files of credentials decide nothing in Envoy's configuration. Where one does, its
stand-in is found in the result, and the variable has to have its value.
"""

from collections.abc import Mapping
from typing import Final

from authz.config.reading.document import REFERENCE
from authz.config.sections.clients import CERTIFICATE_FILE, CLIENT_SECRET_FILE, FEDERATED_TOKEN_FILE
from authz.config.source import ConfigSource

_CREDENTIALS: Final = (CLIENT_SECRET_FILE, CERTIFICATE_FILE, FEDERATED_TOKEN_FILE)
"""By one of these a pod names the credential that the file itself does not."""


def stand_ins(source: ConfigSource) -> dict[str, str]:
    """Return a value for each variable that a file refers to and the environment lacks.

    None for the environment form, which refers to none.

    Each is a GUID of its own: an identifier where one is expected, and text everywhere else.

    Raises:
        ConfigError: The file cannot be read.
    """
    if source.path is None:
        return {}
    environ = source.environ
    names = dict.fromkeys(REFERENCE.findall(source.text()))
    missing = [name for name in names if not environ.get(name)]
    if not any(environ.get(name) for name in _CREDENTIALS):
        missing.append(FEDERATED_TOKEN_FILE)
    return {
        name: f"{number:08x}-5a5a-4a5a-a5a5-5a5a5a5a5a5a" for number, name in enumerate(missing, 1)
    }


def shown_in(text: str, stand_ins: Mapping[str, str]) -> list[str]:
    """Return the variables whose stand-ins are in a text: it needs their values."""
    return sorted(name for name, value in stand_ins.items() if value in text)
