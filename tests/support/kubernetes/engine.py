"""`Engine`: container images built and run by buildah and podman, in a store of their own, without a daemon.

No registry is asked for an image: a base image is made here, of Debian's packages, under the public name.
What runs in the containers is the test's business.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Final

TOOLS: Final = ("buildah", "podman", "runc", "debootstrap", "ip")
ROOTFS_VARIABLE: Final = "AUTHZ_TEST_ROOTFS"
"""Names a tar file of a root file system, to save the minute that `debootstrap` takes."""

_PACKAGES: Final = "python3,python3-pip,python3-venv,ca-certificates"
_REGISTRIES: Final = 'short-name-mode = "disabled"\nunqualified-search-registries = []\n'
# The default limits and runtime need rights that a build machine's root may lack.
_CONTAINERS: Final = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
"""
_SETTINGS: Final = ("CONTAINERS_CONF", "CONTAINERS_REGISTRIES_CONF")
_REMOVED_WITHIN: Final = 30.0
_CA_IN_BUILD: Final = "/etc/ssl/certs/build-machine.pem"


def missing() -> str | None:
    """Return why there can be no engine here; None if there can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return (
        None if os.geteuid() == 0 else "only root can make containers and network namespaces here"
    )


class Engine:
    """Builds and runs images.

    Args:
        folder: Where everything is kept; to be removed when the containers are gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "registries.conf").write_text(_REGISTRIES)
        (folder / "containers.conf").write_text(_CONTAINERS)

    def make_base(self, name: str) -> None:
        """Make an image of Debian's Python and give it the name of a public one."""
        context = self.folder / "base"
        context.mkdir()
        archive = context / "rootfs.tar"
        given = os.environ.get(ROOTFS_VARIABLE)
        if given is not None:
            shutil.copy(given, archive)
        else:
            root = self.folder / "rootfs"
            mirrors = _checked(["apt-get", "indextargets", "--format", "$(SITE)"]).splitlines()
            include = f"--include={_PACKAGES}"
            _checked(["debootstrap", "--variant=minbase", include, "bookworm", root, *mirrors[:1]])
            _checked(["tar", "-C", root, "--numeric-owner", "-cf", archive, "."])
            shutil.rmtree(root)
        self.build(context, name, "FROM scratch\nADD rootfs.tar /\n")

    def build(self, context: Path, name: str, dockerfile: str | Path, **arguments: str) -> None:
        """Build an image; what it installs comes through the machine's own package settings."""
        if isinstance(dockerfile, str):
            (context / "Dockerfile").write_text(dockerfile)
            dockerfile = context / "Dockerfile"
        options = ["--isolation", "chroot", "--network", "host", "--pull-never"]
        self._tool(
            "buildah",
            "bud",
            *options,
            *self._package_settings(),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            "--file",
            dockerfile,
            "--tag",
            name,
            context,
        )

    def _package_settings(self) -> list[str]:
        """Mounts that let pip work behind a private authority; their content stays out of the image."""
        authority = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        settings = {
            "cert": _CA_IN_BUILD if authority else None,
            "index-url": os.environ.get("PIP_INDEX_URL"),
        }
        lines = [f"{key} = {value}\n" for key, value in settings.items() if value]
        file = self.folder / "pip.conf"
        file.write_text("".join(["[global]\n", *lines]))
        mounts = [f"{file}:/etc/pip.conf:ro"]
        if authority:
            mounts.append(f"{authority}:{_CA_IN_BUILD}:ro")
        return [part for mount in mounts for part in ("--volume", mount)]

    def podman(self, *arguments: str | Path, namespace: str | None = None) -> str:
        """Run podman and return its output.

        In a network namespace, what shares the host's network shares that one instead.

        Raises:
            RuntimeError: It failed.
        """
        return _checked(self._podman(arguments, namespace), self._environ)

    def attempt(
        self, *arguments: str | Path, namespace: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run podman, and leave it to the caller whether it failed."""
        return subprocess.run(
            self._podman(arguments, namespace),
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def command(self, *arguments: str | Path, namespace: str | None = None) -> list[str]:
        """Return a command line of podman, for a program that runs it itself."""
        settings = [f"{name}={self._environ[name]}" for name in _SETTINGS]
        return ["env", *settings, *map(str, self._podman(arguments, namespace))]

    def _podman(self, arguments: tuple[str | Path, ...], namespace: str | None) -> list[str | Path]:
        enter = [] if namespace is None else ["nsenter", f"--net=/run/netns/{namespace}"]
        return [*enter, *self._command("podman", *arguments)]

    def inspect(self, image: str) -> Mapping[str, Any]:
        """Return what the image says of itself."""
        (found,) = json.loads(self.podman("image", "inspect", image))
        config: Mapping[str, Any] = found["Config"]
        return config

    def close(self) -> None:
        """Remove every container of this store, and the store."""
        self.attempt("rm", "--force", "--all", "--time", "0")
        # podman mounts its store's folder onto itself and leaves it so, and what cleans up behind a
        # container does it once more, a moment after the container is gone.
        deadline = monotonic() + _REMOVED_WITHIN
        while True:
            for mount in sorted(self._mounts(), reverse=True):
                subprocess.run(["umount", mount], capture_output=True, check=False)
            try:
                shutil.rmtree(self.folder)
            except OSError:
                if monotonic() > deadline:
                    raise
            else:
                return

    def _mounts(self) -> list[Path]:
        """Return the mount points below this store's folder."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = [Path(line.split()[4]) for line in lines]
        return [point for point in points if self.folder in point.parents]

    def _command(self, tool: str, *arguments: str | Path) -> list[str | Path]:
        stores: list[str | Path] = [
            "--root",
            self.folder / "store",
            "--runroot",
            self.folder / "run",
        ]
        return [tool, *stores, "--storage-driver", "overlay", *arguments]

    def _tool(self, tool: str, *arguments: str | Path) -> str:
        return _checked(self._command(tool, *arguments), self._environ)

    @property
    def _environ(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
        }


def _checked(command: list[str | Path], environ: Mapping[str, str] | None = None) -> str:
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if result.returncode:
        # A build says on standard output what went wrong.
        raise RuntimeError(
            f"{command[0]} failed:\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
        )
    return result.stdout
