"""Sparse and grouped factors through the estimator: other programs' digits, optimality, laws, files, messages."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.base
import xarray as xr

from lrgls_dask import CompressedSystem, Fit, FitWarning, GroupedLowRank, LowRankGLS, SparseLowRank, System, Termination
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.sparse import SparseFactors
from support.counted import counted
from support.covariances import factor_slopes
from support.fits import assert_params_close, fit
from support.grouped import EQUATIONS, GROUPED, GROUPS, SPARSE, bifactor
from support.oracle import Dense
from support.reference import EXACT, load, system_of, table
from support.systems import Data, dask_rows, simulate

BOTH = pytest.mark.parametrize("covariance", [SPARSE, GROUPED], ids=["sparse", "grouped"])


def made(data: Data, covariance: Any, **options: Any) -> Fit:
    return fit(data.system(dask_rows(50)), "auto", covariance=covariance, **options)


def slopes(found: Fit, dense: Dense) -> tuple[np.ndarray, np.ndarray]:
    """d nll/dF and d nll/d log d in standard units, from dense inverses."""
    S = dense.S(found.params.values) / np.outer(dense.s, dense.s)
    return factor_slopes(found.loadings.values / dense.s[:, None], found.idio_var.values / dense.s**2, S)


# ---------------------------------------------------------------------------------- optimality


def test_bifactor_as_in_lavaan() -> None:
    reference, data = load("case08a_sim_bifactor_K9")
    expected = reference["fits"]["bifactor"]
    names = list(reference["equations"])
    groups = {name: "abc"[j // 3] for j, name in enumerate(names)}
    model = LowRankGLS(covariance=GroupedLowRank(1, groups), **EXACT)
    found = model.fit(system_of(reference["equations"], data)).result_
    se = table(expected["se"]["expected"], found)
    assert np.abs((found.params.values - table(expected["coefficients"], found)) / se).max() < 1e-6
    sigma = np.array(expected["sigma"])
    sd = np.sqrt(np.diag(sigma))
    assert np.abs((found.sigma().values - sigma) / np.outer(sd, sd)).max() < 1e-6
    assert abs(found.loglik - expected["loglik_y_given_x"]) < 1e-7
    assert found.n_parameters == expected["n_free_parameters"]
    np.testing.assert_allclose(found.std_errors.values, se, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@BOTH
def test_the_optimum_is_stationary(covariance: Any, weighted: bool) -> None:
    data = bifactor(weighted=weighted)
    found, dense = made(data, covariance), data.dense()
    assert found.termination is Termination.CONVERGED
    np.testing.assert_allclose(found.params.values, dense.gls(found.sigma().values), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.nll, dense.nll(found.params.values, found.sigma().values), rtol=1e-11)
    np.testing.assert_allclose(found.std_errors, np.sqrt(np.diag(dense.cov(found.sigma().values))), rtol=1e-7)
    along_F, along_d = slopes(found, dense)
    F = found.loadings.values
    assert np.abs(along_d).max() < 1e-7
    if covariance is GROUPED:
        assert np.abs(along_F[F != 0]).max() < 1e-7
        outside = np.array([[GROUPS[e] != name for name in "abc"] for e in EQUATIONS])
        np.testing.assert_array_equal(F[:, 1:] == 0, outside)
    else:
        assert 0 < np.count_nonzero(F == 0) < F.size
        np.testing.assert_allclose(along_F[F != 0], -0.05 * np.sign(F[F != 0]), atol=1e-7)
        assert np.abs(along_F[F == 0]).max() <= 0.05 + 1e-7


def test_without_penalty_sparse_is_maximum_likelihood_turned() -> None:
    data = simulate("mixed", n=200)
    found, plain = made(data, SparseLowRank(2, l1=0)), fit(data.system(), 2)
    assert abs(found.loglik - plain.loglik) < 1e-9
    np.testing.assert_allclose(found.sigma().values, plain.sigma().values, rtol=1e-6, atol=1e-8)
    assert found.n_parameters == plain.n_parameters
    assert_params_close(found, plain, 1e-7)


@pytest.mark.parametrize(
    ("groups", "rank", "group_rank", "lost"),
    [("aaabbb", 1, 1, 1), ("aaaabbbb", 1, 1, 0), ("aaabbbccc", 1, 1, 0), ("aaabbb", 2, 1, 3)],
)
def test_groups_too_few_for_their_factors_are_told(groups: str, rank: int, group_rank: int, lost: int) -> None:
    data = simulate("shared", n=400, K=len(groups), k=2, seed=1)
    covariance = GroupedLowRank(rank, {f"y{j}": group for j, group in enumerate(groups)}, group_rank=group_rank)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made(data, covariance)
    said = [str(w.message) for w in caught if "unidentified" in str(w.message)]
    assert len(said) == bool(lost)
    assert all(f"leave {lost} direction" in text and "use three or more groups" in text for text in said)


def test_groups_without_factors_are_the_unstructured_fit() -> None:
    data = bifactor()
    found, plain = made(data, GroupedLowRank(2, GROUPS, group_rank=0)), fit(data.system(), 2)
    assert abs(found.loglik - plain.loglik) < 1e-9
    assert found.n_parameters == plain.n_parameters
    np.testing.assert_allclose(found.loadings.values, plain.loadings.values, rtol=1e-5, atol=1e-6)


def test_a_large_penalty_leaves_no_loading() -> None:
    data = simulate("own", n=100)
    found, diagonal = made(data, SparseLowRank(2, l1=10.0)), fit(data.system(), "auto", covariance="diagonal")
    assert not found.loadings.values.any()
    assert (found.covariance_kind, found.n_parameters) == ("sparse", diagonal.n_parameters)
    assert abs(found.loglik - diagonal.loglik) < 1e-9


def test_levels_of_groups() -> None:
    halves = {f"y{j}": "left" if j < 12 else "right" for j in range(24)}
    sixths = {f"y{j}": j // 4 for j in range(24)}
    rng = np.random.default_rng(3)
    E = sum(np.repeat(rng.normal(size=(400, m)), 24 // m, axis=1) * rng.uniform(0.5, 1.0, 24) for m in (1, 2, 6))
    X = np.column_stack([np.ones(400), rng.normal(size=400)])
    data = Data("shared", E + 0.7 * rng.normal(size=(400, 24)), X, (np.arange(2),) * 24)
    found = made(data, GroupedLowRank(1, [halves, sixths]))
    names = ["general", "left", "right", "0", "1", "2", "3", "4", "5"]
    assert found.loadings["factor"].values.tolist() == names
    F = found.loadings
    assert not F.sel(factor="left", equation=[f"y{j}" for j in range(12, 24)]).values.any()
    assert not F.sel(factor="1", equation=["y3", "y8"]).values.any()
    np.testing.assert_allclose(F.values @ F.values.T + np.diag(found.idio_var), found.sigma(), rtol=1e-10, atol=1e-12)
    assert np.abs(slopes(found, data.dense())[0][F.values != 0]).max() < 1e-7
    assert found.n_parameters == 48 + 24 * 3 + 24


# ---------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("algorithm", ["als", "fgls"])
@BOTH
def test_compressed_is_streamed(covariance: Any, algorithm: str) -> None:
    data = bifactor()
    streamed, compressed = (made(data, covariance, algorithm=algorithm, engine=e) for e in ("stream", "compress"))
    assert streamed.n_passes > compressed.n_passes == 1
    assert_params_close(streamed, compressed, 1e-8)
    np.testing.assert_allclose(streamed.sigma().values, compressed.sigma().values, rtol=1e-7, atol=1e-8)
    assert abs(streamed.loglik - compressed.loglik) < 1e-8


@pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")
@pytest.mark.parametrize("engine", ["compress", "stream"])
@BOTH
def test_no_half_step_raises_the_objective(covariance: Any, engine: str) -> None:
    trace = made(bifactor(n=60), covariance, engine=engine, lam_B=2.0).trace
    obj = trace["obj"].to_numpy()
    assert np.all(np.diff(obj) <= 1e-12 * abs(obj[0]))


@BOTH
def test_the_order_of_equations_does_not_matter(covariance: Any) -> None:
    data, order = bifactor(), [7, 3, 0, 8, 5, 1, 4, 6, 2]
    turned = Data("mixed", data.Y[:, order], data.X, tuple(data.columns[j] for j in order))
    straight = made(data, covariance)
    labels = [EQUATIONS[j] for j in order]
    found = fit(turned.system(equations=labels), "auto", covariance=covariance)
    np.testing.assert_allclose(found.sigma().values, straight.sigma().values[np.ix_(order, order)], atol=1e-6)
    assert abs(found.loglik - straight.loglik) < 1e-7


@pytest.mark.parametrize("covariance", [SPARSE, SparseLowRank(2), GROUPED], ids=["sparse", "bic", "grouped"])
def test_units_of_the_data_do_not_matter(covariance: Any) -> None:
    data, by_y = bifactor("own"), 10.0 ** np.array([6, -6, 0, 3, -3, 0, 1, 2, -2])
    scaled = Data("own", data.Y * by_y, data.X, data.columns)
    straight, turned = made(data, covariance), made(scaled, covariance)
    np.testing.assert_allclose(turned.loadings.values / by_y[:, None], straight.loadings.values, atol=1e-5)
    np.testing.assert_array_equal(turned.loadings.values == 0, straight.loadings.values == 0)
    assert turned.loglik == pytest.approx(straight.loglik - 300 * np.log(by_y).sum(), rel=1e-9)
    assert turned.n_parameters == straight.n_parameters


# ---------------------------------------------------------------------------------- the path


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_l1_by_bic_finds_the_zeros(engine: str) -> None:
    rng = np.random.default_rng(2)
    F = np.kron(np.eye(2), rng.uniform(0.7, 1.0, (5, 1)))
    X = np.column_stack([np.ones(1000), rng.normal(size=(1000, 2))])
    Y = X @ rng.normal(size=(3, 10)) + rng.normal(size=(1000, 2)) @ F.T + 0.6 * rng.normal(size=(1000, 10))
    data = Data("shared", Y, X, (np.arange(3),) * 10)
    found = made(data, SparseLowRank(2), engine=engine)
    nonzero = found.loadings.values != 0
    assert np.array_equal(nonzero, F != 0) or np.array_equal(nonzero[:, ::-1], F != 0)
    chosen = found.selection
    assert chosen.attrs["criterion"] == "bic"
    assert chosen.index[chosen["chosen"]].tolist() == [found.l1]
    assert chosen["bic"].min() == chosen.loc[found.l1, "bic"]
    assert found.n_parameters == 30 + 10 + 10
    plain = fit(data.system(), 2)
    assert abs(chosen.loc[0.0, "loglik"] - plain.loglik) < (1e-6 if engine == "compress" else 1e-2)
    assert abs(chosen.loc[0.0, "bic"] - plain.bic) < (1e-5 if engine == "compress" else 2e-2)
    given = made(data, SparseLowRank(2, l1=found.l1), engine=engine)
    np.testing.assert_array_equal(given.loadings.values, found.loadings.values)
    assert given.selection is None


@pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance on d_floor")
def test_reads_are_those_of_any_fit() -> None:
    data = bifactor(n=230)
    for covariance in (SparseLowRank(2), GROUPED):
        store = counted(data)
        found = LowRankGLS(covariance=covariance).fit(System.from_zarr(store)).result_
        assert store.of("Y") == store.of("X") == {1: 23}
        assert found.n_passes == 1


# ---------------------------------------------------------------------------------- what a fit can do


@BOTH
def test_saved_and_opened(tmp_path: Any, covariance: Any) -> None:
    found = made(bifactor(), covariance)
    found.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    xr.testing.assert_identical(again.loadings, found.loadings)
    np.testing.assert_array_equal(again.sigma().values, found.sigma().values)
    assert (again.covariance_kind, again.l1, again.rank) == (found.covariance_kind, found.l1, found.rank)
    assert again.summary() == found.summary()
    assert isinstance(again.covariance, SparseFactors if covariance is SPARSE else GroupedFactors)


def test_the_summary_says_which_factors() -> None:
    data = bifactor()
    grouped, sparse = made(data, GROUPED).summary(), made(data, SPARSE)
    assert "Sigma = F F' + diag(d), factors of groups; ML" in grouped
    assert "4: 1 general, 3 of groups" in grouped
    n_loadings = np.count_nonzero(sparse.loadings.values)
    assert "F sparse; ML" in sparse.summary() and f"2, {n_loadings} of 18 loadings" in sparse.summary()
    assert "lam_B = 0, l1 = 0.05" in sparse.summary()


@BOTH
def test_conditional_prediction_and_scores_are_those_of_sigma(covariance: Any) -> None:
    data = bifactor()
    found, dense = made(data, covariance), data.dense()
    r, sigma = dense.residuals(found.params.values), found.sigma().values
    scores = found.factor_scores(data.system())
    assert scores["factor"].values.tolist() == found.loadings["factor"].values.tolist()
    np.testing.assert_allclose(scores.values, r @ np.linalg.inv(sigma) @ found.loadings.values, rtol=1e-7, atol=1e-8)
    Y = data.Y.copy()
    Y[:, [1, 6]] = np.nan
    holes = Data("mixed", Y, data.X, data.columns)
    known = [j for j in range(9) if j not in (1, 6)]
    weights = np.linalg.solve(sigma[np.ix_(known, known)], sigma[np.ix_(known, [1, 6])])
    expected = (data.Y - r)[:, [1, 6]] + r[:, known] @ weights
    given = found.predict_given(holes.system()).values
    np.testing.assert_allclose(given[:, [1, 6]], expected, rtol=1e-8, atol=1e-9)


@BOTH
def test_replicates_are_refitted_with_the_same_structure(covariance: Any) -> None:
    data = bifactor("shared")
    found = made(data, covariance)
    boot = found.bootstrap(8, "blocks", seed=1, n_blocks=30)
    assert boot.n_replicates == 8 and "communality" in boot.sigma
    draws = np.random.default_rng(np.random.SeedSequence(1).spawn(8)[0]).integers(30, size=30)
    rows = np.concatenate([np.arange(b * 10, b * 10 + 10) for b in draws])
    explicit = made(data.take(rows), covariance)
    se = explicit.std_errors.values
    assert np.abs((boot.params.values[0] - explicit.params.values) / se).max() < 2e-2
    own = 1.0 - explicit.idio_var.values / explicit.sigma_diagonal
    np.testing.assert_allclose(boot.sigma["variance"].values[0], explicit.sigma_diagonal, rtol=2e-3)
    np.testing.assert_allclose(boot.sigma["communality"].values[0], own, atol=2e-3)
    parametric = found.bootstrap(4, seed=0)
    assert parametric.n_replicates == 4


@BOTH
def test_robust_errors_and_restrictions(covariance: Any) -> None:
    data = bifactor("shared")
    found = made(data, covariance, restrictions=["y0:x1 = y1:x1", "y2:x0 = 0.5"])
    params = {(e, r): v for e, r, v in zip(found.params["equation"].values, found.params["regressor"].values,
                                           found.params.values, strict=True)}  # fmt: skip
    assert params["y0", "x1"] == pytest.approx(params["y1", "x1"], abs=1e-9)
    assert params["y2", "x0"] == pytest.approx(0.5, abs=1e-9)
    robust = made(data, covariance).with_cov("robust")
    assert 0.5 < float((robust.std_errors / made(data, covariance).std_errors).max()) < 2.0


def test_debiased_finds_sigma_from_more(engine: str = "compress") -> None:
    data = bifactor()
    found, dense = made(data, GROUPED, debiased=True), data.dense()
    root = np.sqrt(dense.N / (dense.N - np.array([X.shape[1] for X in dense.Xs])))
    F, d = found.loadings.values, found.idio_var.values
    inverse = np.linalg.inv(F @ F.T + np.diag(d))
    S = dense.S(found.params.values) * np.outer(root, root)
    G = inverse - inverse @ S @ inverse
    assert np.abs(np.diag(G) * d).max() < 1e-6
    assert np.abs((G @ F * np.sqrt(d)[:, None])[F != 0]).max() < 1e-6


# ---------------------------------------------------------------------------------- options


def test_parameters_can_be_read_set_and_cloned() -> None:
    model = LowRankGLS(covariance=SparseLowRank(3, l1=0.1))
    assert repr(model) == "LowRankGLS(covariance=SparseLowRank(rank=3, l1=0.1))"
    copy = sklearn.base.clone(model)
    assert copy.get_params()["covariance"] == SparseLowRank(3, l1=0.1)
    with pytest.raises(ValueError, match=r"so rank must keep its default; got 2"):
        model.set_params(rank=2)
    assert model.rank == "auto"


def test_groups_may_be_a_series_or_a_data_array() -> None:
    data = bifactor(n=100)
    loglik = made(data, GROUPED).loglik
    series = pd.Series(GROUPS)
    array = xr.DataArray(series.to_numpy(), {"equation": series.index.to_numpy()}, "equation")
    for groups in (series, array, [series[::-1]]):
        assert made(data, GroupedLowRank(1, groups)).loglik == pytest.approx(loglik, abs=1e-9)


def labelled(**coords: Any) -> xr.Dataset:
    """`bifactor` rows with further coordinates of the equations."""
    data = bifactor("shared", n=100)
    return xr.Dataset(
        {"y": (("obs", "firm"), data.Y), "x": (("obs", "regressor"), data.X)},
        {"firm": EQUATIONS} | {name: ("firm", np.asarray(values)) for name, values in coords.items()},
    )


def grouped_fit(system: System | CompressedSystem, groups: Any) -> Fit:
    return LowRankGLS(covariance=GroupedLowRank(1, groups)).fit(system).result_


SECTORS = {"sector": ["steel", "steel", "steel", "cars", "cars", "cars", "rail", "rail", "rail"]}


def firms(ds: xr.Dataset) -> System:
    return System.from_xarray(ds, y="y", x=["x"], equation="firm")


def test_groups_may_be_the_name_of_a_coordinate(tmp_path: Path) -> None:
    """In memory, compressed, on disk, opened by xarray: wherever the equations go, their coordinates go."""
    ds = labelled(**SECTORS)
    system = firms(ds)
    want = grouped_fit(system, dict(zip(EQUATIONS, SECTORS["sector"], strict=True))).loglik
    system.to_zarr(tmp_path / "system.zarr")
    system.compress().to_zarr(tmp_path / "small.zarr")
    reopened = xr.open_zarr(tmp_path / "system.zarr")
    assert reopened["sector"].values.tolist() == SECTORS["sector"] and "sector" in reopened.coords
    ways = (
        system,
        system.compress(),
        System.from_zarr(tmp_path / "system.zarr"),
        CompressedSystem.from_zarr(tmp_path / "small.zarr"),
        System.from_xarray(reopened, y="Y", x=["X"], equation="firm"),
    )
    for way in ways:
        assert grouped_fit(way, "sector").loglik == pytest.approx(want, abs=1e-9)


def test_groups_in_groups_by_the_names_of_coordinates() -> None:
    coarse = ["heavy"] * 6 + ["light"] * 3
    system = firms(labelled(**SECTORS, branch=coarse))
    with pytest.warns(FitWarning, match="unidentified"):  # a branch that is one sector has its factor twice
        factors = grouped_fit(system, ["branch", "sector"]).loadings["factor"].values
    assert list(factors) == ["general", "heavy", "light", "steel", "cars", "rail"]


def test_coordinates_of_no_use_as_labels_are_left_out(tmp_path: Path) -> None:
    lists = np.empty(9, dtype=object)
    lists[:] = [[1], [2]] * 4 + [[3]]
    system = firms(labelled(odd=lists, span=pd.timedelta_range("1h", periods=9).to_numpy(), **SECTORS))
    assert list(system.design.equation_coords) == ["span", "sector"]
    system.to_zarr(tmp_path / "system.zarr")


@pytest.mark.parametrize(
    ("coords", "groups", "text"),
    [
        (
            SECTORS,
            "sectr",
            "coordinate 'sectr' along the equations, but the system has 'sector'; did you mean 'sector'?",
        ),
        ({}, "sector", "coordinate 'sector' along the equations, but the system has none. Pass equation -> group"),
        ({"code": [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, np.nan]}, "code", "equation 'y8' has no group"),
        (SECTORS, {f"y{j}": None if j == 4 else "a" for j in range(9)}, "equation 'y4' has no group"),
    ],
)
def test_coordinates_that_give_no_groups(coords: dict[str, Any], groups: Any, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        grouped_fit(firms(labelled(**coords)), groups)


def test_a_coordinate_must_not_have_a_name_of_the_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="coordinate 'weights' has a name that the format keeps for itself"):
        firms(labelled(weights=range(9))).to_zarr(tmp_path / "system.zarr")


@pytest.mark.parametrize(
    ("error", "text", "make"),
    [
        (ValueError, "l1 must be a finite number, 0 or more; got -0.1", lambda: SparseLowRank(2, l1=-0.1)),
        (ValueError, "l1 must be a number or 'bic'; got 'aic'", lambda: SparseLowRank(2, l1="aic")),  # type: ignore[arg-type]
        (TypeError, "l1 must be a number or 'bic'; got None", lambda: SparseLowRank(2, l1=None)),  # type: ignore[arg-type]
        (TypeError, "rank must be an integer; got 'bic'", lambda: SparseLowRank("bic")),  # type: ignore[arg-type]
        (ValueError, "rank must be at least 1; got 0", lambda: SparseLowRank(0)),
        (ValueError, "rank must be at least 0; got -1", lambda: GroupedLowRank(-1, GROUPS)),
        (TypeError, "group_rank must be an integer; got 1.5", lambda: GroupedLowRank(1, GROUPS, group_rank=1.5)),  # type: ignore[arg-type]
        (TypeError, "got 3. Pass one of these, or a list of them", lambda: GroupedLowRank(1, 3)),
        (ValueError, "groups is empty", lambda: GroupedLowRank(1, [])),
        (ValueError, "equation 'y1' is there more than once",
         lambda: GroupedLowRank(1, pd.Series(["a", "b", "c"], ["y0", "y1", "y1"]))),
        (ValueError, "one dim with labels, that of the equations; got dims ('equation',)",
         lambda: GroupedLowRank(1, xr.DataArray(["a", "b"], dims="equation"))),
        (ValueError, "covariance=SparseLowRank(...) says what the factors are, so lam_F must keep its default; got 0.5",
         lambda: LowRankGLS(covariance=SPARSE, lam_F=0.5)),
        (ValueError, "covariance=GroupedLowRank(...) says what the factors are, so rank must keep its default; got 0",
         lambda: LowRankGLS(0, covariance=GROUPED)),
        (ValueError, "so sigma_step must keep its default; got 'pca'",
         lambda: LowRankGLS(covariance=GROUPED, sigma_step="pca")),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(error: type[Exception], text: str, make: Any) -> None:
    with pytest.raises(error, match=re.escape(text)):
        make()


@pytest.mark.parametrize(
    ("covariance", "text"),
    [
        (SparseLowRank(6), "rank 6 is more than 9 equations identify"),
        (GroupedLowRank(6, GROUPS), "rank 6 is more than 9 equations identify"),
        (GroupedLowRank(1, GROUPS | {"y9": "a"}), "groups: 'y9' is not an equation"),
        (GroupedLowRank(1, dict(list(GROUPS.items())[:-1])), "groups: equation 'y8' has no group"),
        (GroupedLowRank(1, GROUPS, group_rank=2), "groups: 'a' has 3 equations, which identify 1 factors"),
        (GroupedLowRank(1, [GROUPS, dict.fromkeys(EQUATIONS, "all")]), "groups: 'all' has equations of both 'a' and"),
        (GroupedLowRank(1, [GROUPS], group_rank=[1, 1]), "1 groupings but 2 group ranks"),
    ],
)
def test_options_that_do_not_suit_the_equations(covariance: Any, text: str) -> None:
    system = bifactor().system()
    for use in (LowRankGLS(covariance=covariance).plan, LowRankGLS(covariance=covariance).fit):
        with pytest.raises(ValueError, match=re.escape(text)):
            use(system)


def test_a_penalised_fit_is_no_likelihood_ratio() -> None:
    data = bifactor()
    found = made(data, SPARSE)
    with pytest.raises(ValueError, match=r"rank_test .* \(l1 = 0.05\)"):
        found.rank_test()
    tested = made(data, GROUPED).lr_test(fit(data.system(), 1))
    assert (tested.df, tested.pvalue < 1e-6) == (9, True)
    assert 0.001 < made(data, GROUPED).rank_test().pvalue < 0.999
