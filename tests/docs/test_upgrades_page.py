"""The units of docs/upgrades.md are units as systemd reads them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs/upgrades.md").read_text("utf-8")
UNITS: Final = dict(
    re.findall(
        r"^`/etc/systemd/system/(\S+)`:\n\n```ini\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
)


def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    """With programs and users that are on any machine in place of the page's."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: the units are not checked")
    for name, unit in UNITS.items():
        text = re.sub(r"/usr/local/bin/\w+", "/bin/true", unit)
        by_root = re.sub(r"^User=.*$", "User=root", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(
            by_root.replace("SupplementaryGroups=authz", "SupplementaryGroups=root")
        )

    checked = subprocess.run(
        [program, "verify", "--man=no", *(tmp_path / name for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )

    assert {"authz.service", "envoy.service"} == UNITS.keys()
    found = [
        line
        for line in checked.stderr.splitlines()
        if str(tmp_path) in line or "authz.service" in line or "envoy.service" in line
    ]
    assert (0, []) == (checked.returncode, found)
