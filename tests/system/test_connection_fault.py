"""Why a connection failed, in words: the same for each HTTP library, with the setting that mends it."""

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest
import requests
import trustme
import urllib3

from authz.core.errors import ExchangeUnavailable
from authz.entra.http import HttpClient
from authz.system import connection_fault

CA = trustme.CA()
Get = Callable[[str, Path], BaseException]


def with_httpx(url: str, trusted: Path) -> BaseException:
    """What the client of the sidecar API raises."""
    context = ssl.create_default_context(cafile=str(trusted))
    with (
        pytest.raises(httpx.HTTPError) as fault,
        httpx.Client(verify=context, trust_env=False, timeout=5) as client,
    ):
        client.get(url)
    return fault.value


def with_urllib3(url: str, trusted: Path) -> BaseException:
    """What the client of Entra raises, below its own errors."""
    context = ssl.create_default_context(cafile=str(trusted))
    pool = urllib3.PoolManager(ssl_context=context, retries=False, timeout=5)
    with pytest.raises(urllib3.exceptions.HTTPError) as fault:
        pool.request("GET", url)
    return fault.value


def with_requests(url: str, trusted: Path) -> BaseException:
    """What the client of the key vault raises."""
    with requests.Session() as session:
        session.trust_env = False
        with pytest.raises(requests.RequestException) as fault:
            session.get(url, verify=str(trusted), timeout=5)
    return fault.value


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve connections, one at a time, until the block ends; gives host and port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def tls(*names: str, **more: object) -> Callable[[socket.socket], None]:
    """Shake hands with a certificate for these names, and cut the connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CA.issue_cert(*names, **more).configure_cert(context)  # type: ignore[arg-type]

    def answer(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.recv(1000)
        except OSError:
            return

    return answer


def plain(connection: socket.socket) -> None:
    """Answer what came in plain text."""
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def cut(connection: socket.socket) -> None:
    """Take what came, and end."""
    connection.recv(1000)


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """The file with the authority of `tls`."""
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """A file with another authority."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    return tmp_path / "other.pem"


@pytest.mark.parametrize("get", [with_httpx, with_urllib3, with_requests])
class TestOfAnyLibrary:
    """httpx, urllib3 and requests wrap the same faults differently."""

    def test_an_unknown_authority_names_the_setting(self, get: Get, strangers: Path) -> None:
        """A company's proxy that looks into TLS is met on the first day."""
        with listening(tls("127.0.0.1")) as place:
            found = connection_fault.words(get(f"https://{place}/", strangers), ca_file="a.ca_file")

        assert "its certificate is not trusted: name its authority in a.ca_file" == found

    def test_a_certificate_for_another_name(self, get: Get, trusted: Path) -> None:
        """The address is wrong, or somebody else answers there."""
        with listening(tls("api.example")) as place:
            found = connection_fault.words(get(f"https://{place}/", trusted), ca_file="a")

        assert "its certificate is for another address" == found

    def test_plain_text_where_tls_is_expected(self, get: Get, trusted: Path) -> None:
        """The port of plain HTTP."""
        with listening(plain) as place:
            found = connection_fault.words(get(f"https://{place}/", trusted), ca_file="a")

        assert found.startswith("no TLS with it (")

    def test_nobody_listens(self, get: Get, trusted: Path) -> None:
        """A port that is bound and does not listen."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            url = f"https://127.0.0.1:{bound.getsockname()[1]}/"
            found = connection_fault.words(get(url, trusted), ca_file="a")

        assert "connection refused" == found

    def test_a_connection_that_is_cut(self, get: Get, trusted: Path) -> None:
        """In the handshake: as a firewall does."""
        with listening(cut) as place:
            found = connection_fault.words(get(f"https://{place}/", trusted), ca_file="a")

        assert found in {
            "the connection was cut during the TLS handshake",
            "the connection was cut",
        }


def test_the_client_of_entra_says_it(strangers: Path) -> None:
    """With the host, and the key of the configuration."""
    with (
        listening(tls("127.0.0.1")) as place,
        pytest.raises(ExchangeUnavailable) as fault,
    ):
        HttpClient(ca_file=strangers, connect_timeout=5, timeout=5, pool_size=1).get(
            f"https://{place}/"
        )

    expected = "127.0.0.1: its certificate is not trusted: name its authority in entra.ca_file or AUTHZ_CA_FILE"
    assert expected == fault.value.detail


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "DNS does not know its name"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "DNS does not answer"),
        (OSError(errno.ENETUNREACH, "unreachable"), "no route to it"),
        (OSError(errno.EPERM, "forbidden"), "the system or a network policy forbids it"),
        (TimeoutError("slow"), "no answer in time"),
        (httpx.ConnectTimeout("https://host/?secret"), "no connection in time"),
        (OSError("https://host/?secret"), "OSError"),
        (ValueError("https://host/?secret"), "ValueError"),
        (requests.exceptions.ProxyError(ConnectionRefusedError(111, "")), "the HTTP proxy: connection refused"),
    ],
)  # fmt: skip
def test_what_the_system_says(error: Exception, expected: str) -> None:
    """By its number, and never by a message, which may quote a URL."""
    assert expected == connection_fault.words(error, ca_file="a")


def test_a_circle_of_causes_ends() -> None:
    """Exceptions may be each other's context."""
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first

    assert "ValueError" == connection_fault.words(first, ca_file="a")
