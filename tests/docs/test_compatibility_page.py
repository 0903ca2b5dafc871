"""docs/compatibility.md is made from what the tests run, and names tests that exist."""

import json
import re

import pytest

from recipes.compatibility import OTHERS, REFUSED, ROOT, SERVERS, TESTS, Fact
from recipes.compatibility_page import page


def test_the_page_is_made_from_the_table() -> None:
    """`make docs` writes it."""
    assert page() == (ROOT / "docs/compatibility.md").read_text()


@pytest.mark.parametrize("fact", [*SERVERS, *OTHERS, *REFUSED], ids=lambda fact: fact.what)
def test_each_fact_names_a_test(fact: Fact) -> None:
    """A function of that name is in that file."""
    file, name = fact.test.split("::")

    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_the_clients_have_their_test() -> None:
    """The file that the page names runs the whole of each table."""
    text = (ROOT / TESTS).read_text()

    assert [] == [
        name for name in ("CLIENTS", "RPC_CLIENTS", "A2A_CLIENTS") if f"rows({name})" not in text
    ]


def test_the_packages_of_node_are_pinned_with_hashes_and_without_addresses() -> None:
    """Any registry will do, and none can give something else."""
    lock = json.loads((ROOT / "tests/recipes/clients/node/package-lock.json").read_text())
    packages = [entry for name, entry in lock["packages"].items() if name]

    assert [] == [entry for entry in packages if "integrity" not in entry or "resolved" in entry]
    assert packages != []
