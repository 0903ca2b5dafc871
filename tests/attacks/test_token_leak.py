"""The user's token stays here: it neither goes out on egress nor shows in what we record."""

import asyncio
import traceback
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import Allow
from authz.core.errors import ConsentRequired, ExchangeUnavailable
from authz.core.exchange import Flow
from authz.core.record import CheckRecord
from authz.core.request import Authorization
from authz.core.secret import Secret
from support.fakes.properties import brief
from support.fakes.scene import EGRESS_FLOWS, Scene
from support.fakes.tenant import AUDIENCE

OUTCOMES: Final = st.sampled_from([None, ConsentRequired(), ExchangeUnavailable(), ValueError("x")])


@brief
@given(
    flow=st.sampled_from(EGRESS_FLOWS),
    valid=st.booleans(),
    other=st.none() | st.text(max_size=20),
    sent=st.lists(st.sampled_from(["x-authz-subject", "x-authz-other"]), unique=True).map(tuple),
    outcome=OUTCOMES,
    again=st.booleans(),
)
def test_what_leaves_on_egress_never_carries_what_came_in(
    flow: Flow, valid: bool, other: str | None, sent: tuple[str, ...], outcome: Exception | None, again: bool
) -> None:  # fmt: skip
    """Every `Allow` either sets authorization to another token or removes it, and never both."""
    scene = Scene(has_defects=isinstance(outcome, ValueError))
    if outcome is not None:
        scene.entra.fail(outcome)
    text = f"Bearer {scene.tenant.user_token()}" if valid else other
    authorization = None if text is None else Authorization(text)

    async def attempts() -> list[CheckRecord]:
        return [
            await scene.egress(flow, authorization=authorization, own_headers=sent)
            for _ in range(1 + again)
        ]

    records = asyncio.run(attempts())
    if valid and outcome is None:
        # Else this could hold for want of anything that goes out.
        assert all(isinstance(record.decision, Allow) for record in records)
    for record in records:
        if isinstance(record.decision, Allow):
            replaced = record.decision.authorization is not None
            assert replaced is not ("authorization" in record.decision.remove)
            assert replaced is (flow is not Flow.NONE)
            assert "authorization" not in {name.lower() for name, _ in record.decision.headers}
            if replaced:
                assert record.decision.authorization == Secret("issued-1")


MARK: Final = "a-claim-value-that-must-not-be-seen"
KINDS: Final = {
    "accepted": {},
    "expired": {"exp": 1},
    "for another API": {"aud": "another"},
    "of another tenant": {"tid": "another"},
    "of another issuer": {"iss": "another"},
    "with a malformed claim": {"roles": MARK},
    "with a time that is none": {"exp": MARK},
}


def _shown(record: CheckRecord) -> str:
    errors = [error for error in (record.error, record.fault) if error is not None]
    reports = ["".join(traceback.format_exception(error)) for error in errors]
    return "\n".join([repr(record), str(record), *reports])


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
async def test_no_part_of_a_token_shows_in_the_record_of_its_check(
    changes: dict[str, object],
) -> None:
    """Neither the token, nor one of its parts, nor a claim's value that was refused."""
    scene = Scene()
    token = scene.tenant.user_token(**{"secret_claim": MARK, **changes})
    records = [
        await scene.inbound(token),
        *[await scene.egress(flow, token) for flow in EGRESS_FLOWS],
    ]

    for record in records:
        shown = _shown(record)
        assert MARK not in shown
        assert [] == [part for part in token.split(".") if part in shown]
        assert "issued-" not in shown


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(MARK, id="no parts"),
        pytest.param(f"{MARK}.{MARK}.{MARK}", id="parts that are no JSON"),
        pytest.param(f"{MARK}~~.a.b", id="parts that are no base64"),
        pytest.param(MARK * 1000, id="too large"),
    ],
)
@pytest.mark.parametrize("form", ["Bearer {}", "Bearer {0}, {0}", "Basic {}", "{}"])
async def test_no_part_of_a_malformed_value_shows_either(token: str, form: str) -> None:
    """What we could not read may still have been somebody's secret."""
    scene = Scene()
    record = await scene.egress(Flow.ON_BEHALF_OF, authorization=Authorization(form.format(token)))

    assert MARK not in _shown(record)


async def test_a_leak_would_be_noticed() -> None:
    """What is shown of a record does hold the route, and so would hold a token."""
    scene = Scene()
    record = await scene.inbound(scene.tenant.user_token())

    assert AUDIENCE in _shown(record)
