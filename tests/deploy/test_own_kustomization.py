"""The kustomization that docs/kubernetes.md shows: it builds, with routes of one's own in it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from support.kubernetes.manifests import KUBERNETES
from support.programs import program

PAGES: Final = sorted((KUBERNETES.parent / "docs").glob("*.md"))
TEXT: Final = "\n".join(page.read_text("utf-8") for page in PAGES)
BLOCKS: Final = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
(OWN,) = (block for block in BLOCKS if "name: agent-identity" in block and "newTag" in block)
(PATCH,) = (block for block in BLOCKS if "path: /spec/egress/-" in block)


def built(folder: Path, kubectl: str, text: str) -> list[dict[str, Any]]:
    """Return the objects that a kustomization makes."""
    (folder / "kustomization.yaml").write_text(text)
    made = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert (0, "") == (made.returncode, made.stderr)
    return list(yaml.safe_load_all(made.stdout))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a configuration with its own host, what is rendered of it, and the overlays."""
    shutil.copytree(KUBERNETES, tmp_path / "path/to/kubernetes")
    base = (KUBERNETES / "base/authz.yaml").read_text()
    (tmp_path / "authz.yaml").write_text(base.replace("graph.microsoft.com]", "api.example]"))
    made = program.run(
        *("envoy", "--no-values", "--config", tmp_path / "authz.yaml"),
        *("--statistics", "0.0.0.0:9903", "--output", tmp_path / "envoy.yaml"),
    )
    assert (0, "") == (made.returncode, made.stderr)
    return tmp_path


def test_it_builds_with_routes_of_its_own(folder: Path, kubectl: str) -> None:
    """Both files of the pods are those beside the kustomization, and nothing is left of the base's."""
    objects = built(folder, kubectl, OWN)
    (pod,) = (each["spec"]["template"] for each in objects if each["kind"] == "Deployment")
    mounted = [
        volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume
    ]
    data = {
        each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"
    }
    files = {name: text for key in mounted for name, text in data[key].items()}

    assert {name: (folder / name).read_text() for name in ("authz.yaml", "envoy.yaml")} == files
    assert "registry.example/agent:1.0.0" in {
        container["image"] for container in pod["spec"]["containers"]
    }
    assert {"agents"} == {each["metadata"]["namespace"] for each in objects}


def test_its_patch_opens_the_networkpolicy_for_one_more_destination(
    folder: Path, kubectl: str
) -> None:
    """One rule more, and the base's stay."""
    rules = []
    for text in (OWN, OWN + PATCH):
        objects = built(folder, kubectl, text)
        (policy,) = (each for each in objects if each["kind"] == "NetworkPolicy")
        rules.append(policy["spec"]["egress"])

    assert rules[0] == rules[1][:-1]
    assert [{"port": 8000, "protocol": "TCP"}] == rules[1][-1]["ports"]
