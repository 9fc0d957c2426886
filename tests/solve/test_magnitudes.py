"""Columns near the limits of float64: the scaled answers, or a refusal that names the column and works."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest

from lrgls_dask import Known, LowRankGLS, System, TimeVarying, TimeVaryingFit

N, K, P = 60, 4, 3
WAYS: dict[str, dict[str, Any]] = {
    "compress": {"rank": 1, "engine": "compress"},
    "stream": {"rank": 1, "engine": "stream", "rel_tol": 1e-12},
    "full": {"covariance": "full"},
    "em": {"rank": 1, "missing": "em"},
    "ridge": {"rank": 1, "lam_B": 2.0},
    "time": {"covariance": TimeVarying(1, np.arange(N) // 30, 0.0)},
}
FINE = [  # units of the responses and of the regressors
    ([1e120, 1.0, 1e-120, 1e60], [1.0, 1.0, 1.0]),
    ([1e-129] * 4, [1.0, 1.0, 1.0]),
    ([1.0] * 4, [1.0, 1e-129, 1e129]),
    ([1e148] * 4, [1e20, 1e149, 1e148]),
    ([1e-125, 1e10, 1e130, 1.0], [1.0, 1e-5, 1e8]),
]
COVS: dict[str, dict[str, Any]] = {
    "robust": {},
    "huber-white": {},
    "observed": {},
    "kackar-harville": {},
    "hac": {"bandwidth": 3},
    "cluster": {"groups": np.arange(N) // 4},
}


def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(N), rng.normal(size=(N, 2))])
    return X @ rng.normal(size=(P, K)) + rng.normal(size=(N, 1)) + rng.normal(size=(N, K)), X


def system_of(way: str, y: Any, x: Any) -> System:
    Y, X = drawn()
    if way == "em":
        Y[::7, 1] = np.nan
    return System.from_arrays(Y * y, X * x)


def answers(way: str, y: np.ndarray, x: np.ndarray, path: Any) -> dict[str, np.ndarray]:
    """Everything a fit says, in units in which it must be the same whatever y (K,) and x (P,)."""
    system = system_of(way, y, x)
    found: Any = LowRankGLS(**WAYS[way]).fit(system).result_
    b, cells = (y[:, None] / x).ravel(), np.full(K, N)
    cells[1] -= 9 * (way == "em")
    jacobian = np.log(y) @ cells
    out = {
        "coefficients": found.coefficients / b,
        "classical": found.std_errors.values / b,
        "interval": found.conf_int().values / b[:, None],
        "loglik": found.loglik + jacobian,
        "bic": found.bic - 2.0 * jacobian,
        "score": found.score(system) * found.n_obs + jacobian,
        "pvalues": found.pvalues.values,
        "wald": found.wald_test("y0:x1 = 0").statistic,
        "predict": found.predict(system).values / y,
        "residuals": found.residuals(system).values / y,
        "summary": np.array([" inf" in found.summary(), "nan" in found.summary()]),
    }
    found.to_zarr(path)
    out["reopened"] = type(found).from_zarr(path).std_errors.values / b
    for name, options in COVS.items():
        answered = _or_none(lambda: found.with_cov(name, **options).std_errors.values)  # noqa: B023
        if answered is not None:
            out[name] = answered / b
    if not isinstance(found, TimeVaryingFit):
        out["interval of rows"] = _intervals(found, system) / y
        out["sigma"] = np.asarray(found.sigma()) / np.multiply.outer(y, y)
        for name in ("mcelroy_r2", "breusch_pagan", "lr_diagonal", "rank_test"):
            answer = _or_none(getattr(found, name))
            if answer is not None:
                out[name] = getattr(answer, "statistic", answer)
    for name, unit in (("idio_var", y**2), ("loadings", y[:, None]), ("r2", 1.0), ("adj_r2", 1.0)):
        answer = _or_none(lambda: getattr(found, name))  # noqa: B023
        if answer is not None:
            out[name] = np.abs(answer.values) / unit
    return out


def _or_none(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (ValueError, AttributeError):  # what this kind of fit has not; which ones is compared
        return None


def _intervals(found: Any, system: System) -> np.ndarray:
    rows = found.predict(system, interval=0.95)
    return np.stack([rows[name].values for name in sorted(rows.data_vars)])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, np.ndarray]]:
    known: dict[str, dict[str, np.ndarray]] = {}

    def of(way: str) -> dict[str, np.ndarray]:
        if way not in known:
            known[way] = answers(way, np.ones(K), np.ones(P), tmp_path_factory.mktemp("plain") / "fit")
        return known[way]

    return of


@pytest.mark.parametrize("units", FINE, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_all_answers_are_in_the_units_of_the_data(way: str, units: Any, tmp_path: Any, plain: Any) -> None:
    found = answers(way, np.array(units[0]), np.array(units[1]), tmp_path / "fit")
    right = plain(way)
    assert found.keys() == right.keys()
    for name, value in right.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-8, err_msg=name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("y", "x", "said"),
    [
        (1e-320, 1.0, "Y, equation 'y0': values of the order .* too small.* Multiply the column"),
        (1e-300, 1.0, "Y, equation 'y0': values of the order .*e-30[01], .* too small.* Multiply the column"),
        (1e-160, 1.0, "Y, equation 'y0': values of the order .*e-1[56][09], .* too small.* Multiply the column"),
        (1e152, 1.0, "Y, equation 'y0': too large value .* Divide the column"),
        (1e300, 1.0, "Y, equation 'y0': too large value .* Divide the column"),
        (1.0, 1e-320, "X, regressor 'x1': values of the order .* too small.* Multiply the column"),
        (1.0, 1e-300, "X, regressor 'x1': values of the order .* too small.* Multiply the column"),
        (1.0, 1e-160, "X, regressor 'x1': values of the order .* too small.* Multiply the column"),
        (1.0, 1e152, "X, regressor 'x1': .*too large.* Divide the column"),
        (
            1e-100,
            1e100,
            r"equation 'y0', regressor 'x1': the coefficient is of the order 1e-200, .* Multiply or divide",
        ),
        (
            1e100,
            1e-100,
            r"equation 'y0', regressor 'x1': the coefficient is of the order 1e\+200, .* Multiply or divide",
        ),
    ],
)
def test_what_cannot_be_squared_is_named(way: str, y: float, x: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LowRankGLS(**WAYS[way]).fit(system_of(way, y, np.array([1.0, x, 1.0])))


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("far", [1e-320, 1e-300, 1e-160, 1e152, 1e300])
def test_the_constants_that_the_refusals_ask_for_work(engine: str, far: float) -> None:
    Y, X = drawn()
    back = min(1.0 / far, 1e300) if far > 1e-300 else 1e300
    near = System.from_arrays((Y * far) * back, X)
    found = LowRankGLS(1, engine=engine).fit(near).result_
    right = LowRankGLS(1, engine=engine).fit(System.from_arrays(Y, X)).result_
    rtol = 1e-2 if far == 1e-320 else 1e-5  # a denormal number has few digits
    scale = far * back
    np.testing.assert_allclose(found.coefficients / scale, right.coefficients, rtol=rtol, atol=rtol)
    assert np.isfinite(found.std_errors.values).all()


CONTAINERS: dict[str, Callable[[np.ndarray], Any]] = {
    "pandas": lambda a: pd.DataFrame(a, columns=[f"c{j}" for j in range(a.shape[1])]),
    "dask": lambda a: da.from_array(a, chunks=(17, a.shape[1])),
}


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_column_is_named_as_the_user_does(container: str, engine: str) -> None:
    Y, X = drawn()
    made = CONTAINERS[container]
    said = "Y, equation 'c2': values" if container == "pandas" else "Y, equation 'y2': values"
    tiny = Y * np.array([1.0, 1.0, 1e-200, 1.0])
    with pytest.raises(ValueError, match=re.escape(said)):
        LowRankGLS(1, engine=engine).fit(System.from_arrays(made(tiny), made(X)))


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_a_few_tiny_values_and_zeros_are_no_matter(engine: str) -> None:
    Y, X = drawn()
    Y[:5] = 1e-300
    Y[5:8] = 5e-324
    X[:3, 1] = 1e-310
    zeros = np.where(np.abs(Y) < 1e-200, 0.0, Y), np.where(np.abs(X) < 1e-200, 0.0, X)
    found = LowRankGLS(1, engine=engine).fit(System.from_arrays(Y, X)).result_
    right = LowRankGLS(1, engine=engine).fit(System.from_arrays(*zeros)).result_
    np.testing.assert_allclose(found.coefficients, right.coefficients, rtol=1e-12)


def test_a_known_sigma_and_its_kackar_harville() -> None:
    """There is no parameter of Sigma to be uncertain about."""
    Y, X = drawn()
    found = LowRankGLS(covariance=Known(1e200 * np.eye(K))).fit(System.from_arrays(Y * 1e100, X)).result_
    classical = np.tile(np.sqrt(np.diag(np.linalg.inv(X.T @ X))), K)
    np.testing.assert_allclose(found.with_cov("kackar-harville").std_errors.values / 1e100, classical, rtol=1e-8)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_systems_in_several_chunks_and_appended(engine: str) -> None:
    Y, X = drawn()
    tiny = System.from_arrays(da.from_array(Y * 1e-300, chunks=(7, K)), da.from_array(X, chunks=(7, P)))
    with pytest.raises(ValueError, match="Y, equation 'y0': values of the order"):
        LowRankGLS(1, engine=engine).fit(tiny)
    with pytest.raises(ValueError, match="Y, equation 'y0': values of the order"):
        LowRankGLS(1).fit(tiny.compress().append(tiny))


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_weights_that_make_squares_overflow(engine: str) -> None:
    Y, X = drawn()
    large = System.from_arrays(Y * np.array([1.0, 1.0, 1e148, 1.0]), X, weights=np.full(N, 1e20))
    with pytest.raises(ValueError, match="Y, equation 'y2': too large value at row"):
        LowRankGLS(1, engine=engine).fit(large)
