"""`Secret` never shows its text, whichever way it is asked, in whatever value it hides."""

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import pytest

from authz import ports
from authz.core import (
    answer,
    baggage,
    decision,
    exchange,
    keys,
    policy,
    principal,
    request,
    route,
    secret,
    subject,
    token,
)
from authz.core.baggage import Baggage
from authz.core.decision import Allow
from authz.core.exchange import AppOnBehalfOf, IssuedToken, OnBehalfOf, SubjectToken
from authz.core.outcome import Granted
from authz.core.request import Authorization, BearerToken, CheckRequest
from authz.core.secret import Secret
from authz.core.subject import Origin, Reference, Subject
from authz.core.token import UnverifiedToken
from support.fakes.clock import START, at
from support.fakes.exchanges import AGENT_IDENTITY, BLUEPRINT_CLIENT, GRAPH
from support.fakes.records import ENDLESS, ROUTE, record_of

TEXT: Final = "the-text-that-nobody-may-see"
MODULES: Final[list[ModuleType]] = [
    answer, baggage, decision, exchange, keys, policy, ports, principal, request, route, secret, subject,
    token,
]  # fmt: skip

SECRET: Final = Secret(TEXT)
SUBJECT: Final = SubjectToken(SECRET, START)
HOLDERS: Final[list[Any]] = [
    CheckRequest(authorization=Authorization(TEXT)),
    BearerToken(SECRET),
    SUBJECT,
    OnBehalfOf(AGENT_IDENTITY, GRAPH, SUBJECT),
    AppOnBehalfOf(BLUEPRINT_CLIENT, GRAPH, SUBJECT),
    IssuedToken(SECRET, at(START), at(START)),
    Baggage(own=(SECRET,)),
    Subject(SECRET, Origin("chat", None, None), at(START)),
    Reference(SECRET, at(START), at(START)),
    Allow(authorization=SECRET),
    Authorization(f"Bearer {TEXT}"),
    record_of(
        Allow(authorization=SECRET),
        request=CheckRequest(authorization=Authorization(f"Bearer {TEXT}")),
    ),
    Granted(ROUTE, Allow(SECRET), ENDLESS, token=IssuedToken(SECRET, at(START), at(START))),
    UnverifiedToken("issuer", "key", {"sub": TEXT}, TEXT.encode(), SECRET),
]
EVERYTHING: Final = [SECRET, *HOLDERS]

SHOWN: Final[dict[str, Callable[[Any], str]]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": format,
    "f-string": lambda value: f"{value}",
    "f-string with repr": lambda value: f"{value!r}",
    "percent": lambda value: "%s %r" % (value, value),  # noqa: UP031
    "str.format": lambda value: "{} {!a}".format(value, value),  # noqa: UP032
    "pprint": pprint.pformat,
    "inside containers": lambda value: repr([value, {"key": value}, (value,)]),
    "exception": lambda value: str(ValueError(value)),
    "repr of an exception": lambda value: repr(KeyError("detail", value)),
    "json with a default": lambda value: json.dumps({"value": value}, default=repr),
}


def _type_name(value: object) -> str:
    return type(value).__name__


def _fail_with(value: object) -> None:
    raise ValueError("cannot use", value)


@pytest.mark.parametrize("value", EVERYTHING, ids=_type_name)
@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_no_way_of_printing_shows_the_text(show: Callable[[Any], str], value: object) -> None:
    """A secret, and every value that holds one, prints without its text."""
    assert TEXT not in show(value)


def test_a_format_specification_does_not_show_the_text() -> None:
    """Width, alignment and precision apply to nothing."""
    assert "***" == f"{SECRET:>40.40}"


@pytest.mark.parametrize("value", EVERYTHING, ids=_type_name)
def test_no_log_record_shows_the_text(value: object) -> None:
    """Neither a log message nor a logged exception shows the text."""
    stream = io.StringIO()
    logger = logging.Logger("test")  # noqa: LOG001 - one of its own, so that nothing else is disturbed
    logger.addHandler(logging.StreamHandler(stream))
    try:
        _fail_with(value)
    except ValueError:
        logger.exception("failed with %s and %r", value, value)

    assert "failed with" in stream.getvalue()
    assert TEXT not in stream.getvalue()


@pytest.mark.parametrize("value", EVERYTHING, ids=_type_name)
def test_no_traceback_shows_the_text_even_with_local_variables(value: object) -> None:
    """A traceback that prints the variables of each frame prints stars."""
    try:
        _fail_with(value)
    except ValueError as error:
        report = traceback.TracebackException.from_exception(error, capture_locals=True)

    assert "value = " in "".join(report.format())
    assert TEXT not in "".join(report.format())


@pytest.mark.parametrize("value", EVERYTHING, ids=_type_name)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_does_not_pickle(value: object, protocol: int) -> None:
    """What would leave the process raises instead."""
    with pytest.raises(TypeError):
        pickle.dumps(value, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_secret_does_not_copy(duplicate: Callable[[Secret], Secret]) -> None:
    """One text has one holder, so that a search for `Secret(` finds each."""
    with pytest.raises(TypeError, match="does not leave its process"):
        duplicate(SECRET)


@pytest.mark.parametrize("value", HOLDERS, ids=_type_name)
def test_a_value_with_a_secret_does_not_turn_into_a_dictionary(value: Any) -> None:
    """`dataclasses.asdict`, the usual way into a serializer, refuses."""
    with pytest.raises(TypeError):
        dataclasses.asdict(value)


def test_a_secret_is_no_json() -> None:
    """A serializer without a default for it refuses."""
    with pytest.raises(TypeError):
        json.dumps({"token": SECRET})


def test_a_secret_is_no_dictionary_key() -> None:
    """It does not hash, so no cache is keyed by it by accident."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(SECRET)


def test_a_secret_has_no_attributes_to_list() -> None:
    """There is no `__dict__` for a debugger or serializer to walk through."""
    with pytest.raises(TypeError):
        vars(SECRET)


def test_every_type_that_holds_a_secret_is_tested_here() -> None:
    """The table above names each dataclass and named tuple with a field of type `Secret`."""
    holders = {
        found.__name__
        for module in MODULES
        for found in vars(module).values()
        if isinstance(found, type)
        and (dataclasses.is_dataclass(found) or hasattr(found, "_fields"))
        and any(
            part is Secret
            for hint in typing.get_type_hints(found).values()
            for part in (hint, *typing.get_args(hint))
        )
    }  # fmt: skip

    assert {"CheckRequest", "BearerToken", "SubjectToken", "IssuedToken", "Allow"} <= holders
    assert holders <= {_type_name(value) for value in HOLDERS}


def test_reveal_returns_the_text() -> None:
    """The one way to the text is the method that says so."""
    assert TEXT == SECRET.reveal()


def test_the_digest_is_the_blake2b_of_the_text() -> None:
    """What a cache may know of a token is its BLAKE2b-256, the same at each call."""
    expected = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
    abc = Secret("abc")

    assert expected == abc.digest().hex() == abc.digest().hex()


def test_text_that_is_not_unicode_has_a_digest() -> None:
    """A lone surrogate, which JSON can smuggle in, does not raise."""
    assert Secret("\ud800").digest() != Secret("\ud801").digest()


def test_secrets_are_equal_when_their_texts_are() -> None:
    """Equality looks at the text, and only at other secrets."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


def test_a_secret_knows_its_length_and_whether_it_is_empty() -> None:
    """Size limits and absence can be checked without revealing."""
    assert len(TEXT) == len(SECRET)
    assert SECRET
    assert not Secret("")
