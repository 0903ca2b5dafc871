"""The agent and the API of the demo are ordinary programs: nothing of this project is in them."""

import ast
from pathlib import Path

import pytest

import authz_dev.demo

FOLDER = Path(authz_dev.demo.__file__).parent


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("agent_app.py", {"collections", "contextlib", "fastapi", "httpx", "os"}),
        ("orders_api.py", {"fastapi", "jwt", "os", "ssl", "typing"}),
    ],
)
def test_ordinary_program_imports_nothing_of_ours(name: str, expected: set[str]) -> None:
    """Only the standard library and libraries that anybody uses."""
    tree = ast.walk(ast.parse((FOLDER / name).read_text()))
    imported: set[str] = set()
    for node in tree:
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0] if node.level == 0 else ".")

    assert imported == expected


def test_agent_knows_no_token_endpoint_and_no_secret() -> None:
    """Nothing in the agent's text speaks of how tokens are got."""
    text = (FOLDER / "agent_app.py").read_text().lower()

    assert [
        word for word in ("client_secret", "msal", "oauth", "login.", "authz.") if word in text
    ] == []
