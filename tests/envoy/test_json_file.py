"""`authz envoy --output FILE.json`: the same configuration as JSON, which Envoy reads faster."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import authz
from authz.config.rendered import MARK
from support.programs import program
from support.programs.stack import Process, World, until
from support.proxy.envoy import EnvoyProcess, validate

BASE = Path(__file__).parents[2] / "kubernetes" / "base" / "authz.yaml"
HEAD = "authz.rendered_by"
ODD = ("--health-path", '/it\'s "ready" \\ ü {}', "--health-path", "/${HOME}: *a #b")
"""Options that JSON, YAML or a shell takes for something else than text, if they are not quoted."""
NEWER = [
    "Envoy's configuration, rendered by authz 9.0.0 and not written by hand.",
    "authz envoy --new 1",
]
WITH_NUL = [NEWER[0], "authz envoy --upstream-ca /a\0b"]
WITHOUT_TOKEN = "egress: {orders: {flow: none, tunnel: false, hosts: [orders.example]}}\n"
PUSHED = """
applications:
  a:
    tenant_id: 11111111-0000-4000-8000-000000000001
    client_id: 11111111-0000-4000-8000-000000000002
    credentials: [{client_secret: {file: /run/secret}}]
egress:
  orders: {flow: app, application: a, scopes: [api://orders/.default], hosts: [orders.example]}
"""
HTTPS = f"https: {{ca_file: /ca.pem, bundle_file: /bundle.pem, key_file: /ca.key}}\n{PUSHED}"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a configuration, and what was rendered of it in both forms."""
    folder = tmp_path_factory.mktemp("rendered")
    shutil.copy(BASE, folder / "authz.yaml")
    for name in ("envoy.yaml", "envoy.json"):
        done = render(folder, "authz.yaml", *ODD, "--output", name)
        assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    return folder


@pytest.fixture
def folder(rendered: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder."""
    return Path(shutil.copytree(rendered, tmp_path, dirs_exist_ok=True))


def render(folder: Path, *arguments: str) -> Any:
    """Run the program in a folder, without values of variables."""
    return program.run("envoy", "--no-values", *arguments, folder=folder)


def read(file: Path) -> dict[str, Any]:
    """Return a JSON file's content."""
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found


def without_head(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what YAML has as comments; a node that has nothing else is none."""
    node = document["node"]
    del node["metadata"][HEAD]
    return {key: value for key, value in document.items() if value != {"metadata": {}}}


@pytest.mark.parametrize(
    "config", [WITHOUT_TOKEN, PUSHED, HTTPS], ids=["without_token", "pushed", "https"]
)
def test_both_forms_say_the_same_and_envoy_accepts_it(tmp_path: Path, config: str) -> None:
    """With a node and without one, and with filters that YAML has once and JSON in each chain."""
    (tmp_path / "authz.yaml").write_text(config)
    printed = render(tmp_path, "authz.yaml", *ODD)
    written = render(tmp_path, "authz.yaml", *ODD, "--output", "envoy.json")
    text = (tmp_path / "envoy.json").read_text("utf-8")

    assert (0, "", "") == (written.returncode, written.stdout, written.stderr)
    assert yaml.safe_load(printed.stdout) == without_head(json.loads(text))
    done = validate(text, tmp_path, name="envoy.json")
    assert (0, "") == (done.returncode, done.stderr)


def test_json_begins_with_the_lines_that_yaml_has_as_comments(folder: Path) -> None:
    """In UTF-8: an editor or a pager shows them."""
    comments = [
        line.removeprefix("#").strip()
        for line in (folder / "envoy.yaml").read_text("utf-8").splitlines()[:3]
    ]
    text = (folder / "envoy.json").read_text("utf-8")

    assert comments == read(folder / "envoy.json")["node"]["metadata"][HEAD]
    assert text.startswith('{"node":{"metadata":{"authz.rendered_by":["Envoy\'s configuration')
    assert "ü" in text.partition("static_resources")[0]


@pytest.mark.parametrize("earlier", ["envoy.yaml", "envoy.json"])
@pytest.mark.parametrize("later", ["envoy.yaml", "envoy.json"])
def test_options_count_again_from_either_form_in_either_form(
    folder: Path, earlier: str, later: str
) -> None:
    """Also in the file's own place."""
    before = (folder / later).read_bytes()

    done = render(folder, "--like", earlier, "--output", later)

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert before == (folder / later).read_bytes()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty: a shell empties the file that `>` names"),
        ('{"node": {\n"metadata": ', "is no valid JSON in line 2, column"),
        ("# Envoy's configuration", "is no valid JSON in line 1, column 1"),
        ('{"node": "\udcff"}', "is no valid JSON in line 1"),
        ("[" * 2000, "is no valid JSON in line 1"),
        ("[]", "is no configuration of Envoy: expected static_resources"),
        ('{"static_resources": {}}', f"{HEAD} of its node's metadata does not name the command"),
        (
            json.dumps({"static_resources": {}, "node": {"metadata": {HEAD: [1, {}]}}}),
            f"{HEAD} of its node's metadata does not name the command",
        ),
        (
            json.dumps({"static_resources": {}, "node": {"metadata": {HEAD: NEWER}}}),
            f"{HEAD}: No such option '--new'",
        ),
        (
            json.dumps({"static_resources": {}, "node": {"metadata": {HEAD: WITH_NUL}}}),
            f"{HEAD}: Invalid value for '--upstream-ca': found '/a\\x00b': expected a path in UTF-8",
        ),
    ],
)
def test_a_json_file_without_such_a_command_is_an_error(
    folder: Path, text: str, complaint: str
) -> None:
    """Nothing is rendered then."""
    (folder / "like.json").write_text(text, "utf-8", "surrogateescape")

    done = render(folder, "authz.yaml", "--like", "like.json")

    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(f"Error: like.json: {complaint}")


@pytest.mark.parametrize("name", ["\udcff.pem", ""])
def test_a_path_that_no_configuration_can_have_is_refused(folder: Path, name: str) -> None:
    """Envoy's paths are text, so one with other bytes could not be written down."""
    done = render(folder, "authz.yaml", "--upstream-ca", name)

    assert (2, "") == (done.returncode, done.stdout)
    expected = f"Invalid value for '--upstream-ca': found {name!r}: expected a path in UTF-8"
    assert expected in done.stderr


def test_check_config_compares_a_json_file(folder: Path) -> None:
    """Matched, with a warning where another version rendered it; outdated, with the hosts; and no JSON."""

    def check() -> Any:
        command = ("check-config", "--no-values", "authz.yaml", "--envoy", "envoy.json")
        return program.run(*command, folder=folder)

    config, envoy = folder / "authz.yaml", folder / "envoy.json"
    matched = check()
    envoy.write_text(envoy.read_text().replace(f"by authz {authz.__version__} ", "by authz 0.0.9 "))
    older = check()
    config.write_text(config.read_text().replace("graph.microsoft.com]", "api.example]"))
    outdated = check()
    envoy.write_text(envoy.read_text()[:-10])
    cut = check()

    assert (0, "") == (matched.returncode, matched.stderr)
    assert "envoy.json was rendered from it" in matched.stdout
    assert 0 == older.returncode
    assert older.stderr.startswith("warning: envoy.json was rendered by authz 0.0.9")
    assert 1 == outdated.returncode
    assert "it lacks the host api.example" in outdated.stderr
    assert 2 == cut.returncode
    assert cut.stderr.startswith("authz: envoy.json: is no valid JSON in line 1, column ")
    assert 1 == len(cut.stderr.splitlines())


async def test_an_envoy_that_was_started_from_json_says_its_mark(
    world: World, tmp_path: Path
) -> None:
    """When it asks for tokens: the metadata of its node has the mark beside the lines."""
    document = world.config()
    routes = document["egress"]
    document["egress"] = {"orders": {**routes["autonomous"], "hosts": ["192.0.2.1"]}}
    document["inbound"] = {}
    file, rendered = tmp_path / "authz.yaml", tmp_path / "envoy.json"
    file.write_text(json.dumps(document))
    ports = ("--egress", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    done = program.run("envoy", file, *ports, "--output", rendered)
    metadata = read(rendered)["node"]["metadata"]

    assert (0, "") == (done.returncode, done.stderr)
    assert {HEAD, MARK} == metadata.keys()
    with Process("serve", "--config", str(file)) as process:
        process.wait_ready()
        with EnvoyProcess(rendered.read_text("utf-8")):
            await until(lambda: process.admin("/status").json()["envoy"]["heard"])

            (heard,) = process.admin("/status").json()["envoy"]["heard"]
            assert (metadata[MARK], "matched") == (heard["rendered_from"], heard["match"])
