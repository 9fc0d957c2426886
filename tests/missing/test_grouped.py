"""Responses missing where factors are of groups: against the density of every row, and the cases that must coincide."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrgls_dask import Fit, GroupedLowRank
from lrgls_dask.results.parts import CLASSICAL
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from support.fits import fit, remade
from support.grouped import GROUPED, GROUPS, bifactor
from support.incomplete import dense_information, dense_loglik, with_holes
from support.systems import Data

ENGINES = pytest.mark.parametrize("engine", ["compress", "stream"])


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "weighted"])
def holes(request: pytest.FixtureRequest) -> Data:
    return with_holes(bifactor("mixed", n=400, weighted=request.param), n_patterns=6)


@pytest.fixture(scope="module")
def found(holes: Data) -> Fit:
    return missing_fit(holes)


def missing_fit(data: Data, covariance: GroupedLowRank = GROUPED, **options: object) -> Fit:
    return fit(data.system(), "auto", covariance=covariance, missing="em", **options)


def assert_close(got: Fit, expected: Fit) -> None:
    assert np.abs((got.params - expected.params) / expected.std_errors).max() < 1e-5


def theta_of(got: Fit) -> tuple[np.ndarray, np.ndarray]:
    """(b, free F, log d) as one vector, and which wide loadings are free."""
    free = np.zeros(got.covariance.F.shape, dtype=bool)
    free[:, 0] = True
    for i, group in enumerate(dict.fromkeys(GROUPS.values()), 1):
        free[:, i] = [GROUPS[name] == group for name in got.equations]
    return np.concatenate([got.params.values, got.loadings.values[free], np.log(got.idio_var.values)]), free


def slopes(data: Data, got: Fit, theta: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Derivatives of the log-likelihood by dense inverses, pattern by pattern: a Sigma is a matrix here."""
    P, K = got.n_coefficients, got.n_equations
    F, d, edges = np.zeros(free.shape), np.exp(theta[-K:]), got.design.offsets[1:-1]
    F[free] = theta[P:-K]
    residual = data.Y - np.column_stack([x @ b for x, b in zip(data.Xs, np.split(theta[:P], edges), strict=True)])
    weights = np.ones(len(data.Y)) if data.weights is None else data.weights
    by_sigma, weighted = np.zeros((K, K)), np.zeros_like(residual)
    for seen in np.unique(~np.isnan(data.Y), axis=0):
        rows, o = np.flatnonzero((~np.isnan(data.Y) == seen).all(axis=1)), np.flatnonzero(seen)
        inverse = np.linalg.inv((F @ F.T + np.diag(d))[np.ix_(o, o)])
        e, w = residual[np.ix_(rows, o)], weights[rows][:, None]
        weighted[np.ix_(rows, o)] = w * e @ inverse
        by_sigma[np.ix_(o, o)] += 0.5 * (inverse @ (w * e).T @ e @ inverse - len(rows) * inverse)
    by_b = [x.T @ own for x, own in zip(data.Xs, weighted.T, strict=True)]
    return np.concatenate([*by_b, 2.0 * (by_sigma @ F)[free], by_sigma.diagonal() * d])


def units(got: Fit, free: np.ndarray) -> np.ndarray:
    sd = np.broadcast_to(np.sqrt(got.idio_var.values)[:, None], free.shape)[free]
    return np.concatenate([got.std_errors.values, sd, np.ones(got.n_equations)])


def test_it_is_a_maximum_of_the_density(holes: Data, found: Fit) -> None:
    assert isinstance(found.covariance, GroupedFactors) and found.n_cells < holes.Y.size
    assert list(found.loadings["factor"].values) == ["general", "a", "b", "c"]
    theta, free = theta_of(found)
    assert np.all(found.loadings.values[~free] == 0.0)
    assert found.loglik == pytest.approx(dense_loglik(holes, found.params.values, found.sigma().values), rel=1e-11)
    assert np.abs(slopes(holes, found, theta, free) * units(found, free)).max() < 2e-3 and not found.on_floor
    moved = theta + 0.3 * units(found, free)  # the test can fail
    assert np.abs(slopes(holes, found, moved, free) * units(found, free)).max() > 1.0


def test_standard_errors_are_those_of_the_dense_information(holes: Data, found: Fit) -> None:
    classical = np.linalg.inv(dense_information(holes, found.sigma().values))
    np.testing.assert_allclose(found.std_errors.values, np.sqrt(classical.diagonal()), rtol=1e-6)
    theta, free = theta_of(found)
    scale, P = units(found, free), found.n_coefficients
    steps = np.diag(1e-5 * scale)
    rows = [slopes(holes, found, theta - h, free) - slopes(holes, found, theta + h, free) for h in steps]
    hessian = np.array(rows) / 2e-5 * scale
    observed = np.sqrt(np.linalg.inv(0.5 * (hessian + hessian.T)).diagonal())[:P] * scale[:P]
    np.testing.assert_allclose(found.with_cov("observed").std_errors.values, observed, rtol=1e-6)


@ENGINES
def test_patterns_and_streamed_rounds_agree(found: Fit, holes: Data, engine: str) -> None:
    got = missing_fit(holes, engine=engine, rel_tol=1e-13, max_sweeps=200)
    assert got.engine == engine
    assert got.nll == pytest.approx(found.nll, abs=1e-8)
    assert_close(got, found)
    sd = np.sqrt(found.sigma().values.diagonal())
    assert np.abs((got.sigma().values - found.sigma().values) / np.outer(sd, sd)).max() < 1e-5


def test_nothing_missing_is_the_complete_fit() -> None:
    data = bifactor("shared", n=200)
    complete = fit(data.system(), "auto", covariance=GROUPED)
    got = missing_fit(data)
    assert got.loglik == pytest.approx(complete.loglik, abs=1e-8)
    one = np.array(data.Y)
    one[0, 0] = np.nan
    assert abs(missing_fit(replace(data, Y=one)).loglik - complete.loglik) < 5.0


def test_groups_without_factors_are_the_unstructured_fit(holes: Data) -> None:
    plain = fit(holes.system(), 1, missing="em")
    got = missing_fit(holes, GroupedLowRank(1, GROUPS, group_rank=0))
    assert got.loglik == pytest.approx(plain.loglik, abs=1e-7)
    assert_close(got, plain)
    observed = [each.with_cov("observed").std_errors.values for each in (got, plain)]
    np.testing.assert_allclose(*observed, rtol=1e-4)


def test_files_filling_and_predictions(holes: Data, found: Fit, tmp_path: Path) -> None:
    found.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    assert opened.summary() == found.summary() and "factors of groups" in found.summary()
    system = holes.system()
    np.testing.assert_allclose(
        opened.cov("observed", system=system).values, found.cov("observed").values, rtol=1e-6, atol=1e-12
    )
    filled = opened.predict_given(system).values
    seen = ~np.isnan(holes.Y)
    np.testing.assert_array_equal(filled[seen], holes.Y[seen])
    assert np.isfinite(filled).all()
    assert opened.score(system) == pytest.approx(found.loglik / found.n_obs, rel=1e-9)


def test_information_away_from_a_maximum_is_refused(holes: Data, found: Fit) -> None:
    sigma = found.covariance
    assert isinstance(sigma, GroupedFactors)
    saddle = remade(found, covariance=GroupedFactors(sigma.blocks, 0.0 * sigma.A, sigma.d), behind_errors=CLASSICAL)
    with pytest.raises(np.linalg.LinAlgError, match=r"outside the factors is 1\.0e\+00, of equation 'y0'"):
        saddle.cov("observed", system=holes.system())


# ---------------------------------------------------------------------------------- EM


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("options", [{}, {"accelerate": False}], ids=["accelerated", "plain"])
def test_em_reaches_the_optimum_of_complete_rows(engine: str, options: dict[str, bool]) -> None:
    data = bifactor("mixed", n=400)
    als = fit(data.system(), "auto", covariance=GROUPED)
    em = fit(data.system(), "auto", covariance=GROUPED, algorithm="em", engine=engine, rel_tol=1e-13, **options)
    assert isinstance(em.covariance, GroupedFactors)
    assert em.nll == pytest.approx(als.nll, abs=1e-8)
    assert_close(em, als)
    if options:
        objective = em.trace["obj"].to_numpy()
        assert np.all(np.diff(objective) < 1e-13) and len(objective) > 20


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_em_and_als_agree_with_responses_missing(holes: Data, found: Fit, engine: str) -> None:
    em = missing_fit(holes, algorithm="em", engine=engine, rel_tol=1e-13, max_sweeps=200)
    assert em.nll == pytest.approx(found.nll, abs=1e-8)
    assert_close(em, found)


@pytest.mark.parametrize(
    ("place", "after"),
    [
        ("lrgls_dask.solve.checkpoint.Checkpoint.save_point", 6),
        pytest.param("lrgls_dask.results.assemble._gls", 0, marks=pytest.mark.slow),
    ],
    ids=["", "ended"],
)
def test_streamed_rounds_go_on_from_a_checkpoint(
    holes: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, after: int
) -> None:
    calls, options = [], {"engine": "stream", "rel_tol": 1e-8}
    whole = missing_fit(holes, **options)
    with monkeypatch.context() as patch:
        original = pkgutil.resolve_name(place)

        def dies(*args: object) -> object:
            calls.append(args)
            if len(calls) > after:
                raise KeyboardInterrupt
            return original(*args)

        patch.setattr(place, dies)
        with pytest.raises(KeyboardInterrupt):
            missing_fit(holes, checkpoint=tmp_path / "kept.zarr", **options)
    got = missing_fit(holes, checkpoint=tmp_path / "kept.zarr", **options)
    assert isinstance(got.covariance, GroupedFactors) and got.n_passes < whole.n_passes
    assert got.loglik == pytest.approx(whole.loglik, rel=1e-9)
