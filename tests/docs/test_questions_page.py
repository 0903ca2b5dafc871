"""docs/questions.md: each of the five questions has an answer of one paragraph, and files that do it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIVE = 5


def test_each_question_has_one_paragraph_and_files_that_are_there() -> None:
    """No question without an answer, no answer without a file."""
    _, *sections = (ROOT / "docs/questions.md").read_text().split("\n## ")
    for section in sections:
        question, paragraph, *rest = section.strip().split("\n\n")
        rows = re.findall(r"^\| .+ \| \[.+?\]\(([^)#]+)\).* \|$", rest[0], re.MULTILINE)

        assert question.endswith("?")
        assert paragraph.count("\n") < 6
        assert 1 == len(rest)
        assert [] == [link for link in rows if not (ROOT / "docs" / link).exists()]
        assert rows != []
    assert FIVE == len(sections)
