"""Addresses to listen on, as the configuration and the command line write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.address import (
    LARGEST_PORT,
    SocketAddress,
    TcpAddress,
    UnixAddress,
    parse_address,
    parse_tcp_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/authz/authz.sock", UnixAddress("/run/authz/authz.sock")),
        ("unix:relative:8080", UnixAddress("relative:8080")),
        ("127.0.0.1:8080", TcpAddress("127.0.0.1", 8080)),
        ("agent.example:0", TcpAddress("agent.example", 0)),
        ("[::1]:65535", TcpAddress("::1", 65535)),
    ],
)
def test_an_address_is_read_and_written(text: str, address: SocketAddress) -> None:
    """As it was; brackets are no part of a host."""
    assert (address, text) == (parse_address(text), str(address))


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:http", "host:65536", "::1:80", "[host]:80", "host:٣"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """With what was found and what was expected."""
    with pytest.raises(ValueError, match="expected host:port"):
        parse_tcp_address(text)


@given(host=st.ip_addresses().map(str), port=st.integers(0, LARGEST_PORT))
def test_every_address_of_a_host_is_read_again(host: str, port: int) -> None:
    """Of either family."""
    address = TcpAddress(host, port)

    assert address == parse_address(str(address))
    assert address.is_ip
    assert not TcpAddress("name.example", port).is_ip
