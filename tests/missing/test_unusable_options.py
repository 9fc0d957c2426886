"""Whatever a fit is asked for, equations that are skipped change nothing of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System

N, OK = 80, [0, 2, 3, 5]
RNG = np.random.default_rng(3)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = X @ RNG.normal(size=(2, 6)) + RNG.normal(size=(N, 1)) @ RNG.normal(size=(1, 6)) + RNG.normal(size=(N, 6))
Y[RNG.random(Y.shape) < 0.06] = np.nan
Y[:, 1], Y[2:, 4] = np.nan, np.nan
ROWS, CELLS = RNG.uniform(0.5, 2.0, N), RNG.uniform(0.5, 2.0, Y.shape)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"rank": 1, "algorithm": "fgls"}, CELLS),
        ({"rank": 1, "algorithm": "em", "use": "t"}, ROWS),
        ({"rank": "bic", "ranks": [0, 1]}, ROWS),
        ({"rank": "cv", "ranks": [0, 1], "n_folds": 2}, None),
        ({"rank": 1, "engine": "stream", "restrictions": ["*:x1 = 0.2", "0:x0 = 3:x0"]}, CELLS),
    ],
    ids=["fgls", "em", "bic", "cv", "stream"],
)
def test_the_others_are_fitted_as_if_alone(options: dict[str, Any], weights: np.ndarray | None) -> None:
    def fit(at: list[int]) -> Any:
        w = weights[:, at] if weights is CELLS else weights
        system = System.from_arrays(Y[:, at], X, equations=at, regressors=["x0", "x1"], weights=w)
        return LowRankGLS(missing="em", unusable="skip", **options).fit(system).result_

    fit_all, alone = fit(list(range(6))), fit(OK)
    assert (fit_all.status.values == "ok").tolist() == [j in OK for j in range(6)]
    for name in ("params", "std_errors", "pvalues"):
        found, wanted = (np.asarray(getattr(each, name)) for each in (fit_all, alone))
        np.testing.assert_allclose(found[~np.isnan(found)], wanted[~np.isnan(wanted)], rtol=1e-6)
    np.testing.assert_allclose(fit_all.loglik, alone.loglik, rtol=1e-10)
