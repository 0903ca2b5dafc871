"""`amended`: a YAML file that people wrote and commented, with other values. Layout and comments stay.

Where a value differs, its text is replaced, and nothing else. Of Envoy's fields nothing is known here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, Final

import yaml

_MOST_PASSES: Final = 200
_STEP: Final = 2
"""Columns by which these files indent."""


class AmendError(ValueError):
    """A difference that needs a person: says where and which."""


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    text: str


class _AliasNode(yaml.Node):
    """Where a name (`*name`) is in place of a value."""

    def __init__(self, target: yaml.Node, start: Any, end: Any) -> None:
        super().__init__(target.tag, target.value, start, end)
        self.target = target


class _Loader(yaml.SafeLoader):
    """Composes a document, and keeps which names it gives and uses."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return a node that knows its own name, or that is one."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        assert node is not None
        if isinstance(event, yaml.AliasEvent):
            return _AliasNode(node, event.start_mark, event.end_mark)
        node.anchor = event.anchor  # type: ignore[attr-defined]
        return node


def amended(text: str, wanted: Any) -> str:
    """Return `text` with the values of `wanted`.

    Raises:
        AmendError: A difference cannot be written into this text.
    """
    for _ in range(_MOST_PASSES):
        tree = _compose(text)
        if _same(_plain(tree), wanted):
            return text
        # The values that names repeat are right before names are looked at.
        edits = list(_edits(text, tree, wanted))
        edits = edits or list(_edits(text, tree, wanted, follow=True))
        for edit in sorted(edits, key=lambda item: item.start, reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
    raise AmendError("cannot be brought to the wanted values")


def _compose(text: str) -> yaml.Node:
    loader = _Loader(text)
    try:
        tree = loader.get_single_node()
    except yaml.YAMLError as error:
        # Mostly what has a name was removed, and the name is still used.
        raise AmendError(f"write it by hand: {error}") from error
    finally:
        loader.dispose()
    assert tree is not None
    return tree


def _edits(text: str, node: yaml.Node, wanted: Any, *, follow: bool = False) -> Iterator[_Edit]:
    """Yield what to change for a node to be `wanted`; at names only if `follow`."""
    if isinstance(node, _AliasNode):
        if follow and not _same(_plain(node), wanted):
            yield _Edit(node.start_mark.index, node.end_mark.index, _flow(wanted))
    elif _same(_plain(node), wanted):
        return
    elif isinstance(node, yaml.MappingNode) and isinstance(wanted, dict) and node.value and wanted:
        yield from _edits_of_mapping(text, node, wanted, follow=follow)
    elif isinstance(node, yaml.SequenceNode) and isinstance(wanted, list) and node.value and wanted:
        yield from _edits_of_sequence(text, node, wanted, follow=follow)
    elif isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        raise AmendError(f"line {node.start_mark.line + 1}: write this text by hand")
    else:
        anchor = getattr(node, "anchor", None)
        named = f"&{anchor} " if anchor else ""
        yield _Edit(node.start_mark.index, _end(node), named + _flow(wanted))


def _edits_of_mapping(
    text: str, node: yaml.MappingNode, wanted: dict[str, Any], *, follow: bool
) -> Iterator[_Edit]:
    places = [(key.start_mark.index, _end(value)) for key, value in node.value]
    known = [key.value for key, _ in node.value]
    missing = [name for name in wanted if name not in known]
    if missing:
        # One at a time, here and below: the places of its neighbours are other ones then.
        added = {missing[0]: wanted[missing[0]]}
        column = node.value[0][0].start_mark.column
        yield _addition(node, places, len(places), _flow(added)[1:-1], _block(added, column))
    elif (index := next((i for i, name in enumerate(known) if name not in wanted), None)) is None:
        for key, value in node.value:
            yield from _edits(text, value, wanted[key.value], follow=follow)
    else:
        yield _removal(text, node, places, index)


def _edits_of_sequence(
    text: str, node: yaml.SequenceNode, wanted: list[Any], *, follow: bool
) -> Iterator[_Edit]:
    places = [(item.start_mark.index, _end(item)) for item in node.value]
    if not node.flow_style:
        places = [(text.rindex("-", 0, start), end) for start, end in places]
    column = places[0][0] - (text.rfind("\n", 0, places[0][0]) + 1)
    here = [_label(_plain(item)) for item in node.value]
    matcher = SequenceMatcher(None, here, [_label(item) for item in wanted], autojunk=False)
    pairs = [
        pair
        for _, left, left_end, right, right_end in matcher.get_opcodes()
        for pair in zip_longest(range(left, left_end), range(right, right_end))
    ]
    for number, (mine, its) in enumerate(pairs):
        if mine is None:
            index = sum(1 for before, _ in pairs[:number] if before is not None)
            added = wanted[its]
            yield _addition(node, places, index, _flow(added), _block([added], column))
            return
    for mine, its in pairs:
        if its is None:
            yield _removal(text, node, places, mine)
            return
    for mine, its in pairs:
        yield from _edits(text, node.value[mine], wanted[its], follow=follow)


def _addition(
    node: yaml.CollectionNode, places: list[tuple[int, int]], index: int, flow: str, block: str
) -> _Edit:
    """Return how one more entry comes: after the one before it, or else before all."""
    if index:
        end = places[index - 1][1]
        return _Edit(end, end, f", {flow}" if node.flow_style else f"\n{block}")
    start = places[0][0]
    if node.flow_style:
        return _Edit(start, start, f"{flow}, ")
    margin = block[: len(block) - len(block.lstrip(" "))]
    return _Edit(start, start, f"{block.lstrip(' ')}\n{margin}")


def _removal(
    text: str, node: yaml.CollectionNode, places: list[tuple[int, int]], index: int
) -> _Edit:
    """Return how one of several entries goes. Lines with comments above it are left for a person to judge."""
    start, end = places[index]
    line = text.rfind("\n", 0, start) + 1
    if not node.flow_style and not text[line:start].strip():
        return _Edit(line, text.find("\n", end) + 1 or len(text), "")
    if index + 1 < len(places):
        return _Edit(start, places[index + 1][0], "")
    return _Edit(places[index - 1][1], end, "")


def _label(item: Any) -> str:
    """Return by what an entry of a list is known again: its name, else all of it."""
    if isinstance(item, dict) and isinstance(item.get("name"), str):
        return f"name {item['name']}"
    return json.dumps(item, sort_keys=True)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are written alike: 1 is not true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _plain(node: yaml.Node) -> Any:
    """Return a node as data."""
    if isinstance(node, _AliasNode):
        return _plain(node.target)
    if isinstance(node, yaml.MappingNode):
        return {key.value: _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    loader = yaml.SafeLoader("")
    value = loader.construct_object(node)
    loader.dispose()
    return value


def _end(node: yaml.Node) -> int:
    """Return where the text of a node ends, before comments and blanks."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return end


class _Dumper(yaml.SafeDumper):
    """Indents lists below their keys, as these files do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - PyYAML's own
        """Indent by one more step."""
        return super().increase_indent(flow, indentless=False)


def _flow(value: Any) -> str:
    """Return a value in one line."""
    text = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, width=10**6, sort_keys=False)
    return text.strip().removeprefix("[").removesuffix("]")


def _block(value: Any, column: int) -> str:
    """Return a value in lines that begin at a column, the last one without its end."""
    text = yaml.dump(value, Dumper=_Dumper, indent=_STEP, width=10**6, sort_keys=False).rstrip("\n")
    lines = text.split("\n")
    # A list at the top is indented as if it were below a key.
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(" " * column + line[margin:] for line in lines)
