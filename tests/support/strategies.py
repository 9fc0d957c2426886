"""What hypothesis draws in several test files."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


@st.composite
def ragged(draw: st.DrawFn, n: int, most: int) -> tuple[int, ...]:
    """Row chunks that sum to n, of length one and short last ones included; at most `most` cuts."""
    cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=most)))
    return tuple(int(length) for length in np.diff([0, *cuts, n]))
