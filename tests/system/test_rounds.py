"""`Rounds`: a round that fails is said once, and ends nothing."""

from structlog.testing import capture_logs

from authz.system.rounds import Rounds


def test_a_round_that_fails_is_logged_once_for_each_cause() -> None:
    """By the type of the error: its text may quote a file."""
    rounds = Rounds("a look")
    outcomes = [ValueError("a secret"), ValueError("a secret"), OSError(), None, OSError()]
    with capture_logs() as logs:
        for outcome in outcomes:
            with rounds.surviving():
                if outcome is not None:
                    raise outcome

    assert ["ValueError", "OSError", "OSError"] == [record["cause"] for record in logs]
    assert {("background work failed", "a look")} == {(r["event"], r["work"]) for r in logs}
    assert "secret" not in str(logs)
