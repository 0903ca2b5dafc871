"""Whatever is read as configuration ends in a `Config` or in a `ConfigError`, and shows no secret."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from authz.config.compile import compile_policy, credentials, issuers
from authz.config.entra_sdk.environment import read_environment
from authz.config.entra_sdk.keys import KEYS
from authz.config.faults import ConfigError
from authz.config.model import Config
from authz.config.reading.document import parse
from authz.config.reading.validation import validate
from authz.config.source import Loaded, load
from config.samples import BASE, changed, faults_of, load_data
from config.test_environment import SEED

ENVIRON = {"A": "a", "B": "", "AZURE_FEDERATED_TOKEN_FILE": "/federated"}
SECRET = "hunter2-correct-horse"

SCHEMA = Config.model_json_schema()
KNOWN_KEYS = sorted(
    {
        key
        for definition in [SCHEMA, *SCHEMA["$defs"].values()]
        for key in definition.get("properties", {})
    }
)
words = st.one_of(
    st.sampled_from([*KNOWN_KEYS, "support", "assistant", "portal", "chat", "graph", "x", "${A}"]),
    st.text(max_size=8),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    words,
    st.sampled_from(
        ["5s", "1MiB", "*", "unix:/x", "h:1", "on_behalf_of", "none", "api://x/.default"]
    ),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=4)),
    max_leaves=20,
)


def outcome(load: Callable[[], Config]) -> Config | ConfigError:
    """Return what loading ends with; any other exception fails the test."""
    try:
        return load()
    except ConfigError as error:
        return error


def ends_well(load: Callable[[], Config]) -> bool:
    """Whether loading gives faults, or a configuration that compiles."""
    found = outcome(load)
    if isinstance(found, ConfigError):
        return bool(found.faults) and bool(str(found))
    trusted = {issuer.issuer for issuer in issuers(found)}
    routes = compile_policy(found).inbound.values()
    return all(trusted >= set(route.expectation.issuers) for route in routes) and (
        len(credentials(found)) <= len(found.blueprints) + len(found.applications)
    )


@given(st.dictionaries(words, trees, max_size=6))
def test_any_data_is_a_configuration_or_a_config_error(data: Any) -> None:
    """Right keys in wrong places, wrong types, unknown names."""
    assert ends_well(lambda: load_data(data, ENVIRON))


def paths(node: Any, prefix: str = "") -> list[str]:
    """Return the dotted paths of everything in the data."""
    children = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    return [
        path
        for key, value in children
        for path in (f"{prefix}{key}", *paths(value, f"{prefix}{key}."))
    ]


@given(st.dictionaries(st.sampled_from(paths(BASE)), trees, min_size=1, max_size=2))
def test_any_change_of_a_configuration_is_one_or_a_config_error(changes: dict[str, Any]) -> None:
    """One or two values replaced by anything."""
    try:
        data = changed(changes)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return  # One change took the place of the other.
    assert ends_well(lambda: load_data(data, ENVIRON))


@given(st.one_of(st.text(), st.text(alphabet="{}[],:-?&*!|>'\"%@` \n\tab$#\\x0")))
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    """YAML or not."""
    with pytest.raises(ConfigError):
        parse(text, ENVIRON)


@given(st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_configuration_or_a_config_error(tmp_path: Path, content: bytes) -> None:
    """Text or not."""
    path = tmp_path / "authz.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(path, ENVIRON)


@given(trees)
def test_validation_of_any_data_raises_nothing_else(data: Any) -> None:
    """Also for data that no document was read for."""
    assert ends_well(lambda: validate(data, environ={}))


names = st.sampled_from(
    [key.name.replace("__N", "__0").replace("NAME", "graph").replace("*", "x") for key in KEYS]
)
values = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "true",
            "https://graph.microsoft.com",
            "https://[x",
            "11111111-0000-4000-8000-000000000001",
            "ClientSecret",
            "KeyVault",
            "Path",
            "a@b",
        ]
    ),
)


@given(st.dictionaries(st.one_of(names, st.text(max_size=20)), values, max_size=12))
def test_any_environment_is_a_configuration_or_a_config_error(environ: dict[str, str]) -> None:
    """Keys of the sidecar with anything as values, among anything else."""
    assert ends_well(lambda: read_environment(environ)[0])


@pytest.mark.parametrize(
    "credential",
    [
        SECRET,
        {"client_secret": SECRET},
        {"client_secret": [SECRET]},
        {"client_secret": {"value": SECRET}},
        {"client_secret": {SECRET: None}},
        {"client_secret": {"env": f"{SECRET} *"}},
        {"client_secret": {"file": f"/a{SECRET}", "env": f"{SECRET} *"}},
        {"certificate": {"file": "/a", "password": SECRET}},
        {"certificate": {"file": "/a", "send_x5c": SECRET}},
        {"managed_identity": {"client_id": SECRET}},
        {"key_vault": {"url": SECRET, "certificate": SECRET}},
        {SECRET: {}},
        {"client_secret": {"file": "/a"}, SECRET: 1},
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(credential: Any) -> None:
    """Neither in the faults, nor in anything that came before them."""
    data = changed({"blueprints.support.credentials": [credential]})
    with pytest.raises(ConfigError) as raised:
        load_data(data)
    assert SECRET not in str(raised.value) + repr(raised.value)
    assert (None, None) == (raised.value.__cause__, raised.value.__context__)


def test_pydantic_itself_does_not_show_what_it_was_given() -> None:
    """For those who build a `Config` without a document."""
    data = changed({"blueprints.support.credentials": [{"client_secret": SECRET}]})
    with pytest.raises(ValidationError) as refused:
        Config.model_validate(data)
    assert SECRET not in str(refused.value)


def test_the_value_of_a_reference_is_not_repeated() -> None:
    """It may have been meant for another key."""
    data = changed({"blueprints.support.tenant_id": "${A}", "limits.exchanges": "${A}"})
    faults = faults_of(lambda: parse(json.dumps(data), {"A": SECRET}))
    assert ["blueprints.support.tenant_id", "limits.exchanges"] == [fault.path for fault in faults]
    assert all(fault.message.startswith("found the value of ${A}: expected") for fault in faults)


def test_nothing_of_the_document_is_repeated_after_a_syntax_error() -> None:
    """The parser's own error would show the line."""
    with pytest.raises(ConfigError) as raised:
        parse(f"a: {{{SECRET}", {})
    assert SECRET not in str(raised.value)
    assert raised.value.__context__ is None


def test_a_document_of_references_to_itself_is_refused_at_once() -> None:
    """A "billion laughs" document never unfolds."""
    lists = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    faults = faults_of(lambda: parse(f"a0: &a0 x\n{lists}", {}))
    assert any("alias" in fault.message for fault in faults)


def test_a_document_nested_a_hundred_thousand_deep_is_refused_at_once() -> None:
    """No recursion, so no stack to exhaust."""
    for text in ("[" * 100_000, "{a: " * 100_000, "- " * 100_000):
        faults = faults_of(lambda text=text: parse(text, {}))  # type: ignore[misc]
        assert "is nested too deeply" in {fault.message for fault in faults}


def test_documents_are_read_as_yaml_reads_them() -> None:
    """Our reading of events agrees with PyYAML's own on the base."""
    text = yaml.safe_dump(BASE, sort_keys=False)
    assert load_data(yaml.safe_load(text)) == parse(text, {})


def places(node: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """Return the paths of all that a configuration may have, by its schema. Names are `support`."""
    definitions = SCHEMA["$defs"]
    for option in node.get("anyOf", [node]):
        found = definitions[option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        below: dict[str | int, Any] = dict(found.get("properties", {}))
        named = [*found.get("patternProperties", {}).values(), found.get("additionalProperties")]
        for each in named:
            if isinstance(each, dict):
                below["support"] = each
        if isinstance(found.get("items"), dict):
            below[0] = found["items"]
        for key, inner in below.items():
            yield (key,)
            yield from ((key, *rest) for rest in places(inner))


def put(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """Return the base with a value at a path; what is not there on the way is made."""
    for key in reversed(path[1:]):
        value = [value] if isinstance(key, int) else {key: value}
    first = path[0]
    if isinstance(value, dict) and isinstance(BASE.get(str(first)), dict):
        value = {**BASE[str(first)], **value}
    return {**BASE, str(first): value}


PLACES = sorted(set(places(SCHEMA)), key=str)
CANARIES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12).map(
    lambda text: f"hunter2{text}horse"
)
"""Passwords as people and machines make them, with any sign in them."""
MACHINE_MADE = "Xq8Q~k3vZr7Jw2mBfN.tLc5-YdHs_Gp9Ea4"
DISGUISES = (
    "https://user:{}@login.example/",
    "https://{}@login.example",
    "http://user:{}@proxy.example:3128",
    "user:{}@proxy.example:3128",
    "https://api.example/v1?key={}",
    "https://api.example/v1#{}",
    "password={}",
    "AccountEndpoint=https://x;AccountKey={}",
    "Bearer {}",
    "{}\n",
)
"""Values that hold a secret beside what may be shown."""


def texts_of(load: Callable[[], Loaded]) -> str:
    """Return all that is said of a configuration: faults, or warnings."""
    try:
        return " ".join(map(str, load().warnings))
    except ConfigError as error:
        return str(error) + repr(error)


@given(st.sampled_from(PLACES), st.sampled_from(DISGUISES), CANARIES, st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_fault_repeats_a_secret_of_any_value(
    tmp_path: Path, place: tuple[str | int, ...], disguise: str, canary: str, as_key: bool
) -> None:
    """Whichever value of the configuration holds it, or has it for a key."""
    text = disguise.format(canary)
    file = tmp_path / "authz.yaml"
    file.write_text(json.dumps(put(place, {text: text} if as_key else text)))

    assert canary not in texts_of(lambda: load(file, ENVIRON))


@pytest.mark.parametrize("as_key", [False, True])
def test_no_fault_repeats_what_a_machine_made_up(tmp_path: Path, as_key: bool) -> None:
    """A client secret in the place of any other value, or of a key."""
    file = tmp_path / "authz.yaml"
    for place in PLACES:
        value = {MACHINE_MADE: MACHINE_MADE} if as_key else MACHINE_MADE
        file.write_text(json.dumps(put(place, value)))
        said = texts_of(lambda: load(file, ENVIRON))
        # A name and the path of a file may be anything; what is accepted is in no fault.
        assert MACHINE_MADE not in said, place


@given(names, st.sampled_from(DISGUISES), CANARIES)
@example("AzureAd__Scopes", "{}\n", 'hunter2"horse')
def test_no_fault_repeats_a_secret_of_any_variable(name: str, disguise: str, canary: str) -> None:
    """The environment form: the keys of the sidecar, each with everything else in order."""
    found = {**SEED, name: disguise.format(canary)}

    assert canary not in texts_of(lambda: load(None, found))
