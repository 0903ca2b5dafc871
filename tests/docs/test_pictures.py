"""The README's pictures can be read: on a light page and on a dark one, at the README's width."""

import re
from itertools import product
from pathlib import Path
from typing import Final

import pytest

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PICTURES: Final = ("exchange.svg", "bench.svg")
THEMES: Final = ("light", "dark")
_LEAST: Final = 4.5
"""WCAG 2.2, success criterion 1.4.3: the contrast of text and what is behind it."""
_SMALLEST: Final = 12
"""Pixels of a picture that is 860 wide; the README shows it a little smaller."""


def colours(picture: str, theme: str) -> dict[str, str]:
    """Return the colour that fills each selector of a picture in a theme."""
    style = picture.partition("<style>")[2].partition("</style>")[0]
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    found: dict[str, str] = {}
    for rules in (light, dark) if theme == "dark" else (light,):
        for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", rules):
            if fill := re.search(r"fill: (#[0-9a-f]{6})", body):
                found |= {one.strip(): fill[1] for one in selectors.split(",")}
    return found


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, as WCAG 2.2 defines it: 1 to 21."""

    def luminance(colour: str) -> float:
        parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize(("name", "theme"), list(product(PICTURES, THEMES)))
def test_text_contrasts_with_the_pictures_own_ground(name: str, theme: str) -> None:
    """Whatever the page behind it: the ground is the picture's."""
    picture = (DOCS / name).read_text()
    fills = colours(picture, theme)
    texts = {"text", ".note", ".small"} & fills.keys()
    behind = {".ground", ".box", ".ours"} & fills.keys()

    assert 'class="ground" width="860"' in picture
    assert [
        (text, box)
        for text, box in product(texts, behind)
        if contrast(fills[text], fills[box]) < _LEAST
    ] == []


@pytest.mark.parametrize("theme", THEMES)
def test_each_tokens_name_contrasts_with_its_colour(theme: str) -> None:
    """The exchange's tokens are told apart by a colour, and each has its name on it."""
    picture = (DOCS / "exchange.svg").read_text()
    fills = colours(picture, theme)
    kinds = set(re.findall(r'<rect class="(\w+)" [^>]*rx="9"/><text class="on"', picture))

    assert {"user", "ref", "cred", "t1", "agent"} == kinds
    assert len({fills[f".{kind}"] for kind in kinds}) == len(kinds)
    assert [k for k in kinds if contrast(fills[".on"], fills[f".{k}"]) < _LEAST] == []


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_is_smaller_than_the_page_shows_well(name: str) -> None:
    """Sizes in the style and in attributes."""
    sizes = re.findall(r'font(?:-size)?(?:: |=")(\d+)', (DOCS / name).read_text())

    assert sizes
    assert [size for size in sizes if int(size) < _SMALLEST] == []
