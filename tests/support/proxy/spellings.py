"""Headers by which a caller tries to name a user in an agent's baggage, however some library might read them.

Seeded, so that a run can be repeated. What they must come to is in the tests that use them.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

from authz.core.baggage import MEMBER
from authz.core.decision import Allow

Headers = list[tuple[str, bytes]]
"""Header lines as they are sent."""

BLANKS: Final = " \t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE: Final = "\xad\u200b\u200c\u200d\u2060\ufeff\u180e\x01\x08\x7f"
_ALIKE: Final = {"-": "\u2010\u2011\uff0d\u2212", "s": "\u017f\uff53", "a": "\uff41", "t": "\uff54"}
_UTF_8: Final = "utf-8"
_LATIN_1: Final = "latin-1"
_STYLES: Final = (
    *("upper",) * 8,
    "lower",
    "lower",
    "twice",
    "backslash",
    "backslash",
    "u",
    "overlong",
)
TRACES: Final[Headers] = [
    ("uber-trace-id", b"4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1"),
    ("ot-tracer-traceid", b"4bf92f3577b34da6a3ce929d0e0e4736"),
    ("ot-tracer-spanid", b"00f067aa0ba902b7"),
    ("ot-tracer-sampled", b"true"),
]
"""Without these the propagators of Jaeger and OpenTracing read no baggage."""


class Speller:
    """Spells a member of ours.

    Args:
        seed: Spellings are the same for the same seed.
        handle: Whom the member names.
    """

    def __init__(self, seed: int, handle: str) -> None:
        self._random = Random(seed)  # noqa: S311 - repeatable, not secret
        self._handle = handle
        self._style: str | None = None

    def spellings(self, number: int) -> Iterator[Headers]:
        """Return so many."""
        for _ in range(number):
            yield self.headers()

    def headers(self) -> Headers:
        """Return the header lines of one request."""
        lines: Headers = []
        if self._rarely(4):
            lines += self._carriers()
        if not lines or self._rarely(2):
            lines += self._baggage()
        return lines

    def _baggage(self) -> Headers:
        # Mostly one kind of escape: a library that knows another one would not come through.
        self._style = None if self._rarely(8) else self._random.choice(_STYLES)
        members = [self.member() for _ in range(self._random.choice((1, 1, 1, 1, 2, 3)))]
        members += [self._foreign() for _ in range(self._random.choice((0, 0, 1, 2, 3)))]
        self._random.shuffle(members)
        if self._rarely(25):
            members[:0] = [b"k%d=v" % n for n in range(self._random.choice((62, 63, 64, 179, 180)))]
        if self._rarely(25):
            members.insert(0, b"long=" + b"x" * self._random.choice((4090, 8100, 8192)))
        if self._rarely(8) or self._style == "backslash":
            # What is not UTF-8 makes some servers read a header by other rules.
            members.append(self._random.choice((b"z=\xff", b"\xe9=1", b"z=\xc2", b"\xa0")))
        name = self._random.choice(("baggage", "baggage", "baggage", "Baggage", "BAGGAGE"))
        comma = self._random.choice((b",", b",", b", ", b" ,", b",,", b"\t,\t", b",\xa0"))
        cut = self._random.randrange(len(members)) if self._rarely(5) else 0
        parts = [members[:cut], members[cut:]] if cut else [members]
        return [(name, sendable(comma.join(part))) for part in parts]

    def member(self) -> bytes:
        """Return one member that some library might read as ours, or as several of which one is ours."""
        value, equals = self._value(), self._equals()
        plain = f"{MEMBER}={self._handle}"
        match self._random.randrange(14):
            case 0:
                inner = self._random.choice((",", ";", " ,", "\n", "\r\n", ", ", "&"))
                return self._encoded("x=1" + inner + plain, ",;=\r\n& ", 0.2)
            case 1:
                return (
                    self._encoded(f"x=1{inner_blank(self._random)},", ",= ", 0.0)
                    + self._key()
                    + equals
                    + value
                )
            case 2:
                return b'x="1,' + self._key() + equals + value + b'"'
            case 3:
                return b"x=1;" + self._key() + equals + value
            case 4:
                return b"x=1;p=" + self._encoded("," + plain, ",", 0.1)
            case 5:
                return self._key() + b";p=1" + equals + value
            case _:
                return self._key() + equals + value

    def _key(self) -> bytes:
        return (
            self._around()
            + self._encoded(self._cased(), "", self._random.choice((0, 0, 0, 0.1, 0.5, 1)))
            + self._around()
        )

    def _cased(self) -> str:
        letters = MEMBER
        match self._random.randrange(16):
            case 0:
                letters = letters.upper()
            case 1:
                letters = letters.title()
            case 2:
                place = self._random.randrange(len(letters))
                letters = letters[:place] + self._random.choice(INVISIBLE) + letters[place:]
            case 3:
                letter = self._random.choice(list(_ALIKE))
                letters = letters.replace(letter, self._random.choice(_ALIKE[letter]))
            case _:
                pass
        return letters

    def _value(self) -> bytes:
        handle = self._handle
        match self._random.randrange(8):
            case 0:
                return self._encoded(handle, "", 0.2)
            case 1:
                return self._around() + handle.encode() + self._around()
            case 2:
                return b'"' + handle.encode() + b'"'
            case 3:
                return handle.encode() + b";p=q"
            case _:
                return handle.encode()

    def _equals(self) -> bytes:
        return self._random.choice((*(b"=",) * 12, b" = ", b"\t=", b"==", b"%3D", b"\\x3d"))

    def _around(self) -> bytes:
        if not self._rarely(2):
            return b""
        pool = BLANKS + INVISIBLE + "\0" if self._rarely(6) else BLANKS + "+"
        text = "".join(self._random.choices(pool, k=self._random.choice((1, 1, 2))))
        return self._encoded(text, text, 0)

    def _foreign(self) -> bytes:
        return self._random.choice(
            (
                b"a=1",
                b"team=blue",
                b"user=Am%C3%A9lie",
                b"b=2;p=q",
                b"c=%20",
                b"d=",
                b"e",
                b"",
                b"f=g=h",
                b"%=1",
                b"bad%zz=1",
            )
        )

    def _encoded(self, text: str, always: str, share: float) -> bytes:
        """Write each character as it is or in some escape: those of `always` mostly in one."""
        return b"".join(
            self._escaped(letter)
            if (letter in always and not self._rarely(6)) or self._random.random() < share
            else letter.encode(
                self._random.choice((_UTF_8, _LATIN_1)) if letter <= "\xff" else _UTF_8
            )
            for letter in text
        )

    def _escaped(self, letter: str) -> bytes:
        code = ord(letter)
        encoding = _LATIN_1 if letter <= "\xff" and self._rarely(4) else _UTF_8
        if letter == "+":
            return b"+"
        match self._random.choice(_STYLES) if self._style is None else self._style:
            case "twice":
                return b"".join(b"%%25%02x" % byte for byte in letter.encode(encoding))
            case "backslash":
                if code > 0xFF or self._rarely(3):
                    return b"\\u%04x" % code
                return b"\\x%02x" % code if self._rarely(2) else b"\\%03o" % code
            case "u":
                return b"%%u%04X" % code
            case "overlong":
                return b"%%%02X%%%02X" % (0xC0 | code >> 6 & 0x1F, 0x80 | code & 0x3F)
            case "lower":
                return b"".join(b"%%%02x" % byte for byte in letter.encode(encoding))
            case _:
                return b"".join(b"%%%02X" % byte for byte in letter.encode(encoding))

    def _carriers(self) -> Headers:
        handle, plain = self._handle.encode(), f"{MEMBER}={self._handle}".encode()
        name, value = self._random.choice(
            (
                (f"uberctx-{MEMBER}", handle),
                (f"UberCtx-{MEMBER.title()}", handle),
                ("uberctx-authuberctx-z-subject", handle),
                ("uberctx-authz%2dsubject", handle),
                (f"uberctx--{MEMBER}", handle),
                (f"ot-baggage-{MEMBER}", handle),
                (f"OT-Baggage-{MEMBER.title()}", handle),
                ("ot-baggage-authz%2dsubject", handle),
                ("jaeger-baggage", plain),
                ("jaeger-baggage", b"a=1, " + plain),
                ("jaeger-baggage", self.member()),
                ("correlation-context", plain),
                ("Correlation-Context", self.member()),
                ("otcorrelations", plain),
                ("otcorrelationcontext", plain),
                (f"baggage-{MEMBER}", handle),
            )
        )
        return [*TRACES, (name, sendable(value))]

    def _rarely(self, of: int) -> bool:
        return self._random.randrange(of) == 0


def inner_blank(random: Random) -> str:
    """Return a blank, or nothing."""
    return random.choice(("", " ", "\xa0"))


def sendable(value: bytes) -> bytes:
    """Leave out what no HTTP/1.1 message can have in a header value."""
    return value.translate(None, b"\0\r\n").strip(b" \t")


def seen_by_authz(headers: Headers) -> dict[str, str]:
    """Return headers as Envoy shows them: lower case, lines joined, what is not UTF-8 replaced."""
    seen: dict[str, str] = {}
    for name, value in headers:
        text = value.decode(_UTF_8, "surrogateescape")
        text = "".join("!" if "\udc80" <= letter <= "\udcff" else letter for letter in text)
        key = name.lower()
        seen[key] = f"{seen[key]},{text}" if key in seen else text
    return seen


def received(headers: Headers, allow: Allow) -> Headers:
    """Return the lines that an app receives, which Envoy has changed as the service said."""
    replaced = {} if allow.baggage is None else {"baggage": allow.baggage.reveal().encode()}
    gone = {*allow.remove, *replaced}
    kept = [(name, value) for name, value in headers if name.lower() not in gone]
    return [*kept, *replaced.items()]
