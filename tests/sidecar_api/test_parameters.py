"""What a request's query asks for; and that nothing it asks for is passed over."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import BadOverride
from authz.core.exchange import AgentUser
from authz.doors.sidecar_api.overrides import Overrides
from authz.doors.sidecar_api.parameters import Call, Parameters
from support.fakes.properties import thorough

OTHER = "a2a2a2a2-0000-4000-8000-00000000000a"
GUID = "a1a1a1a1-0000-4000-8000-00000000000a"
ACQUIRE = "optionsOverride.AcquireTokenOptions."


def overrides(*items: tuple[str, str]) -> Overrides:
    """Return what a query overrides."""
    return Parameters.of(items).overrides(for_own_resource=False)


def call(*items: tuple[str, str]) -> Call:
    """Return how a query wants an API called."""
    return Parameters.of(items).call()


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], Overrides()),
        ([("unrelated", "x"), ("_", "1")], Overrides()),
        ([("AgentIdentity", GUID.upper())], Overrides(agent=GUID)),
        ([("agentidentity", GUID)], Overrides(agent=GUID)),
        (
            [("AgentIdentity", GUID), ("AGENTUSERNAME", "a@b.example")],
            Overrides(agent=GUID, user=AgentUser(username="a@b.example")),
        ),
        ([("AgentUserId", GUID.upper())], Overrides(user=AgentUser(object_id=GUID))),
        ([("optionsoverride.scopes", "a"), ("optionsOverride.Scopes", "b c")], Overrides(scopes=("a", "b", "c"))),
        ([("optionsOverride.Scopes", ""), ("optionsOverride.Scopes", " "), ("optionsOverride.Scopes", "a")], Overrides(scopes=("a",))),
        ([("optionsOverride.RequestAppToken", "True")], Overrides(app_token=True)),
        ([("optionsOverride.RequestAppToken", " true ")], Overrides(app_token=True)),
        ([("optionsOverride.RequestAppToken", "false")], Overrides(app_token=False)),
        ([(f"{ACQUIRE}Tenant", GUID)], Overrides(tenant=GUID)),
        ([(f"{ACQUIRE}Claims", '{ "b":1, "a":2 }')], Overrides(claims='{"a":2,"b":1}')),
        ([(f"{ACQUIRE}ForceRefresh", "true")], Overrides(force_refresh=True)),
        ([(f"{ACQUIRE}ForceRefresh", "false")], Overrides()),
        ([(f"{ACQUIRE}CorrelationId", GUID), ("optionsOverride.BaseUrl", "https://x")], Overrides()),
    ],
)  # fmt: skip
def test_what_is_wished(items: list[tuple[str, str]], expected: Overrides) -> None:
    """By names in any case."""
    assert expected == overrides(*items)


@pytest.mark.parametrize(
    ("items", "names"),
    [
        ([("AgentIdentity", "desk")], "AgentIdentity"),
        ([("AgentIdentity", " ")], "AgentIdentity"),
        ([("AgentIdentity", GUID), ("agentidentity", OTHER)], "AgentIdentity"),
        ([("AgentIdentity", GUID), ("AgentIdentity", "")], "AgentIdentity"),
        ([("AgentIdentity", ""), ("AgentIdentity", GUID)], "AgentIdentity"),
        ([("AgentUsername", "a@b"), ("AgentUsername", "c@d")], "AgentUsername"),
        ([("AgentUserId", GUID), ("AgentUserId", OTHER)], "AgentUserId"),
        ([(f"{ACQUIRE}Tenant", GUID), (f"{ACQUIRE}tenant", OTHER)], "Tenant"),
        ([("AgentUserId", "not-a-guid")], "AgentUserId"),
        ([("AgentUserId", GUID), ("AgentUsername", "a@b")], "one of the two"),
        ([("AgentUsername", "nobody")], "AgentUsername"),
        ([("AgentName", "x")], "AgentName"),
        ([("optionsOverride.RequestAppToken", "1")], "RequestAppToken"),
        ([("optionsOverride.Scopes", 'a"b')], "Scopes"),
        ([("optionsOverride.Unheard", "x")], "Unheard"),
        ([("optionsOverride", "x")], "optionsOverride"),
        ([(f"{ACQUIRE}Claims", "[]")], "Claims"),
        ([(f"{ACQUIRE}Claims", '{"a":NaN}')], "Claims"),
        ([(f"{ACQUIRE}Claims", "[" * 100_000)], "Claims"),
        ([(f"{ACQUIRE}Tenant", "common")], "Tenant"),
        ([(f"{ACQUIRE}FmiPath", "x")], "FmiPath"),
        ([(f"{ACQUIRE}PopPublicKey", "x")], "PopPublicKey"),
        ([(f"{ACQUIRE}LongRunningWebApiSessionKey", "x")], "LongRunningWebApiSessionKey"),
        ([(f"{ACQUIRE}ManagedIdentity.UserAssignedClientId", GUID)], "ManagedIdentity"),
    ],
)
def test_what_cannot_be_is_told_by_its_name(items: list[tuple[str, str]], names: str) -> None:
    """Never passed over: the token would be of another identity than its caller meant."""
    with pytest.raises(BadOverride, match=names) as caught:
        overrides(*items)
    assert all(
        value not in str(caught.value) for _, value in items if len(value) > 3 and value != GUID
    )


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([("optionsOverride.RelativePath", "me?$top=1")], {"path": "me?$top=1"}),
        ([("optionsOverride.HttpMethod", "patch")], {"method": "PATCH"}),
        ([("optionsOverride.AcceptHeader", "text/plain")], {"accept": "text/plain"}),
        ([("optionsOverride.ContentType", "text/csv")], {"content_type": "text/csv"}),
        (
            [("optionsoverride.extraheaderparameters.OData-Version", "4.0")],
            {"headers": {"odata-version": "4.0"}},
        ),
        ([("optionsOverride.ExtraQueryParameters.$Top", "5")], {"query": {"$Top": "5"}}),
    ],
)
def test_how_an_api_is_to_be_called(items: list[tuple[str, str]], expected: dict[str, Any]) -> None:
    """Names of headers know no case; those of query parameters do."""
    assert Call(**expected) == call(*items)


@pytest.mark.parametrize(
    "name",
    ["Authorization", "Cookie", "Host", "Content-Length", "Transfer-Encoding", "Proxy-Authorization",
     "Connection", "Accept-Encoding", "Expect", "Forwarded", "X-Forwarded-For", "X-Authz-Subject",
     "X-MS-Client-Principal", "X-MS-Client-Principal-Id", "X-MS-Token-Aad-Access-Token", "X-Original-URL"],
)  # fmt: skip
def test_headers_that_are_not_the_callers_are_not_sent(name: str) -> None:
    """What carries a credential, says who calls, frames a message, or belongs to the connection."""
    header = "optionsOverride.ExtraHeaderParameters."
    assert Call(headers={"x-one": "1"}, withheld=(name.lower(),)) == call(
        (f"{header}{name}", "x"), (f"{header}X-One", "1")
    )


@pytest.mark.parametrize("name", ["", "a b", "x:y", "é"])
def test_names_that_no_header_can_have(name: str) -> None:
    """They would end as something else on the wire."""
    with pytest.raises(BadOverride, match="ExtraHeaderParameters"):
        call((f"optionsOverride.ExtraHeaderParameters.{name}", "x"))


@pytest.mark.parametrize(
    "name", ["optionsOverride.AcceptHeader", "optionsOverride.ContentType", "optionsOverride.ExtraHeaderParameters.X"]
)  # fmt: skip
@pytest.mark.parametrize("value", ["a\r\nb: c", "a\x00", "é", " a", "a "])
def test_header_values_cannot_end_their_line(name: str, value: str) -> None:
    """Else a caller would write headers of its own."""
    with pytest.raises(BadOverride):
        call((name, value))


def test_a_method_that_is_none() -> None:
    """Only the ordinary ones."""
    with pytest.raises(BadOverride, match="HttpMethod"):
        call(("optionsOverride.HttpMethod", "CONNECT"))


def test_what_changes_something() -> None:
    """What the gates are about: everything but what has no effect."""
    assert not Parameters.of([("optionsOverride.BaseUrl", "x"), ("other", "x")]).change_something
    for name in ("AgentIdentity", "optionsOverride.Scopes", "optionsOverride.RelativePath"):
        assert Parameters.of([(name, "x")]).change_something


DOCUMENTED = (
    "AgentIdentity", "AgentUsername", "AgentUserId",
    *(f"optionsOverride.{name}" for name in (
        "Scopes", "RequestAppToken", "BaseUrl", "RelativePath", "HttpMethod", "AcceptHeader", "ContentType",
    )),
    *(f"{ACQUIRE}{name}" for name in (
        "Tenant", "ForceRefresh", "Claims", "CorrelationId", "LongRunningWebApiSessionKey", "FmiPath",
        "PopPublicKey", "ManagedIdentity.UserAssignedClientId",
    )),
    "optionsOverride.ExtraHeaderParameters.X", "optionsOverride.ExtraQueryParameters.x",
)  # fmt: skip
"""The parameters of Microsoft's document, and the two families that it leaves out."""


def test_parameters_without_a_value_count_as_absent() -> None:
    """A generated client sends all of them so; together they ask for nothing."""
    parameters = Parameters.of([(name, "") for name in DOCUMENTED])
    assert not parameters.change_something
    assert (Overrides(), Call()) == (
        parameters.overrides(for_own_resource=False),
        parameters.call(),
    )


@pytest.mark.parametrize("name", DOCUMENTED)
def test_each_parameter_without_a_value_counts_as_absent(name: str) -> None:
    """Beside an agent that is named as well."""
    found = overrides(*(() if name == "AgentIdentity" else (("AgentIdentity", GUID),)), (name, ""))
    assert Overrides(agent=None if name == "AgentIdentity" else GUID) == found


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["a", "b"], Call(path="b")),
        (["a", ""], Call()),
        (["", "a"], Call(path="a")),
    ],
)
def test_the_last_value_counts(items: list[str], expected: Call) -> None:
    """As with the sidecar, an empty one included."""
    assert expected == call(*(("optionsOverride.RelativePath", value) for value in items))


def test_the_same_identity_twice_is_that_identity() -> None:
    """It leaves nothing open."""
    assert Overrides(agent=GUID) == overrides(("AgentIdentity", GUID), ("agentidentity", GUID))


@pytest.mark.parametrize(
    "query",
    [
        b"optionsOverride.RelativePath=%ff",
        b"optionsOverride.RelativePath=%c0%ae",
        b"a=%e9",
        b"a=\xc3\xa9",
    ],
)
def test_a_query_that_is_no_utf_8_is_refused(query: bytes) -> None:
    """What stands in for bytes that cannot be read would name another resource."""
    with pytest.raises(BadOverride, match="query"):
        Parameters.read(query)


def test_a_query_is_decoded_once() -> None:
    """Blanks by `+` and by `%20`; UTF-8 by its bytes."""
    found = Parameters.read(b"optionsOverride.RelativePath=h%C3%A9+a%20b%2520&&flag")
    assert Call(path="hé a b%20") == found.call()


NAMES = st.sampled_from(
    ["AgentIdentity", "AgentUsername", "AgentUserId", "optionsOverride.Scopes",
     "optionsOverride.RequestAppToken", f"{ACQUIRE}Claims", f"{ACQUIRE}Tenant", f"{ACQUIRE}FmiPath",
     "optionsOverride.ExtraHeaderParameters.X", "optionsOverride.HttpMethod"]
)  # fmt: skip


@thorough
@given(st.lists(st.tuples(NAMES | st.text(max_size=40), st.text(max_size=20)), max_size=6))
def test_any_query_is_read_or_refused(items: list[tuple[str, str]]) -> None:
    """An identity that is named is in the overrides, or the query is refused."""
    try:
        parameters = Parameters.of(items)
        parameters.call()
        found = parameters.overrides(for_own_resource=False)
    except BadOverride:
        return
    named = {value.lower() for name, value in items if name.lower() == "agentidentity" and value}
    assert ({found.agent} if found.agent else set()) == named
