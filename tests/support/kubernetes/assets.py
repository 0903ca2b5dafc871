"""Files of others that tests ask for and this project does not hold: a variable leads to each."""

import os
from pathlib import Path
from typing import Final

import pytest

SIDECAR_OPENAPI: Final = "TEST_ASSET_SIDECAR_OPENAPI"
"""Microsoft's OpenAPI document of the sidecar."""
SIDECAR_CLIENT: Final = "TEST_ASSET_SIDECAR_CLIENT"
"""Microsoft's Python client of the sidecar."""


def asset(variable: str) -> Path:
    """Return the file that a variable names; skip the test where none does.

    Raises:
        FileNotFoundError: It names what is not there, which is a mistake and no reason to skip.
    """
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"{variable} names no file (CONTRIBUTING.md)")
    file = Path(named).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"{variable}: there is no {file}")
    return file
