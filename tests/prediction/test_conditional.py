"""Some equations given others, against partitioned normal formulas written out row by row."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.prediction import conditional
from lrgls_dask.sigma.conditional import DenseConditional, FactorConditional
from lrgls_dask.sigma.full import FullSigma
from lrgls_dask.sigma.lowrank import LowRank
from support.fits import fit
from support.systems import dask_rows, simulate, zarr_rows

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")

K = 6
PATTERNS = ["none", "all", "one", "few", "random"]


def known_entries(pattern: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    mask = {"none": np.zeros((n, K), bool), "all": np.ones((n, K), bool), "random": rng.random((n, K)) < 0.6}
    mask["one"] = np.arange(K)[None, :] == rng.integers(K, size=n)[:, None]
    mask["few"] = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1], [1] * 6, [0] * 6], bool)[rng.integers(4, size=n)]
    return mask[pattern]


def partitioned(e: np.ndarray, known: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of one row of errors given the known entries, and the weights B (K, K)."""
    o, m = np.flatnonzero(known), np.flatnonzero(~known)
    mean, variance, B = np.where(known, e, 0.0), np.zeros(K), np.zeros((K, K))
    if len(o):
        B[np.ix_(m, o)] = S[np.ix_(m, o)] @ np.linalg.inv(S[np.ix_(o, o)])
    if len(m):
        mean[m] = B[np.ix_(m, o)] @ e[o]
        variance[m] = np.diag(S[np.ix_(m, m)] - B[np.ix_(m, o)] @ S[np.ix_(o, m)])
    return mean, variance, B


@pytest.fixture(scope="module", params=["lowrank", "dense"])
def found(request: pytest.FixtureRequest) -> Fit:
    made = fit(simulate("own", n=80).system())
    if request.param == "lowrank":
        return made
    rng = np.random.default_rng(2)
    A = rng.normal(size=(K, 20))
    plain = LowRank(np.zeros((K, 0)), np.ones(K))
    object.__setattr__(made.one_sigma, "value", plain)  # the covariance of the coefficients is then easy to write down
    _ = made.cov()
    object.__setattr__(made.one_sigma, "value", FullSigma(A @ A.T / 20))
    return made


@pytest.mark.parametrize("kind", ["observation", "mean", "error"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_partitioned_normal_row_by_row(found: Fit, pattern: str, kind: Any) -> None:
    new = simulate("own", n=40, seed=9, weighted=True)
    known = known_entries(pattern, 40)
    Y = np.where(known, new.Y, np.nan)
    made = found.predict_given(dataclasses.replace(new, Y=Y).system(dask_rows(13)), interval=0.8, kind=kind).compute()
    S, V, edges = found.covariance.dense(), found.cov().values, found.design.offsets
    fitted = new.Y - new.dense().residuals(found.params.values)
    half = scipy.stats.t.ppf(0.9, [80 - len(c) for c in new.columns])
    for i in range(40):
        mean, variance, B = partitioned(new.Y[i] - fitted[i], known[i], S)
        gradient = np.zeros((K, len(V)))  # of x_m'b_m - B x_o'b_o
        for m in np.flatnonzero(~known[i]):
            for j in range(K):
                share = 1.0 if j == m else -B[m, j]
                gradient[m, edges[j] : edges[j + 1]] = share * new.Xs[j][i]
        total = variance / new.weights[i] * (kind != "mean") + np.diag(gradient @ V @ gradient.T) * (kind != "error")
        expected = np.where(known[i], new.Y[i], fitted[i] + mean)
        np.testing.assert_allclose(made["predicted"].values[i], expected, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(made["std_error"].values[i], np.sqrt(total), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(made["upper"].values[i], expected + half * np.sqrt(total), rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(made["predicted"].values[known], new.Y[known])
    assert (made["std_error"].values[known] == 0).all()


@pytest.mark.parametrize("wrap", [np.asarray, dask_rows((1, 30, 9)), zarr_rows(7)], ids=["numpy", "ragged", "zarr"])
@pytest.mark.usefixtures("every_chunk_a_block")
@pytest.mark.parametrize("batch", [1, 200, 2**21])
def test_blocks_and_batches_do_not_show(found: Fit, wrap: Any, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    new = simulate("own", n=40, seed=9, weighted=True)
    hidden = dataclasses.replace(new, Y=np.where(known_entries("random", 40), new.Y, np.nan))
    plain = found.predict_given(hidden.system(), interval=0.9).compute()
    monkeypatch.setattr(conditional, "BATCH", batch)
    xr.testing.assert_allclose(found.predict_given(hidden.system(wrap), interval=0.9).compute(), plain, rtol=1e-11)


def test_a_list_of_equations_is_all_that_is_used(found: Fit) -> None:
    new = simulate("own", n=40, seed=9)
    only = np.isin(np.arange(K), [1, 4])
    hidden = dataclasses.replace(new, Y=np.where(only, new.Y, np.nan))
    expected = found.predict_given(hidden.system(), interval=0.9)
    made = found.predict_given(new.system(), observed=["y4", "y1"], interval=0.9)
    xr.testing.assert_allclose(made.compute(), expected.compute(), rtol=1e-12)
    gap = dataclasses.replace(new, Y=np.where(only & (np.arange(40) != 5)[:, None], new.Y, np.nan))
    row = found.predict_given(gap.system(), observed=["y1", "y4"]).values[5]
    np.testing.assert_allclose(row, found.predict(new.system()).values[5], rtol=1e-12)  # nothing was known of it
    nothing = found.predict_given(new.system(), observed=[]).values
    np.testing.assert_allclose(nothing, found.predict(new.system()).values, rtol=1e-12)


def test_values_do_not_matter_where_no_regressors_are_known(found: Fit) -> None:
    """An equation without regressors in a row cannot say anything of the others, and nothing is said of it."""
    new = simulate("own", n=40, seed=9)
    lost = new.X.copy()
    lost[3, new.columns[2]] = np.nan
    Y = np.where(np.arange(K) == 5, np.nan, new.Y)
    made = found.predict_given(dataclasses.replace(new, X=lost, Y=Y).system(), interval=0.9)
    without = np.where(np.arange(K) == 2, np.nan, Y)
    expected = found.predict_given(dataclasses.replace(new, Y=without).system(), interval=0.9)
    for name in ("predicted", "std_error"):
        np.testing.assert_allclose(made[name].values[3, 5], expected[name].values[3, 5], rtol=1e-12)
    assert made["predicted"].values[3, 2] == new.Y[3, 2]
    unknown = found.predict_given(dataclasses.replace(new, X=lost, Y=without).system(), interval=0.9)
    assert np.isnan(unknown["predicted"].values[3, 2]) and np.isnan(unknown["std_error"].values[3, 2])
    assert unknown["predicted"].isnull().sum() == 1 == unknown["std_error"].isnull().sum()


@pytest.mark.parametrize("as_array", [False, True], ids=["frame", "dataarray"])
def test_responses_beside_regressors(found: Fit, as_array: bool) -> None:
    new = simulate("own", n=40, seed=9)
    frame = pd.DataFrame(new.Y[:, [4, 1]], columns=["y4", "y1"])
    y: Any = xr.DataArray(frame.values, {"equation": ["y4", "y1"]}, ("obs", "equation")) if as_array else frame
    expected = found.predict_given(new.system(), observed=["y1", "y4"]).values
    np.testing.assert_allclose(found.predict_given(new.X, y).values, expected, rtol=1e-12)
    np.testing.assert_allclose(found.predict_given(new.X, new.Y, observed=["y1", "y4"]).values, expected, rtol=1e-12)
    ds = xr.Dataset({"ret": (("obs", "equation"), new.Y)}, {"equation": [f"y{j}" for j in range(K)]})
    for name, column in zip(found.regressors, new.X.T, strict=True):
        ds[name] = ("obs", column)
    np.testing.assert_allclose(found.predict_given(ds, "ret", observed=["y1", "y4"]).values, expected, rtol=1e-12)


def test_what_conditional_prediction_refuses(found: Fit) -> None:
    new = simulate("own", n=40, seed=9)
    with pytest.raises(ValueError, match="conditional prediction needs responses"):
        found.predict_given(new.X)
    with pytest.raises(ValueError, match="observed names 'y11', which the fit does not have; did you mean 'y1'"):
        found.predict_given(new.system(), observed=["y0", "y11"])
    with pytest.raises(ValueError, match="y was given although the data are a System"):
        found.predict_given(new.system(), new.Y)
    with pytest.raises(ValueError, match="y has 5 columns and 40 rows but must have one column for each of 6"):
        found.predict_given(new.X, new.Y[:, :5])
    with pytest.raises(ValueError, match="y has 6 columns and 39 rows"):
        found.predict_given(new.X, new.Y[:-1])
    with pytest.raises(ValueError, match="y has equations 'oil', which the fit does not have"):
        found.predict_given(new.X, pd.DataFrame({"oil": new.Y[:, 0]}))
    with pytest.raises(ValueError, match="y names 'rte' but the data have"):
        found.predict_given(xr.Dataset({n: ("obs", c) for n, c in zip(found.regressors, new.X.T, strict=True)}), "rte")
    with pytest.raises(ValueError, match=r"y has dims \('time', 'equation'\) but must have"):
        found.predict_given(new.X, xr.DataArray(new.Y, dims=("time", "equation")))
    Y = new.Y.copy()
    Y[7, 3] = np.inf
    lazy = found.predict_given(dataclasses.replace(new, Y=Y).system())
    with pytest.raises(ValueError, match="equation 'y3' holds inf among the values to predict from"):
        lazy.compute()
    assert np.isfinite(found.predict_given(dataclasses.replace(new, Y=Y).system(), observed=["y0"]).values).all()


def test_rows_labels_of_responses_are_compared(found: Fit) -> None:
    new = simulate("own", n=40, seed=9)
    frame = pd.DataFrame(new.X, columns=pd.Index(found.regressors), index=np.arange(5, 45))
    y = pd.DataFrame(new.Y, columns=[f"y{j}" for j in range(K)], index=np.arange(6, 46))
    with pytest.raises(ValueError, match=r"y and the data have different labels along 'obs' \(6 against 5\)"):
        found.predict_given(frame, y)


def test_common_factors_pay() -> None:
    """What is left of the error shrinks as the conditional variance says, and intervals cover as they say."""
    train, test = simulate("shared", n=4000, seed=4, k=2), simulate("shared", n=4000, seed=4, k=2)
    found = fit(train.take(slice(0, 2000)).system())
    rest = test.take(slice(2000, 4000)).system()
    made = found.predict_given(rest, observed=["y0", "y1", "y2", "y3"], interval=0.9).compute()
    truth = test.Y[2000:]
    inside = ((made["lower"] <= truth) & (truth <= made["upper"])).values[:, 4:]
    assert abs(inside.mean() - 0.9) < 4 * np.sqrt(0.09 / inside.size)
    left = (truth - made["predicted"].values)[:, 4:]
    marginal = (truth - found.predict(rest).values)[:, 4:]
    np.testing.assert_allclose(left.std(axis=0), made["std_error"].values[0, 4:], rtol=0.06)
    assert (left.std(axis=0) < 0.8 * marginal.std(axis=0)).all()


def test_no_factors_say_nothing() -> None:
    data = simulate("shared", n=60)
    found = LowRankGLS(0).fit(data.system()).result_
    made = found.predict_given(data.system(), observed=["y0"], interval=0.9, kind="error")
    np.testing.assert_allclose(made["predicted"].values[:, 1:], found.predict(data.system()).values[:, 1:], rtol=1e-13)
    np.testing.assert_allclose(made["std_error"].values[:, 1:] ** 2, np.tile(found.sigma_diagonal[1:], (60, 1)))


def exact_scores(F: np.ndarray, d: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """C^-1 F'D^-1 e and C^-1 of two factors, in rational numbers."""
    rows = [[Fraction(a), Fraction(b), Fraction(v), Fraction(r)] for (a, b), v, r in zip(F, d, e, strict=True)]
    aa, ab, bb = (sum(r[i] * r[j] / r[2] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    s, t = (sum(r[i] * r[3] / r[2] for r in rows) for i in (0, 1))
    det = (1 + aa) * (1 + bb) - ab * ab
    inverse = [[(1 + bb) / det, -ab / det], [-ab / det, (1 + aa) / det]]
    return (
        np.array([float(row[0] * s + row[1] * t) for row in inverse]),
        np.array([[float(entry) for entry in row] for row in inverse]),
    )


def test_an_equation_without_noise_of_its_own_keeps_its_digits() -> None:
    """Heywood cases: d at 1e-12 of F F', where the capacitance itself would lose all digits."""
    rng = np.random.default_rng(3)
    F, d = rng.normal(size=(K, 2)), np.array([1e-12, 1e-12, 1.0, 0.5, 1.0, 2.0])
    masks = np.array([[1, 1, 1, 0, 1, 0], [0] * 6, [1, 0, 1, 0, 1, 0]], dtype=bool)
    errors = np.where(masks, rng.normal(size=(3, 2)) @ F.T + np.sqrt(d) * rng.normal(size=(3, K)), 0.0)
    low = FactorConditional(F, d, masks)
    means, variances = low.means(np.arange(3), errors), low.variances()
    for i in (0, 2):
        f, inverse = exact_scores(F[masks[i]], d[masks[i]], errors[i, masks[i]])
        np.testing.assert_allclose(means[i, [3, 5]], F[[3, 5]] @ f, rtol=1e-11)
        spread = np.einsum("mk,kl,ml->m", F, inverse, F)
        np.testing.assert_allclose(variances[i, [3, 5]], d[[3, 5]] + spread[[3, 5]], rtol=1e-8)
    np.testing.assert_allclose(low.variances()[1], (F**2).sum(axis=1) + d, rtol=1e-12)


@pytest.mark.parametrize("pattern", ["few", "random"])
def test_both_structures_condition_alike(pattern: str) -> None:
    rng = np.random.default_rng(8)
    F, d = rng.normal(size=(K, 2)), rng.uniform(0.2, 2.0, size=K)
    masks = np.unique(known_entries(pattern, 40), axis=0)
    errors = np.where(masks, rng.normal(size=masks.shape), 0.0)
    which = np.arange(len(masks))
    low, dense = FactorConditional(F, d, masks), DenseConditional(F @ F.T + np.diag(d), masks)
    hidden = ~masks
    for one, other in (
        (low.means(which, errors), dense.means(which, errors)),
        (low.variances(), dense.variances()),
        (low.weights(), dense.weights()),
    ):
        np.testing.assert_allclose(one[hidden], other[hidden], rtol=1e-10, atol=1e-12)


def test_it_is_lazy_and_holds_nan_in_y() -> None:
    """A System with NaN in Y can be made and predicted from, though not fitted."""
    data = simulate("shared", n=60)
    Y = data.Y.copy()
    Y[3, 2] = np.nan
    system = System.from_arrays(Y, data.X)
    with pytest.raises(ValueError, match="NaN"):
        LowRankGLS(1).fit(system)
    made = fit(data.system()).predict_given(system)
    assert made.chunks is not None and made.isel(obs=3).notnull().all()
