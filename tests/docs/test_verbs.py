"""What `make test` leaves to `make test-all`: listed for contributors, and never the test of a law."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SECURITY: Final = ROOT / "docs" / "security.md"
REVIEWED: Final = (SECURITY, ROOT / "docs" / "threats.md", ROOT / "docs" / "trade-offs.md")
"""Pages of which each statement about security has its test."""
ELSEWHERE: Final = {"system", "cluster", "recipes"}
"""Marks of tests that have a verb of their own."""


@cache
def tree(file: str) -> ast.Module:
    """Return a file of tests as Python reads it."""
    return ast.parse((ROOT / file).read_text())


def marks(node: ast.AST) -> set[str]:
    """Return the names of the marks anywhere in a piece of code."""
    return {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.value, ast.Attribute)
        and each.value.attr == "mark"
    }


def marks_of_module(file: str) -> set[str]:
    """Return the marks that a file gives to each of its tests."""
    return {
        mark
        for node in tree(file).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        for mark in marks(node)
    }


def functions(file: str) -> dict[str, ast.AST]:
    """Return the tests of a file by name."""
    return {
        node.name: node
        for node in tree(file).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


@cache
def files() -> list[str]:
    """Return the files of tests."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in found]


def named() -> list[tuple[str, str]]:
    """Return what these pages name: files of tests, each with the name of a test or with none."""
    text = "\n".join(page.read_text() for page in REVIEWED)
    found = []
    for path, name in re.findall(r"`(tests/[\w/]+(?:\.py|/))(?:::(\w+))?`", text):
        below = [file for file in files() if file.startswith(path)]
        found += [(file, name) for file in ([path] if path.endswith(".py") else below)]
    return found


def test_no_test_that_a_page_about_security_names_is_left_to_test_all() -> None:
    """A file that is named has no thorough test; where one test of a file is named, that one is not."""
    left_out = []
    for file, name in named():
        node = functions(file)[name] if name else tree(file)
        if "thorough" in marks(node) | marks_of_module(file):
            left_out.append((file, name))

    assert [] == left_out
    assert {
        f"tests/attacks/{path.name}" for path in (ROOT / "tests/attacks").glob("test_*.py")
    } <= {file for file, _ in named()}


def test_each_law_has_a_test_in_make_test() -> None:
    """What needs another verb is beside it, never instead of it."""
    laws = re.findall(r"^\| (\d+) \|.*\| (.+) \|$", SECURITY.read_text(), re.MULTILINE)
    here = {
        number: [
            path
            for path in re.findall(r"`(tests/[\w/]+(?:\.py|/))", tests)
            if path.endswith("/") or not ELSEWHERE & marks_of_module(path)
        ]
        for number, tests in laws
    }

    assert [str(number) for number in range(1, 12)] == list(here)
    assert [] == [number for number, paths in here.items() if not paths]


def test_contributors_read_what_make_test_leaves_out() -> None:
    """CONTRIBUTING.md lists the files whose tests are thorough, all of them or some, and no other file."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    section = page.partition("## What only `make test-all` runs\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(tests/[\w/]+\.py)` \| (all|some) \| (.+) \|$", section, re.MULTILINE)
    marked = {
        file: "all" if "thorough" in marks_of_module(file) else "some"
        for file in files()
        if "thorough" in marks(tree(file))
    }

    assert marked == {file: share for file, share, _ in rows}
    assert list(marked) == [file for file, _, _ in rows]
