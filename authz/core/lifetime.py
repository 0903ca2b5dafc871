"""How long what was found may be used: of a token, of an answer, of an answer in Envoy's own cache.

Every margin is subtracted here. No clock is read; `now` comes from the caller.
"""

from dataclasses import dataclass
from typing import Final

from authz.core.exchange import IssuedToken
from authz.core.moment import NEVER, Moment, earliest
from authz.core.principal import Principal
from authz.core.subject import Reference

LOOK_AGAIN: Final = 1.0
"""Seconds for which an answer is reused while its token is due for a successor that is not there yet."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long an allowance holds.

    Attributes:
        ends: When it becomes wrong: the earliest end of what it rests on.
        reuse_until: Until when it answers further requests. Then one of them takes the whole path, which
            fetches successors ahead. Never after `ends`.
    """

    ends: Moment
    reuse_until: Moment

    def at_edge(self, most: float, now: Moment) -> float:
        """Return for how many seconds Envoy's cache may repeat the answer: `most`, or until `ends`."""
        return max(0.0, min(most, self.ends.left(now)))


ENDLESS: Final = Lifetime(NEVER, NEVER)
"""Of an allowance that rests on nothing that ends."""
_BEFORE_ALL: Final = Moment(0.0, 0.0)
ONCE: Final = Lifetime(_BEFORE_ALL, _BEFORE_ALL)
"""Of an allowance for one request only."""


def usable_until(token: IssuedToken, margin: float) -> Moment:
    """Return when a token is no longer handed out.

    Args:
        token: The token.
        margin: Seconds before its own expiry, so that it still lives when the API looks at it.
    """
    return token.expires_at.later(-margin)


def lifetime(
    now: Moment,
    *,
    principal: Principal | None,
    token: IssuedToken | None,
    margin: float,
    subject_ends: Moment = NEVER,
    reference: Reference | None = None,
) -> Lifetime:
    """Return how long an allowance holds that rests on these.

    Args:
        now: The present.
        principal: The verified caller: until the `exp` of the caller's token.
        token: What was issued: until `margin` seconds before its end. From its `refresh_at` on, one request
            in a second takes the whole path.
        margin: See `usable_until`.
        subject_ends: End of the reference by which the caller's token was found.
        reference: What the app was given in place of the token: until its end. From its `renew_at` on, the
            next request gives another.
    """
    ends = subject_ends
    if principal is not None:
        ends = earliest(ends, now.epoch(principal.expires_at))
    if token is not None:
        ends = earliest(ends, usable_until(token, margin))
    if reference is not None:
        ends = earliest(ends, reference.expires_at)
    reuse_until = ends
    if token is not None:
        is_due = token.refresh_at.has_come(now)
        reuse_until = earliest(ends, now.counted(LOOK_AGAIN) if is_due else token.refresh_at)
    if reference is not None:
        reuse_until = earliest(reuse_until, reference.renew_at)
    return Lifetime(ends, reuse_until)
