"""Structures of Sigma other than factors, and one-step fits: values, laws, ladder, messages, saving."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import zarr

from lrgls_dask import Fit, FitWarning, LowRankGLS, System, Termination
from lrgls_dask.data.seal import SEAL
from lrgls_dask.sigma.blocks import blocks_of
from lrgls_dask.sigma.full import Full, FullSigma, SingularCovariance
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.grouped_structure import GroupedStructure
from lrgls_dask.sigma.interface import LOOSE, TIGHT
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.sigma.registry import sigma_of, structure_of
from lrgls_dask.sigma.sparse import SparseFactors, SparseStructure
from lrgls_dask.sigma.structures import LowRankStructure, diagonal
from lrgls_dask.solve.checkpoint import Checkpoint
from support.counted import counted
from support.fits import assert_params_close, assert_same_bits, fit
from support.systems import Data, dask_rows, simulate

ENGINES = ["compress", "stream"]
KINDS = ["own", "shared", "mixed"]


def full(data: Data, **options: Any) -> Fit:
    return fit(data.system(dask_rows(50)), rank="auto", covariance="full", **options)


def spd(K: int, units: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(K)
    root = rng.normal(size=(K, K)) * np.logspace(0, np.log10(units), K)[:, None]
    return root @ root.T


# ---------------------------------------------------------------------------------- values


@pytest.mark.parametrize("units", [1.0, 1e12])
def test_a_full_sigma_is_the_matrix_it_holds(units: float) -> None:
    matrix = spd(6, units)
    sigma, sd = FullSigma(matrix), np.sqrt(np.diag(matrix))
    inverse = np.linalg.inv(matrix / np.outer(sd, sd)) / np.outer(sd, sd)
    B = np.random.default_rng(1).normal(size=(6, 3)) / sd[:, None]
    np.testing.assert_allclose(sigma.solve(sigma.matmul(B)) * sd[:, None], B * sd[:, None], rtol=1e-9, atol=1e-10)
    E = (B * sd[:, None] ** 2).T
    np.testing.assert_allclose(sigma.solve_rows(E) * sd, E @ inverse * sd, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sigma.precision() * np.outer(sd, sd), inverse * np.outer(sd, sd), rtol=1e-8)
    np.testing.assert_allclose(sigma.precision_diagonal, np.diag(inverse), rtol=1e-9)
    expected = np.linalg.slogdet(matrix / np.outer(sd, sd))[1] + 2 * np.log(sd).sum()
    assert sigma.logdet == pytest.approx(expected, rel=1e-11)
    assert sigma.trace_solve(matrix) == pytest.approx(6, rel=1e-9)
    assert sigma.nll(matrix) == pytest.approx(0.5 * (6 * np.log(2 * np.pi) + expected + 6), rel=1e-10)
    np.testing.assert_array_equal(sigma.variances, np.diag(matrix))
    np.testing.assert_allclose(sigma.rescaled(1 / sd).dense(), matrix / np.outer(sd, sd), rtol=1e-13)
    assert (sigma.n_parameters, sigma.rank, sigma.kind) == (21, 0, "full")
    assert not sigma.on_floor(np.ones(6)).any()


def values(K: int = 7) -> list[Any]:
    """One of each kind of Sigma, of K equations."""
    rng = np.random.default_rng(3)
    F, d = rng.normal(size=(K, 2)), rng.uniform(0.2, 1.0, K)
    blocks = blocks_of(range(K), [{j: "ab"[j > 3] for j in range(K)}], 1, [1])
    sparse = SparseFactors(np.where(np.abs(F) < 0.5, 0.0, F), d)
    return [LowRank(F, d), LowRank(F[:, :0], d), sparse, GroupedFactors(blocks, F, d), FullSigma(spd(K))]


EACH = pytest.mark.parametrize("sigma", values(), ids=lambda sigma: sigma.kind)


@EACH
def test_a_value_is_the_matrix_that_it_stands_for(sigma: Any) -> None:
    dense, rng = sigma.dense(), np.random.default_rng(1)
    B, S, scale = rng.normal(size=(7, 3)), spd(7), rng.uniform(0.1, 9.0, 7) * np.resize([1.0, -1.0], 7)
    np.testing.assert_allclose(sigma.matmul(B), dense @ B, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(sigma.solve(sigma.matmul(B)), B, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sigma.solve_rows(B.T), B.T @ np.linalg.inv(dense), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(sigma.precision(), np.linalg.inv(dense), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(sigma.precision_diagonal, np.diag(np.linalg.inv(dense)), rtol=1e-9)
    np.testing.assert_allclose(sigma.variances, np.diag(dense), rtol=1e-13)
    logdet, trace = np.linalg.slogdet(dense)[1], np.trace(np.linalg.solve(dense, S))
    assert sigma.logdet == pytest.approx(logdet, rel=1e-11)
    assert sigma.nll(S) == pytest.approx(0.5 * (7 * np.log(2 * np.pi) + logdet + trace), rel=1e-10)
    np.testing.assert_allclose(sigma.rescaled(scale).dense(), dense * np.outer(scale, scale), rtol=1e-12, atol=1e-12)
    normal = sigma.normalised()
    assert (normal.kind, normal.n_parameters) == (sigma.kind, sigma.n_parameters)
    np.testing.assert_allclose(normal.dense(), dense, rtol=1e-10, atol=1e-12)


@EACH
def test_what_is_stored_makes_the_same_sigma(sigma: Any) -> None:
    arrays = {name: array for name, (array, _) in sigma.stored().items()}
    again = sigma_of(sigma.kind, arrays.__getitem__)
    assert type(again) is type(sigma) and again.kind == sigma.kind
    np.testing.assert_array_equal(again.dense(), sigma.dense())
    assert again.factor_labels == sigma.factor_labels
    assert structure_of(again, "ml", 0.0, 0.1).n_parameters(7) >= sigma.n_parameters


def test_values_refuse_what_is_no_covariance() -> None:
    with pytest.raises(ValueError, match=re.escape("square matrix; got shape (2, 3)")):
        FullSigma(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"row 1 has variance 0\.0"):
        FullSigma(np.diag([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"kind 'banded' is unknown; known are lowrank, .*, sparse, grouped"):
        sigma_of("banded", dict[str, np.ndarray]().__getitem__)
    with pytest.raises(SingularCovariance, match="is singular"):
        Full().update(np.ones((2, 2)), np.full(2, 1e-8), None)
    with pytest.raises(SingularCovariance, match="an equation vanish"):
        Full().update(np.diag([1.0, 0.0]), np.full(2, 1e-8), None)


HALVES = blocks_of(range(6), [{j: j // 3 for j in range(6)}], 1, [1])


@pytest.mark.parametrize("tol", [LOOSE, TIGHT])
@pytest.mark.parametrize(
    "structure",
    [Full(), diagonal(), LowRankStructure(1, lam_F=0.1), SparseStructure(2, 0.05), GroupedStructure(HALVES)],
)
def test_an_update_is_never_worse_than_its_start(structure: Any, tol: float) -> None:
    S, floor = spd(6), np.full(6, 1e-8)
    S /= np.sqrt(np.outer(np.diag(S), np.diag(S)))
    start = structure.start(S, floor)
    best = structure.candidates(S, floor, tol=tol)[0]
    for step in (structure.update(S, floor, start, tol=tol), best, structure.update(S, floor, best.sigma)):
        value = step.sigma.nll(S) + structure.penalty(step.sigma)
        assert value <= start.nll(S) + structure.penalty(start) + 1e-12
        assert step.sigma.n_parameters <= structure.n_parameters(6)
    polished = structure.update(S, floor, best.sigma).sigma
    gained = best.sigma.nll(S) + structure.penalty(best.sigma) - polished.nll(S) - structure.penalty(polished)
    assert -1e-12 <= gained <= (1e-6 if tol == LOOSE else 1e-12)


# ---------------------------------------------------------------------------------- textbook


def divisors(data: Data, debiased: bool | str) -> np.ndarray:
    """(K, K) what R'R is divided by, as systemfit's manual has it, projections formed."""
    dense = data.dense()
    p, root = np.array([X.shape[1] for X in dense.Xs]), np.sqrt(dense.w)[:, None]
    if debiased == "Theil":
        hats = [root * X @ np.linalg.pinv(root * X) for X in dense.Xs]
        return np.array(
            [[dense.N - p[i] - p[j] + np.trace(a @ b) for j, b in enumerate(hats)] for i, a in enumerate(hats)]
        )
    if debiased == "max":
        return dense.N - np.maximum.outer(p, p)
    return np.outer(np.sqrt(dense.N - p), np.sqrt(dense.N - p)) if debiased else np.full((dense.K, dense.K), dense.N)


def by_kronecker(
    data: Data, *, sweeps: int, debiased: bool | str = False, lam_B: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """b and the Sigma that weighted it, from explicit Kronecker products."""
    dense = data.dense(lam_B=lam_B)
    scale = dense.N / divisors(data, debiased)
    b = dense.ols if lam_B == 0 else dense.gls(np.diag(dense.s**2))
    for _ in range(sweeps):
        sigma = dense.S(b) * scale
        b = dense.gls(sigma)
    return b, sigma


@pytest.mark.parametrize("debiased", [False, True, "Theil", "max"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", ["fgls", "als"])
def test_full_is_the_textbook_estimator(algorithm: str, engine: str, weighted: bool, debiased: bool | str) -> None:
    data = simulate("mixed", n=50, K=4, weighted=weighted, unit=3.0)
    sweeps = 1 if algorithm == "fgls" else 60
    b, sigma = by_kronecker(data, sweeps=sweeps, debiased=debiased)
    found = full(data, algorithm=algorithm, engine=engine, debiased=debiased)
    se = np.sqrt(np.diag(data.dense().cov(sigma)))
    assert np.abs((found.params.values - b) / se).max() < 1e-8
    np.testing.assert_allclose(found.sigma().values, sigma, rtol=1e-7, atol=1e-8 * sigma.max())
    np.testing.assert_allclose(found.std_errors.values, se, rtol=1e-8)
    np.testing.assert_allclose(found.nll, data.dense().nll(found.params.values, found.sigma().values), rtol=1e-11)
    assert found.termination is Termination.CONVERGED


@pytest.mark.parametrize("algorithm", ["fgls", "als"])
def test_full_with_a_ridge(algorithm: str) -> None:
    data = simulate("own", n=50, K=4)
    b, sigma = by_kronecker(data, sweeps=1 if algorithm == "fgls" else 60, lam_B=4.0)
    found = full(data, algorithm=algorithm, lam_B=4.0)
    np.testing.assert_allclose(found.params.values, b, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.sigma().values, sigma, rtol=1e-7, atol=1e-8)


def test_enough_factors_are_the_full_model() -> None:
    """Three equations identify one factor, which then leaves Sigma free."""
    data = simulate("own", n=150, K=3, k=1, seed=3)
    factors = fit(data.system(), rank=1)
    assert not factors.on_floor
    unrestricted = full(data)
    assert abs(factors.loglik - unrestricted.loglik) < 1e-8
    assert factors.n_parameters == unrestricted.n_parameters
    assert_params_close(factors, unrestricted, 1e-6)
    np.testing.assert_allclose(factors.sigma().values, unrestricted.sigma().values, rtol=1e-6)
    b, _ = by_kronecker(data, sweeps=60)
    np.testing.assert_allclose(unrestricted.params.values, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_step_with_factors_weights_by_the_sigma_of_the_ols_residuals(engine: str) -> None:
    data = simulate("mixed", n=80)
    dense, found = data.dense(), fit(data.system(dask_rows(20)), algorithm="fgls", engine=engine)
    assert found.n_sweeps == 1
    np.testing.assert_allclose(found.params.values, dense.gls(found.sigma().values), rtol=1e-8, atol=1e-9)
    # the optimum for fixed residuals: the gradient over F and log d vanishes there
    sigma, S = found.sigma().values, dense.S(dense.ols)
    G = np.linalg.inv(sigma) - np.linalg.inv(sigma) @ S @ np.linalg.inv(sigma)
    slopes = np.concatenate([(G @ found.loadings.values).ravel(), np.diag(G) * found.idio_var.values])
    assert np.abs(slopes).max() < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_diagonal_is_rank_zero(engine: str) -> None:
    data = simulate("mixed", weighted=True)
    found = fit(data.system(), rank="auto", covariance="diagonal", engine=engine)
    assert_same_bits(found, fit(data.system(), rank=0, engine=engine))
    assert (found.rank, found.covariance_kind) == (0, "diagonal")
    assert "Sigma = diag(d)" in found.summary()


# ---------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("algorithm", ["fgls", "als"])
@pytest.mark.parametrize("kind", KINDS)
def test_compressed_is_streamed(kind: str, algorithm: str) -> None:
    data = simulate(kind, n=120)
    streamed, compressed = (full(data, algorithm=algorithm, engine=engine) for engine in ("stream", "compress"))
    assert_params_close(streamed, compressed, 1e-8)
    np.testing.assert_allclose(streamed.sigma().values, compressed.sigma().values, rtol=1e-8, atol=1e-9)
    assert abs(streamed.loglik - compressed.loglik) < 1e-8


@pytest.mark.parametrize("debiased", [False, True])
def test_units_of_the_data_do_not_matter(debiased: bool) -> None:
    data = simulate("own", n=60)
    by_y, by_x = 10.0 ** np.array([6, -6, 0, 3, -3, 0]), np.logspace(-6, 6, data.X.shape[1])
    scaled = Data("own", data.Y * by_y, data.X * by_x, data.columns)
    straight, turned = full(data, debiased=debiased), full(scaled, debiased=debiased)
    per_coefficient = np.concatenate([by_y[j] / by_x[c] for j, c in enumerate(data.columns)])
    np.testing.assert_allclose(turned.params.values / per_coefficient, straight.params.values, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(turned.std_errors.values / per_coefficient, straight.std_errors.values, rtol=1e-8)
    assert turned.loglik == pytest.approx(straight.loglik - 60 * np.log(by_y).sum(), rel=1e-11)


def test_the_order_of_equations_does_not_matter() -> None:
    data, order = simulate("mixed", n=60), [3, 0, 5, 1, 4, 2]
    turned = Data("mixed", data.Y[:, order], data.X, tuple(data.columns[j] for j in order))
    straight, found = full(data), full(turned)
    np.testing.assert_allclose(found.sigma().values, straight.sigma().values[np.ix_(order, order)], rtol=1e-7)
    assert abs(found.loglik - straight.loglik) < 1e-9


def test_the_objective_of_accepted_sweeps_falls_and_ends_at_the_optimum() -> None:
    data = simulate("own", n=26)
    found, dense = full(data), data.dense()
    assert found.termination is Termination.CONVERGED
    obj = found.trace[found.trace["step"] == "beta"]["obj"].to_numpy()
    assert obj[-1] <= obj.min() + 1e-13 * abs(obj[-1])

    def profile(step: np.ndarray) -> float:
        S = dense.S(found.params.values + found.std_errors.values * step)
        return 0.5 * float(np.linalg.slogdet(S)[1])

    unit = 1e-4 * np.eye(len(dense.ols))
    assert np.abs([(profile(e) - profile(-e)) / 2e-4 for e in unit]).max() < 1e-7
    assert min(profile(100 * e) - profile(0 * e) for e in (*unit, *-unit)) > 0


def test_a_fit_cut_short_says_so() -> None:
    with pytest.warns(FitWarning, match="not converged after 2 sweeps"):
        short = full(simulate("own", n=26), max_sweeps=2)
    assert short.termination is Termination.MAX_SWEEPS
    assert short.n_sweeps == 2


# ---------------------------------------------------------------------------------- reads, saving


@pytest.mark.parametrize("algorithm", ["fgls", "als"])
def test_reads_are_those_the_fit_counts(algorithm: str) -> None:
    store = counted(simulate("mixed", n=230))
    model = LowRankGLS(covariance="full", algorithm=algorithm)
    assert model.fit(System.from_zarr(store)).result_.n_passes == 1
    assert store.of("Y") == {1: 23}
    store.gets.clear()
    streamed = model.set_params(engine="stream").fit(System.from_zarr(store)).result_
    assert store.of("X") == {streamed.n_passes: 23}
    if algorithm == "fgls":  # OLS, its residuals, the score, the products of the one step, and X'X
        products = int(streamed.trace["cg_iterations"].sum())
        assert streamed.n_passes == 4 + products


@pytest.mark.parametrize("options", [{}, {"algorithm": "fgls", "debiased": True}])
def test_saved_and_opened(tmp_path: Any, options: dict[str, Any]) -> None:
    made = full(simulate("mixed", n=80), **options)
    made.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(again.sigma().values, made.sigma().values)
    np.testing.assert_array_equal(again.std_errors.values, made.std_errors.values)
    assert (again.algorithm, again.debiased, again.covariance_kind) == (made.algorithm, made.debiased, "full")
    assert again.summary() == made.summary()
    assert "Sigma unrestricted; " + ("one-step feasible GLS, debiased" if options else "ML") in made.summary()


def test_a_fit_saved_without_its_structure_is_low_rank(tmp_path: Any) -> None:
    made = fit(simulate("own", n=150, K=3, k=1, seed=3).system(), rank=1)
    made.to_zarr(tmp_path / "old.zarr")
    group = zarr.open_group(tmp_path / "old.zarr")
    for name in ("covariance", "algorithm", "debiased", SEAL):
        del group.attrs[name]
    assert_same_bits(Fit.from_zarr(tmp_path / "old.zarr"), made)


@pytest.mark.filterwarnings("ignore:LowRankGLS. not converged")
def test_a_killed_fit_goes_on_from_its_checkpoint(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate("own", n=60)
    options: dict[str, Any] = {"engine": "stream", "checkpoint": tmp_path / "kept.zarr"}
    saved = Checkpoint.save_point

    def killed(self: Checkpoint, name: str, point: Any) -> None:
        saved(self, name, point)
        if point.sweep == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save_point", killed)
        with pytest.raises(KeyboardInterrupt):
            full(data, **options)
    resumed, whole = full(data, **options), full(data, engine="stream")
    assert resumed.n_passes < whole.n_passes
    np.testing.assert_array_equal(resumed.params.values, whole.params.values)
    assert resumed.trace.drop(columns="seconds").equals(whole.trace.drop(columns="seconds"))


# ---------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"covariance": "full", "rank": 2}, "covariance='full' has no factors, so rank must keep its default; got 2"),
        ({"covariance": "diagonal", "rank": "bic"}, "covariance='diagonal' has no factors, so rank .* got 'bic'"),
        ({"covariance": "full", "lam_F": 0.5}, "no factors, so lam_F must keep its default; got 0.5"),
        ({"covariance": "full", "sigma_step": "pca"}, "no factors, so sigma_step must keep its default; got 'pca'"),
        ({"covariance": "sparse"}, "covariance must be 'lowrank' or 'full' or 'diagonal'; got 'sparse'"),
        ({"algorithm": "gmm"}, "algorithm must be 'als' or 'fgls' or 'em' or 'ols'; got 'gmm'"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LowRankGLS(**options)


def test_debiased_is_true_or_false_or_a_way_to_count() -> None:
    for wrong, error in (("geomean", ValueError), (1, TypeError)):
        with pytest.raises(error, match=f"debiased must be True, False, 'Theil' or 'max'; got {wrong!r}"):
            LowRankGLS(debiased=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["Theil", "max"])
def test_divisors_count_what_restrictions_leave_free(way: Any) -> None:
    """A coefficient held at zero is a column that is not there."""
    data = simulate("own", n=40, K=3)
    held = full(data, algorithm="fgls", debiased=way, restrictions=["y1:x1 = 0"])
    terms = held.design.terms
    without = [[t for t in mine if (j, t) != (1, "x1")] for j, mine in enumerate(terms)]
    Xs = [X[:, [terms[j].index(t) for t in without[j]]] for j, X in enumerate(data.Xs)]
    dropped = System.from_arrays(data.Y, Xs, regressors=without)
    expected = LowRankGLS(covariance="full", algorithm="fgls", debiased=way).fit(dropped).result_
    np.testing.assert_allclose(held.sigma().values, expected.sigma().values, rtol=1e-9)
    np.testing.assert_allclose(held.std_errors.values[held.std_errors.values > 0], expected.std_errors, rtol=1e-9)


def test_divisors_that_leave_no_covariance_are_refused_with_one_that_does() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(12), rng.normal(size=(12, 8))])
    y = rng.normal(size=12)
    y -= x @ np.linalg.lstsq(x, y, rcond=None)[0]  # both equations have the same residuals, nearly
    system = System.from_arrays(np.column_stack([y, y + 1e-3 * rng.normal(size=12)]), [x[:, :1], x])
    with pytest.raises(ValueError, match=r"debiased='max' divides .* not positive definite\. Use debiased=True"):
        LowRankGLS(covariance="full", algorithm="fgls", debiased="max").fit(system)
    assert LowRankGLS(covariance="full", algorithm="fgls", debiased=True).fit(system).result_.debiased is True


def test_a_full_fit_has_no_loadings() -> None:
    found = full(simulate("own", n=60))
    with pytest.raises(ValueError, match=r"covariance='full' has no loadings. Use sigma\(\)"):
        _ = found.loadings
    with pytest.raises(ValueError, match="covariance='full' has no idiosyncratic variances"):
        _ = found.idio_var
    assert found.rank == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_fewer_rows_than_equations(engine: str) -> None:
    data = simulate("own", n=8, K=10)
    with pytest.raises(ValueError, match=r"of 10 equations fitted one by one is singular \(8 rows, 29 dist"):
        full(data, algorithm="fgls", engine=engine)
    with pytest.raises(ValueError, match="no maximum likelihood fit with covariance='full' exists: with 8 rows"):
        full(data, engine=engine)


@pytest.mark.parametrize("rel_tol", [None, 1e-12])
def test_ten_equations_of_twenty_rows_have_no_maximum_as_grunfelds_ten_firms(rel_tol: float | None) -> None:
    """S of the OLS residuals is regular, so one step is well defined."""
    rng = np.random.default_rng(0)
    Xs = [np.column_stack([np.ones(20), rng.normal(size=(20, 2))]) for _ in range(10)]
    system = System.from_arrays(rng.normal(size=(20, 10)), Xs)
    with pytest.raises(ValueError, match=r"with 20 rows, .* and 5 more is an exact .* Use algorithm='fgls'"):
        LowRankGLS(covariance="full", rel_tol=rel_tol).fit(system)
    with pytest.raises(ValueError, match=r"no maximum .* responses of some of the equations is an exact"):
        LowRankGLS(covariance="full", rel_tol=rel_tol, engine="stream").fit(system)
    assert LowRankGLS(covariance="full", algorithm="fgls").fit(system).result_.termination is Termination.CONVERGED


def test_only_the_equations_that_vanish_together_are_named() -> None:
    data = simulate("own", n=100)
    Y = data.Y.copy()
    Y[:, 4] = 2.0 * Y[:, 1] + data.X[:, data.columns[4][1]]
    with pytest.raises(ValueError, match="the responses of 'y1', 'y4' is an exact combination"):
        full(Data("own", Y, data.X, data.columns))


def test_a_response_that_is_a_regressor_elsewhere_has_a_maximum() -> None:
    """y1 lies in the span of all regressors, but not of those that its combinations may use."""
    data = simulate("own", n=100)
    X = np.column_stack([data.X, data.Y[:, 1]])
    columns = (*data.columns[:3], np.append(data.columns[3], X.shape[1] - 1), *data.columns[4:])
    found = full(Data("own", data.Y, X, columns))
    assert found.termination is Termination.CONVERGED


def test_a_stream_that_would_not_hold_the_matrix_is_refused() -> None:
    data = simulate("own", n=30, K=6)
    with pytest.raises(MemoryError, match=re.escape("use covariance='lowrank', algorithm='als', which can do without")):
        LowRankGLS(covariance="full", engine="stream", memory_limit="1MB").plan(data.system())
