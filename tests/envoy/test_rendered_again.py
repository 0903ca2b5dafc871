"""`authz envoy --like`: an Envoy configuration is rendered again, with the options that it names."""

import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

import authz
from support.programs import program

CONFIG = "egress: {orders: {flow: none, tunnel: false, hosts: [%s]}}\n"
OPTIONS = (
    *("--statistics", "127.0.0.1:9903"),
    *("--health-path", "/ready to serve", "--health-path", "/it's"),
    *("--authz-timeout", "2.5", "--no-ipv6", "--websockets", "inbound"),
    *("--upstream-ca", "/etc/authorities.pem"),
)
"""Of each kind: with a value, repeated, with a number, without a value, of a choice, a path of Envoy's."""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what is rendered of a configuration, with options of each kind."""
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "authz.yaml").write_text(CONFIG % "orders.example")
    return run(folder, "envoy", "--config", "authz.yaml", *OPTIONS).stdout


@pytest.fixture
def folder(tmp_path: Path, rendered: str) -> Path:
    """Return a folder with a configuration, and what was rendered of it before a host was added."""
    (tmp_path / "envoy.yaml").write_text(rendered)
    (tmp_path / "authz.yaml").write_text(CONFIG % "orders.example, stock.example")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder: relative paths count from there."""
    return program.run(*arguments, folder=folder)


def command_of(text: str) -> list[str]:
    """Return the words of the command in the second line."""
    return shlex.split(text.splitlines()[1].removeprefix("#"))


def test_options_of_the_file_count_again(folder: Path) -> None:
    """As if each had been written again; also in a third turn, with the file in its own place."""
    written = run(folder, "envoy", "authz.yaml", *OPTIONS)

    again = run(folder, "envoy", "authz.yaml", "--like", "envoy.yaml")
    placed = run(folder, "envoy", "authz.yaml", "--like", "envoy.yaml", "--output", "envoy.yaml")
    third = run(folder, "envoy", "--like", "envoy.yaml")

    assert (0, "") == (again.returncode, again.stderr)
    assert "stock.example" in written.stdout
    assert written.stdout == again.stdout
    assert (0, "", "") == (placed.returncode, placed.stdout, placed.stderr)
    assert written.stdout == (folder / "envoy.yaml").read_text()
    assert written.stdout == third.stdout
    assert sorted(["authz.yaml", "envoy.yaml"]) == sorted(one.name for one in folder.iterdir())


def test_an_option_of_the_call_counts_before_the_files(folder: Path) -> None:
    """It replaces that one, and every value of it; the next rendering has it."""
    more = ("--statistics", "127.0.0.1:9904", "--health-path", "/up", "--config", "authz.yaml")

    again = run(folder, "envoy", "--like", "envoy.yaml", *more)
    words = command_of(again.stdout)

    assert (0, "") == (again.returncode, again.stderr)
    assert "port_value: 9904" in again.stdout
    assert "port_value: 9903" not in again.stdout
    assert ["/up"] == [after for word, after in pairwise(words) if word == "--health-path"]
    assert "--like" not in words
    assert 1 == words.count("authz.yaml")


def test_the_configuration_is_named_relative_to_the_folder_of_the_command(folder: Path) -> None:
    """Where it is below it. What is rendered is kept in a repository, and others read it elsewhere."""
    below = run(folder, "envoy", str(folder / "authz.yaml"))
    beside = run(folder.parent / "..", "envoy", str(folder / "authz.yaml"))

    assert ["authz", "envoy", "authz.yaml"] == command_of(below.stdout)
    assert str(folder.parent) not in below.stdout
    assert f"{folder.name}/authz.yaml" in command_of(beside.stdout)[2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "is empty: a shell empties the file that `>` names"),
        ("static_resources: {}\n", "its second line does not name the command"),
        ("# A remark.\n# authz envoy authz.yaml\n", "its second line does not name the command"),
        (
            "# Envoy's configuration, rendered by authz 9.0.0 and not written by hand.\n#  authz envoy --new 1\n",
            "line 2: No such option '--new'",
        ),
    ],
)
def test_a_file_without_such_a_command_is_an_error(
    folder: Path, text: str | None, complaint: str
) -> None:
    """Nothing is rendered then, with other options than somebody chose; and nothing is overwritten."""
    output = folder / "result.yaml"
    output.write_text("kept")
    if text is not None:
        (folder / "like.yaml").write_text(text)

    result = run(folder, "envoy", "authz.yaml", "--like", "like.yaml", "--output", "result.yaml")

    assert (1, "") == (result.returncode, result.stdout)
    assert f"like.yaml: {complaint}" in result.stderr
    assert "kept" == output.read_text()


def test_check_config_says_which_version_rendered_the_pair(folder: Path) -> None:
    """If it is another one: the template may have changed, and the mark does not tell."""
    file = folder / "envoy.yaml"
    run(folder, "envoy", "--like", "envoy.yaml", "--output", "envoy.yaml")
    same = run(folder, "check-config", "authz.yaml", "--envoy", "envoy.yaml")
    file.write_text(file.read_text().replace(f"by authz {authz.__version__} ", "by authz 0.0.9 "))
    older = run(folder, "check-config", "authz.yaml", "--envoy", "envoy.yaml")

    assert (0, "") == (same.returncode, same.stderr)
    assert 0 == older.returncode
    assert (
        f"warning: envoy.yaml was rendered by authz 0.0.9, and this is {authz.__version__}: render it again"
        in older.stderr
    )
