"""How long Envoy's own cache may repeat an answer without asking, and what must still be there when it does.

How Envoy learns that is in `authz.doors.envoy.ext_authz`.
"""

from typing import Final

from authz.core.moment import Moment
from authz.core.outcome import Granted
from authz.core.policy import Policy
from authz.core.request import CheckRequest
from authz.ports import SubjectStore

_EPOCH_DIGITS: Final = 8
"""Digits that tell one version of the configuration from the one before."""


def edge_ttl(request: CheckRequest, granted: Granted, policy: Policy, now: Moment) -> float:
    """Return for how many seconds Envoy may repeat an answer; 0 for not at all."""
    if request.route is None or request.own_headers or not granted.route.may_repeat_at_edge:
        return 0.0
    if granted.route.rule and (not request.edge_knows_rules or request.body is not None):
        # Its cache would take another method, path or message for the same request.
        return 0.0
    return granted.lifetime.at_edge(policy.edge_ttl, now)


def edge_epoch(granted: Granted, policy: Policy, subjects: SubjectStore) -> str:
    """Return what names all that may refuse an answer's reference: its memory and the configuration."""
    if granted.reference is None:
        return ""
    return f"{subjects.epoch}.{policy.version[:_EPOCH_DIGITS]}"
