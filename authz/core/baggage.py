"""The one member of ours in a `baggage` header (W3C Recommendation "Baggage"), among foreign ones.

Foreign members are neither read nor rewritten. Whose reference a member holds is `authz.core.subject`.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from authz.core.secret import Secret

MEMBER: Final = "authz-subject"
"""Key of our member."""
MAX_MEMBERS: Final = 64
"""List members that everybody must propagate ("Baggage" section 3.3.2)."""
MAX_BYTES: Final = 8192
"""Bytes of a header that everybody must propagate (same place)."""
_ESCAPE: Final = re.compile(r"%([0-9a-f]{2})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Baggage:
    """A `baggage` header, taken apart.

    Attributes:
        foreign: Members of others, as they came, without blanks around them.
        own: What is spelled like a member of ours, in whatever way, as it came. Usually none or one.
    """

    foreign: tuple[str, ...] = ()
    own: tuple[Secret, ...] = ()

    @classmethod
    def parse(cls, header: Secret | None) -> Self:
        """Take a header apart. Total: what is no member at all is a foreign one."""
        if header is None:
            return cls()
        members = [member.strip() for member in header.reveal().split(",")]
        return cls(
            tuple(member for member in members if member and not _is_own(member)),
            tuple(Secret(member) for member in members if _is_own(member)),
        )

    def with_own(self, value: str) -> Secret:
        """Return the header with one member of ours in front.

        Of foreign members the last ones are left out where the header would be longer than others
        must propagate: ours must not be what is cut off.
        """
        header = f"{MEMBER}={value}"
        for member in self.foreign[: MAX_MEMBERS - 1]:
            longer = f"{header},{member}"
            if len(longer.encode("utf-8", "surrogatepass")) > MAX_BYTES:
                break
            header = longer
        return Secret(header)

    def without_own(self) -> Secret | None:
        """Return the header without members of ours; None where nothing is left."""
        return Secret(",".join(self.foreign)) if self.foreign else None


def mentions_own(header: Secret) -> bool:
    """Whether there may be a member of ours. Quick, and true too often rather than too seldom."""
    text = header.reveal()
    return "%" in text or MEMBER in text.lower()


def _is_own(member: str) -> bool:
    """Whether a library that decodes and trims keys would take it for ours.

    Some do, and then write it as ours into what they send. So a caller must not get it past us.
    """
    key = member.partition(";")[0].partition("=")[0]
    decoded = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), key.replace("+", " "))
    return decoded.strip().lower() == MEMBER
