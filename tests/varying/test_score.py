"""The likelihood of rows under the Sigma_t of their segments."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import LowRankGLS, System, TimeVarying, TimeVaryingFit
from lrgls_dask.rows import memory
from support.counted import counted
from support.fits import fit
from support.segments import drifting
from support.systems import simulate

DATA, _ = drifting(6, 40)
YEARS = np.repeat(np.arange(2001, 2007), 40)
MODEL = LowRankGLS(covariance=TimeVarying(1, YEARS, 2.5)).fit(DATA.system())
FIT: Any = MODEL.result_


def by_hand(data: Any, years: np.ndarray) -> float:
    """Mean over rows of the log-density of each."""
    residuals, w = data.dense().residuals(FIT.params.values), data.dense().w
    total = 0.0
    for r, year, weight in zip(residuals, years, w, strict=True):
        sigma = FIT.sigma(year).values / weight
        total -= 0.5 * (np.linalg.slogdet(2 * np.pi * sigma)[1] + r @ np.linalg.solve(sigma, r))
    return float(total / len(years))


def test_of_the_fitted_rows_it_is_the_likelihood_per_row() -> None:
    system = DATA.system()
    for found in (MODEL.score(system), FIT.score(FIT.system), FIT.score(system, YEARS)):
        assert found == pytest.approx(FIT.loglik / 240, rel=1e-10)
    assert MODEL.score(system) == pytest.approx(by_hand(DATA, YEARS), rel=1e-10)


def test_new_rows_of_some_segments_in_any_order() -> None:
    other = replace(drifting(6, 40, seed=1)[0], weights=np.random.default_rng(0).uniform(0.5, 2.0, 240))
    late = other.take(YEARS >= 2004)
    assert FIT.score(late.system(), YEARS[YEARS >= 2004]) == pytest.approx(by_hand(late, YEARS[YEARS >= 2004]))
    order = np.random.default_rng(1).permutation(240)
    mixed = other.take(order)
    assert FIT.score(mixed.system(), YEARS[order]) == pytest.approx(by_hand(mixed, YEARS[order]))
    opened = replace(FIT, compressed_segments=(), system=None)
    assert opened.score(mixed.system(), YEARS[order]) == FIT.score(mixed.system(), YEARS[order])


def test_one_pass() -> None:
    store = counted(simulate("mixed", n=230))
    segments = np.arange(230) // 46
    system = System.from_zarr(store)
    found: TimeVaryingFit = LowRankGLS(covariance=TimeVarying(1, segments, 2.0)).fit(system).result_  # type: ignore[assignment]
    found.score(system, segments)
    assert store.of("X") == store.of("Y") == {2: 23}


def test_an_infinite_bandwidth_scores_as_a_static_fit() -> None:
    tight: Any = {"rel_tol": 1e-14, "max_sweeps": 200}
    found = LowRankGLS(covariance=TimeVarying(1, YEARS, np.inf), **tight).fit(DATA.system())
    new = drifting(6, 40, seed=2)[0].system()
    assert found.score(new) == pytest.approx(fit(DATA.system(), 1).score(new), rel=1e-7)


def test_segments_by_name_are_those_of_the_new_rows() -> None:
    def system(first: str, seed: int) -> System:
        time = pd.date_range(first, periods=240, freq="ME")
        data = drifting(6, 40, seed=seed)[0]
        X = xr.DataArray(data.X, {"time": time, "name": ["c", "a", "b"]}, ("time", "name"))
        Y = xr.DataArray(data.Y, {"time": time, "equation": list("uvwxyz")}, ("time", "equation"))
        return System.from_xarray(xr.Dataset({"Y": Y, "X": X}), "Y", ["X"], obs="time")

    model = LowRankGLS(covariance=TimeVarying(1, "time.year", 4.0)).fit(system("2001-01-31", 0))
    again = system("2001-01-31", 3)
    years = np.repeat(np.arange(2001, 2021), 12)
    assert model.score(again) == pytest.approx(model.result_.score(again, years))  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"segments: 2021 was not fitted, .* the fit has 20 segments, 2001 to 2020"):
        model.score(system("2002-01-31", 3))


def test_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    part = DATA.take(np.arange(100)).system()
    with pytest.raises(ValueError, match=r"not the rows that were fitted.* one label for each of 100 rows"):
        FIT.score(part)
    with pytest.raises(ValueError, match=r"one label for each of 100 rows; found shape \(240,\)"):
        MODEL.score(part)
    with pytest.raises(ValueError, match="segments: 1999 was not fitted"):
        FIT.score(part, np.repeat([2001, 1999], 50))
    with pytest.raises(ValueError, match="segments: the label of row 7 is missing"):
        FIT.score(part, np.where(np.arange(100) == 7, np.nan, 2001.0))
    with pytest.raises(ValueError, match=r"a compressed system has none left to tell apart\. Use the System"):
        FIT.score(part.compress())
    with pytest.raises(ValueError, match=r"do not match the fit: regressors missing .x0., "):
        FIT.score(simulate("own", n=240).system(), YEARS)
    monkeypatch.setattr(
        memory, "this_cluster", lambda limit: SimpleNamespace(n_threads=1, in_process=True, base=0, limit=9)
    )
    with pytest.raises(
        MemoryError, match=r"cross-products of 2 segments: needs .* limit is 9 B\. Score fewer segments"
    ):
        FIT.score(part, np.repeat([2001, 2002], 50))
