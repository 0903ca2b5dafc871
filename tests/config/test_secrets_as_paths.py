"""A secret that somebody wrote in the place of its file or of its variable: no text may show it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.cli import main
from authz.config.shown import NO_PATH, NO_VARIABLE, shown_file, shown_variable
from config.samples import changed, faults_of, load_data

SECRET = "gK8~Q1aBcD-3efGhIjKlMnOpQrStUvWxYz012345"
SECRETS = (
    SECRET,
    "Summer2024",
    "a3F+/x9Qw==",
    "/a3F+x9QwZZ12/b",
    "hunter2",
    "p@ss/word!",
    "x" * 500,
)
IN_THE_PLACE_OF = {
    "client_secret": {"file": SECRET},
    "certificate": {"file": SECRET},
    "federated_token": {"file": SECRET},
}


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_no_path_is_not_shown(secret: str) -> None:
    """Words stand in its place."""
    assert NO_PATH == shown_file(secret)


@pytest.mark.parametrize(
    "path",
    [
        "/run/secrets/authz/client-secret",
        "/var/run/secrets/azure/tokens/azure-identity-token",
        "/var/lib/kubelet/pods/11111111-2222-3333-4444-555555555555/volumes/x/token",
        "/Users/Alice/agent 2/secret.txt",
        "/etc/authz/..2026_11_29_12_00_00.1234567890/ca.pem",
        "./ca.pem",
        "../secrets/client_secret",
        "secrets/client-secret",
    ],
)
def test_a_path_is_shown(path: str) -> None:
    """It leads to the mistake."""
    assert path == shown_file(path)


def test_a_folder_with_a_name_of_a_machine_is_left_out_of_a_path() -> None:
    """The rest of the path still leads to the file."""
    assert "/var/folders/zz/…/T/secret" == shown_file("/var/folders/zz/kT3xPq9LmZa7/T/secret")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CLIENT_SECRET", "$CLIENT_SECRET"),
        (
            "AzureAd__ClientCredentials__0__ClientSecret",
            "$AzureAd__ClientCredentials__0__ClientSecret",
        ),
        ("Summer2024", NO_VARIABLE),
        ("Qx7aBcD3efGhIjKlMnOp", NO_VARIABLE),
        (SECRET, NO_VARIABLE),
    ],
)
def test_the_name_of_a_variable_is_shown_unless_it_may_be_a_secret(
    name: str, expected: str
) -> None:
    """Letters of both cases with digits in one word are no usual name."""
    assert expected == shown_variable(name, sign="$")


@pytest.mark.parametrize(
    "changes",
    [{"blueprints.support.credentials": [{kind: body}]} for kind, body in IN_THE_PLACE_OF.items()]
    + [
        {"blueprints.support.credentials": [{"client_secret": {"env": "Summer2024"}}]},
        {
            "blueprints.support.credentials": [
                {"certificate": {"file": "/etc/c.pem", "password_file": SECRET}}
            ]
        },
        {"entra": {"ca_file": SECRET}},
        {"api": {"ca_file": SECRET}},
        {
            "listen.grpc": "127.0.0.1:0",
            "listen.tls": {
                "certificate_file": SECRET,
                "key_file": SECRET,
                "client_ca_file": SECRET,
            },
        },
        {
            "listen.grpc": "unix:/run/authz.sock",
            "https": {"ca_file": "/nowhere/" + SECRET, "key_file": "/nowhere/" + SECRET},
        },
    ],
    ids=str,
)
def test_check_config_names_the_key_and_not_the_secret(
    changes: dict[str, object], tmp_path: Path
) -> None:
    """The key says where to look; what is written there may be a secret."""
    file = tmp_path / "authz.yaml"
    config = load_data(changed(changes))
    file.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
    key = next(iter(key for key in changes if key != "listen.grpc"))

    output = CliRunner().invoke(main, ["check-config", "--prepare", str(file)]).output

    assert {(True, False, False)} == {
        (
            key in output and ("not shown" in output or "/nowhere/…" in output),
            SECRET in output,
            "Summer2024" in output,
        )
    }


@pytest.mark.parametrize(
    "scopes", [[SECRET], [SECRET, "User.Read"], [f"api://orders/{SECRET}", f"{SECRET}/Orders.Read"]]
)
def test_no_fault_of_scopes_shows_a_secret(scopes: list[str]) -> None:
    """Neither as a scope nor as a resource, of which an application's token takes one each."""
    changes = {"egress.graph.flow": "autonomous", "egress.graph.scopes": scopes}
    faults = faults_of(lambda: load_data(changed(changes)))

    assert faults
    assert SECRET[:20] not in repr(faults)
