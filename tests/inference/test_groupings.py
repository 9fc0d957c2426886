"""Groups of several kinds, corrections for small samples, and rows that are (time, unit): against other programs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr
from linearmodels.panel import PanelOLS
from linearmodels.system import SUR

from lrgls_dask import FitWarning, LowRankGLS, System, TimeVarying
from support.fits import at
from support.sandwiches import meat, off_by, scores
from support.systems import Data, dask_rows, restrictions_of, simulate, zarr_rows

N, UNITS = 240, 16
RNG = np.random.default_rng(7)
TIME, UNIT = np.arange(N) // UNITS, np.arange(N) % UNITS
THIRD = RNG.integers(0, 20, size=N)
WRAPS: dict[str, Any] = {"numpy": np.asarray, "dask": dask_rows(7), "zarr": zarr_rows(11)}
pytestmark = [
    pytest.mark.usefixtures("small_blocks"),
    pytest.mark.filterwarnings("ignore:clustered covariance", "ignore:LowRankGLS"),
]


def panel(seed: int = 0, K: int = 3, **options: Any) -> Data:
    """Errors with a part of their time and one of their unit."""
    data, rng = simulate("own", n=N, K=K, k=1, seed=seed, **options), np.random.default_rng(seed)
    data.Y[:] += 2 * rng.normal(size=(N, K))[TIME] + 2 * rng.normal(size=(N, K))[UNIT]
    return data


def crossed_meat(s: np.ndarray, *kinds: np.ndarray) -> np.ndarray:
    """Sum over all pairs of rows that agree in any of the kinds of groups."""
    same = [kind[:, None] == kind[None, :] for kind in kinds]
    return s.T @ np.logical_or.reduce(same) @ s


def bread_of(made: Any, data: Data) -> np.ndarray:
    dense, sigma = data.dense(), np.linalg.inv(made.sigma().values)
    blocks = [[(X.T * dense.w * sigma[i, j]) @ Z for j, Z in enumerate(data.Xs)] for i, X in enumerate(data.Xs)]
    information = np.block(blocks)
    if made.restrictions is None:
        return np.linalg.inv(information)
    free = np.linalg.svd(made.restrictions.matrix)[2][made.restrictions.n_restrictions :].T
    return free @ np.linalg.inv(free.T @ information @ free) @ free.T


@pytest.mark.parametrize("road", ["compress", "stream", "weights", "restrictions", "drop"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_rows_that_share_any_group_may_be_correlated(wrap: str, road: str) -> None:
    data = panel(weighted=road == "weights")
    options: dict[str, Any] = {"engine": "stream"} if road == "stream" else {}
    if road == "restrictions":
        options["restrictions"] = restrictions_of(data)
    kept = np.ones(N, dtype=bool)
    if road == "drop":
        kept[RNG.integers(0, N, size=30)] = False
        data.Y[~kept, 1] = np.nan
        options["missing"] = "drop"
    made = LowRankGLS(1, **options).fit(data.system(WRAPS[wrap])).result_
    used = data.take(kept)
    s, half = scores(made, used), bread_of(made, used)
    for kinds in ((TIME, UNIT), (UNIT, THIRD), (TIME, UNIT, THIRD)):
        wanted = half @ crossed_meat(s, *(kind[kept] for kind in kinds)) @ half
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = made.cov("cluster", groups=list(kinds))
        doubted = any("not positive semidefinite" in str(each.message) for each in said)
        mended = any("negative eigenvalues" in str(each.message) for each in said)
        size = np.sqrt(np.diag(half @ (sum(meat(s, groups=kind[kept]) for kind in kinds)) @ half))
        size = np.where(size > 1e-10 * size.max(), size, 1.0)
        scaled = wanted / np.outer(size, size)
        values, vectors = np.linalg.eigh(scaled)
        assert (mended or doubted) == (values[0] < -1e-9)
        assert mended == bool(np.any(np.diag(scaled) < -1e-9))
        nearest = (vectors * np.maximum(values, 0)) @ vectors.T if mended else scaled
        np.testing.assert_allclose(found.values / np.outer(size, size), nearest, atol=1e-8)


FORMS: dict[str, Any] = {
    "list": lambda: [TIME, UNIT],
    "tuple of series": lambda: (pd.Series(TIME), pd.Series(UNIT)),
    "list of lists": lambda: [TIME.tolist(), [f"u{u}" for u in UNIT]],
    "array": lambda: np.column_stack([TIME, UNIT]),
    "frame": lambda: pd.DataFrame({"t": TIME, "u": [f"u{u}" for u in UNIT]}),
    "dask": lambda: dask_rows(13)(np.column_stack([TIME, UNIT])),
    "zarr": lambda: zarr_rows(13)(np.column_stack([TIME, UNIT])),
    "dataset": lambda: xr.Dataset({"t": ("obs", TIME), "u": ("obs", UNIT)}),
    "DataArray": lambda: xr.DataArray(np.column_stack([TIME, UNIT]), dims=("obs", "kind")),
}


@pytest.mark.parametrize("form", FORMS)
def test_however_the_groups_are_given(form: str) -> None:
    made = LowRankGLS(1).fit(panel().system()).result_
    wanted = made.with_cov("cluster", groups=[TIME, UNIT])
    found = made.with_cov("cluster", groups=FORMS[form]())
    np.testing.assert_array_equal(found.cov(), wanted.cov())
    assert found.cov_note.startswith("HC0, 15 and 16 groups")
    assert found.reference.freedom[0] == 14


def test_groups_go_by_label() -> None:
    data, index = panel(), pd.date_range("2001", periods=N)
    system = System.from_arrays(pd.DataFrame(data.Y, index=index), [pd.DataFrame(X, index=index) for X in data.Xs])
    made = LowRankGLS(1).fit(system).result_
    right = pd.DataFrame({"t": TIME, "u": UNIT}, index=index)
    plain = LowRankGLS(1).fit(data.system()).result_
    np.testing.assert_allclose(
        made.cov("cluster", groups=right), plain.cov("cluster", groups=[TIME, UNIT]), rtol=1e-7, atol=1e-10
    )
    with pytest.raises(ValueError, match="groups"):
        made.cov("cluster", groups=right.iloc[::-1])
    with pytest.raises(ValueError, match="times"):
        made.cov("driscoll-kraay", times=right["t"].iloc[::-1])


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("group_debias", [False, True])
@pytest.mark.parametrize("kinds", [1, 2])
def test_two_ways_have_the_digits_of_linearmodels(kinds: int, group_debias: bool, debiased: bool) -> None:
    data = panel()
    frames = {f"y{j}": {"dependent": data.Y[:, j], "exog": X} for j, X in enumerate(data.Xs)}
    clusters = np.column_stack([UNIT, THIRD])[:, :kinds]
    theirs = SUR(frames).fit(
        method="gls", cov_type="clustered", clusters=clusters, group_debias=group_debias, debiased=debiased
    )
    made = at(LowRankGLS(0).fit(data.system()).result_, theirs.params.to_numpy(), np.asarray(theirs.sigma))
    found = made.cov("cluster", groups=clusters, group_debias=group_debias, debiased=debiased)
    assert off_by(found, theirs.cov.to_numpy()) < 1e-9


@pytest.mark.parametrize("cov_type", ["unadjusted", "robust", "clustered"])
def test_a_debiased_fit_is_the_debiased_one_of_linearmodels(cov_type: str) -> None:
    data = panel()
    frames = {f"y{j}": {"dependent": data.Y[:, j], "exog": X} for j, X in enumerate(data.Xs)}
    options = {"clusters": UNIT} if cov_type == "clustered" else {}
    theirs = SUR(frames).fit(method="gls", cov_type=cov_type, debiased=True, **options)
    made = LowRankGLS(covariance="full", algorithm="fgls", debiased=True).fit(data.system()).result_
    kinds: dict[str, Any] = {"unadjusted": "classical", "robust": "robust", "clustered": "cluster"}
    found = made.with_cov(kinds[cov_type], groups=UNIT if options else None)
    np.testing.assert_allclose(found.params, theirs.params, rtol=1e-7)
    np.testing.assert_allclose(found.std_errors, theirs.std_errors, rtol=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
def test_one_equation_has_the_corrections_of_statsmodels(weighted: bool) -> None:
    data = panel(K=1, weighted=weighted)
    made = LowRankGLS().fit(data.system(zarr_rows(17))).result_
    model = sm.WLS(data.Y[:, 0], data.X, weights=np.ones(N) if data.weights is None else data.weights)
    for correction in ("HC0", "HC1", "HC2", "HC3"):
        theirs = model.fit(cov_type=correction)
        found = made.with_cov("robust", correction=correction)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.std_errors, theirs.bse, rtol=1e-9)
        assert found.cov_note == correction
        np.testing.assert_allclose(made.cov("robust", correction=correction, equation="y0"), found.cov(), rtol=1e-9)  # type: ignore[arg-type]
    both = np.column_stack([TIME, UNIT])
    for groups in (UNIT, both):
        theirs = model.fit(cov_type="cluster", cov_kwds={"groups": groups})
        found = made.with_cov("cluster", groups=groups, correction="CR1")
        np.testing.assert_allclose(found.std_errors, theirs.bse, rtol=1e-9)
    plain = made.cov("cluster", groups=UNIT, correction="none").values
    np.testing.assert_allclose(made.cov("cluster", groups=UNIT, group_debias=True), plain * 16 / 15 * (N - 1) / N)
    alone = made.cov("cluster", groups=UNIT, correction="HC1", group_debias=False)
    np.testing.assert_allclose(alone, plain * N / (N - data.X.shape[1]), rtol=1e-12)


@pytest.mark.parametrize("design", ["own", "shared"])
@pytest.mark.parametrize("correction", ["HC2", "HC3"])
def test_leverages_of_every_equation(correction: Any, design: str) -> None:
    data = simulate(design, n=40, K=3, k=1)
    data.X[:, 1] += 1e6
    made = LowRankGLS(covariance="diagonal" if design == "own" else "full").fit(data.system(dask_rows(7))).result_
    found = made.with_cov("robust", correction=correction)
    for j, X in enumerate(data.Xs):
        far = (np.arange(X.shape[1]) == 1) & (j == 0 or design == "shared")
        theirs = sm.OLS(data.Y[:, j], X - 1e6 * far).fit(cov_type=correction)
        mine = found.std_errors.values[made.design.spans[j]]
        np.testing.assert_allclose(mine[1:], theirs.bse[1:], rtol=1e-8)


def test_leverages_within_restrictions_are_those_of_fewer_columns() -> None:
    data = panel()
    held = LowRankGLS(covariance="diagonal", restrictions="y1:x2 = 0").fit(data.system()).result_
    found = held.with_cov("robust", correction="HC3").std_errors.values[held.design.spans[1]]
    theirs = sm.OLS(data.Y[:, 1], data.Xs[1][:, :2]).fit(cov_type="HC3")
    np.testing.assert_allclose(found, [*theirs.bse, 0.0], rtol=1e-8)


def test_what_has_no_leverage_is_refused_with_what_has() -> None:
    data = panel()
    for options in ({}, {"covariance": TimeVarying(1, TIME // 5, 2.0)}, {"covariance": "diagonal", "lam_B": 2.0}):
        made = LowRankGLS(**options).fit(data.system()).result_
        with pytest.raises(ValueError, match=r"correction='HC3' needs leverages.*correction='HC1', or fit with"):
            made.cov("robust", correction="HC3")
    dummy = np.column_stack([np.ones(N), np.arange(N) == 77])
    alone = LowRankGLS().fit(System.from_arrays(data.Y[:, 0], dummy)).result_
    with pytest.raises(ValueError, match="row 77 has leverage h = 1"):
        alone.cov("robust", correction="HC2")
    with pytest.raises(ValueError, match="correction must be 'none' or 'HC0' or 'HC1' or 'CR1'; got 'HC2'"):
        alone.cov("cluster", groups=UNIT, correction="HC2")
    with pytest.raises(ValueError, match="say two things of the factor"):
        alone.cov("cluster", groups=UNIT, correction="HC1", debiased=False)
    with pytest.raises(ValueError, match="5 kinds of groups"):
        alone.cov("cluster", groups=[UNIT] * 5)


def test_a_debiased_fit_has_debiased_covariances_unless_told_otherwise() -> None:
    data = panel()
    made = LowRankGLS(1, debiased=True).fit(data.system()).result_
    plain = made.cov("robust", debiased=False)
    np.testing.assert_array_equal(made.cov("robust"), made.cov("robust", correction="HC1"))
    np.testing.assert_array_equal(plain, made.cov("robust", correction="none"))
    np.testing.assert_array_equal(
        made.cov("cluster", groups=UNIT), made.cov("cluster", groups=UNIT, correction="HC1", group_debias=False)
    )
    root = np.sqrt(N / (N - np.array([len(c) for c in data.columns])))
    each = np.repeat(root, [len(c) for c in data.columns])
    np.testing.assert_allclose(made.cov("robust"), plain * np.outer(each, each), rtol=1e-12)
    assert off_by(made.cov("classical", debiased=False), made.cov().values / np.outer(each, each)) < 1e-12
    other = LowRankGLS(1).fit(data.system()).result_
    np.testing.assert_array_equal(other.cov("robust"), other.cov("robust", correction="none"))


OPPOSED = np.column_stack([np.arange(24) // 2, np.roll(np.arange(24) // 2, 1)])  # errors cancel within either kind


def opposed(columns: int, unit: float = 1.0) -> System:
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(24), np.abs(rng.normal(size=24))])[:, :columns]
    return System.from_arrays(
        unit * (X @ [1.0, 2.0][:columns] + np.tile([1.0, -1.0], 12) + 0.1 * rng.normal(size=24)), X
    )


def test_a_variance_that_is_negative_is_made_none_and_said() -> None:
    for unit in (1.0, 1e6):
        made = LowRankGLS().fit(opposed(1, unit)).result_
        with pytest.warns(FitWarning, match="negative eigenvalues set to zero"):
            found = made.with_cov("cluster", groups=OPPOSED)
        assert "negative eigenvalues set to zero" in found.summary()
        assert found.cov().item() == 0.0


def test_a_sum_with_positive_variances_is_left_and_said() -> None:
    made = LowRankGLS().fit(opposed(2)).result_
    with pytest.warns(FitWarning, match="not positive semidefinite"):
        found = made.with_cov("cluster", groups=OPPOSED)
    assert np.linalg.eigvalsh(found.cov().values)[0] < 0
    assert "not positive semidefinite" in found.summary()
    theirs = sm.OLS(opposed(2).rows.y[0].array[:].ravel(), opposed(2).rows.x[0].array[:])
    wanted = theirs.fit(cov_type="cluster", cov_kwds={"groups": OPPOSED, "use_correction": False}).bse
    np.testing.assert_allclose(found.std_errors, wanted, rtol=1e-9)
    with pytest.raises(np.linalg.LinAlgError, match="rank 1"):
        found.wald_test(["y0:x0 = 0", "y0:x1 = 0"])


@pytest.mark.parametrize("kernel", ["bartlett", "parzen", "qs"])
@pytest.mark.parametrize("bandwidth", [0, 3])
def test_driscoll_kraay_has_the_digits_of_linearmodels_and_statsmodels(bandwidth: int, kernel: Any) -> None:
    """Units come and go, and two periods have no rows."""
    data = panel(K=1)
    kept = (RNG.random(N) < 0.8) & ~np.isin(TIME, [4, 9])
    data, time, unit = data.take(kept), TIME[kept], UNIT[kept]
    order = RNG.permutation(len(time))
    made = LowRankGLS().fit(data.take(order).system(dask_rows(13))).result_
    found = made.with_cov("driscoll-kraay", times=time[order], kernel=kernel, bandwidth=bandwidth)
    index = pd.MultiIndex.from_arrays([unit, time])
    frame = pd.DataFrame(data.X, index=index)
    model = PanelOLS(pd.Series(data.Y[:, 0], index=index), frame)
    if bandwidth or kernel != "qs":
        theirs = model.fit(cov_type="kernel", kernel=kernel, bandwidth=bandwidth, debiased=False)
        assert off_by(found.cov(), theirs.cov.to_numpy()) < 1e-9
    if kernel == "bartlett":
        keywords = {"time": np.unique(time, return_inverse=True)[1], "maxlags": bandwidth, "use_correction": False}
        theirs = sm.OLS(data.Y[:, 0], data.X).fit(cov_type="hac-groupsum", cov_kwds=keywords)
        assert off_by(found.cov(), theirs.cov_params()) < 1e-9
    if bandwidth == 0:
        assert off_by(found.cov(), made.cov("cluster", groups=time[order]).values) < 1e-12
    assert "13 times" in found.cov_note
    assert found.reference.freedom[0] == 12


@pytest.mark.parametrize("road", ["compress", "stream", "segments", "drop", "saved"])
def test_sums_over_units_along_time_in_a_system(road: str, tmp_path: Any) -> None:
    data = panel()
    options: dict[str, Any] = {"engine": "stream"} if road == "stream" else {}
    if road == "segments":
        options["covariance"] = TimeVarying(1, TIME // 5, np.inf)
    kept = np.ones(N, dtype=bool)
    if road == "drop":
        kept = np.arange(N) % 7 > 0
        data.Y[~kept, 1] = np.nan
        options["missing"] = "drop"
    used = data.take(kept)
    system = data.system(zarr_rows(11))
    made = LowRankGLS(**options).fit(system).result_
    if road == "saved":
        made.to_zarr(str(tmp_path / "fit.zarr"))
        made = type(made).from_zarr(str(tmp_path / "fit.zarr"))
    found = made.cov("driscoll-kraay", times=TIME, bandwidth=2, system=system)
    static = made if road != "segments" else LowRankGLS().fit(system).result_
    sums = np.array([scores(static, used)[TIME[kept] == t].sum(axis=0) for t in range(15)])
    if road == "segments":
        assert found.shape == (9, 9)
    else:
        half = bread_of(made, used)
        assert off_by(found, half @ meat(sums, weights=1 - np.arange(3) / 3) @ half) < 1e-8
    one = made.cov("driscoll-kraay", times=TIME, bandwidth=2, system=system, equation="y1")
    mine = made.design.spans[1]
    assert off_by(one, found.values[mine, mine]) < 1e-9


def test_time_is_found_among_the_labels_of_rows() -> None:
    data, days = panel(), pd.date_range("2001", periods=15)[TIME]
    plain = LowRankGLS(1).fit(data.system()).result_
    wanted = plain.cov("driscoll-kraay", times=TIME)
    for index, times in (
        (pd.MultiIndex.from_arrays([days, UNIT], names=["when", "firm"]), None),
        (pd.MultiIndex.from_arrays([UNIT, TIME], names=["firm", "year"]), None),
        (pd.MultiIndex.from_arrays([UNIT, TIME], names=["firm", "wave"]), "wave"),
    ):
        frames = [pd.DataFrame(X, index=index) for X in data.Xs]
        made = LowRankGLS(1).fit(System.from_arrays(pd.DataFrame(data.Y, index=index), frames)).result_
        np.testing.assert_allclose(made.cov("driscoll-kraay", times=times), wanted, rtol=1e-6, atol=1e-9)
        with pytest.raises(ValueError, match="'month' is no level of the rows' labels"):
            made.cov("driscoll-kraay", times="month")
    with pytest.raises(ValueError, match=r"needs the time of each row.*firm.*wave"):
        made.cov("driscoll-kraay")
    with pytest.raises(ValueError, match="needs the time of each row"):
        plain.cov("driscoll-kraay")
    with pytest.raises(ValueError, match="reaches back 15 times but there are only 15"):
        plain.cov("driscoll-kraay", times=TIME, bandwidth=15)
    with pytest.raises(ValueError, match="times: the label of row 3 is missing"):
        plain.cov("driscoll-kraay", times=np.where(np.arange(N) == 3, np.nan, TIME))


def test_times_that_no_fitted_row_has_keep_their_place_and_do_not_count() -> None:
    data = panel()
    weights = np.where(np.isin(TIME, [4, 5]), 0.0, 1.0)
    made = LowRankGLS(1).fit(data.system(dask_rows(7), weights=weights)).result_
    found = made.with_cov("driscoll-kraay", times=TIME, bandwidth=2)
    assert found.cov_note.endswith("13 times")
    assert found.reference.freedom[0] == 12
    used = data.take(weights > 0)
    sums = np.array([scores(made, data)[(t == TIME) & (weights > 0)].sum(axis=0) for t in range(15)])
    half = bread_of(made, used)
    assert off_by(found.cov(), half @ meat(sums, weights=1 - np.arange(3) / 3) @ half) < 1e-8
    alone = LowRankGLS(1).fit(data.system(weights=np.where(TIME == 3, 1.0, 0.0))).result_
    with pytest.raises(ValueError, match="at least two times with rows that were fitted; of 15 times, 1 has"):
        alone.cov("driscoll-kraay", times=TIME, bandwidth=1)


def test_an_option_that_asks_for_nothing_goes_with_every_kind() -> None:
    made = LowRankGLS(1).fit(panel().system()).result_
    for kind in ("classical", "observed", "robust"):
        found = made.cov(kind, correction="HC0", debiased=False, group_debias=False, kernel="bartlett")
        np.testing.assert_array_equal(found, made.cov(kind))
    with pytest.raises(ValueError, match="kind='observed' takes no group_debias="):
        made.cov("observed", group_debias=True)
