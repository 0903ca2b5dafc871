"""How clients stand: looks at many credentials are spread over time."""

from collections import Counter

from authz.core.exchange import Client
from authz.entra.credentials import ClientSecret
from authz.entra.sources import CredentialFault
from authz.entra.standings import Standings
from support.fakes.clock import Clock

NAMES = [f"client-{number}" for number in range(5)]


class Files:
    """Secrets by client; a client without one has a fault."""

    def __init__(self) -> None:
        self.secrets = dict.fromkeys(NAMES[1:], "of the client")
        self.reads = Counter[str]()
        self.standings = Standings(
            {Client(name, "tenant", name): [self._credential(name)] for name in NAMES},
            Clock(),
        )

    def _credential(self, name: str) -> ClientSecret:
        def read() -> str:
            self.reads[name] += 1
            if name not in self.secrets:
                raise CredentialFault("gone")
            return self.secrets[name]

        return ClientSecret(read, name)


def test_all_are_looked_at_in_turn() -> None:
    """Each as often as the others, however few a look takes."""
    files = Files()
    for _ in NAMES:
        files.standings.look(2)

    assert dict.fromkeys(NAMES, 2) == files.reads


def test_what_was_found_stands_until_the_next_turn() -> None:
    """Looks at other clients return a fault too, until a look at its own file finds it mended."""
    files = Files()
    seen = [files.standings.look(1)]
    files.secrets["client-0"] = "mended"
    seen += [files.standings.look(1) for _ in NAMES]

    assert [{"client-0": "gone"}] * 5 + [{}] == seen


def test_a_look_at_more_than_there_are_reads_each_once() -> None:
    """Nobody's file is read twice in one look."""
    files = Files()
    files.standings.look(50)

    assert dict.fromkeys(NAMES, 1) == files.reads
