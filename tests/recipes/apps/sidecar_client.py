"""Calls every operation of the sidecar's API by Microsoft's own Python client, and prints what came of it.

SIDECAR_URL=… USER_TOKEN=… AGENT=… python sidecar_client.py FILE_OF_THE_CLIENT
"""

import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(file: Path) -> None:
    """Call everything."""
    sys.path.insert(0, str(file.parent))
    sdk = importlib.import_module(file.stem)
    bearer = f"Bearer {os.environ['USER_TOKEN']}"
    agent = {"agent_identity": os.environ["AGENT"]}
    on_behalf = sdk.SidecarCallOptions(request_app_token=False)
    # Every option that the client has; the ones that theirs serves are the ones it can set here.
    options = sdk.SidecarCallOptions(
        scopes=["https://graph.microsoft.com/.default"],
        request_app_token=True,
        base_url="https://ignored.example",
        relative_path="whoami",
        http_method="GET",
        accept_header="application/json",
        content_type="application/json",
        acquire_token_options=sdk.AcquireTokenOptions(
            tenant=os.environ["TENANT"],
            force_refresh=False,
            claims="{}",
            correlation_id="11111111-0000-4000-8000-000000000001",
        ),
    )
    with sdk.MicrosoftIdentityWebSidecarClient(os.environ["SIDECAR_URL"]) as client:
        found: dict[str, Any] = {
            "validate": client.validate_authorization_header(bearer),
            "authorization_header": client.get_authorization_header(
                "graph", bearer, **agent, options=on_behalf
            ),
            "authorization_header_unauthenticated": (
                client.get_authorization_header_unauthenticated("graph", **agent)
            ),
            "downstream_api": client.invoke_downstream_api(
                "graph", bearer, **agent, options=options, json_body={"a": 1}
            ),
            "downstream_api_unauthenticated": client.invoke_downstream_api_unauthenticated(
                "graph", **agent, options=options
            ),
        }
        answers = {name: dataclasses.asdict(answer) for name, answer in found.items()}
        try:
            client.get_authorization_header_unauthenticated("graph", agent_username="a@b.example")
        except sdk.SidecarError as error:
            answers["refused"] = dataclasses.asdict(error.problem_details)
    print(json.dumps(answers))  # noqa: T201 - for the test that started it


main(Path(sys.argv[1]))
