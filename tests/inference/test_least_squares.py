"""algorithm="ols": least squares of every equation, and the covariance of all coefficients together."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from linearmodels.system import SUR

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying
from support.sandwiches import meat, off_by
from support.systems import Data, dask_rows, restrictions_of, simulate, zarr_rows

N, K = 120, 4
GROUPS = np.random.default_rng(1).integers(0, 20, size=N)
ENGINES: dict[str, dict[str, Any]] = {"compress": {}, "stream": {"engine": "stream"}}
WRAPS: dict[str, Any] = {"numpy": np.asarray, "dask": dask_rows(7), "zarr": zarr_rows(11)}
pytestmark = [
    pytest.mark.usefixtures("small_blocks"),
    pytest.mark.filterwarnings("ignore:clustered covariance", "ignore:LowRankGLS"),
]


def data_of(design: str = "own", **options: Any) -> Data:
    data = simulate(design, n=N, K=K, k=1, **options)
    data.Y[:] *= [1.0, 30.0, 0.02, 5.0]
    return data


def fit(data: Data, wrap: str = "numpy", **options: Any) -> Fit:
    return LowRankGLS(**({"covariance": "full", "algorithm": "ols"} | options)).fit(data.system(WRAPS[wrap])).result_


def dense(data: Data, restrictions: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """b, G and the scores' X (N K, P), all rows times the roots of their weights, by stacked least squares."""
    root = np.ones(N) if data.weights is None else np.sqrt(data.weights)
    P = sum(len(c) for c in data.columns)
    X, start = np.zeros((K, N, P)), 0
    for j, mine in enumerate(data.Xs):
        X[j][:, start : start + mine.shape[1]] = mine * root[:, None]
        start += mine.shape[1]
    X, y = X.reshape(K * N, P), (data.Y * root[:, None]).T.ravel()
    free, at = np.eye(P), np.zeros(P)
    if restrictions is not None:
        R, r = restrictions
        free, at = np.linalg.svd(R)[2][len(R) :].T, np.linalg.lstsq(R, r, rcond=None)[0]
    G = free @ np.linalg.inv(free.T @ X.T @ X @ free) @ free.T
    return at + G @ X.T @ (y - X @ at), G, X


@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("design", ["own", "shared", "mixed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_and_their_joint_covariance(weighted: bool, design: str, engine: str, restricted: bool) -> None:
    data = data_of(design, weighted=weighted)
    limits = restrictions_of(data) if restricted else None
    made = fit(data, "dask", restrictions=limits, **ENGINES[engine])
    b, G, X = dense(data, limits)
    size = np.sqrt(np.diag(G)).clip(1e-12)
    np.testing.assert_allclose(made.coefficients / size, b / size, atol=1e-6 * np.abs(b / size).max())
    root = np.ones(N) if data.weights is None else np.sqrt(data.weights)
    R = ((data.Y * root[:, None]).T.ravel() - X @ b).reshape(K, N)
    S = R @ R.T / N
    np.testing.assert_allclose(
        made.sigma() / np.sqrt(np.outer(np.diag(S), np.diag(S))),
        S / np.sqrt(np.outer(np.diag(S), np.diag(S))),
        atol=1e-7,
    )
    wanted = G @ X.T @ np.kron(S, np.eye(N)) @ X @ G
    assert off_by(made.cov(), wanted) < 1e-6
    np.testing.assert_allclose(made.std_errors, np.sqrt(np.diag(wanted)), rtol=1e-6)
    one = made.cov(equation="y1")
    mine = made.design.spans[1]
    assert off_by(one, wanted[mine, mine]) < 1e-6
    along = np.zeros((2, len(b)))
    along[0, [0, mine.start]], along[1, [1, -1]] = (1.0, -1.0), (1.0, 2.0)
    gap = along @ b - [0.1, 0.2]
    if not restricted:
        test = made.wald_test((along, [0.1, 0.2]))
        assert test.statistic == pytest.approx(gap @ np.linalg.solve(along @ wanted @ along.T, gap), rel=1e-6)
    s = (X * R.ravel()[:, None]).reshape(K, N, -1).sum(axis=0)
    for kind, options, weights in (
        ("robust", {}, {}),
        ("cluster", {"groups": GROUPS}, {"groups": GROUPS}),
        ("hac", {"bandwidth": 4}, {"weights": 1 - np.arange(5) / 5}),
    ):
        assert off_by(made.cov(kind, **options), G @ meat(s, **weights) @ G) < 1e-6  # type: ignore[arg-type]
    assert "; OLS" in made.summary().splitlines()[0]


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("cov_type", ["unadjusted", "robust", "clustered"])
@pytest.mark.parametrize("restricted", [False, True])
def test_digits_of_linearmodels(restricted: bool, cov_type: str, debiased: bool) -> None:
    data = data_of()
    frames = {f"y{j}": {"dependent": data.Y[:, j], "exog": X} for j, X in enumerate(data.Xs)}
    model, options, limits = SUR(frames), {}, None
    if cov_type == "clustered":
        options["clusters"] = GROUPS
    if restricted:
        R, r = restrictions_of(data)
        model.add_constraints(pd.DataFrame(R, columns=model.param_names), pd.Series(r))
        limits = (R, r)
    theirs = model.fit(method="ols", cov_type=cov_type, debiased=debiased, **options)
    made = fit(data, "zarr", restrictions=limits, use="normal")
    np.testing.assert_allclose(made.params, theirs.params, rtol=1e-7)
    kinds: dict[str, Any] = {"unadjusted": "classical", "robust": "robust", "clustered": "cluster"}
    found = made.cov(kinds[cov_type], debiased=debiased, groups=GROUPS if cov_type == "clustered" else None)
    sizes = np.repeat(np.sqrt(N / (N - np.array([len(c) for c in data.columns]))), [len(c) for c in data.columns])
    wanted = theirs.cov.to_numpy()
    if restricted and debiased and cov_type != "unadjusted":  # theirs counts all coefficients of an equation
        free = np.repeat(np.sqrt(N / (N - made._free)), made.design.sizes)
        wanted = wanted / np.outer(sizes, sizes) * np.outer(free, free)
    if not (restricted and debiased and cov_type == "unadjusted"):
        assert off_by(found, wanted) < 1e-7
        np.testing.assert_allclose(np.sqrt(np.diag(found)), np.sqrt(np.diag(wanted)), rtol=1e-7)


def test_each_equation_is_that_of_statsmodels() -> None:
    data = data_of()
    made = fit(data, debiased=True, use="t")
    for j, X in enumerate(data.Xs):
        plain = sm.OLS(data.Y[:, j], X).fit()
        mine = made.design.spans[j]
        np.testing.assert_allclose(made.pvalues[mine], plain.pvalues, rtol=1e-6)
        np.testing.assert_allclose(made.conf_int()[mine], plain.conf_int(), rtol=1e-7)
        frame = plain.get_prediction(X).summary_frame(alpha=0.1)
        band = made.predict(data.system(), interval=0.9, kind="observation")
        np.testing.assert_allclose(band["lower"][:, j], frame["obs_ci_lower"], rtol=1e-6)
        for correction in ("HC2", "HC3"):
            wanted = sm.OLS(data.Y[:, j], X).fit(cov_type=correction).bse
            found = made.with_cov("robust", correction=correction).std_errors[mine]  # type: ignore[arg-type]
            np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_leverages_within_restrictions_are_of_the_stacked_hat_matrix() -> None:
    data = data_of()
    limits = restrictions_of(data)
    made = fit(data, restrictions=limits)
    b, G, X = dense(data, limits)
    h = np.einsum("ij,jk,ik->i", X, G, X)
    scaled = (X * ((data.Y.T.ravel() - X @ b) / (1 - h))[:, None]).reshape(K, N, -1).sum(axis=0)
    assert off_by(made.cov("robust", correction="HC3"), G @ scaled.T @ scaled @ G) < 1e-7


@pytest.mark.parametrize("options", [{"rank": 1}, {"covariance": "diagonal"}, {"rank": "bic"}, {"covariance": "full"}])
@pytest.mark.parametrize("engine", ENGINES)
def test_sigma_of_any_structure_from_the_residuals(engine: str, options: dict[str, Any]) -> None:
    data = data_of()
    made = fit(data, **({"covariance": "lowrank"} | options | ENGINES[engine]))
    full = fit(data)
    np.testing.assert_allclose(made.params, full.params, rtol=1e-6)
    own = made.sigma().values
    np.testing.assert_allclose(np.diag(own), np.diag(full.sigma()), rtol=1e-2)
    G, X = dense(data, None)[1:]
    assert off_by(made.cov(), G @ X.T @ np.kron(own, np.eye(N)) @ X @ G) < 1e-6
    assert made.termination.value == "converged"


def test_rows_that_are_dropped_and_files(tmp_path: Any) -> None:
    data = data_of()
    kept = np.arange(N) % 5 > 0
    holed = Data(data.kind, data.Y.copy(), data.X, data.columns)
    holed.Y[~kept, 2] = np.nan
    wanted = fit(data.take(kept))
    for engine in ENGINES.values():
        made = fit(holed, "zarr", missing="drop", **engine)
        assert off_by(made.cov(), wanted.cov().values) < 1e-6
        assert off_by(made.cov("robust"), wanted.cov("robust").values) < 1e-6
    made.to_zarr(str(tmp_path / "fit.zarr"))
    again = Fit.from_zarr(str(tmp_path / "fit.zarr"))
    assert again.summary() == made.summary() and again.algorithm == "ols"
    np.testing.assert_array_equal(again.cov(), made.cov())
    system = holed.system()
    assert off_by(again.cov("robust", system=system), made.cov("robust").values) < 1e-10


def test_joint_tests_of_many_coefficients_form_no_matrix_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of()
    wanted = fit(data)
    R = np.zeros((2, wanted.n_coefficients))
    R[0, [1, -1]], R[1, 3] = (1.0, -1.0), 1.0
    before = wanted.wald_test(R).statistic, wanted.std_errors.values, wanted.cov(equation="y2").values
    monkeypatch.setattr("lrgls_dask.inference.classical.MAX_COEFFICIENTS", 3)
    made = fit(data)
    with pytest.raises(ValueError, match="limited to 3"):
        made.cov()
    assert made.wald_test(R).statistic == pytest.approx(before[0], rel=1e-10)
    np.testing.assert_array_equal(made.std_errors, before[1])
    np.testing.assert_array_equal(made.cov(equation="y2"), before[2])


@pytest.mark.parametrize("restricted", [False, True])
def test_bootstrap_refits_by_least_squares(restricted: bool) -> None:
    data = data_of()
    made = fit(data, restrictions=restrictions_of(data) if restricted else None)
    found = made.bootstrap(200, seed=4)
    off = np.abs(found.std_errors / made.std_errors - 1).max()
    assert off < 5 / np.sqrt(2 * 200)  # five times the error of a standard deviation of 200 replicates
    mean = found.replicate_std_errors.mean("replicate")
    np.testing.assert_allclose(mean, made.std_errors, rtol=0.05, atol=1e-6)


def test_what_least_squares_does_not_have_is_said() -> None:
    data = data_of()
    made = fit(data)
    for ask in (lambda: made.lr_test(fit(data, restrictions="y0:x1 = 0")), lambda: made.aic, made.lr_diagonal):
        with pytest.raises(ValueError, match="algorithm='ols' is least squares"):
            ask()
    assert "AIC or BIC compares likelihoods" in made.summary()
    with pytest.raises(ValueError, match="least squares, which does not go with lam_B=2"):
        LowRankGLS(1, algorithm="ols", lam_B=2.0)
    with pytest.raises(ValueError, match="takes no algorithm"):
        LowRankGLS(covariance=TimeVarying(1, "time"), algorithm="ols")
    for kind in ("observed", "huber-white", "kackar-harville"):
        with pytest.raises(ValueError, match=r"is least squares. Use kind='classical' or 'robust', or fit with"):
            made.cov(kind)
    few = System.from_arrays(data.Y[:6], np.column_stack([np.ones(6), np.arange(6.0), np.arange(6) % 2]))
    with pytest.raises(ValueError, match=r"singular .*cannot have a likelihood. Use covariance='lowrank'"):
        LowRankGLS(covariance="full", algorithm="ols").fit(few)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LowRankGLS(0, algorithm="ols").fit(few)


@pytest.mark.parametrize("restricted", [False, True])
def test_breusch_pagan_is_of_restricted_residuals(restricted: bool) -> None:
    data = data_of()
    limits = restrictions_of(data) if restricted else None
    b, _, X = dense(data, limits)
    R = (data.Y.T.ravel() - X @ b).reshape(K, N)
    r = R @ R.T / np.sqrt(np.outer(np.sum(R**2, axis=1), np.sum(R**2, axis=1)))
    found = LowRankGLS(1, restrictions=limits).fit(data.system()).result_.breusch_pagan()
    assert found.statistic == pytest.approx(N * np.sum(np.tril(r, -1) ** 2), rel=1e-7)
