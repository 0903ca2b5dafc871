"""docs/entra.md is run as it stands, and what it makes works: a blueprint, an agent, its permissions."""

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import jwt
import pytest

from authz_dev.emulator import Emulator
from authz_dev.emulator.entities import FederatedCredential
from emulator.scene import GRAPH, Scene, trusting

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/entra.md"
SUBJECT: Final = "system:serviceaccount:agent:agent"
ISSUER: Final = "https://oidc.example/cluster"


BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def shell(scene: Scene, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run lines as they are, in a folder with the files that they read and write."""
    for program in ("curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"the page is not run: {program} is not installed")
    return subprocess.run(
        ["sh"],
        input=text,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "CURL_CA_BUNDLE": str(scene.emulator.ca_file)},
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def permissions() -> tuple[str, ...]:
    """Return the permissions that the page says the administrator's token needs."""
    named = PAGE.read_text().partition("\nPut it as")[0]
    return tuple(re.findall(r"`([A-Z][A-Za-z]+(?:\.[A-Za-z]+)+)`", named))


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """An emulator that the page's commands change."""
    with Emulator() as emulator, trusting(emulator) as session:
        yield Scene(emulator, session)


@pytest.fixture(scope="module")
def made(
    scene: Scene, permissions: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Run every block of the page in one shell; return what it printed last, and the secret."""
    folder = tmp_path_factory.mktemp("entra")
    token = scene.user_token(audience="https://graph.microsoft.com", scopes=list(permissions))
    (folder / "graph-token").write_text(f"Authorization: Bearer {token}\n")
    inputs, *blocks = BLOCKS
    ours = inputs.replace("https://graph.microsoft.com", scene.emulator.authority)
    assert ours != inputs
    ran = shell(scene, folder, "\n".join(["set -eu", ours, *blocks]))
    assert (0, "") == (ran.returncode, ran.stderr), ran.stdout
    lines = dict(line.split("=") for line in ran.stdout.splitlines() if re.match(r"[A-Z_]+=", line))
    assert 0o600 == stat.S_IMODE((folder / "client-secret").stat().st_mode)
    return {**lines, "said": ran.stdout, "secret": (folder / "client-secret").read_text()}


def test_a_call_that_fails_stops_what_needs_it(scene: Scene, tmp_path: Path) -> None:
    """Entra's own words are shown, and nothing is made of the answer."""
    (tmp_path / "graph-token").write_text("Authorization: Bearer x\n")
    _, first, *_ = BLOCKS

    ran = shell(scene, tmp_path, f"GRAPH={scene.emulator.authority}\n{first}\necho the end")

    assert "GET v1.0/me: " in ran.stderr
    assert "InvalidAuthenticationToken" in ran.stderr
    assert "SPONSOR" in ran.stderr
    assert ("", True) == (ran.stdout, ran.returncode != 0)


def test_a_rehearsal_has_the_token_it_needs(
    scene: Scene, permissions: tuple[str, ...], tmp_path: Path
) -> None:
    """The lines that stand in for Graph's address and token, with the permissions that the page names."""
    scene.emulator.write(tmp_path / "entra")
    rehearsal = PAGE.read_text().partition("## Rehearsal")[2]
    _, lines, users, removal = re.findall(r"^```\n(.*?)^```$", rehearsal, re.MULTILINE | re.DOTALL)
    _, first, *_ = BLOCKS
    whole = '\necho "${TENANT_ID:?} ${CLIENT_ID:?}"'

    ran = shell(scene, tmp_path, lines + first + users + whole)

    assert (0, "") == (ran.returncode, ran.stderr)
    tenant_id, made = ran.stdout.splitlines()[-1].split()
    assert scene.emulator.directory.application(tenant_id, made) is not None
    user_token = (tmp_path / "user-token").read_text().removeprefix("Authorization: Bearer ")
    claims = jwt.decode(user_token.strip(), options={"verify_signature": False})
    assert (made, "access_agent", scene.users["alice"]["object_id"]) == (
        claims["aud"],
        claims["scp"],
        claims["oid"],
    )
    assert set(permissions) - {"AgentIdUser.ReadWrite.All"} == set(
        re.findall(r'"(\w+\.[\w.]+)"', lines)
    )
    assert 0o600 == stat.S_IMODE((tmp_path / "graph-token").stat().st_mode)
    (tmp_path / "client-secret").touch()
    shell(scene, tmp_path, removal)
    assert ["entra"] == [left.name for left in tmp_path.iterdir()]


def test_every_block_says_that_it_is_done(made: dict[str, str]) -> None:
    """A PATCH has no answer, and the secret goes into a file: both would look as if nothing had happened."""
    silent = [
        block
        for block in BLOCKS
        if ("graph PATCH" in block or "> client-secret" in block) and 'echo "' not in block[-90:]
    ]

    assert [] == silent
    assert 3 == sum(
        line.startswith(("the blueprint has", "the Azure CLI may", "the secret is"))
        for line in made["said"].splitlines()
    )


def test_the_page_sets_what_deploy_sh_reads_to_what_it_expects(made: dict[str, str]) -> None:
    """The tenant among it, which signs in the user too; a scope's id has a name that it does not read."""
    assert {"TENANT_ID", "CLIENT_ID", "AGENT_IDENTITY"} == made.keys() - {"secret", "said"}
    assert [] == re.findall(r"^SCOPE=", PAGE.read_text(), re.MULTILINE)


def test_what_it_makes_acts_for_a_user(scene: Scene, made: dict[str, str]) -> None:
    """A user's token for the new scope becomes a token of the new agent at Graph, for that user."""
    user = scene.user_token(audience=made["CLIENT_ID"], scopes=["access_agent"])
    t1 = scene.as_blueprint(
        client_id=made["CLIENT_ID"],
        client_secret=made["secret"],
        fmi_path=made["AGENT_IDENTITY"],
    ).json()["access_token"]

    answer = scene.on_behalf_of(user, client_id=made["AGENT_IDENTITY"], client_assertion=t1).json()

    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert (made["AGENT_IDENTITY"], scene.users["alice"]["object_id"], "User.Read") == (
        claims["appid"],
        claims["oid"],
        claims["scp"],
    )


def test_what_it_makes_acts_for_itself(scene: Scene, made: dict[str, str]) -> None:
    """App-only, with the role that the page assigns and no other."""
    t1 = scene.as_blueprint(
        client_id=made["CLIENT_ID"],
        client_secret=made["secret"],
        fmi_path=made["AGENT_IDENTITY"],
    ).json()["access_token"]

    answer = scene.as_agent(
        client_id=made["AGENT_IDENTITY"], client_assertion=t1, scope=GRAPH
    ).json()

    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert ["User.Read.All"] == claims["roles"]


def test_the_blueprint_trusts_the_service_account(scene: Scene, made: dict[str, str]) -> None:
    """Issuer, subject and audience as the page's inputs say."""
    blueprint = scene.emulator.directory.application(scene.tenant_id, made["CLIENT_ID"])

    assert blueprint is not None
    assert (FederatedCredential(ISSUER, SUBJECT),) == blueprint.federated_credentials
