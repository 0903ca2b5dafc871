"""base64url as RFC 7515 section 2 has it: without padding, and with one spelling for each value.

RFC 4648 section 3.5: bits of the last character that belong to no byte are zero. Decoders that take
them otherwise read one value from several texts.
"""

import re
from base64 import urlsafe_b64decode
from typing import Final

PATTERN: Final = "(?:[A-Za-z0-9_-]{4})*+(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?"
"""A regular expression for exactly the texts that an encoder writes."""

_TEXT: Final = re.compile(PATTERN)


def decode(text: str) -> bytes:
    """Return the bytes that a text stands for.

    Raises:
        ValueError: No encoder writes this text.
    """
    if _TEXT.fullmatch(text) is None:
        raise ValueError("not canonical base64url")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
