"""docs/recipes.md and its agents: what is named is pinned, and the agents are plain programs."""

import ast
import json
import re
from pathlib import Path

import pytest

from recipes.agents import APPS, NODE_APP, PAGE, ROOT, Recipe

TITLES = ["FastAPI", "Flask", "LangChain", "MCP", "Node.js"]


def test_every_recipe_on_the_page_is_one_that_is_run() -> None:
    """What has commands is known here, and the tests beside this one start it."""
    sections = PAGE.read_text().split("\n## ")[1:]
    tests = "".join(file.read_text() for file in APPS.parent.glob("test_*.py"))

    assert TITLES == [text.partition("\n")[0] for text in sections if "```sh" in text]
    assert [] == [title for title in TITLES if f'deployed("{title}"' not in tests]


@pytest.mark.parametrize("title", TITLES)
def test_every_package_a_recipe_installs_is_pinned(title: str) -> None:
    """With a hash, in the requirements or in the lock file, which names no addresses."""
    requirements = (ROOT / "requirements/recipes.txt").read_text()
    pinned = set(re.findall(r"^([\w-]+)==", requirements, re.MULTILINE))
    lock = json.loads((NODE_APP / "package-lock.json").read_text())["packages"]
    installed = {name: entry for name, entry in lock.items() if name}
    pinned |= {name.removeprefix("node_modules/") for name in installed}

    assert set(Recipe.of(title).packages) <= pinned
    assert [] == [name for name, entry in installed.items() if "integrity" not in entry]
    assert [] == [name for name, entry in installed.items() if "resolved" in entry]


@pytest.mark.parametrize(
    "file", sorted([*APPS.glob("*.py"), *APPS.glob("https/*.py")]), ids=lambda file: file.name
)
def test_agent_imports_nothing_of_ours_and_no_instrumentation(file: Path) -> None:
    """Unmodified means: the wrapper and the environment do all there is to do."""
    tree = ast.walk(ast.parse(file.read_text()))
    modules = [
        name
        for node in tree
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]

    assert [] == [name for name in modules if re.match(r"\.|authz|opentelemetry|support", name)]


def test_node_agent_needs_nothing_of_ours_and_no_instrumentation() -> None:
    """The same for the agent in JavaScript."""
    required = [
        name
        for file in sorted(NODE_APP.glob("*.cjs"))
        for name in re.findall(r"""require\("([^"]+)"\)""", file.read_text())
    ]

    assert ["node:http", "node:http", "undici"] == required
