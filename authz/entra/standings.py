"""How clients stand with Entra, by the credentials that each has. Nothing is sent here.

Which credential is tried when, and what becomes of an answer, is in `authz.entra.clients`.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, assert_never

from authz.core.exchange import Client
from authz.entra.credentials import Credential
from authz.entra.sources import CredentialFault
from authz.ports import Clock, Standing


class Standings:
    """What is known of each client's credentials, and how it stands with Entra by them.

    Args:
        credentials: Of each client, in the order to try.
        clock: Epoch seconds.
    """

    def __init__(self, credentials: Mapping[Client, Sequence[Credential]], clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._taken: dict[Client, int] = {}
        """Position of the credential that Entra took last."""
        self._turns = deque(credentials)
        """Clients, those that were looked at longest ago first."""
        self._faults: dict[Client, str] = {}
        """Why clients had no usable credential when somebody looked last."""

    def took(self, client: Client, position: int) -> None:
        """Take note of which of its credentials Entra has just taken."""
        self._taken[client] = position

    def look(self, most: int | None = None) -> dict[str, str]:
        """Look at credentials; return why a client has no usable one, by its name. Blocks: it reads files.

        Args:
            most: Of so many clients, in turn. None for all.
        """
        clients = len(self._turns)
        for _ in range(clients if most is None else min(most, clients)):
            client = self._turns[0]
            self._turns.rotate(-1)
            if causes := _all_faults(self._credentials[client]):
                self._faults[client] = "; ".join(causes)
            else:
                self._faults.pop(client, None)
        return {client.name: causes for client, causes in self._faults.items()}

    def refused(self) -> set[tuple[str, str]]:
        """Return the clients whose newest credentials Entra refuses, with the kind of each. Reads nothing."""
        return {
            (client.name, credential.kind)
            for client, credentials in self._credentials.items()
            for credential in credentials
            if credential.is_refused
        }

    def unreadable(self) -> dict[tuple[str, str], bool]:
        """Return whether a credential could not be read of late, by client and kind. Reads nothing."""
        found: dict[tuple[str, str], bool] = {}
        for client, credentials in self._credentials.items():
            for credential in credentials:
                key = client.name, credential.kind
                found[key] = found.get(key, False) or credential.fault is not None
        return found

    def of_clients(self) -> dict[Client, Standing]:
        """Return how each client stands with Entra, by the first credential that it takes. Reads nothing."""
        return {client: _standing(credentials) for client, credentials in self._credentials.items()}

    def are_served(self) -> set[Client]:
        """Return the clients of which Entra has taken a credential, be it an older version. Reads nothing."""
        return {
            client
            for client, credentials in self._credentials.items()
            if any(credential.accepted_in_use for credential in credentials)
        }

    def described(self) -> dict[str, list[dict[str, Any]]]:
        """Return what is known of each client's credentials, in the order to try. Reads nothing."""
        return {
            client.name: [
                {
                    "credential": credential.described_as,
                    "standing": credential.standing.value,
                    "accepted_in_use": credential.accepted_in_use,
                    "fault": credential.fault,
                }
                for credential in credentials
            ]
            for client, credentials in self._credentials.items()
        }

    def proved(self) -> dict[tuple[str, str], bool]:
        """Return whether Entra has taken the newest version, by client and kind of those that are tried."""
        found: dict[tuple[str, str], bool] = {}
        for client, credentials in self._credentials.items():
            for credential in credentials:
                if credential.standing is Standing.UNREAD:
                    continue
                key = client.name, credential.kind
                is_accepted = credential.standing is Standing.ACCEPTED
                found[key] = is_accepted and found.get(key, True)
                if is_accepted:
                    break
        return found

    def expiries(self) -> dict[tuple[str, str], float]:
        """Return the seconds until certificates in use expire, by name of the client and kind. Reads nothing.

        In use are the one that Entra took last and those before it, which are tried first each time. Of
        several, the one that expires first counts.
        """
        now = self._clock()
        left: dict[tuple[str, str], float] = {}
        for client, credentials in self._credentials.items():
            # Until Entra has taken one, readiness has read those up to the first that can be read.
            last = self._taken.get(client, len(credentials) - 1)
            for credential in credentials[: last + 1]:
                if credential.expires_at is not None:
                    key = client.name, credential.kind
                    left[key] = min(left.get(key, inf), credential.expires_at - now)
        return left


def _standing(credentials: Sequence[Credential]) -> Standing:
    """Return how a client stands. Those that are tried after one that Entra takes do not count."""
    refused = False
    for credential in credentials:
        match credential.standing:
            case Standing.ACCEPTED | Standing.UNPROVED as found:
                return found
            case Standing.REFUSED:
                refused = True
            case Standing.UNREAD:
                pass
            case _ as unreachable:
                assert_never(unreachable)
    return Standing.REFUSED if refused else Standing.UNREAD


def _all_faults(credentials: Sequence[Credential]) -> list[str]:
    """Return the faults of all credentials, or nothing if one is usable.

    After a usable one only those are looked at that Entra refused, or that could not be read: their files
    may have been put right.
    """
    causes, is_served = [], False
    for credential in credentials:
        if is_served and not credential.is_refused and credential.fault is None:
            continue
        try:
            credential.look()
        except CredentialFault as fault:
            causes.append(str(fault))
        else:
            is_served = True
    return [] if is_served else causes
