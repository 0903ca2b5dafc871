"""The `baggage` header: no library reads a caller's as ours, ours is found, and foreign members stay."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.baggage import CARRIERS, MAX_BYTES, MAX_MEMBERS, MEMBER, Baggage, is_plain
from authz.core.secret import Secret
from support.fakes.properties import thorough
from support.proxy.spellings import BLANKS, INVISIBLE, Speller, seen_by_authz

VALUE: Final = "v" * 43
FORGED: Final = "f" * 43
ESCAPED: Final = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|[0-7]{1,3})", re.IGNORECASE)
SPELLINGS: Final = st.one_of(
    st.just(MEMBER),
    st.just(MEMBER.upper()),
    st.just(f" {MEMBER}\t"),
    st.just(f"+{MEMBER}+"),
    st.just(quote(MEMBER, safe="").replace("-", "%2D")),
    st.lists(st.booleans(), min_size=len(MEMBER), max_size=len(MEMBER)).map(
        lambda which: "".join(
            f"%{ord(letter):02x}" if encoded else letter
            for letter, encoded in zip(MEMBER, which, strict=True)
        )
    ),
    st.sampled_from(BLANKS).map(lambda blank: quote(blank) + MEMBER),
    st.sampled_from(BLANKS).map(
        lambda blank: MEMBER + quote(blank, encoding="latin-1", errors="replace")
    ),
    st.sampled_from(BLANKS + INVISIBLE).map(lambda blank: f"{blank}{MEMBER}{blank}"),
    st.sampled_from(INVISIBLE).map(lambda sign: MEMBER.replace("-", f"{quote(sign)}-")),
    st.just(quote(quote(f" {MEMBER}", safe="").replace("-", "%2D"))),
)
TEXT: Final = st.text(st.characters(codec="utf-8", exclude_characters=","), max_size=30)
FOREIGN: Final = TEXT.filter(lambda text: MEMBER[:4] not in unquote(unquote(text)).lower())
PROPERTIES: Final = st.sampled_from(["", ";p", "; p = q;r"])


def readings(header: str) -> Iterator[str]:
    """Return all keys that any library could find in a header.

    Decoding comes before or after members are taken apart, in any number and order: `%XX` as UTF-8 or
    Latin-1, `+`, and the escapes of Python, by which the instrumentation of ASGI reads what is not UTF-8.
    """
    texts = {header}
    for _ in range(3):
        for text in tuple(texts):
            texts.add(unquote_plus(text))
            texts.add(unquote(text, errors="ignore"))
            texts.add(unquote_plus(text, encoding="latin-1"))
            texts.add(ESCAPED.sub(lambda found: found[0].encode().decode("unicode_escape"), text))
    for text in texts:
        for part in re.split(r"[,;&\r\n]", text):
            yield part.partition("=")[0]


def is_read_as_ours(header: str) -> bool:
    """Whether any library could find a member of ours: in any case, trimmed, without what nobody sees."""
    return any(
        MEMBER
        in (key.strip(BLANKS + INVISIBLE + '"').casefold(), re.sub("[^!-~]", "", key).lower())
        for key in readings(header)
    )


def parse(header: str) -> Baggage:
    """Take a header apart."""
    return Baggage.parse(Secret(header))


@thorough
@given(st.lists(st.tuples(SPELLINGS, TEXT, PROPERTIES) | FOREIGN, max_size=8))
def test_members_of_ours_are_found_however_they_are_spelled(
    members: list[tuple[str, str, str] | str],
) -> None:
    """What app libraries would take for ours is taken out, and everything else is kept."""
    own = [
        f"{key}={value}{rest}" for key, value, rest in (m for m in members if isinstance(m, tuple))
    ]
    foreign = [member.strip(" \t") for member in members if isinstance(member, str)]
    header = ",".join(m if isinstance(m, str) else f"{m[0]}={m[1]}{m[2]}" for m in members)
    found = parse(header)

    assert [member.strip(" \t") for member in own] == [member.reveal() for member in found.own]
    assert tuple(member for member in foreign if member) == found.foreign
    assert not own or not is_plain(Secret(header))


@thorough
@given(st.integers(min_value=0))
def test_nothing_that_a_caller_spells_is_read_as_ours(seed: int) -> None:
    """Whoever decodes what was admitted, and however; and what is left as it came is no different."""
    headers = seen_by_authz(Speller(seed, FORGED).headers())
    header = headers.get("baggage", "")
    kept = parse(header).admitted().without_own()

    assert kept is None or not is_read_as_ours(kept.reveal())
    assert not is_plain(Secret(header)) or not is_read_as_ours(header)


def test_the_spellings_would_be_read_as_ours() -> None:
    """Otherwise the test above would show nothing."""
    headers = (seen_by_authz(lines) for lines in Speller(1, FORGED).spellings(500))
    read = [is_read_as_ours(found["baggage"]) for found in headers if "baggage" in found]

    assert sum(read) > len(read) / 2


@thorough
@given(st.text(max_size=200))
def test_no_text_breaks_it(header: str) -> None:
    """And what goes on to the app has no member of ours in it, whoever reads it."""
    found = parse(header)
    kept = found.admitted().without_own()

    assert kept is None or not is_read_as_ours(kept.reveal())
    assert () == Baggage.parse(found.without_own()).own


@thorough
@given(st.lists(st.from_regex(r"[a-z#$+.~]{1,8}=[a-z0-9=+/:]{0,8}", fullmatch=True), min_size=1))
def test_plain_baggage_is_admitted_as_it_is(members: list[str]) -> None:
    """What the hit path leaves alone, the whole path would not change."""
    header = ", ".join(members)

    assert is_plain(Secret(header))
    assert tuple(members) == parse(header).admitted().foreign


@pytest.mark.parametrize(
    ("member", "admitted"),
    [
        ("a=1", "a=1"),
        ("a=", "a="),
        ("a = 1 ; p ;q = 2", "a=1;p;q=2"),
        ("user=Am%C3%A9lie", "user=Am%C3%A9lie"),
        ("a=b=c", "a=b=c"),
        ("!#$&'*+-.^_`|~=1", "!#$&'*+-.^_`|~=1"),
        ("%61=1", None),
        ("a%20=1", None),
        ("a", None),
        ("=1", None),
        ("a=1;", None),
        ("a=1;=2", None),
        ("a=%zz", None),
        ("a=%4", None),
        ('a="1"', None),
        ("a=\\x2c", None),
        ("a\\=1", None),
        ("a b=1", None),
        ("a=b c", None),
        ("é=1", None),
        ("a=é", None),
        ("\xa0a=1", None),
        ("a=1\x7f", None),
        ("a(b)=1", None),
        ("a=authz%252Dsubject", None),
        ("a=1%2Cauthz-subject%3Dx", None),
        ("a=1;authz-subject=x", None),
        ("a=100%25", "a=100%25"),
        ("a=%25252525252561", None),
    ],
)
def test_a_callers_member_passes_in_the_one_form_that_all_read_alike(
    member: str, admitted: str | None
) -> None:
    """The grammar of "Baggage" section 3.3.1, without escapes in keys, and without our key anywhere."""
    kept = parse(f"x=1,{member},y=2").admitted().without_own()

    assert kept is not None
    assert ["x=1", *([admitted] if admitted else []), "y=2"] == kept.reveal().split(",")


@pytest.mark.parametrize(
    "header",
    ["", "a", "a=1,", ",a=1", "a=1;p", "a=%20", "a=!", "!=1", "é=1", "a=\\x2c", f"a={MEMBER}"],
)
def test_what_may_be_read_in_two_ways_is_not_plain(header: str) -> None:
    """An exclamation mark is what Envoy shows for a byte that is not UTF-8."""
    assert not is_plain(Secret(header))


def test_a_header_that_is_not_there_is_empty() -> None:
    """There is nothing to set then."""
    assert Baggage() == Baggage.parse(None)
    assert Baggage().without_own() is None


def test_ours_comes_first_and_others_keep_their_order_and_properties() -> None:
    """Others may cut the end off."""
    found = parse(f"a=1;p=q, b=%20 ,{MEMBER}=old,,c")

    assert f"{MEMBER}={VALUE},a=1;p=q,b=%20,c" == found.with_own(VALUE).reveal()
    kept = found.without_own()
    assert kept is not None
    assert "a=1;p=q,b=%20,c" == kept.reveal()


@pytest.mark.parametrize(
    ("members", "kept"),
    [
        ([f"k{n}=v" for n in range(MAX_MEMBERS - 1)], MAX_MEMBERS - 1),
        ([f"k{n}=v" for n in range(MAX_MEMBERS)], MAX_MEMBERS - 1),
        (["k=" + "x" * (MAX_BYTES - len(MEMBER) - 1 - 43 - 1 - 2)], 1),
        (["k=" + "x" * (MAX_BYTES - len(MEMBER) - 1 - 43 - 1 - 1)], 0),
        (["a=b", "k=" + "é" * (MAX_BYTES // 2), "c=d"], 1),
    ],
    ids=["as many as fit", "one more", "as long as fits", "a byte longer", "bytes, not letters"],
)
def test_with_ours_the_header_stays_within_what_others_must_propagate(
    members: list[str], kept: int
) -> None:
    """Foreign members go first, from the end."""
    header = parse(",".join(members)).with_own(VALUE).reveal()

    assert [f"{MEMBER}={VALUE}", *members[:kept]] == header.split(",")
    assert len(header.encode()) <= MAX_BYTES


@pytest.mark.parametrize("header", ["a=b", "a=1, b=2", "authz=1,subject=2"])
def test_baggage_of_others_is_passed_by_quickly(header: str) -> None:
    """Most requests have none of ours."""
    assert is_plain(Secret(header))


@pytest.mark.parametrize(
    "name",
    [
        "uberctx-authz-subject",
        "uberctx-authuberctx-z-subject",
        "jaeger-baggage",
        "ot-baggage-authz-subject",
        "correlation-context",
        "otcorrelations",
    ],
)
def test_headers_that_fill_the_same_baggage_are_known(name: str) -> None:
    """By how their names begin: what follows is a key."""
    assert name.startswith(CARRIERS)
