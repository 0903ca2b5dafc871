"""The query parameters of the sidecar's token routes, read into `Overrides` and a `Call`.

Names are case-insensitive. A parameter without a value counts as absent: generated clients send every
parameter that their caller left out that way. What would name another identity, or another kind of token, in
a way that is not supported is refused, never passed over: the token would be another one than its caller
meant.
"""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Self
from urllib.parse import parse_qsl

from authz.config.sections.api import METHODS, RESERVED_HEADERS
from authz.core import grammar
from authz.core.errors import BadOverride
from authz.core.exchange import AgentUser
from authz.doors.sidecar_api.overrides import Overrides

OPTIONS: Final = "optionsOverride."
ACQUIRE: Final = f"{OPTIONS}AcquireTokenOptions."
HEADER: Final = f"{OPTIONS}ExtraHeaderParameters."
QUERY: Final = f"{OPTIONS}ExtraQueryParameters."
SCOPES: Final = f"{OPTIONS}Scopes"
_ONCE: Final = (
    "AgentIdentity",
    "AgentUsername",
    "AgentUserId",
    f"{OPTIONS}RequestAppToken",
    f"{OPTIONS}RelativePath",
    f"{OPTIONS}HttpMethod",
    f"{OPTIONS}AcceptHeader",
    f"{OPTIONS}ContentType",
    f"{ACQUIRE}Tenant",
    f"{ACQUIRE}Claims",
    f"{ACQUIRE}ForceRefresh",
)
_IDENTIFYING: Final = ("AgentIdentity", "AgentUsername", "AgentUserId", f"{ACQUIRE}Tenant")
"""Parameters that say whose token is meant: two values that differ leave that open."""
UNSUPPORTED: Final = (
    f"{ACQUIRE}FmiPath",
    f"{ACQUIRE}LongRunningWebApiSessionKey",
    f"{ACQUIRE}ManagedIdentity.UserAssignedClientId",
    f"{ACQUIRE}PopPublicKey",
)
"""Documented parameters that name another identity or another kind of token, and are refused with a value."""
_WITHOUT_EFFECT: Final = {
    # As with the sidecar: an API is where it is configured to be.
    f"{OPTIONS}BaseUrl".lower(),
    # Each exchange has one of its own.
    f"{ACQUIRE}CorrelationId".lower(),
}
_SPELLED: Final = {name.lower(): name for name in (*_ONCE, SCOPES)}
_MEANT_FOR_US: Final = ("agent", OPTIONS.lower().rstrip("."))
_LONGEST_NAME: Final = 100
_GUID: Final = re.compile(grammar.GUID)
_USERNAME: Final = re.compile(grammar.USER_PRINCIPAL_NAME)
_SCOPE: Final = re.compile(grammar.SCOPE)
_HEADER_NAME: Final = re.compile(grammar.HEADER_NAME)
_HEADER_VALUE: Final = re.compile(grammar.HEADER_VALUE)


@dataclass(frozen=True, slots=True)
class Call:
    """How a caller wants an API called, beside what is configured.

    Attributes:
        path: Path below the API's base URL, perhaps with a query.
        method: HTTP method.
        accept: Value of `Accept`.
        content_type: Value of `Content-Type`.
        headers: Further headers.
        query: Further query parameters.
        withheld: Names of headers that the caller may not add, and that are not sent.
    """

    path: str | None = None
    method: str | None = None
    accept: str | None = None
    content_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()

    def without(self, names: Collection[str]) -> "Call":
        """Return the call without the headers of some names, in lower case."""
        found = tuple(name for name in self.headers if name.lower() in names)
        kept = {name: value for name, value in self.headers.items() if name not in found}
        return replace(self, headers=kept, withheld=(*self.withheld, *found)) if found else self


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of one request that are the sidecar's and have a value, by their documented names.

    Attributes:
        values: Of those that come once.
        scopes: Of `optionsOverride.Scopes`, in their order.
        headers: Of `optionsOverride.ExtraHeaderParameters.<Name>`.
        query: Of `optionsOverride.ExtraQueryParameters.<Name>`.
    """

    values: dict[str, str] = field(default_factory=dict)
    scopes: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, query: bytes) -> Self:
        """Read the query of a request target.

        Raises:
            BadOverride: It is not percent-encoded UTF-8, or `of` refuses it.
        """
        try:
            items = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
        except ValueError:
            # To replace what cannot be read would name another resource.
            raise BadOverride("the query: expected percent-encoded UTF-8") from None
        return cls.of(items)

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]]) -> Self:
        """Sort the names and values of a query. Of a name that comes several times the last value counts.

        Raises:
            BadOverride: A name is not supported, or says with two values whose token is meant.
        """
        given: dict[str, list[str]] = {}
        for name, value in items:
            given.setdefault(_documented(name), []).append(value)
        parameters = cls()
        for name, values in given.items():
            if name in _IDENTIFYING and len(set(values)) > 1:
                raise BadOverride(f"{name}: expected once, or the same value each time")
            if name == SCOPES:
                parameters.scopes.extend(scope for value in values for scope in value.split())
            elif values[-1]:
                parameters._take(name, values[-1])
        return parameters

    def _take(self, name: str, value: str) -> None:
        if name in _ONCE:
            self.values[name] = value
        elif name.startswith(HEADER):
            self.headers[name[len(HEADER) :]] = value
        elif name.startswith(QUERY):
            self.query[name[len(QUERY) :]] = value
        elif name.lower().startswith(_MEANT_FOR_US) and name.lower() not in _WITHOUT_EFFECT:
            raise BadOverride(f"{name[:_LONGEST_NAME]}: not supported")

    @property
    def change_something(self) -> bool:
        """Whether they ask for something else than what is configured."""
        return bool(self.values or self.scopes or self.headers or self.query)

    def overrides(self, *, for_own_resource: bool) -> Overrides:
        """Return which token is asked for.

        Raises:
            BadOverride: A value is not what it should be.
        """
        for scope in self.scopes:
            if _SCOPE.fullmatch(scope) is None:
                raise BadOverride(f"{SCOPES}: expected scopes (RFC 6749 section 3.3)")
        return Overrides(
            agent=self._guid("AgentIdentity"),
            user=self._user(),
            scopes=tuple(self.scopes),
            app_token=self._switch(f"{OPTIONS}RequestAppToken"),
            tenant=self._guid(f"{ACQUIRE}Tenant"),
            claims=self._claims(),
            force_refresh=bool(self._switch(f"{ACQUIRE}ForceRefresh")),
            for_own_resource=for_own_resource,
        )

    def call(self) -> Call:
        """Return how the API is to be called.

        Raises:
            BadOverride: A value is not what it should be.
        """
        method = self.values.get(f"{OPTIONS}HttpMethod")
        if method is not None and method.upper() not in METHODS:
            raise BadOverride(f"{OPTIONS}HttpMethod: expected one of {', '.join(METHODS)}")
        for name, value in self.headers.items():
            if _HEADER_NAME.fullmatch(name) is None:
                raise BadOverride(f"{HEADER}{name[:_LONGEST_NAME]}: expected the name of a header")
            printable(f"{HEADER}{name[:_LONGEST_NAME]}", value)
        withheld = [name for name in self.headers if RESERVED_HEADERS.fullmatch(name)]
        return Call(
            path=self.values.get(f"{OPTIONS}RelativePath"),
            method=None if method is None else method.upper(),
            accept=self._header(f"{OPTIONS}AcceptHeader"),
            content_type=self._header(f"{OPTIONS}ContentType"),
            headers={name: self.headers[name] for name in self.headers if name not in withheld},
            query=self.query,
            withheld=tuple(name[:_LONGEST_NAME] for name in withheld),
        )

    def _header(self, name: str) -> str | None:
        value = self.values.get(name)
        return None if value is None else printable(name, value)

    def _guid(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is not None and _GUID.fullmatch(value) is None:
            raise BadOverride(f"{name}: expected a GUID")
        return None if value is None else value.lower()

    def _user(self) -> AgentUser | None:
        object_id = self._guid("AgentUserId")
        username = self.values.get("AgentUsername")
        if object_id is not None and username is not None:
            raise BadOverride("AgentUsername and AgentUserId: expected one of the two")
        if username is not None and _USERNAME.fullmatch(username) is None:
            raise BadOverride("AgentUsername: expected a user principal name")
        if object_id is None and username is None:
            return None
        return AgentUser(username=username, object_id=object_id)

    def _switch(self, name: str) -> bool | None:
        # .NET reads `True` and blanks around it as well.
        value = self.values.get(name, "").strip().lower()
        if name in self.values and value not in ("true", "false"):
            raise BadOverride(f"{name}: expected true or false")
        return value == "true" if value else None

    def _claims(self) -> str | None:
        text = self.values.get(f"{ACQUIRE}Claims")
        if text is None:
            return None
        try:
            claims = json.loads(text)
            if isinstance(claims, dict):
                # One spelling for each meaning: the text is part of the cache key.
                return json.dumps(claims, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (ValueError, RecursionError):
            pass
        raise BadOverride(f"{ACQUIRE}Claims: expected a JSON object")


def _documented(name: str) -> str:
    """Return a name as it is documented. Names of headers know no case; those of query parameters do."""
    lower = name.lower()
    if lower.startswith(HEADER.lower()):
        return f"{HEADER}{lower[len(HEADER) :]}"
    if lower.startswith(QUERY.lower()):
        return f"{QUERY}{name[len(QUERY) :]}"
    return _SPELLED.get(lower, name)


def printable(name: str, value: str) -> str:
    """Return a header's value.

    Raises:
        BadOverride: It could end its line, or is not what every client and server reads alike.
    """
    if _HEADER_VALUE.fullmatch(value) is None:
        raise BadOverride(f"{name}: expected printable ASCII, no blanks around it")
    return value
