"""What the covariances of coefficients refuse, and what they warn of."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrgls_dask import FitWarning, LowRankGLS, System
from lrgls_dask.errors import BadValues
from lrgls_dask.inference import hac
from lrgls_dask.rows import memory
from lrgls_dask.rows.memory import Cluster
from support.counted import counted
from support.fits import fit
from support.sandwiches import GROUPS, OPTIONS
from support.systems import simulate, zarr_rows


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sandwich", {}, "kind must be 'classical' or 'robust' or .*; got 'sandwich'"),
        ("robust", {"correction": "HC4"}, "correction must be 'none' or .* or 'HC3'; got 'HC4'"),
        ("hac", {"kernel": "truncated"}, "kernel must be .* or 'qs'; got 'truncated'"),
        ("robust", {"bandwidth": 3}, "kind='robust' takes no bandwidth=; 'hac' and 'driscoll-kraay' do"),
        (
            "classical",
            {"correction": "HC1"},
            "kind='classical' takes no correction=; 'robust' and 'cluster' and 'hac' and 'driscoll-kraay' do",
        ),
        ("hac", {"groups": GROUPS}, "kind='hac' takes no groups=; 'cluster' does"),
        ("observed", {"debiased": True}, "kind='observed' takes no debiased=; 'classical' and 'robust' and"),
        ("robust", {"kernel": "qs"}, "takes no kernel="),
        ("hac", {"bandwidth": -1}, "bandwidth must be zero or more and finite; got -1"),
        ("hac", {"bandwidth": 240}, "bandwidth 240 reaches back 240 rows but there are only 240. Use at most 239"),
        ("cluster", {}, "kind='cluster' needs groups"),
        ("cluster", {"groups": GROUPS[:239]}, r"one label for each of 240 rows; found shape \(239,\)"),
        ("cluster", {"groups": np.zeros(240)}, r"at least two groups; all rows are in .*0\.0"),
        ("cluster", {"groups": np.where(GROUPS == 3, np.nan, GROUPS)}, r"label of row \d+ is missing, \d such labels"),
    ],
)
def test_options_that_make_no_sense(kind: Any, options: dict[str, Any], message: str) -> None:
    made = fit(simulate("own").system())
    with pytest.raises(ValueError, match=message):
        made.cov(kind, **options)


def test_bandwidth_of_another_type() -> None:
    made = fit(simulate("own").system())
    with pytest.raises(TypeError, match="bandwidth must be a number of rows or None; got 'auto'"):
        made.cov("hac", bandwidth="auto")  # type: ignore[arg-type]


def test_automatic_bandwidth_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="'qs' kernel looks at 4 lags, which 5 rows do not have"):
        hac.pilot_lags("qs", 5)
    with pytest.raises(ValueError, match=r"'bartlett' kernel does not exist: .* variance of 0"):
        hac.bandwidth_of("bartlett", np.zeros(4), 100)


def test_ridge_has_no_degrees_of_freedom() -> None:
    with pytest.raises(ValueError, match="which lam_B = 20 has shrunk"):
        fit(simulate("own").system(), lam_B=20.0).cov("classical", debiased=True)


def test_few_groups_are_warned_of() -> None:
    made = fit(simulate("own").system())
    with pytest.warns(FitWarning, match=f"2 groups are fewer than {made.n_coefficients} coefficients") as caught:
        made.cov("cluster", groups=np.arange(240) % 2)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.cov("cluster", groups=np.arange(240) % 12, equation="y0")


def test_other_rows_are_refused() -> None:
    data = simulate("own")
    made = fit(data.system())
    with pytest.raises(ValueError, match="system has 239 rows of positive weight but the fit was made of 240"):
        made.cov("robust", system=data.take(slice(1, None)).system())
    weights = np.where(np.arange(240) < 7, 0.0, 1.0)
    with pytest.raises(ValueError, match="system has 233 rows of positive weight but the fit was made of 240"):
        made.cov("huber-white", system=replace(data, weights=weights).system())
    with pytest.raises(ValueError, match=r"do not match the fit: equations missing 'y5'"):
        made.cov("robust", system=simulate("own", K=5).system())
    compressed = data.system().compress()
    with pytest.raises(TypeError, match="needs the rows themselves, a System; got a CompressedSystem"):
        made.cov("robust", system=compressed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind='hac' needs the rows, which this fit does not hold"):
        LowRankGLS(1).fit(compressed).result_.cov("hac")


@pytest.mark.parametrize("kind", OPTIONS)
def test_bad_values_are_named(kind: str) -> None:
    data = simulate("own", weighted=True)
    made = fit(data.system())
    X = data.X.copy()
    X[100, 4] = np.nan
    with pytest.raises(BadValues, match=r"regressor .*: NaN value at row 100"):
        made.cov(kind, system=replace(data, X=X).system(zarr_rows(50)), **OPTIONS[kind])
    weights = data.weights.copy()
    weights[7] = -1
    with pytest.raises(BadValues, match="weights: negative value at row 7"):
        made.cov(kind, system=replace(data, weights=weights).system(zarr_rows(50)), **OPTIONS[kind])


@pytest.mark.parametrize(("in_process", "where"), [(True, "this process"), (False, "each worker")])
def test_what_cannot_fit_is_refused_before_a_read(
    in_process: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = simulate("own")
    store = counted(data)
    made = fit(data.system())
    monkeypatch.setattr(memory, "this_cluster", lambda limit: Cluster(1, 2, 10**5, 50_000, in_process, 10**5))
    with pytest.raises(MemoryError, match=f"robust covariance: needs .* in {where}; the limit is 97.66 kiB. Ask for"):
        made.cov("robust", system=System.from_zarr(store))
    with pytest.raises(MemoryError, match=f"Huber-White covariance: needs .* in {where}; .* Use kind='robust', one eq"):
        made.cov("huber-white", system=System.from_zarr(store))
    assert store.of("X") == store.of("Y") == {}
