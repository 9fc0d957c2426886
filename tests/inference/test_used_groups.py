"""Groups, blocks and rows in time that a fit has not used do not count: statistics are those of the used rows alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr

from lrgls_dask import FitWarning, LowRankGLS, System, TimeVarying
from support.systems import Data, dask_rows, simulate, zarr_rows

N, SIZE = 240, 6
GROUPS = np.arange(N) // SIZE
KEPT = np.isin(GROUPS, [3, 4, 11, 12, 13, 25, 26, 38])  # eight of forty, some apart, across blocks
SCATTERED = np.random.default_rng(2).permutation(GROUPS)
WRAPS: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": np.asarray,
    "dask": dask_rows(7),
    "zarr": zarr_rows(11),
    "xarray": lambda a: xr.DataArray(a, dims=("obs", "equation")[: a.ndim]),
}

pytestmark = [pytest.mark.usefixtures("small_blocks"), pytest.mark.filterwarnings("ignore:clustered covariance")]


def unused(data: Data, kept: np.ndarray, how: str) -> tuple[Data, dict[str, Any]]:
    """The same rows with all but `kept` left out by weights, or by a response missing."""
    if how == "weights":
        return replace(data, weights=kept.astype(float)), {}
    Y = data.Y.copy()
    Y[~kept, np.flatnonzero(~kept) % data.Y.shape[1]] = np.nan
    return replace(data, Y=Y), {"missing": "drop"}


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("how", ["weights", "drop"])
def test_only_groups_with_used_rows_are_groups(how: str, wrap: str, engine: str) -> None:
    data = simulate("own", K=3, k=1)
    for groups in (GROUPS, SCATTERED):
        kept = np.isin(groups, np.unique(GROUPS[KEPT]))
        holed, options = unused(data, kept, how)
        options |= {"covariance": "diagonal", "engine": engine}
        made = LowRankGLS(**options).fit(holed.system(WRAPS[wrap])).result_
        found = made.with_cov("cluster", groups=groups, correction="HC1")
        assert found.cov_note == "HC1, 8 groups"
        one = made.cov("cluster", groups=groups, correction="HC1", equation="y1").values
        for j, X in enumerate(data.Xs):
            wanted = sm.OLS(data.Y[kept, j], X[kept]).fit(cov_type="cluster", cov_kwds={"groups": groups[kept]})
            np.testing.assert_allclose(found.std_errors.values[made.design.spans[j]], wanted.bse, rtol=1e-8)
            if j == 1:
                np.testing.assert_allclose(one, wanted.cov_params(), rtol=1e-7, atol=1e-12)


def test_groups_of_segments_too() -> None:
    data, segments = simulate("own", K=4, k=1), np.arange(N) // 60
    kept = GROUPS % 3 > 0
    holed, _ = unused(data, kept, "weights")
    varying = [TimeVarying(1, labels, 0.0) for labels in (segments, segments[kept])]
    found, alone = (
        LowRankGLS(covariance=how).fit(each.system()).result_.cov("cluster", groups=groups, correction="HC1")
        for how, each, groups in zip(varying, (holed, data.take(kept)), (GROUPS, GROUPS[kept]), strict=True)
    )
    assert found.attrs == alone.attrs
    np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("how", ["weights", "drop"])
@pytest.mark.parametrize("wrap", [np.asarray, da.from_array, pd.Series], ids=["numpy", "dask", "pandas"])
def test_one_group_left_is_refused_with_the_counts(how: str, wrap: Any) -> None:
    data, options = unused(simulate("own", K=3, k=1), GROUPS == 39, how)
    # X_j of three columns on six rows
    made = LowRankGLS(covariance="diagonal", **options).fit(data.system(groups=wrap(GROUPS))).result_
    with pytest.raises(ValueError, match=r"at least two groups with rows that were fitted; of 40 groups, 1 has"):
        made.with_cov("cluster")
    with pytest.raises(ValueError, match=r"at least two groups with rows that were fitted; of 40 groups, 1 has"):
        made.bootstrap(3, "cluster")
    with pytest.raises(ValueError, match=r"at least two blocks with rows that were fitted; of 20 blocks, 1 has"):
        made.bootstrap(3, "blocks", n_blocks=20)


def test_few_used_groups_are_warned_of() -> None:
    data, _ = unused(simulate("own"), KEPT, "weights")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        made = LowRankGLS(1).fit(data.system()).result_
    with pytest.warns(FitWarning, match=f"8 groups are fewer than {made.n_coefficients} coefficients") as caught:
        warnings.simplefilter("always")
        made.cov("cluster", groups=GROUPS)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("how", ["weights", "drop"])
def test_replicates_draw_as_many_groups_as_are_used(how: str) -> None:
    data = simulate("own", K=3, k=1)
    holed, options = unused(data, KEPT, how)
    model = LowRankGLS(covariance="diagonal", **options)
    found = model.fit(holed.system()).result_.bootstrap(20, "cluster", groups=GROUPS, seed=1)
    alone = LowRankGLS(covariance="diagonal").fit(data.take(KEPT).system()).result_
    wanted = alone.bootstrap(20, "cluster", groups=GROUPS[KEPT], seed=1)
    np.testing.assert_allclose(found.params, wanted.params, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("equation", [None, "y1"])
@pytest.mark.parametrize("kernel", ["bartlett", "parzen", "qs"])
def test_the_automatic_bandwidth_counts_used_rows(kernel: Any, equation: str | None) -> None:
    data = simulate("own", K=3, k=1)
    late = np.arange(N) >= 190
    holed, _ = unused(data, late, "weights")
    found, alone = (
        LowRankGLS(covariance="diagonal").fit(each).result_.cov("hac", kernel=kernel, equation=equation)
        for each in (holed.system(), data.take(late).system())
    )
    assert found.attrs == alone.attrs
    np.testing.assert_allclose(found, alone, rtol=1e-3 if kernel == "qs" else 1e-8, atol=1e-12)


def test_weights_still_on_disk_are_seen_in_the_pass(tmp_path: Any) -> None:
    data, _ = unused(simulate("own", K=3, k=1), KEPT, "weights")
    data.system(groups=GROUPS).to_zarr(tmp_path / "s", row_chunk=13)
    made = LowRankGLS(covariance="diagonal").fit(System.from_zarr(tmp_path / "s")).result_
    assert made.with_cov("cluster").cov_note == "HC0, 8 groups"
