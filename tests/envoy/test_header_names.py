"""Names of headers that a decision depends on: found alike whether they are remembered or not."""

import pytest

from authz.doors.envoy.header_names import LONGEST_KNOWN, OddNames, odd_names


@pytest.mark.parametrize("others", [(), ("x" * LONGEST_KNOWN,)], ids=["remembered", "too long"])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), OddNames((), (), "")),
        (("authorization", "accept"), OddNames((), (), "")),
        (("accept", "x-authz-subject"), OddNames(("x-authz-subject",), ("x-authz-subject",), "")),
        (("x_authz-role",), OddNames(("x_authz-role",), ("x_authz-role",), "")),
        (("ax-authz-role", "x-authz"), OddNames((), (), "")),
        (("uberctx-a", "baggage"), OddNames((), ("uberctx-a",), "")),
        (("accept", "x_http-method"), OddNames((), (), "x_http-method")),
    ],
)
def test_names_that_count_are_found(
    names: tuple[str, ...], others: tuple[str, ...], expected: OddNames
) -> None:
    # Twice: the second time it may be remembered.
    assert [expected, expected] == [odd_names([*names, *others]) for _ in range(2)]


def test_a_name_that_is_new_among_known_ones_is_found() -> None:
    """No set of names is taken for another one."""
    assert not odd_names(["accept", "host"]).own
    assert ("x-authz-a",) == odd_names(["accept", "host", "x-authz-a"]).own
    assert not odd_names(["accept", "hostx-authz-a"]).own
