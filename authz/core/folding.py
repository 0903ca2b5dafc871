"""`folded`: a text without what forgiving servers ignore, so that two names can be compared as they would."""

import unicodedata


def folded(text: str) -> str:
    """Return a text without what tells forms of one character apart: case, width, the dot of an i.

    Of many combining marks it takes the square of their number in time, so callers bound the length.
    """
    if text.isascii():
        return text.casefold()
    return (
        unicodedata.normalize("NFKC", text).casefold().replace("\u0131", "i").replace("\u0307", "")
    )
