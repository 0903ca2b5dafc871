"""Generate `authz/_pb/` from `protos/`, or check that it is up to date (`--check`)."""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("authz", "_pb")
INIT = '"""Generated from protos/ by `make protos`. Never edited."""\n'


def generate(out: Path) -> None:
    """Run protoc over every file of `protos/` into `out`."""
    sources = sorted(
        str(path.relative_to(ROOT / "protos")) for path in ROOT.glob("protos/**/*.proto")
    )
    well_known = files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", f"--python_out={out}"]
    status = protoc.main([*arguments, f"--pyi_out={out}", *sources])
    if status:
        sys.exit(f"protoc failed with status {status}")
    (out / PACKAGE / "__init__.py").write_text(INIT)


def main() -> int:
    """Generate, or compare what is there with what would be generated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 on a difference"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {path.name: path.read_text() for path in Path(scratch, PACKAGE).glob("*.py*")}
    target = ROOT / PACKAGE
    present = {path.name: path.read_text() for path in target.glob("*.py*")}
    if options.check:
        stale = sorted(name for name in {*fresh, *present} if fresh.get(name) != present.get(name))
        for name in stale:
            print(f"{PACKAGE / name} differs from what protos/ generates: run `make protos`")
        return 1 if stale else 0
    target.mkdir(exist_ok=True)
    for name in present.keys() - fresh.keys():
        (target / name).unlink()
    for name, text in fresh.items():
        (target / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
