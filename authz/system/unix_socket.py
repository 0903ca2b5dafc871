"""`SocketPath`: the place of a Unix socket. It is taken from nobody, and only its owner gives it up.

A socket is bound under a private name beside the path and then renamed, so that there is never a moment
without one, nor one with wrong permissions. Who listens, and how, is the servers' business.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Final

from authz.core.address import LONGEST_PATH

_PATIENCE: Final = 1.0
"""Seconds to wait for another process that is just taking a place in the same folder."""
_ANSWER: Final = 1.0


class PathTaken(OSError):
    """The path cannot be had; the message says why."""


class Place(Enum):
    """What is at the path."""

    OURS = "ours"
    FREE = "free"
    """Nothing, or a socket that nobody listens on."""
    TAKEN = "taken"
    """A socket of another process, or something else."""


class SocketPath:
    """The path of one Unix socket.

    Args:
        path: The path.
        mode: Permissions; None leaves them.
        group: Group that owns the socket, by name or number; None leaves it.
    """

    def __init__(self, path: Path, *, mode: int | None = None, group: str | None = None) -> None:
        self.path = path
        self._mode = mode
        self._group = group
        self._inode: tuple[int, int] | None = None

    def listen(self, backlog: int) -> socket.socket:
        """Return a socket that listens at the path.

        Raises:
            OSError: It cannot be had, or another process has it (`PathTaken`).
        """
        listener = socket.socket(socket.AF_UNIX)
        try:
            private = self.private_name()
            listener.bind(str(private))
            # Nobody can connect until it listens, and the umask may be any.
            self._permit(private)
            listener.listen(backlog)
            self._place(private)
        except OSError:
            listener.close()
            raise
        return listener

    def private_name(self) -> Path:
        """Return a name beside the path to bind the socket at; make the folder if there is none.

        Raises:
            OSError: The folder cannot be made, or another process has the path (`PathTaken`).
        """
        self._refuse_others()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name = self.path.with_name(f".{secrets.token_hex(4)}")
        if len(os.fsencode(name)) > LONGEST_PATH:
            raise PathTaken(f"the path of its folder is too long: {self.path.parent}")
        return name

    def publish(self, private: Path) -> None:
        """Put the socket that was bound at its private name in its place.

        Raises:
            OSError: Permissions cannot be set, or another process has the path (`PathTaken`).
        """
        self._permit(private)
        self._place(private)

    def _permit(self, private: Path) -> None:
        try:
            if self._group is not None:
                self._give_to(private, self._group)
            if self._mode is not None:
                private.chmod(self._mode)
        except OSError:
            private.unlink(missing_ok=True)
            raise

    def _place(self, private: Path) -> None:
        try:
            with _alone_in(self.path.parent):
                self._refuse_others()
                found = private.stat()
                private.rename(self.path)
        except OSError:
            private.unlink(missing_ok=True)
            raise
        # It is not used again while the socket is open.
        self._inode = (found.st_dev, found.st_ino)

    def place(self) -> Place:
        """Return what is at the path."""
        try:
            found = self.path.stat()
        except OSError:
            # Also where its folder is none any more, or a loop of links: binding there then says so.
            return Place.FREE
        if (found.st_dev, found.st_ino) == self._inode:
            return Place.OURS
        if not stat.S_ISSOCK(found.st_mode) or _is_served(self.path):
            return Place.TAKEN
        return Place.FREE

    def remove(self) -> None:
        """Remove our own socket, and nobody else's."""
        with contextlib.suppress(OSError):
            if self.place() is Place.OURS:
                self.path.unlink()

    def _refuse_others(self) -> None:
        if self.place() is Place.TAKEN:
            served = self.path.is_socket()
            raise PathTaken(
                "another process serves there" if served else "the path exists and is no socket"
            )

    @staticmethod
    def _give_to(file: Path, group: str) -> None:
        try:
            # A number need not be known to the system by a name, least of all in a container.
            shutil.chown(file, group=int(group) if group.isdigit() else group)
        except (LookupError, OSError) as error:
            raise PathTaken(f"it cannot be given to group {group!r}: {error}") from error


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_ANSWER)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # Busy, or not for us to open: it is somebody's.
            return True
    return True


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let no other process take a place in the folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise PathTaken(f"another process keeps {folder} locked") from None
                os.sched_yield()
        yield
    finally:
        os.close(descriptor)
