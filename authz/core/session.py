"""`SessionOwners`: to whom each session of an MCP server belongs, which is the first caller who uses it.

The server names a session in an answer, which nobody shows us; its client sends the id with each request
from then on (MCP 2025-11-25, "Session management"). So an id that is new to us belongs to who sends it, and
is refused from everybody else. What an id looks like is said here, too.
"""

import re
from collections import OrderedDict
from typing import Final

from authz.core.errors import AmbiguousRequest, ForeignSession
from authz.core.principal import Subject
from authz.core.secret import Secret

_ID: Final = re.compile(r"[!-+\--~]{1,1024}")
"""Visible ASCII, but for the comma by which Envoy joins two headers: servers may take either."""
_SHARE: Final = 10
"""One caller has at most one of so many parts of the room: who opens many sessions forgets their own."""
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

    def claim(self, session: Secret, route: str, caller: Subject) -> None:
        """Let a caller use a session.

        Args:
            session: Its id, as the caller sends it.
            route: The inbound route: ids of one server mean nothing to another.
            caller: Who the verified token is about.

        Raises:
            AmbiguousRequest: It is not exactly one id.
            ForeignSession: It belongs to somebody else.
        """
        if _ID.fullmatch(session.reveal()) is None:
            raise AmbiguousRequest("mcp-session-id is not exactly one id of a session")
        key = session.digest() + route.encode()
        owner = (caller.tenant_id, caller.object_id)
        if self._owners.setdefault(key, owner) != owner:
            raise ForeignSession("another caller has used the session before")
        self._owners.move_to_end(key)
        own = self._sessions.setdefault(owner, OrderedDict())
        own[key] = None
        own.move_to_end(key)
        while len(own) > max(1, self.most // _SHARE):
            self._forget(next(iter(own)))
        while len(self._owners) > self.most:
            self._forget(next(iter(self._owners)))

    def __len__(self) -> int:
        return len(self._owners)

    def _forget(self, key: bytes) -> None:
        owner = self._owners.pop(key)
        own = self._sessions[owner]
        del own[key]
        if not own:
            del self._sessions[owner]
