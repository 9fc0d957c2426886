"""One array in memory for every equation, of very many: taken together, as the same columns given in one array."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data import assemble

N, K = 60, 80


def arrays() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Y, a column that all equations share, and two or three columns of each one's own."""
    rng = np.random.default_rng(3)
    own = [rng.normal(size=(N, 2 + j % 2)) for j in range(K)]
    return rng.normal(size=(N, K)) + rng.normal(size=(N, 1)), np.ones((N, 1)), own


def test_as_many_arrays_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    Y, _, own = arrays()
    joined = System.from_arrays(Y, own)
    assert len(joined.rows.x) == 1
    monkeypatch.setattr(assemble, "MANY", K)
    apart = System.from_arrays(Y, own)
    assert len(apart.rows.x) == K
    np.testing.assert_array_equal(joined.rows.x[0].array, np.hstack([part.array for part in apart.rows.x]))
    assert [a == b for a, b in zip(joined.design.terms, apart.design.terms, strict=True)] == [True] * K
    fits = [LowRankGLS(rank=1, algorithm="fgls").fit(system).result_ for system in (joined, apart)]
    np.testing.assert_array_equal(fits[0].coefficients, fits[1].coefficients)


def test_frames_and_columns_of_their_own_precision() -> None:
    """Single precision is remembered, an array given twice is there once."""
    Y, ones, own = arrays()
    single = [x.astype(np.float32) for x in own[:-2]] + [ones, ones]
    system = System.from_arrays(Y, single)
    assert system.rows.x[0].array.shape[1] == system.design.n_regressors == sum(x.shape[1] for x in single) - 1
    assert system.rows.x[0].array.dtype == np.float64
    eps = float(np.finfo(np.float32).eps)
    assert system.design.precision == (eps,) * (system.design.n_regressors - 1) + (0.0,)
    frames = [pd.DataFrame(x).add_prefix("x") for x in own]
    of_frames = System.from_arrays(Y, frames)
    assert len(of_frames.rows.x) == 1
    assert of_frames.design.terms[1] == ("x0", "x1", "x2")
    np.testing.assert_array_equal(of_frames.rows.x[0].array, System.from_arrays(Y, own).rows.x[0].array)


def test_no_memory_for_a_copy_leaves_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    Y, _, own = arrays()
    monkeypatch.setattr(assemble, "has_room_here", lambda *_: False)
    assert len(System.from_arrays(Y, own).rows.x) == K


def test_one_of_another_length_is_named() -> None:
    Y, _, own = arrays()
    with pytest.raises(ValueError, match=r"Xs\[7\] has 59 rows"):
        System.from_arrays(Y, [x[:-1] if j == 7 else x for j, x in enumerate(own)])
