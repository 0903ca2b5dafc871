"""Baggage: our one member of the header (W3C Recommendation "Baggage"), and which foreign ones pass.

Libraries read this header in many ways: some decode keys, trim blanks of Unicode, take the first of two
lines or the last of two members. A caller's text passes only where all of them read the same. Whose
reference a member of ours holds is `authz.core.subject`.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from authz.core.secret import Secret

MEMBER: Final = "authz-subject"
"""Key of our member."""
CARRIERS: Final = (
    "uberctx-",
    "jaeger-baggage",
    "ot-baggage-",
    "correlation-context",
    "otcorrelation",
)
"""How the names of other headers begin from which propagators fill the same baggage: those of Jaeger, of
OpenTracing, and of .NET and early OpenTelemetry."""
MAX_MEMBERS: Final = 64
"""List members that everybody must propagate ("Baggage" section 3.3.2)."""
MAX_BYTES: Final = 8192
"""Bytes of a header that everybody must propagate (same place)."""
_MAX_ENCODINGS: Final = 4
"""How often percent-encoded text is decoded. What is encoded deeper is taken for a member of ours."""
_BLANKS: Final = " \t"
_ESCAPE: Final = re.compile(r"%([0-9a-f]{2})", re.IGNORECASE | re.ASCII)
_INVISIBLE: Final = re.compile(r"[^!-~]+")

# The grammar of section 3.3.1, but a key (RFC 9110 section 5.6.2: token) has no `%`: some libraries
# decode keys, and others do not.
_KEY: Final = r"[!#$&'*+\-.^_`|~0-9A-Za-z]+"
_OCTETS: Final = r"[!#$&-+\--:<-\[\]-~]*"
_VALUE: Final = rf"{_OCTETS}(?:%[0-9A-Fa-f]{{2}}{_OCTETS})*"
_OWS: Final = r"[ \t]*"
_PAIR: Final = rf"{_KEY}{_OWS}={_OWS}{_VALUE}"
_FOREIGN: Final = re.compile(
    rf"{_PAIR}(?:{_OWS};{_OWS}{_KEY}(?:{_OWS}={_OWS}{_VALUE})?)*", re.ASCII
)
# Neither `%` nor `!`, which Envoy shows in place of a byte that is not UTF-8.
_PLAIN_PAIR: Final = r"[#$&'*+\-.^_`|~0-9A-Za-z]+=[#$&-+\--:<-\[\]-~]*"
_PLAIN: Final = re.compile(rf"{_PLAIN_PAIR}(?:,{_OWS}{_PLAIN_PAIR})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Baggage:
    """A `baggage` header, taken apart.

    Attributes:
        foreign: Members of others, as they came, without blanks around them.
        own: Members that mention our key, in whatever spelling and place, as they came. Usually none or one.
    """

    foreign: tuple[str, ...] = ()
    own: tuple[Secret, ...] = ()

    @classmethod
    def parse(cls, header: Secret | None) -> Self:
        """Take a header apart. Total: what is no member at all is a foreign one."""
        if header is None:
            return cls()
        foreign: list[str] = []
        own: list[Secret] = []
        for member in (text.strip(_BLANKS) for text in header.reveal().split(",")):
            if _mentions_own(member):
                own.append(Secret(member))
            elif member:
                foreign.append(member)
        return cls(tuple(foreign), tuple(own))

    def admitted(self) -> Self:
        """Return what passes of a caller's header: foreign members that every library reads alike.

        They are written canonically, which is without blanks.
        """
        return type(self)(
            tuple(
                member.replace(" ", "").replace("\t", "")
                for member in self.foreign
                if _FOREIGN.fullmatch(member)
            )
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


def is_plain(header: Secret) -> bool:
    """Whether every library reads the header alike, and none finds a member of ours.

    Quick, for the hit path: nothing is decoded. False for some headers that are harmless as well.
    """
    text = header.reveal()
    return MEMBER not in text.lower() and _PLAIN.fullmatch(text) is not None


def _mentions_own(member: str) -> bool:
    """Whether our key is in a member: in any case, however often encoded, with anything invisible in it."""
    text = member
    for _ in range(_MAX_ENCODINGS):
        text = _INVISIBLE.sub("", text)
        if MEMBER in text.lower():
            return True
        decoded = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
        if decoded == text:
            return False
        text = decoded
    return True
