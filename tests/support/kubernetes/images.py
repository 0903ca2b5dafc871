"""The images that the tests run pods of: this project's own, and a stand-in of Envoy's.

How an image is built is in `engine`.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import authz
from support.kubernetes.engine import Engine
from support.kubernetes.manifests import KUBERNETES, ROOT, render
from support.proxy.envoy import envoy_binary

AUTHZ: Final = f"localhost/entra-authz:{authz.__version__}"
DEVELOPMENT: Final = f"localhost/entra-authz-development:{authz.__version__}"
"""The one that has the emulator and the demo's programs as well."""
INTERCEPT: Final = "localhost/intercept:1"
"""That of `components/interception`."""
SANDBOX: Final = "localhost/sandbox:1"
"""What holds a pod's namespaces."""


def base_image() -> str:
    """Return the public name of the Dockerfile's base image."""
    return _base_of(ROOT / "Dockerfile")


def envoy_image() -> str:
    """Return the public name of Envoy's image."""
    name: str = render(KUBERNETES / "client-secret-file").containers["envoy"].spec["image"]
    return name


def build_images(engine: Engine) -> None:
    """Build the stand-in of the base image, authz's on top of it, and the stand-in of Envoy's."""
    base = base_image()
    engine.make_base(base)
    engine.build(ROOT, AUTHZ, ROOT / "Dockerfile")
    _build_envoy(engine, base)


def build_development_image(engine: Engine) -> None:
    """Build the image of kubernetes/kind, as its script has docker do it."""
    engine.build(ROOT, DEVELOPMENT, ROOT / "Dockerfile", REQUIREMENTS="development")


def build_intercept_image(engine: Engine) -> None:
    """Build the image of the component that redirects connections, on a stand-in of its base."""
    folder = KUBERNETES / "components/interception"
    engine.podman("tag", base_image(), _base_of(folder / "Dockerfile"))
    engine.build(folder, INTERCEPT, folder / "Dockerfile")


def build_sandbox_image(engine: Engine) -> None:
    """Build a stand-in of the image that containerd starts first in each pod."""
    (context := engine.folder / "sandbox").mkdir()
    engine.build(context, SANDBOX, f'FROM {base_image()}\nENTRYPOINT ["sleep", "infinity"]\n')


def curl_image() -> str:
    """Return the public name of the image with curl that the Entra SDK sidecar's demo has."""
    name: str = render(KUBERNETES / "client-secret").containers["app"].spec["image"]
    return name


def build_curl_image(engine: Engine) -> None:
    """Build a stand-in of it: this machine's curl and sleep, with the libraries that they load."""
    (context := engine.folder / "curl").mkdir()
    programs = [Path(str(shutil.which(name))).resolve() for name in ("curl", "sleep")]
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    libraries = {Path(path) for path in re.findall(r"(/\S+) \(0x", listed)}
    for file in (*programs, *libraries):
        target = context / "root" / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    engine.build(context, curl_image(), "FROM scratch\nCOPY root /\nENV PATH=/usr/bin:/bin\n")


def _base_of(dockerfile: Path) -> str:
    named = re.search(r"^ARG BASE=(\S+)$", dockerfile.read_text(), re.MULTILINE)
    assert named is not None
    return named[1]


def _build_envoy(engine: Engine, base: str) -> None:
    """Make a stand-in of Envoy's image, of the pinned binary; like it, without arguments of its own."""
    (context := engine.folder / "envoy").mkdir()
    package = envoy_binary().parents[1] / "lib"
    (binary,) = package.glob("python3.*/site-packages/envoy/_bin/envoy")
    shutil.copy(binary, context / "envoy")
    name = envoy_image()
    text = f'FROM {base}\nCOPY envoy /usr/local/bin/envoy\nENTRYPOINT ["/usr/local/bin/envoy"]\n'
    engine.build(context, name, text)
