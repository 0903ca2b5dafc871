"""`Secret`, text that does not print. Every token and credential in this project is one.

`reveal()` is the only way to the text, so that a reviewer finds every use with one search.
"""

import hmac
from hashlib import blake2b
from typing import NoReturn


def digest_of(text: str) -> bytes:
    """Return the BLAKE2b-256 of a text (RFC 7693): what a cache may know of a token.

    OpenSSL's SHA-256 would be as good, but costs a request several times as much: what it calls
    around the hashing is cold each time.
    """
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


class Secret:
    """A token, key or password: never shown, compared in constant time, revealed on purpose.

    It does not pickle, hash or format, so it cannot slip into a log record, a cache key or another
    process by accident.

    Args:
        text: The text.
        digest: Its digest, where that is known already.
    """

    __slots__ = ("_digest", "_text")

    def __init__(self, text: str, *, digest: bytes | None = None) -> None:
        self._text = text
        self._digest = digest

    def reveal(self) -> str:
        """Return the text itself. Each call of this method is a place to review."""
        return self._text

    def digest(self) -> bytes:
        """Return the digest of the text (`digest_of`)."""
        if self._digest is None:
            self._digest = digest_of(self._text)
        return self._digest

    def __len__(self) -> int:
        return len(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.digest(), other.digest())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret does not leave its process")
