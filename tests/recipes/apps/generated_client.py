"""Calls every operation of the sidecar's API by a client that a generator made, and prints what came of it.

SIDECAR_URL=… USER_TOKEN=… AGENT=… python generated_client.py FOLDER_OF_THE_CLIENT

Each operation is called with what its caller leaves out left out, and with all of it sent as empty text.
"""

import importlib
import inspect
import json
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

NAMED: Final = {"agent_identity": os.environ["AGENT"]}
PLACE: Final = {"options_override_relative_path": "whoami"}


def operation(package: ModuleType, name: str) -> Any:
    """Return the function of an operation, whichever tag it is filed under."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if found.name.endswith(f".{name}"):
            return importlib.import_module(found.name).sync
    raise LookupError(name)


def empties(function: Any, given: dict[str, str]) -> dict[str, str]:
    """Return empty text for each query parameter that is not given."""
    names = inspect.signature(function).parameters
    return {name: "" for name in names if name not in {"api_name", "client", "body", *given}}


def main(folder: Path) -> None:
    """Call everything."""
    sys.path.insert(0, str(folder.parent))
    package = importlib.import_module(folder.name)
    url, token = os.environ["SIDECAR_URL"], os.environ["USER_TOKEN"]
    unknown = package.Client(base_url=url)
    known = package.AuthenticatedClient(base_url=url, token=token)
    calls = {
        "authorization_header": (known, NAMED | {"options_override_request_app_token": "false"}),
        "authorization_header_unauthenticated": (unknown, NAMED),
        "downstream_api": (known, NAMED | PLACE),
        "downstream_api_unauthenticated": (unknown, NAMED | PLACE),
    }
    api = importlib.import_module(f"{folder.name}.api")
    found: dict[str, Any] = {}
    validate = operation(api, "validate_authorization_header")
    found["validate"] = validate(client=known).to_dict()
    for name, (client, given) in calls.items():
        function = operation(api, name)
        for kind, rest in (("absent", {}), ("empty", empties(function, given))):
            found[f"{name} {kind}"] = function("graph", client=client, **given, **rest).to_dict()
    blueprint = operation(api, "authorization_header_unauthenticated")
    found["nobody empty"] = blueprint("graph", client=unknown, **empties(blueprint, {})).to_dict()
    refused = blueprint("graph", client=unknown, agent_username="a@b.example")
    found["refused"] = refused.to_dict()
    print(json.dumps(found))  # noqa: T201 - for the test that started it


main(Path(sys.argv[1]))
