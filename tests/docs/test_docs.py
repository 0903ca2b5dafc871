"""The documentation says what the code does: maps, tables and links are compared with it."""

import re
import subprocess
from pathlib import Path

import pytest

from authz.core.errors import Reason
from authz.doors.problem import FACES
from authz.entra.aadsts import MEANINGS
from support.kubernetes.monitoring import alerts

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 400
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "envoy").glob("*.md")),
]


def test_every_reason_has_a_heading_and_its_status() -> None:
    """docs/errors.md names each Reason, in the order of the code, with its HTTP status."""
    page = (ROOT / "docs/errors.md").read_text()
    headings = re.findall(r"^## (\w+)$\n\nHTTP (\d+)", page, re.MULTILINE)

    assert [(reason.value, str(FACES[reason].http_status)) for reason in Reason] == headings


def test_every_aadsts_number_is_in_the_table() -> None:
    """The table of numbers in docs/errors.md is the table in the code."""
    page = (ROOT / "docs/errors.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \| (.*) \|$", page, re.MULTILINE)

    assert [
        (str(number), meaning.kind.reason.value, meaning.words, meaning.fix)
        for number, meaning in sorted(MEANINGS.items())
    ] == rows


def test_every_module_that_the_code_names_is_there() -> None:
    """Docstrings and comments name modules, or what stands in one; a move leaves no old name behind."""
    no_modules = {"authz.route", "authz.direction", "authz.yaml", "authz.schema.json"}
    lost = []
    for file in (
        path for package in ("authz", "authz_dev") for path in (ROOT / package).rglob("*.py")
    ):
        for name in re.findall(r"`(authz(?:_dev)?(?:\.\w+)+)`", file.read_text()):
            place = ROOT.joinpath(*name.split("."))
            known = (place, place.with_suffix(".py"), place.parent.with_suffix(".py"))
            if name not in no_modules and not any(each.exists() for each in known):
                lost.append((str(file.relative_to(ROOT)), name))

    assert [] == lost


def test_every_link_of_the_checkout_leads_somewhere() -> None:
    """Symbolic links, which a move of their target leaves behind in silence."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    links = [line.partition("\t")[2] for line in listed.stdout.splitlines() if line[:6] == "120000"]

    assert links
    assert [] == [link for link in links if not (ROOT / link).exists()]


def test_the_map_of_what_tests_share_is_complete() -> None:
    """tests/support/README.md names each folder, and no module lies beside them."""
    folder = ROOT / "tests/support"
    page = (folder / "README.md").read_text()
    there = {
        path.name for path in folder.iterdir() if path.name not in ("README.md", "__pycache__")
    }

    assert there == set(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE))


def test_every_reason_is_in_the_overview_of_errors() -> None:
    """docs/errors.md lists each reason once, with a section of its own."""
    page = (ROOT / "docs/errors.md").read_text()
    listed = re.findall(r"^\| \[`(\w+)`\]\(#\1\) \|", page, re.MULTILINE)

    assert sorted(reason.value for reason in Reason) == sorted(listed)
    assert set(listed) <= set(re.findall(r"^## (\w+)$", page, re.MULTILINE))


def test_the_map_of_modules_is_complete() -> None:
    """docs/architecture.md names exactly the modules and packages that exist."""
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"^\| `(authz/\w+(?:\.py|/))` \|", page, re.MULTILINE))
    package = ROOT / "authz"
    there = {
        f"authz/{path.name}" + ("/" if path.is_dir() else "")
        for path in package.iterdir()
        if path.name not in ("__init__.py", "__main__.py", "__pycache__")
    }

    assert there == named


def test_no_module_is_long() -> None:
    """One noun fits in 400 lines; what is longer hides a second one. Generated code does not count."""
    folders = ("authz", "authz_dev", "requirements")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for file in files
        if "_pb" not in file.parts
    }

    assert {} == {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def test_every_metric_is_documented() -> None:
    """docs/metrics.md names each metric that the code registers, and no other."""
    code = "".join(
        (ROOT / f"authz/observe/{name}.py").read_text() for name in ("metrics", "gauges")
    )
    page = (ROOT / "docs/metrics.md").read_text()
    counters = re.findall(r'Counter\(\s*"(authz_\w+)"', code)
    others = re.findall(r'(?:gauge|Histogram|Final = )\(\s*"(authz_\w+)"', code)
    documented = re.findall(r"^\| `(authz_\w+)` \|", page, re.MULTILINE)

    assert {*(f"{name}_total" for name in counters), *others} == set(documented)


def test_every_alert_has_its_page() -> None:
    """docs/alerts.md has a heading for each alert, in their order, with what to look at and to do."""
    page = (ROOT / "docs/alerts.md").read_text()
    head, *rest = page.split("\n## ")
    entries = [entry.partition("\n")[::2] for entry in rest]

    assert list(alerts()) == [name for name, _ in entries]
    assert [name.lower() for name in alerts()] == re.findall(r"\]\(#(authz\w+)\)", head)
    for word in ("**Look", "**Do**", "\n```sh\n"):
        assert [name for name, text in entries if word not in text] == []


def test_the_commands_of_alerts_can_be_pasted() -> None:
    """A shell reads them; records and metrics that they look for are ones that authz writes."""
    page = (ROOT / "docs/alerts.md").read_text()
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    read = subprocess.run(["sh", "-n"], input=commands, text=True, capture_output=True, check=False)
    code = "\n".join(path.read_text() for path in sorted((ROOT / "authz").rglob("*.py")))
    records = set(re.findall(r"'\"([a-zA-Z][^\"]* [^\"]*)\"'", commands))
    metrics = set(re.findall(r"\^(authz_\w+)", commands))

    assert (0, "") == (read.returncode, read.stderr)
    assert "exchange failed" in records
    # The end of some is filled in: `circuit open`.
    filled = [record.rpartition(" ")[0] for record in sorted(records) if f'"{record}"' not in code]
    assert [] == [head for head in filled if f'f"{head} {{' not in code]
    assert "authz_cache_entries" in metrics
    assert [] == [one for one in sorted(metrics) if f'"{one.removesuffix("_total")}"' not in code]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links, and paths of tests and modules named in tables, exist."""
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    paths = re.findall(r"`((?:tests|docs|envoy|kubernetes|authz|protos)/[\w./-]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]

    assert [] == missing


def test_the_laws_name_code_that_is_there() -> None:
    """The column of what keeps a law: each file of authz/ exists."""
    page = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| \d+ \|.*?\|(.*?)\|.*\|$", page, re.MULTILINE)
    named = [path for row in rows for path in re.findall(r"`((?:authz/)?[\w/]+\.py)\b", row)]

    assert len(rows) <= len(named)
    assert [] == [
        each for each in named if not (ROOT / "authz" / each.removeprefix("authz/")).is_file()
    ]


def test_the_laws_name_a_test_each() -> None:
    """docs/security.md has the eleven laws, each with tests that exist."""
    page = (ROOT / "docs/security.md").read_text()
    laws = re.findall(r"^\| (\d+) \|.*\| (.+) \|$", page, re.MULTILINE)

    assert [str(number) for number in range(1, 12)] == [number for number, _ in laws]
    for _, tests in laws:
        for path in re.findall(r"`([^`]+)`", tests):
            assert (ROOT / path.partition("::")[0]).exists(), path


def test_what_was_tried_is_tried() -> None:
    """Each row of the faults in docs/failures.md names a test that there is, and no row says it twice."""
    page = (ROOT / "docs/failures.md").read_text()
    section = page.partition("## What was tried\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \| `(.+?)::(.+?)` \|$", section, re.MULTILINE)
    there = [
        (file, name)
        for _, file, name in rows
        if re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]

    assert len(rows) == section.count("\n| ") - 1
    assert [(file, name) for _, file, name in rows] == there
    assert len(rows) == len(set(there)) == len({fault for fault, _, _ in rows})
