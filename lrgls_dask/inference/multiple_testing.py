"""Many tests at once: p-values adjusted for how many they are, and the share of hypotheses that are true.

With p_(1) <= ... <= p_(m) the m p-values in ascending order, the adjusted ones are

    Holm                  max_{i <= j} min(1, (m - i + 1) p_(i))         family-wise error, under any dependence
    Benjamini-Hochberg    min_{i >= j} min(1, m p_(i) / i)               false discovery rate, independent or positively
                                                                         dependent statistics
    Benjamini-Yekutieli   the same times 1 + 1/2 + ... + 1/m             false discovery rate, under any dependence

and the share of true hypotheses is #{p > 1/2} / (m / 2): p-values of true ones are uniform, of others they are small.
Source: Holm (1979); Benjamini and Hochberg (1995); Benjamini and Yekutieli (2001), theorem 1.3; Storey (2002), with
lambda = 1/2.
"""

from __future__ import annotations

import numpy as np

__all__ = ["adjusted", "share_of_true"]

LAMBDA = 0.5  # above which p-values are taken to be those of true hypotheses


def adjusted(pvalues: np.ndarray, method: str) -> np.ndarray:
    """(m,) p-values adjusted by "holm", "bh" or "by"; NaN stay and do not count.  O(m log m)."""
    out = np.full(len(pvalues), np.nan)
    at = np.flatnonzero(~np.isnan(pvalues))
    order = at[np.argsort(pvalues[at], kind="stable")]
    m = len(order)
    rank = np.arange(1, m + 1)
    if method == "holm":
        steps = np.maximum.accumulate((m - rank + 1) * pvalues[order])
    else:
        times = float(np.sum(1.0 / rank)) if method == "by" else 1.0
        steps = np.minimum.accumulate((times * m / rank * pvalues[order])[::-1])[::-1]
    out[order] = np.minimum(steps, 1.0)
    return out


def share_of_true(pvalues: np.ndarray) -> float:
    """The share of hypotheses that are true, at most 1, of p-values (m,); NaN do not count.  NaN for none."""
    known = pvalues[~np.isnan(pvalues)]
    return min(1.0, float(np.mean(known > LAMBDA)) / (1.0 - LAMBDA)) if len(known) else float("nan")
