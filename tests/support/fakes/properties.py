"""How hard properties are tried, and the strategies that several of them share."""

from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Neither clock of hypothesis: a busy machine is no fault of the code.
_PATIENT: Final = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def examples(number: int) -> settings:
    """Return how a property with that many examples is tried; the profile `quick` has fewer."""
    name = settings.get_current_profile_name()
    most = settings.get_profile(name).max_examples if name == "quick" else number
    return settings(_PATIENT, max_examples=min(number, most))


thorough: Final = examples(150)
"""For plain calls."""

brief: Final = examples(40)
"""For what signs a token or runs an event loop in each example."""

JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
"""Any JSON value, and the NaN and Infinity that Python reads as JSON too."""
