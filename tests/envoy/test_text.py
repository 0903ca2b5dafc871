"""Envoy's configuration as YAML and JSON: every parser reads what was meant."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from authz.envoy_config.text import Shared, is_json, json_text, text
from support.proxy.envoy import validate

WORDS: Final = st.sampled_from(
    ["y", "No", "on", "null", "~", "", "=", "<<", "0x1f", "1_000", "12:30:45", "2001-01-01", "1e3", ".5", "-",
     "*", "&a", "!b", "%", "@", "a: b", "a #b", "- a", "{a}", "[a]", " a", "a ", "\ta", "a\n", "a\n\nb\n",
     "\n", "a \nb", "é", "\u2028", "\x85", "\x07", "\ufeff"]
)  # fmt: skip
TEXTS: Final = WORDS | st.text(max_size=20)
SCALARS: Final = TEXTS | st.integers(-(10**12), 10**12) | st.booleans() | st.none()
DOCUMENTS: Final = st.dictionaries(
    TEXTS,
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, min_size=1, max_size=4)
        ),
        max_leaves=12,
    ),
    min_size=1,
    max_size=4,
)


@given(DOCUMENTS)
def test_what_was_written_is_read(document: dict[str, Any]) -> None:
    """Text stays text, whatever it looks like, and numbers stay numbers."""
    assert document == yaml.safe_load(text(document)) == json.loads(json_text(document))


@pytest.mark.parametrize(
    "word", ["y", "NO", "on", "Off", "true", "null", "5", "1e3", "-0.5", "inf"]
)
def test_what_some_parser_takes_for_something_else_is_quoted(word: str) -> None:
    """YAML 1.1 and 1.2 differ."""
    assert f'a: "{word}"\n' == text({"a": word})


def test_whole_numbers_have_no_fraction() -> None:
    """Envoy reads `503.0` as text where a message takes either."""
    assert "a: 503\nb: 0.5\n" == text({"a": 503.0, "b": 0.5})
    assert '{"a":503,"b":[{"c":0.5}]}\n' == json_text({"a": 503.0, "b": [{"c": 0.5}]})
    assert {"a": 1e-5} == yaml.safe_load(text({"a": 1e-5}))


def test_what_is_shared_is_written_once() -> None:
    """The first place has its name, the others refer to it. JSON has no such names."""
    document = {"a": (shared := Shared("both", ["x", 2.0])), "b": shared, "c": ["z"]}

    assert "a: &both\n- x\n- 2\nb: *both\nc:\n- z\n" == text(document)
    assert '{"a":["x",2],"b":["x",2],"c":["z"]}\n' == json_text(document)


@pytest.mark.parametrize("name", ["a.json", "A.JSON", ".json", "a.json.yaml", "a.yml"])
def test_envoy_decides_by_the_same_names_what_is_json(name: str, tmp_path: Path) -> None:
    """YAML in such a file is refused."""
    done = validate("admin: {}\n", tmp_path, name=name)

    assert is_json(Path(name)) == (0 != done.returncode), done.stderr
