"""The pages of envoy/ say what is rendered: their tables are compared with what the example renders to."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.config import Config
from authz.core.baggage import CARRIERS
from authz.envoy_config.bootstrap import render
from authz.envoy_config.edge_cache import EDGE_EXTENSION
from authz.envoy_config.settings import SidecarSettings, Transparent

pytestmark = pytest.mark.thorough

FOLDER: Final = Path(__file__).parents[2] / "envoy"
PAGES: Final = sorted(FOLDER.glob("*.md"))
ABSENT: Final = ("never set", "none", "left false", "false")
"""Words of the second column that stand for a field that is not there."""
WITH_REDIRECTION: Final = "Redirected connections"

WORDS: Final = {"status_on_error": "{'code': 'ServiceUnavailable'}"}
"""How a value is written where the page has another word for it."""
WHERE_ELSE: Final = {"global_downstream_max_connections": "max_active_downstream_connections"}
"""The field with an extension's value."""

Row = tuple[str, str, str]


def rows() -> list[Row]:
    """Return section, knob and value of each row of a table of knobs."""
    found: list[Row] = []
    section, inside = "", False
    lines = [line for page in PAGES for line in page.read_text().splitlines()]
    for line in lines:
        if line.startswith("## "):
            section, inside = line.removeprefix("## "), False
        elif line == "| knob | value | why |":
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found.append((section, cells[0], cells[1]))
    return found


def value_of(section: str, knob: str) -> str:
    """Return the second cell of the one row of a knob."""
    (found,) = (value for where, name, value in rows() if (where, name) == (section, knob))
    return found


def named(cell: str) -> list[str]:
    """Return what stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


def keys(node: Any) -> Iterator[tuple[str, Any]]:
    """Return every key with its value, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from keys(value)
    elif isinstance(node, list):
        for item in node:
            yield from keys(item)


@pytest.fixture(scope="module")
def documents(example: Config) -> dict[str, Any]:
    """What is rendered for the example: in a pod with a proxy variable, and in one with redirection."""
    settings = {
        "": SidecarSettings(),
        WITH_REDIRECTION: SidecarSettings(transparent=Transparent.PASS_TLS),
    }
    return {name: yaml.safe_load(render(example, one)) for name, one in settings.items()}


def listener(documents: dict[str, Any], direction: str) -> dict[str, Any]:
    """Return a listener."""
    listeners = documents[""]["static_resources"]["listeners"]
    found: dict[str, Any]
    (found,) = (one for one in listeners if one["name"] == direction)
    return found


def manager(documents: dict[str, Any], direction: str) -> dict[str, Any]:
    """Return the connection manager of a listener."""
    chain = listener(documents, direction)["filter_chains"][0]
    made: dict[str, Any] = chain["filters"][0]["typed_config"]
    return made


FIELDS: Final = [
    (section, name, value)
    for section, knob, value in rows()
    for name in named(knob)
    if re.fullmatch("[a-z0-9_]+", name)
    and "_" in name
    and not knob.startswith(("filter", "route ", "chain", "cluster"))
]


def test_the_page_has_knobs() -> None:
    """Else nothing below could fail."""
    assert 40 < len(rows())
    assert 30 < len(FIELDS)


@pytest.mark.parametrize(("section", "name", "value"), FIELDS)
def test_a_field_that_the_page_names_is_as_it_says(
    documents: dict[str, Any], section: str, name: str, value: str
) -> None:
    """It is there, or is not, and a plain value is the one of the page."""
    places = [documents[WITH_REDIRECTION], documents[""]]
    if section in ("Inbound", "Egress"):
        places = [
            listener(documents, section.lower()),
            documents[""]["static_resources"]["clusters"],
        ]
    pairs = [pair for place in places for pair in keys(place)]
    found = [each for key, each in pairs if key == name]
    # An extension has its name as a value.
    found += [each for _, each in pairs if str(each).endswith(f".{name}")]

    if value.startswith(ABSENT):
        assert [] == [each for each in found if each not in (False, "", None)]
        return
    assert found, f"{name} is nowhere"
    plain = value.removesuffix(" KiB").strip("`")
    if re.fullmatch(r"\d+s?|true|[A-Z_]+", plain):
        text = str(int(plain) * 1024) if value.endswith(" KiB") else plain
        shown = {str(each).lower() for each in found} | {
            str(each) for key, each in pairs if key == WHERE_ELSE.get(name)
        }
        assert WORDS.get(name, text).lower() in shown


def test_the_version_of_the_edge_cache_is_the_codes() -> None:
    """What a route tells the service, letter by letter."""
    (found,) = named(value_of("Edge cache", "`context_extensions`"))

    assert EDGE_EXTENSION == yaml.safe_load(found)


def test_the_headers_that_the_service_is_shown_are_those(documents: dict[str, Any]) -> None:
    """`allowed_headers`, in both directions."""
    page = [
        {"prefix": name[:-1]} if name.endswith("*") else {"exact": name}
        for name in named(value_of("Asking the service", "`allowed_headers`"))
    ]

    for direction in ("inbound", "egress"):
        (check,) = (
            one["typed_config"]
            for one in manager(documents, direction)["http_filters"]
            if one["name"] == "envoy.filters.http.ext_authz"
        )
        assert check["allowed_headers"]["patterns"] == page


@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_what_is_removed_at_once_is_what_the_page_says(
    documents: dict[str, Any], direction: str
) -> None:
    """Before anything else looks at a request."""
    (mutation,) = manager(documents, direction)["early_header_mutation_extensions"]
    rendered = [
        f"{one['remove_on_match']['key_matcher']['prefix']}*"
        for one in mutation["typed_config"]["mutations"]
    ]

    section = direction.capitalize()
    assert rendered == named(value_of(section, "`early_header_mutation_extensions`"))


def test_what_else_carries_baggage_is_what_the_page_says() -> None:
    """Where references to users are given out, and so where these headers are removed."""
    (listed,) = (
        cell
        for _, knob, cell in rows()
        if knob.startswith("the same, in both directions") and "handle" in knob
    )

    assert [f"{prefix}*" for prefix in CARRIERS] == named(listed)


def test_what_is_removed_on_the_way_out_is_what_the_page_says(documents: dict[str, Any]) -> None:
    """By the routes of destinations."""
    rendered = manager(documents, "egress")["route_config"]["request_headers_to_remove"]

    assert rendered == named(value_of("Egress", "`request_headers_to_remove`"))


def test_what_is_removed_where_nobody_is_asked_is_what_the_page_says(
    documents: dict[str, Any],
) -> None:
    """On each health route."""
    (host,) = manager(documents, "inbound")["route_config"]["virtual_hosts"]
    exempt = [route for route in host["routes"] if route["name"].startswith("health")]

    assert exempt
    for route in exempt:
        assert route["request_headers_to_remove"] == named(value_of("Inbound", "health routes"))


@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_methods_and_trailers_are_refused_as_the_page_says(
    documents: dict[str, Any], direction: str
) -> None:
    """The first route of each host, and the last filter before the router."""
    found = manager(documents, direction)
    page = named(value_of(direction.capitalize(), "route `refused-method`"))
    mutation, _ = found["http_filters"][-2:]

    for host in found["route_config"]["virtual_hosts"]:
        (method,) = host["routes"][0]["match"]["headers"]
        expression = method["string_match"]["safe_regex"]["regex"]
        assert all(re.fullmatch(expression, name) for name in page)
        assert expression.count("|") == len(page) - 1
    assert value_of(direction.capitalize(), "filter `header_mutation`")
    assert mutation["typed_config"]["mutations"] == {
        "request_trailers_mutations": [
            {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": ".*"}}}}
        ]
    }


@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_envoys_own_answers_are_those_of_the_page(
    documents: dict[str, Any], direction: str
) -> None:
    """Which details and flags lead to which status, reason and advice, in the same order."""
    column = ["inbound", "egress"].index(direction)
    page_text = (FOLDER / "README.md").read_text()
    section = page_text.partition("## What Envoy answers by itself\n")[2].partition("\n## ")[0]
    page: list[tuple[list[str], str, str, bool]] = []
    for line in section.splitlines()[5:]:
        if not line.startswith("| ") or "---" in line:
            continue
        what, *answers = [cell.strip() for cell in line.split("|")[1:-1]]
        answer = answers[0] if answers[column] == "the same" else answers[column]
        if answer:
            status, reason = answer.split(" ")[0], named(answer)[0]
            page.append((named(what) or ["504"], status, reason, "Retry-After" in answer))

    rendered: list[tuple[list[str], str, str, bool]] = []
    by_grpc, *mappers = manager(documents, direction)["local_reply_config"]["mappers"]
    assert "ext_authz_denied" in str(by_grpc["filter"])
    for mapper in mappers:
        # With another condition beside the flag, which the page has in words.
        (first, *_) = mapper["filter"].get("and_filter", {}).get("filters", [mapper["filter"]])
        flags = first.get("response_flag_filter", {}).get("flags")
        extension = mapper["filter"].get("extension_filter", {}).get("typed_config", {})
        details = re.findall(r"\w+_\w+(?=')|504", extension.get("expression", ""))
        when: list[str] = flags or details
        body = mapper["body_format_override"]["json_format"]
        later = any(one["header"]["key"] == "retry-after" for one in mapper["headers_to_add"])
        rendered.append((when, str(mapper["status_code"]), body["reason"], later))

    assert rendered == page
