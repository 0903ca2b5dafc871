"""Spellings of a header's name."""

from hypothesis import given
from hypothesis import strategies as st

from authz.core.header_name import canonical, spelling_count, spellings

NAMES = st.text("aZ9-_!.", max_size=12)


def test_each_place_of_a_hyphen_has_two_spellings() -> None:
    """The one with hyphens comes first."""
    expected = ("x-api-key", "x-api_key", "x_api-key", "x_api_key")
    assert expected == spellings("X_API-Key")
    assert ("cookie",) == spellings("Cookie")


@given(name=NAMES)
def test_spellings_are_those_that_cgi_reads_alike(name: str) -> None:
    """None twice, as many as are counted, and all of them the same variable as the name itself."""
    found = spellings(name)

    assert spelling_count(name) == len(set(found)) == len(found)
    assert canonical(name) == found[0]
    variable = name.upper().replace("-", "_")
    assert {variable} == {each.upper().replace("-", "_") for each in found}
