"""A label may be missing in a row that no fit looks at, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lrgls_dask import LowRankGLS, System, TimeVarying
from support.absorbed import TIGHT

N, K = 120, 3
RNG = np.random.default_rng(11)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
COMPLETE = X @ RNG.normal(size=(2, K)) + RNG.normal(size=(N, 1)) + RNG.normal(size=(N, K))
EMPTY = np.array([0, 31, 32, 77, N - 1])
SHOWN = np.setdiff1d(np.arange(N), EMPTY)
GROUPS = np.arange(N) // 6 + 0.0
WITHOUT = GROUPS.copy()
WITHOUT[EMPTY] = np.nan
WORDS = np.where(np.isnan(WITHOUT), None, np.array([f"g{int(g):02d}" for g in GROUPS], dtype=object))


def responses(missing: str) -> np.ndarray:
    """(N, K) with rows that show nothing, or, with "drop", not all."""
    Y = COMPLETE.copy()
    Y[EMPTY] = np.nan
    if missing == "drop":
        Y[EMPTY[1:], 1:] = COMPLETE[EMPTY[1:], 1:]
    else:
        Y[40:60, 1] = np.nan
    return Y


def system(missing: str, rows: Any = slice(None), first: int = 0, **given: Any) -> System:
    Y = COMPLETE if missing == "raise" else responses(missing)
    weights = None
    if missing == "raise":
        weights = np.ones(N)
        weights[EMPTY] = 0.0
        weights = weights[rows]
    return System.from_arrays(Y[rows], X[rows, first:], weights=weights, **given)


def fitted(missing: Any, rows: Any = slice(None), **given: Any) -> Any:
    return LowRankGLS(1, missing=missing, **TIGHT).fit(system(missing, rows, **given)).result_


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("missing", ["raise", "drop", "em"])
def test_groups_of_rows_that_are_not_fitted(missing: str) -> None:
    fit, alone = fitted(missing), fitted(missing, SHOWN)
    for labels in (WITHOUT, WORDS):
        found = fit.with_cov("cluster", groups=[labels, np.arange(N) // 3])
        same(found.std_errors, alone.with_cov("cluster", groups=[GROUPS[SHOWN], SHOWN // 3]).std_errors)
    same(
        fit.with_cov("driscoll-kraay", times=WITHOUT).std_errors,
        alone.with_cov("driscoll-kraay", times=GROUPS[SHOWN]).std_errors,
    )
    how: dict[str, Any] = {"method": "cluster", "seed": 1}
    drawn = fit.bootstrap(2, groups=WITHOUT, **how).draws.params
    np.testing.assert_allclose(drawn, alone.bootstrap(2, groups=GROUPS[SHOWN], **how).draws.params, rtol=1e-4)
    wrong = WITHOUT.copy()
    wrong[5] = np.nan
    for call in (lambda: fit.with_cov("cluster", groups=wrong), lambda: fit.bootstrap(2, groups=wrong, **how)):
        with pytest.raises(ValueError, match="groups: the label of row 5 is missing, 1 such labels in all"):
            call()


@pytest.mark.filterwarnings("ignore::lrgls_dask.errors.FitWarning")
@pytest.mark.parametrize("missing", ["drop", "em"])
def test_segments(missing: Any) -> None:
    def varying(labels: np.ndarray, rows: Any = slice(None)) -> Any:
        option = TimeVarying(segments=labels, rank=1)
        return LowRankGLS(covariance=option, missing=missing, max_sweeps=3).fit(system(missing, rows))

    years = np.where(np.isnan(WITHOUT), np.nan, np.arange(N) // 40)
    model, alone = varying(years), varying(years[SHOWN], SHOWN)
    fit, wanted = model.result_, alone.result_
    same(fit.params, wanted.params)
    same(fit.loglik, wanted.loglik)
    same(fit.score(fit.system, segments=years), fit.score(fit.system))
    years[50] = np.nan
    with pytest.raises(ValueError, match="segments: the label of row 50 is missing, 1 such labels in all"):
        varying(years)


@pytest.mark.parametrize("missing", ["raise", "drop"])
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_effects(missing: str, engine: Any) -> None:
    other = np.arange(N) % 5

    def absorbed(rows: Any, **labels: np.ndarray) -> Any:
        given = system(missing, rows, 1, absorb=labels)
        return given, LowRankGLS(0, missing=missing, engine=engine, **TIGHT).fit(given).result_

    given, fit = absorbed(slice(None), firm=WORDS, of=other)
    rest, wanted = absorbed(SHOWN, firm=WORDS[SHOWN], of=other[SHOWN])
    same(fit.params, wanted.params)
    same(fit.with_cov("robust").std_errors, wanted.with_cov("robust").std_errors)
    same(
        fit.with_cov("cluster", groups=WITHOUT, correction="CR1").std_errors,
        wanted.with_cov("cluster", groups=GROUPS[SHOWN], correction="CR1").std_errors,
    )
    predicted = np.asarray(fit.predict(given))
    same(predicted[SHOWN], wanted.predict(rest))
    assert np.isnan(predicted[EMPTY]).all()
    same(fit.score(given), wanted.score(rest))


def test_a_row_that_is_fitted_has_a_label() -> None:
    Y = responses("drop")
    WRONG = WORDS.copy()
    WRONG[5] = None
    with pytest.raises(ValueError, match="absorb 'firm': the label of row 5 is missing"):
        System.from_arrays(Y, X[:, 1:], absorb={"firm": WRONG})
    late = System.from_arrays(np.column_stack([COMPLETE, np.full(N, np.nan)]), X[:, 1:])
    with pytest.raises(ValueError, match="absorb: row 0 has no label, and shows all responses that are fitted"):
        LowRankGLS(0, unusable="skip").fit(late.absorb({"firm": WORDS}))


def test_frames() -> None:
    frame = pd.DataFrame({"y": responses("em")[:, 0], "x": X[:, 1], "g": WORDS, "year": np.arange(N) % 4})
    system = System.from_frame(frame, "y ~ x", groups="g", absorb=["g"])
    assert system.n_obs == len(SHOWN)
    frame.loc[33, "g"] = None
    for given in ({"groups": "g"}, {"absorb": ["g"]}):
        with pytest.raises(ValueError, match="'g': the label of row 33 is missing, 1 such"):
            System.from_frame(frame, "y ~ x", **given)
