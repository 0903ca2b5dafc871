"""`SessionOwners`: to whom each session of an MCP server belongs, which is the first caller who uses it.

The server names a session in an answer, which nobody shows us; its client sends the id with each request
from then on (MCP 2025-11-25, "Session management"). So an id that is new to us belongs to who sends it, and
is refused from everybody else. What an id looks like is said here, too.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from authz.core.errors import AmbiguousRequest, ForeignSession
from authz.core.principal import Subject
from authz.core.request import CheckRequest
from authz.core.secret import Secret

_ID: Final = re.compile(r"[\"-+\--~]{1,1024}")
"""Visible ASCII. Not the comma, by which Envoy joins two headers: servers may take either. Nor the
exclamation mark, which Envoy shows us for a byte that is no UTF-8: servers may strip such a byte off."""
_SHARE: Final = 10
"""One caller has at most one of so many parts of the room: who opens many sessions forgets their own."""
_AT_ONCE: Final = 16
"""Most that are forgotten at a time, where there is room for less than there was."""
_Owner = tuple[str, str]
"""`tid` and `oid`. Tokens of one caller may differ in all else."""


class SessionOwners:
    """Owners of sessions, those used last. What was forgotten belongs to who uses it next.

    Args:
        most: Most sessions remembered; may be changed at any time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._owners: OrderedDict[bytes, _Owner] = OrderedDict()
        self._sessions: dict[_Owner, OrderedDict[bytes, None]] = {}

    def claim(
        self, request: CheckRequest, called: str, caller: Subject, paths: Sequence[str]
    ) -> None:
        """Let a caller use the session that a request is for, if it is for one.

        Args:
            request: The request.
            called: Who is called: ids of one agent's server mean nothing to another's.
            caller: Who the verified token is about.
            paths: Those of the server.

        Raises:
            AmbiguousRequest: It names not exactly one session, or Envoy may not have shown us which.
            ForeignSession: The session belongs to somebody else.
        """
        if request.session is None:
            # A message without a session opens one. A request that reads or ends a session must name it.
            is_there = request.path.partition("?")[0] in paths
            if request.outdated and request.body is None and is_there:
                raise AmbiguousRequest(
                    "Envoy's configuration is of before: it may not show sessions"
                )
            return
        text = request.session.reveal()
        if _ID.fullmatch(text) is None:
            raise AmbiguousRequest("mcp-session-id is not exactly one id of a session")
        # Some servers find an id in any case, and chance makes no two that differ in nothing else.
        key = Secret(text.lower()).digest() + called.encode()
        caller_id = (caller.tenant_id, caller.object_id)
        owner = self._owners.setdefault(key, caller_id)
        if owner != caller_id:
            raise ForeignSession(f"{owner[1]} of tenant {owner[0]} has used the session before")
        self._owners.move_to_end(key)
        own = self._sessions.setdefault(caller_id, OrderedDict())
        own[key] = None
        own.move_to_end(key)
        self._make_room(own)

    def __len__(self) -> int:
        return len(self._owners)

    def _make_room(self, own: OrderedDict[bytes, None]) -> None:
        for _ in range(_AT_ONCE):
            if len(own) > max(1, self.most // _SHARE):
                self._forget(next(iter(own)))
            elif len(self._owners) > self.most:
                self._forget(next(iter(self._owners)))
            else:
                return

    def _forget(self, key: bytes) -> None:
        owner = self._owners.pop(key)
        own = self._sessions[owner]
        del own[key]
        if not own:
            del self._sessions[owner]
