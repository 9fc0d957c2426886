"""Pictures of the errors: the numbers behind them by routes of their own, what is read, what is drawn of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
import scipy
import xarray as xr
from matplotlib import pyplot

from lrgls_dask import Fit, GroupedLowRank, LowRankGLS, System, TimeVarying
from lrgls_dask.results import error_structure, pictures, residual_sums
from support.absorbed import grouped
from support.counted import counted, counted_rows
from support.incomplete import with_holes
from support.segments import drifting
from support.systems import Data, simulate

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance")
DATA = simulate("shared", n=300, K=8)
HOLES = with_holes(DATA, 0.2, n_patterns=4)
TIGHT: dict[str, Any] = {"rel_tol": 1e-13, "max_sweeps": 300}


@pytest.fixture(scope="module")
def found() -> Fit:
    return LowRankGLS(2, **TIGHT).fit(DATA.system()).result_


@pytest.fixture(scope="module")
def varying() -> Any:
    covariance = TimeVarying(rank=1, segments=np.repeat(np.arange(2000, 2006), 50), bandwidth=2.0)
    return LowRankGLS(covariance=covariance).fit(drifting(6, 50)[0].system()).result_


@pytest.fixture
def ax() -> Iterator[Any]:
    figure, axes = pyplot.subplots()
    yield axes
    pyplot.close(figure)


def residuals(fit: Any, data: Data) -> np.ndarray:
    return np.asarray(fit.residuals(data.system()))


# ---------------------------------------------------------------------------------- loadings


def test_loadings_are_correlations_with_the_factors(found: Fit, ax: Any) -> None:
    array = found.plot.loadings(data=True)
    standard = found.loadings / np.sqrt(found.sigma_diagonal)[:, None]
    assert array.dims == ("equation", "factor") and sorted(array["equation"].values) == sorted(found.equations)
    np.testing.assert_allclose(array, standard.sel(equation=array["equation"]))
    np.testing.assert_allclose(found.plot.loadings(order="given", data=True), standard)
    assert found.plot.loadings(ax=ax) is ax
    np.testing.assert_array_equal(np.asarray(ax.collections[0].get_array()), array)
    assert [label.get_text() for label in ax.get_yticklabels()] == array["equation"].values.tolist()
    ax.clear()
    assert found.plot.loadings(order=["y3", "y0"], ax=ax).get_ylabel() == "Equation"
    np.testing.assert_allclose(ax.collections[0].get_array(), standard.sel(equation=["y3", "y0"]))


def test_equations_that_are_alike_stand_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.permutation(np.repeat(np.arange(4), 30))
    numbers = np.array([[0.9, 0.0], [0.0, 0.9], [-0.9, 0.0], [0.0, -0.9]])[kinds] + 0.05 * rng.normal(size=(120, 2))
    together = kinds[error_structure._by_likeness(numbers)]
    assert np.count_nonzero(np.diff(together)) == 3 and together[0] == 0
    monkeypatch.setattr(error_structure, "CLUSTERED", 100)
    assert np.count_nonzero(np.diff(kinds[error_structure._by_likeness(numbers)] % 2)) == 1


def test_as_many_names_as_there_is_room_for(ax: Any) -> None:
    rng = np.random.default_rng(0)
    names = [f"a response with a name that is long, number {j}" for j in range(90)]
    fit = LowRankGLS(1).fit(System.from_arrays(rng.normal(size=(200, 90)), np.ones((200, 1)), equations=names)).result_
    fit.plot.loadings(order="given", ax=ax)
    written = [label.get_text() for label in ax.get_yticklabels()]
    assert ax.get_ylabel() == f"Equation ({len(written)} of 90 named)" and 10 < len(written) < 40
    assert written[0] == "a response wit… long, number 0" or (written[0].startswith("a resp") and "…" in written[0])
    assert written[-1].endswith("89") and max(map(len, written)) <= 28


# ---------------------------------------------------------------------------------- correlations


def test_correlations_before_and_after_the_factors(found: Fit, ax: Any) -> None:
    both = found.plot.errors(order="given", data=True)
    sigma, F, d = found.sigma().values, found.loadings.values, found.idio_var.values
    np.testing.assert_allclose(both["before"], sigma / np.sqrt(np.outer(np.diag(sigma), np.diag(sigma))))
    R = residuals(found, DATA)
    left = (R.T @ R / len(R) - F @ F.T) / np.sqrt(np.outer(d, d))
    np.testing.assert_allclose(both["after"], left, atol=1e-6)  # where diag Sigma is diag S, at the optimum
    np.testing.assert_allclose(np.diagonal(both["after"]), 1.0)
    clustered = found.plot.errors(data=True)
    again = both.sel({dim: clustered[dim] for dim in both.dims})
    xr.testing.assert_allclose(clustered, again)
    assert found.plot.errors(ax=ax) is ax and "after the factors" in ax.get_title()
    drawn = np.asarray(ax.collections[0].get_array().filled(np.nan))
    below, above = np.tril_indices(8, -1), np.triu_indices(8, 1)
    np.testing.assert_array_equal(drawn[below], clustered["before"].values[below])
    np.testing.assert_array_equal(drawn[above], clustered["after"].values[above])
    assert np.isnan(np.diagonal(drawn)).all()


def test_what_factors_leave_where_rows_have_holes() -> None:
    fit = LowRankGLS(2, missing="em").fit(HOLES.system()).result_
    after = fit.plot.errors("after", order="given", data=True)["after"].values
    R, sizes = residuals(fit, HOLES), np.sqrt(fit.sigma_diagonal)
    F, d = fit.loadings.values, fit.idio_var.values
    for i, j in ((0, 1), (3, 6), (7, 7)):
        both = ~np.isnan(R[:, i] + R[:, j])
        r = R[both, i] @ R[both, j] / np.sqrt((R[both, i] @ R[both, i]) * (R[both, j] @ R[both, j]))
        np.testing.assert_allclose(after[i, j], (r * sizes[i] * sizes[j] - F[i] @ F[j]) / np.sqrt(d[i] * d[j]))


@pytest.mark.parametrize("name", ["loadings", "errors"])
def test_an_order_that_is_none_is_said(found: Fit, name: str) -> None:
    draw = getattr(found.plot, name)
    with pytest.raises(ValueError, match="order must be 'given'; got 'likeness'"):
        draw(order="likeness")
    with pytest.raises(TypeError, match=r"got 3\. Give labels"):
        draw(order=3)
    with pytest.raises(ValueError, match=r"labels in order must be unique; 'y1'"):
        draw(order=["y1", "y1"])


def test_many_equations_are_drawn_in_part(found: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_structure, "IN_A_MAP", 3)
    with pytest.raises(ValueError, match=r"order has 4\. Give fewer"):
        found.plot.errors(order=found.equations[:4])
    found.plot.errors(order=found.equations[:3], data=True)
    some = found.plot.errors(order="given", data=True)
    assert some["equation"].values.tolist() == ["y0", "y4", "y7"]
    whole = found.sigma().sel({dim: some[dim] for dim in some.dims}).values
    np.testing.assert_allclose(some["before"] * np.sqrt(np.outer(np.diag(whole), np.diag(whole))), whole)


def test_every_kind_of_sigma_has_its_picture(ax: Any) -> None:
    full = LowRankGLS(covariance="full").fit(DATA.system()).result_
    assert list(full.plot.errors(data=True)) == ["before"]
    none = LowRankGLS(0).fit(DATA.system()).result_
    both, R = none.plot.errors(order="given", data=True), residuals(none, DATA)
    np.testing.assert_allclose(both["after"], np.corrcoef(R.T), atol=1e-10)  # means are zero beside a constant
    np.testing.assert_allclose(both["before"], np.eye(8))
    groups = GroupedLowRank(1, {f"y{j}": "ab"[j // 4] for j in range(8)})
    grouped = LowRankGLS(covariance=groups).fit(DATA.system()).result_
    assert grouped.plot.loadings(data=True)["factor"].values.tolist() == grouped.loadings["factor"].values.tolist()
    assert set(grouped.plot.errors(data=True)) == {"before", "after"}
    grouped.plot.errors("after", ax=ax)


def test_skipped_equations_are_in_no_picture_and_grids_go_by_their_labels(ax: Any) -> None:
    Y = HOLES.Y.copy()
    Y[:, 2] = np.nan
    grid = xr.Dataset({"t": (("time", "lat", "lon"), Y.reshape(-1, 2, 4)), "x": (("time", "r"), DATA.X)})
    grid = grid.assign_coords(lat=[1.0, 2.0], lon=[1.0, 2.0, 3.0, 4.0])
    system = System.from_xarray(grid, "t", ["x"], obs="time", equation=("lat", "lon"))
    fit = LowRankGLS(1, missing="em", unusable="skip").fit(system).result_
    array = fit.plot.loadings(order="given", data=True)
    kept = [j for j in range(8) if j != 2]
    np.testing.assert_allclose(array, fit.loadings.values[kept] / np.sqrt(fit.sigma_diagonal[kept])[:, None])
    assert fit.plot.errors(data=True)["before"].shape == (7, 7)
    fit.plot.loadings(order="given", ax=ax)
    assert [label.get_text() for label in ax.get_yticklabels()][:3] == ["1.0, 1.0", "1.0, 2.0", "1.0, 4.0"]
    assert ax.get_ylabel() == "lat, lon"
    shown = fit.plot.residuals(system, data=True)
    assert shown.attrs["n_residuals"] == np.count_nonzero(~np.isnan(Y))


# ---------------------------------------------------------------------------------- over segments


def test_the_course_of_sigma(varying: Any) -> None:
    course = varying.plot.sigma_over_time(data=True)
    for label in (2000, 2005):
        sigma = varying.sigma(label).values
        size = np.sqrt(np.diag(sigma))
        pairs = (sigma / np.outer(size, size))[np.triu_indices(6, 1)]
        np.testing.assert_allclose(course["correlation"].sel(segment=label), pairs.mean())
        share = 1 - varying.idio_var.sel(segment=label).values / np.diag(sigma)
        np.testing.assert_allclose(course["common_share"].sel(segment=label), share)
    axes = varying.plot.sigma_over_time()
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), course["common_share"].median("equation"))
    np.testing.assert_array_equal(axes[1].lines[0].get_xdata(), np.arange(2000, 2006))
    pyplot.close(axes[0].figure)
    array = varying.plot.loadings(segment=2001, order="given", data=True).values[:, 0]
    sigma = varying.sigma(2001).values
    np.testing.assert_allclose(np.outer(array, array)[0, 1] * np.sqrt(sigma[0, 0] * sigma[1, 1]), sigma[0, 1])
    R = residuals(varying, drifting(6, 50)[0]).reshape(6, 50, 6)[:3]  # what its Sigma was learnt from
    S = np.einsum("t,tni,tnj->ij", [0.75, 1.0, 0.75], R, R)
    both = varying.plot.errors(segment=2001, order="given", data=True)
    F, d = (varying.loadings.sel(segment=2001).values, varying.idio_var.sel(segment=2001).values)
    r = S[0, 1] / np.sqrt(S[0, 0] * S[1, 1])
    left = (r * np.sqrt(sigma[0, 0] * sigma[1, 1]) - F[0] @ F[1]) / np.sqrt(d[0] * d[1])
    np.testing.assert_allclose(both["after"][0, 1], left)


def test_a_smooth_sigma_leaves_correlations() -> None:
    """Correlations after the factors are of the rows that this Sigma was learnt from, and none is beyond one."""
    covariance = TimeVarying(rank=1, segments=np.repeat(np.arange(6), 50), bandwidth=float("inf"))
    fit = LowRankGLS(covariance=covariance).fit(drifting(6, 50)[0].system()).result_
    one = LowRankGLS(1, rel_tol=1e-13).fit(drifting(6, 50)[0].system()).result_
    wanted = one.plot.errors("after", order="given", data=True)
    for segment in range(6):
        after = fit.plot.errors("after", segment=segment, order="given", data=True)
        np.testing.assert_allclose(after["after"], wanted["after"], atol=1e-3)
    assert np.abs(after["after"]).max() < 1 + 1e-9


# ---------------------------------------------------------------------------------- rows


def check_residuals(numbers: xr.Dataset, z: np.ndarray) -> None:
    """z : (N, K) whitened residuals, NaN where missing, by a route of one's own."""
    flat, edges = np.sort(z[~np.isnan(z)]), residual_sums.EDGES
    points = numbers["residual"].values
    bins = np.searchsorted(edges, points)
    np.testing.assert_allclose(points, (edges[bins] + edges[bins - 1]) / 2)
    sure = (edges[bins] != 0) & (edges[bins - 1] != 0)  # which side of zero is a matter of rounding
    below = [np.searchsorted(flat, edges[bins + k]) for k in (-1, 0)]
    share = scipy.stats.norm.cdf(numbers["expected"].values)
    np.testing.assert_allclose(share[sure], np.mean(below, axis=0)[sure] / len(flat))
    for place in (0, -1):
        assert edges[bins[place] - 1] <= flat[place] < edges[bins[place]]
    edges = [*numbers["first_row"].values.tolist(), len(z)]
    for t in (0, len(edges) // 2, len(edges) - 2):
        some = z[edges[t] : edges[t + 1]]
        np.testing.assert_allclose(numbers["mean"][t], np.nanmean(some), atol=1e-12)
        np.testing.assert_allclose(numbers["sd"][t], np.nanstd(some), atol=1e-12)
        assert numbers["count"][t] == np.count_nonzero(~np.isnan(some))


def whitened(residual: np.ndarray, F: np.ndarray, d: np.ndarray) -> np.ndarray:
    """(K,) of one row: the symmetric root of I + U U', by its eigenvectors."""
    shown = ~np.isnan(residual)
    U, out = (F / np.sqrt(d)[:, None])[shown], np.full(len(d), np.nan)
    values, vectors = np.linalg.eigh(np.eye(shown.sum()) + U @ U.T)
    out[shown] = (vectors / np.sqrt(values)) @ vectors.T @ (residual / np.sqrt(d))[shown]
    return out


def test_residuals_by_one_pass(found: Fit) -> None:
    store = counted(DATA, row_chunk=70)
    numbers = found.plot.residuals(System.from_zarr(store), data=True)
    assert store.of("Y") == {1: 5} and store.of("X") == {1: 5}
    F, d = found.loadings.values, found.idio_var.values
    z = np.array([whitened(row, F, d) for row in residuals(found, DATA)])
    check_residuals(numbers, z)
    assert numbers.sizes["obs"] == residual_sums.STRETCHES and numbers.attrs["n_residuals"] == z.size
    np.testing.assert_allclose(np.sum(z**2) / z.size, 1.0, atol=0.02)
    axes = found.plot.residuals(DATA.system())
    np.testing.assert_array_equal(axes[0].lines[1].get_ydata(), numbers["residual"])
    np.testing.assert_allclose(axes[2].lines[0].get_ydata(), numbers["sd"])
    pyplot.close(axes[0].figure)


def test_bins_are_counted_exactly() -> None:
    z = np.concatenate([residual_sums.EDGES, np.random.default_rng(0).standard_t(1.5, size=3000) * 3, [1e9, -1e9]])
    np.testing.assert_array_equal(residual_sums._bins(z), np.searchsorted(residual_sums.EDGES, z, side="right"))


def test_quantiles_of_both_signs_and_the_largest_are_drawn() -> None:
    """What n numbers have is drawn at (i - 1/2) / n, whatever their signs; one far away among half a million too."""
    few = np.random.default_rng(3).normal(size=40)
    points = quantiles(few)
    assert points.sizes["point"] == len(np.unique(residual_sums._bins(few)))
    np.testing.assert_allclose(points["expected"][[0, -1]], scipy.stats.norm.ppf([1 / 80, 79 / 80]))
    np.testing.assert_allclose(points["residual"][[0, -1]], [few.min(), few.max()], atol=1 / 256)
    many = np.append(np.random.default_rng(4).normal(size=500_000), 60.0)
    for z in (few, many):
        points, turned = quantiles(z), quantiles(-z)
        for name in ("expected", "residual"):
            np.testing.assert_allclose(turned[name], -points[name].values[::-1], atol=1e-9)
    assert points.sizes["point"] <= residual_sums.POINTS
    np.testing.assert_allclose(points["residual"][-1], 60.0, rtol=0.03)
    np.testing.assert_allclose(points["expected"][-1], scipy.stats.norm.ppf(1 - 0.5 / len(many)))


def quantiles(z: np.ndarray) -> xr.Dataset:
    return residual_sums._quantiles(np.bincount(residual_sums._bins(z), minlength=len(residual_sums.EDGES) + 1))


def test_residuals_of_rows_with_holes_and_weights() -> None:
    weights = np.random.default_rng(2).uniform(0.5, 2.0, 300)
    system = HOLES.system(weights=weights)
    fit = LowRankGLS(2, missing="em").fit(system).result_
    R = np.asarray(fit.residuals(system)) * np.sqrt(weights)[:, None]
    z = np.array([whitened(row, fit.loadings.values, fit.idio_var.values) for row in R])
    check_residuals(fit.plot.residuals(system, data=True), z)


def test_residuals_of_segments(varying: Any) -> None:
    data = drifting(6, 50)[0]
    R, F, d = residuals(varying, data), varying.loadings.values, varying.idio_var.values
    z = np.array([whitened(row, F[i // 50], d[i // 50]) for i, row in enumerate(R)])
    check_residuals(varying.plot.residuals(data.system(), data=True), z)


def test_responses_that_miss_are_named_where_the_fit_took_none(found: Fit) -> None:
    with pytest.raises(ValueError, match=r"equation 'y0': NaN value at row 1 .* fit with missing='em'"):
        found.plot.residuals(HOLES.system())


def test_residuals_less_absorbed_effects_and_of_complete_rows() -> None:
    groups = grouped()
    fit = LowRankGLS(1).fit(groups.system("firm")).result_
    R = np.asarray(fit.residuals(groups.system("firm")))
    z = np.array([whitened(row, fit.loadings.values, fit.idio_var.values) for row in R])
    check_residuals(fit.plot.residuals(groups.system("firm"), data=True), z)
    some = with_holes(DATA, 0.02)
    dropped = LowRankGLS(1, missing="drop").fit(some.system()).result_
    numbers = dropped.plot.residuals(some.system(), data=True)
    assert numbers.attrs["n_residuals"] == 8 * dropped.n_obs < np.count_nonzero(~np.isnan(some.Y))


def test_scores_over_the_rows(found: Fit, ax: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "ROWS_DRAWN", 31)
    system, reads = counted_rows(DATA, 70)
    scores = found.plot.scores(system, data=True)
    assert set(reads.values()) == {1} and scores.shape == (31, 2)
    rows = np.linspace(0, 299, 31).round().astype(int)
    np.testing.assert_allclose(scores, found.factor_scores(DATA.system()).values[rows])
    assert found.plot.scores(system, ax=ax) is ax
    np.testing.assert_allclose(ax.lines[3].get_ydata(), scores[:, 1] - pictures.SCORES_APART)
    assert ax.get_xlabel() == "number of the obs (31 of 300 rows)"
