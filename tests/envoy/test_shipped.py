"""Envoy configurations of this repository are what `make render` writes, and the pages name its commands."""

import json
import re
import shlex
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shipped.commented import AmendError, amended
from shipped.configurations import CONFIGURATIONS, ROOT, Configuration
from shipped.render import text_of
from support.properties import thorough

BY_FILE = {configuration.file: configuration for configuration in CONFIGURATIONS}
PAGES = {
    "docs/kubernetes.md": "kubernetes/base/envoy.yaml",
    "docs/https.md": "kubernetes/components/https/envoy.yaml",
    "kubernetes/shared/README.md": "kubernetes/shared/client/envoy.yaml",
    "kubernetes/kind/README.md": "kubernetes/kind/agent/envoy.yaml",
}
COMMENTED = """\
# What this is.
first: 1  # one
shared: &shared
  # Why it is so.
  - name: alpha
    match: {prefix: /, headers: [a, b]}
    route: {timeout: 5s}
  # The other one.
  - name: beta
    match: {prefix: /beta}
again: *shared
list: [one, two]
last:
  deep: {deeper: "10"}
"""


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda item: item.file)
def test_file_is_what_the_command_renders(configuration: Configuration) -> None:
    """`make render` would change nothing: neither code nor file has gone ahead of the other."""
    assert text_of(configuration) == configuration.path.read_text("utf-8"), "run `make render`"


def test_every_shipped_file_is_in_the_table() -> None:
    """No configuration of Envoy is left out, and none is in it that is not there."""
    files = [*ROOT.glob("kubernetes/**/envoy.yaml"), ROOT / "envoy" / "sidecar.yaml"]

    assert {str(file.relative_to(ROOT)) for file in files} == BY_FILE.keys()


@pytest.mark.parametrize("page", PAGES)
def test_command_of_the_page_is_the_one_that_is_run(page: str) -> None:
    """The same configuration, options and variables; identifiers are the reader's."""
    configuration = BY_FILE[PAGES[page]]
    (block,) = re.findall(
        r"^```(?:sh)?\n((?:(?!^```).)*?authz envoy --config(?:(?!^```).)*?)^```$",
        (ROOT / page).read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    words = shlex.split(block.replace("\\\n", " ").partition(" >")[0].replace("export ", ""))
    command = next(index for index, word in enumerate(words) if word.endswith("authz"))
    given_ = dict(word.split("=", 1) for word in words[:command])
    named = {key: value for key, value in configuration.environment.items() if "/" in value}

    assert configuration.arguments == tuple(words[command + 1 :])
    assert configuration.environment.keys() == given_.keys()
    assert named.items() <= given_.items()


def test_first_lines_of_a_file_are_its_command() -> None:
    """`authz envoy` says itself how it was run: what a person would write there cannot be lost."""
    for configuration in CONFIGURATIONS:
        if not configuration.is_commented:
            command = configuration.path.read_text("utf-8").splitlines()[1].removeprefix("#")

            assert ["authz", *configuration.arguments] == shlex.split(command)


def test_comments_stay_where_values_change() -> None:
    """A value, a new entry in a list and in a mapping, one that is gone: nothing else is touched."""
    wanted = yaml.safe_load(COMMENTED)
    wanted["first"] = 2
    wanted["list"] = ["zero", "one", "three"]
    wanted["last"]["deep"]["more"] = {"a": ["b"]}
    wanted["last"]["other"] = [{"name": "gamma", "match": "no"}]
    for key in ("shared", "again"):
        alpha, beta = yaml.safe_load(COMMENTED)["shared"]
        alpha["match"]["headers"].append("c")
        del alpha["route"]
        wanted[key] = [alpha, {"name": "between"}, beta]

    expected = """\
# What this is.
first: 2  # one
shared: &shared
  # Why it is so.
  - name: alpha
    match: {prefix: /, headers: [a, b, c]}
  - name: between
  # The other one.
  - name: beta
    match: {prefix: /beta}
again: *shared
list: [zero, one, three]
last:
  deep: {deeper: "10", more: {a: [b]}}
  other:
    - name: gamma
      match: 'no'
"""
    assert expected == amended(COMMENTED, wanted)


def test_name_gives_way_where_it_no_longer_fits() -> None:
    """What was the same in two places may become different: the second is then written out."""
    wanted = yaml.safe_load(COMMENTED)
    wanted["again"] = [{"name": "alpha"}]

    text = amended(COMMENTED, wanted)

    assert COMMENTED.replace("again: *shared", "again: [{name: alpha}]") == text


def test_what_cannot_be_written_is_said() -> None:
    """What has a name cannot go while the name is in use."""
    wanted = yaml.safe_load(COMMENTED)
    del wanted["shared"]

    with pytest.raises(AmendError, match="undefined alias 'shared'"):
        amended(COMMENTED, wanted)


def _values() -> st.SearchStrategy[Any]:
    """Return a strategy of small values."""
    leaves = (
        st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "on", "a: b", "x"])
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
        max_leaves=4,
    )


@st.composite
def _documents(draw: st.DrawFn) -> Any:
    """Return the commented document, changed in one place or several."""
    document = yaml.safe_load(yaml.safe_dump(yaml.safe_load(COMMENTED), sort_keys=False))
    document = yaml.safe_load(yaml.dump(document, Dumper=_Apart))
    for _ in range(draw(st.integers(1, 4))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                place = inner
                continue
            action = draw(st.sampled_from(["change", "remove", "add"]))
            if action == "change":
                place[key] = draw(_values())
            elif action == "remove":
                del place[key]
            elif isinstance(place, list):
                place.insert(key, draw(_values()))
            else:
                place[draw(st.sampled_from("xyz"))] = draw(_values())
            break
    return document


class _Apart(yaml.SafeDumper):
    """Writes what is in two places twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return that nothing has a name."""
        return True


@thorough
@given(wanted=_documents())
def test_any_change_is_written_or_refused(wanted: Any) -> None:
    """What comes out says exactly what is wanted; never something else."""
    try:
        text = amended(COMMENTED, wanted)
    except AmendError:
        return
    assert json.dumps(wanted, sort_keys=True) == json.dumps(yaml.safe_load(text), sort_keys=True)
