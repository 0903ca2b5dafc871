"""Readers find their page: the index has each one, and links lead to a heading that there is."""

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
INDEX: Final = ROOT / "docs" / "README.md"
LINK: Final = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def pages() -> list[str]:
    """Return the pages of the repository."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    return [page for page in found.stdout.split() if (ROOT / page).exists()]


@cache
def prose(page: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(
        r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )


@cache
def anchors(page: str) -> set[str]:
    """Return what a link may name of a page: its headings, as GitHub spells them."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    shown = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in shown}


@pytest.mark.parametrize("page", pages())
def test_links_lead_to_a_heading_that_there_is(page: str) -> None:
    """In each page of the repository, to files and to headings of pages."""
    lost = []
    for target, anchor in LINK.findall(prose(page)):
        if ":" in target:
            continue
        file = os.path.normpath(Path(page).parent / target) if target else page
        if not (ROOT / file).exists() or (
            anchor and file.endswith(".md") and anchor not in anchors(file)
        ):
            lost.append(f"{target}#{anchor}")

    assert [] == lost


def test_texts_of_the_program_name_headings_that_there_are() -> None:
    """Faults, log records, comments and annotations of alerts that name a heading of a page."""
    suffixes = ["*.py", "*.yaml", "*.lua", "*.sh", "*.json"]
    found = subprocess.run(
        ["git", "grep", "-hoE", r"(docs|envoy)/[a-z-]+\.md#[a-z0-9-]+", "--", *suffixes],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    named = {tuple(place.split("#")) for place in found.stdout.split()}

    assert len(named) > 30
    assert [] == sorted(place for place in named if place[1] not in anchors(place[0]))


def test_the_index_has_each_page_once() -> None:
    """Of docs/ and envoy/, with what it is for."""
    rows = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\) \| .+ \|$", prose("docs/README.md"), re.MULTILINE)
    listed = sorted(os.path.normpath(Path("docs") / row) for row in rows)
    there = sorted(page for page in pages() if re.fullmatch(r"(docs|envoy)/[\w-]+\.md", page))

    assert len(listed) == len(set(listed))
    assert there == sorted([*(page for page in listed if page in there), "docs/README.md"])
