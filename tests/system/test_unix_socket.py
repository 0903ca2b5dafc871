"""The place of a Unix socket: who can connect, and when."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Final

_PROGRAM: Final = """
import os, socket, sys
from pathlib import Path
from authz.system.unix_socket import SocketPath

def connect(event, arguments):
    if event == "os.chmod":
        with socket.socket(socket.AF_UNIX) as probe:
            print(probe.connect_ex(os.fspath(arguments[0])))

os.umask(0)
sys.addaudithook(connect)
listener = SocketPath(Path(sys.argv[1]), mode=0o600).listen(1)
print(oct(os.stat(sys.argv[1]).st_mode & 0o777))
"""


def test_nobody_connects_before_the_permissions_are_set(tmp_path: Path) -> None:
    """Whatever the umask is: until then the socket does not listen."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "a.sock")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert [str(errno.ECONNREFUSED), "0o600"] == done.stdout.split()
