"""How a syntax error of YAML reads: the line where the mistake is, and what is most often wrong there.

Mistakes in a value that YAML can read are in `mistakes`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from authz.config.faults import Fault
from authz.config.shown import shown

_TAB: Final = re.compile(r" *\t")
_OTHER_BLANK: Final = re.compile("[ \t]*[\u00a0\u2000-\u200b\u3000]")
_BARE_REFERENCE: Final = re.compile(r"""[\[{,:]\s*\$\{""", re.ASCII)
_BARE_STAR: Final = re.compile(r"""(?:[\[,]|- |: )\s*\*[.\s,\]]""", re.ASCII)
_INDENTATION: Final = ": expected the keys of one mapping at the same indentation, and quotes around a text that holds a colon"
_USUAL: Final[Mapping[str, str]] = {
    "could not find expected ':'": ": expected KEY: VALUE, with a blank after the colon",
    "found unexpected end of stream": ": expected the quotation mark that ends the text which begins here",
    "mapping values are not allowed in this context": _INDENTATION,
    "did not find expected key": _INDENTATION,
    "did not find expected '-' indicator": (
        ": expected each entry of the list to begin with - at the same indentation"
    ),
    "did not find expected ',' or ']'": ": expected a comma between entries and ] at the end",
    "did not find expected ',' or '}'": ": expected a comma between entries and } at the end",
    "found character that cannot start any token": (
        ": expected quotes around a text that begins with @, % or `"
    ),
}
"""By the parser's words: what is most often wrong."""
_WHERE_IT_BEGINS: Final = frozenset(
    {"could not find expected ':'", "found unexpected end of stream"}
)
"""For these the parser stops far behind the mistake."""


def syntax_fault(error: Exception, document: str) -> Fault:
    """Return the fault of a document that the parser refuses. Quotes nothing that may be a secret."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)
    if problem in _WHERE_IT_BEGINS:
        mark = getattr(error, "context_mark", None) or mark
    line = mark.line + 1 if mark else None
    # The parser quotes names that it does not know.
    text = re.sub(r"'([^']*)'", lambda quoted: shown(quoted[1]), problem or "it cannot be read")
    cause, line = _usual_cause(document, line) or (_USUAL.get(problem or "", ""), line)
    return Fault("", f"not valid YAML: {text}{cause}", line)


def _usual_cause(document: str, line: int | None) -> tuple[str, int] | None:
    """Return what is most often wrong on the line where the parser stopped or the one before, and which."""
    lines = document.splitlines()
    for number in filter(None, ((line or 0) - 1, line)):
        for looks_so, cause in _BY_LOOK:
            if 0 < number <= len(lines) and looks_so(lines[number - 1]):
                return cause, number
    return None


_BY_LOOK: Final[tuple[tuple[Callable[[str], object], str], ...]] = (
    (_TAB.match, ": expected spaces, found a tab"),
    (_OTHER_BLANK.match, ": expected spaces, found a blank that is not one"),
    (
        _BARE_REFERENCE.search,
        ': expected quotes around a reference inside of brackets, ["${NAME}"]',
    ),
    (_BARE_STAR.search, ': expected quotes around a text that begins with *, "*.example.com"'),
)
"""How a line looks, and what is most often wrong with it."""
