"""Time-varying factors: limits of the bandwidth, generalised least squares across segments, recovery, errors."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from lrgls_dask import CompressedSystem
from lrgls_dask.compression.compressed import compress_rows
from lrgls_dask.compression.parts import compress_by
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.ml import ml_candidates
from lrgls_dask.varying.bandwidth import held_out_scores
from lrgls_dask.varying.estimate import fit_time_varying
from lrgls_dask.varying.segments import SegmentedProblem, kernel_weights, ordered_segments
from support.fits import fit
from support.segments import TIGHT, covariance, cut, drifting
from support.systems import simulate


@pytest.mark.parametrize("kind", ["own", "shared", "mixed"])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_infinite_bandwidth_is_the_static_fit(kind: str, weighted: bool) -> None:
    data = simulate(kind, weighted=weighted)
    found = fit_time_varying(cut(data, 4), 2, np.inf, **TIGHT)
    static = fit(data.system(), 2)
    assert found.converged
    assert found.loglik == pytest.approx(static.loglik, abs=1e-8)
    np.testing.assert_allclose(found.coefficients, static.params.values, atol=1e-7)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance(found))), static.std_errors.values, rtol=1e-6)
    assert found.n_sigma_parameters == pytest.approx(static.covariance.n_parameters)
    for sigma in found.sigmas:
        np.testing.assert_allclose(sigma.dense(), static.sigma().values, rtol=1e-6, atol=1e-8)
    assert np.all(np.diff(found.trace) <= 1e-12)


def test_one_segment_is_the_static_fit_for_any_bandwidth() -> None:
    data = simulate("own")
    static = fit(data.system(), 1)
    for bandwidth in (0.0, 2.5, np.inf):
        found = fit_time_varying(cut(data, 1), 1, bandwidth, **TIGHT)
        assert found.loglik == pytest.approx(static.loglik, abs=1e-8)


@pytest.mark.parametrize("kind", ["own", "mixed"])
def test_bandwidth_zero_maximises_the_likelihood_of_segments_apart(kind: str) -> None:
    """Common coefficients by explicit Kronecker products, each Sigma_t by maximum likelihood of its own segment."""
    data = simulate(kind, n=400)
    found = fit_time_varying(cut(data, 3), 2, 0.0, **TIGHT)
    assert found.converged and np.all(np.diff(found.trace) <= 1e-12)
    parts = [data.take(np.arange(400) * 3 // 400 == t).dense() for t in range(3)]
    normal = sum(part.normal_matrix(s.dense()) for part, s in zip(parts, found.sigmas, strict=True))
    moments = sum(
        part.X_all.T @ np.kron(np.linalg.inv(s.dense()), np.eye(part.N)) @ part.y_all
        for part, s in zip(parts, found.sigmas, strict=True)
    )
    b = np.linalg.solve(normal, moments)
    np.testing.assert_allclose(found.coefficients, b, atol=1e-8)
    nll = 0.0
    for part, sigma in zip(parts, found.sigmas, strict=True):
        S = part.S(b)
        scale = np.sqrt(np.diag(S))
        apart = ml_candidates(S / np.outer(scale, scale), 2, np.full(len(S), 1e-8))[0].sigma.rescaled(scale)
        np.testing.assert_allclose(sigma.dense(), apart.dense(), atol=1e-6)
        nll += part.N * part.nll(b, sigma.dense())
    assert found.loglik == pytest.approx(-nll, abs=1e-7)


def test_in_between_both_conditions_hold() -> None:
    """Sigma_t of the kernel-weighted residual covariances, coefficients of generalised least squares, with weights."""
    data, sizes = simulate("mixed", n=500, weighted=True), np.array([60, 140, 100, 120, 80])
    labels = np.repeat(np.arange(5), sizes)
    segments = list(compress_by(data.system().rows, labels, meter=Meter()).values())
    found = fit_time_varying(segments, 1, 2.5, lam_B=3.0, **TIGHT)
    assert found.converged
    parts = [data.take(labels == t).dense() for t in range(5)]
    S = np.array([part.S(found.coefficients) for part in parts])
    own = 0.0
    for t in range(5):
        u = np.abs(np.arange(5) - t) / 2.5
        weight = np.where(u < 1, 1 - u**2, 0.0) * sizes
        S_t = np.tensordot(weight, S, axes=1) / weight.sum()
        own += weight[t] / weight.sum()
        scale = np.sqrt(np.diag(S_t))
        local = ml_candidates(S_t / np.outer(scale, scale), 1, np.full(len(S_t), 1e-8))[0].sigma.rescaled(scale)
        np.testing.assert_allclose(found.sigmas[t].dense(), local.dense(), atol=1e-6)
    assert found.n_sigma_parameters == pytest.approx(12 * own)
    whole = data.dense(lam_B=3.0)
    score = -3.0 * whole.unit**2 * found.coefficients
    for part, sigma in zip(parts, found.sigmas, strict=True):
        R = part.residuals(found.coefficients) * part.w[:, None] @ np.linalg.inv(sigma.dense())
        score += np.concatenate([X.T @ R[:, j] for j, X in enumerate(part.Xs)])
    np.testing.assert_allclose(score / np.where(whole.unit > 0, whole.unit, 1.0), 0.0, atol=1e-6)
    normal = sum(part.normal_matrix(s.dense()) for part, s in zip(parts, found.sigmas, strict=True))
    bread = np.linalg.inv(normal + np.diag(3.0 * whole.unit**2))
    expected = bread @ normal @ bread
    errors = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        covariance(found, 3.0) / np.outer(errors, errors), expected / np.outer(errors, errors), atol=1e-9
    )


def test_residual_covariances_are_those_of_the_rows() -> None:
    data = simulate("mixed", n=90)
    segments = cut(data, 6)  # fewer rows than columns in each: 15 of 14 columns and 6 responses
    problem = SegmentedProblem(segments)
    found = problem.residual_covariances(problem.start())
    b, scale = problem.coefficients(problem.start()), problem.merged.whitened.y_scale
    np.testing.assert_allclose(b, data.dense().ols, atol=1e-9)
    for t in range(6):
        part = data.take(np.arange(90) * 6 // 90 == t).dense()
        np.testing.assert_allclose(found[t] * np.outer(scale, scale), part.S(b), atol=1e-10)


def test_segments_of_times_that_are_not_even() -> None:
    weights = kernel_weights(np.array([0.0, 1.0, 4.0]), 2.0)
    np.testing.assert_allclose(weights, [[1.0, 0.75, 0.0], [0.75, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(kernel_weights(np.arange(3.0), np.inf), np.ones((3, 3)))
    np.testing.assert_allclose(kernel_weights(np.arange(3.0), 0.0), np.eye(3))
    segments = cut(drifting()[0], 3)
    near = fit_time_varying(segments, 1, 2.0, positions=np.array([0.0, 1.0, 4.0]))
    alone = fit_time_varying(segments, 1, 2.0, positions=np.array([0.0, 1.0, 2.9]))
    assert not np.allclose(near.idio_var[2], alone.idio_var[2])


def test_loadings_are_rotated_to_those_before() -> None:
    found = fit_time_varying(cut(simulate("shared", n=600, K=8), 4), 2, 2.0)
    assert found.loadings.shape == (4, 8, 2) and found.idio_var.shape == (4, 8)
    for before, after in zip(found.loadings, found.loadings[1:], strict=False):
        # Procrustes in standard units; a rotation of the later loadings would only take them further away
        scale = np.sqrt(np.mean([np.diag(sigma.dense()) for sigma in found.sigmas], axis=0))
        least = np.linalg.norm((before - after) / scale[:, None])
        angles = np.linspace(0.2, 2 * np.pi - 0.2, 40)
        turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
        turns += [turn @ np.diag([1.0, -1.0]) for turn in turns]
        assert least < min(np.linalg.norm((before - after @ turn) / scale[:, None]) for turn in turns)


def test_a_drifting_loading_is_tracked_better_than_by_either_limit() -> None:
    data, truth = drifting(n=60)
    segments = cut(data, 12)
    bandwidths = [1.5, 2.5, 4.0, 8.0, np.inf]
    scores = held_out_scores(segments, 1, bandwidths)
    assert {score.bandwidth for score in scores} == set(bandwidths)
    assert np.all(np.diff([score.held_out_nll for score in scores]) >= 0)
    chosen = scores[0].bandwidth
    assert 1.5 < chosen < np.inf

    def error(bandwidth: float) -> float:
        found = fit_time_varying(segments, 1, bandwidth).loadings
        return float(np.mean([(F @ F.T - G @ G.T) ** 2 for F, G in zip(found, truth, strict=True)]))

    assert error(chosen) < 0.8 * min(error(0.0), error(np.inf))


def test_held_out_scores_by_hand() -> None:
    data, _ = drifting(3)
    segments = cut(data, 3)
    (score,) = held_out_scores(segments, 1, [2.0])
    problem = SegmentedProblem(segments)
    static = fit_time_varying(segments, 1, np.inf, max_sweeps=1)
    parts = [data.take(np.arange(300) * 3 // 300 == t).dense() for t in range(3)]
    scale = problem.merged.whitened.y_scale
    S = [part.S(static.coefficients) / np.outer(scale, scale) for part in parts]
    others = [S[1], (S[0] + S[2]) / 2, S[1]]
    floor = np.full(6, 1e-8)
    expected = np.mean([ml_candidates(o, 1, floor)[0].sigma.nll(s) for o, s in zip(others, S, strict=True)])
    assert score.held_out_nll == pytest.approx(expected, abs=1e-8)


def test_rank_zero() -> None:
    data, _ = drifting(4)
    found = fit_time_varying(cut(data, 4), 0, 0.0)
    parts = [data.take(np.arange(400) * 4 // 400 == t).dense() for t in range(4)]
    expected = [np.diag(part.S(found.coefficients)) for part in parts]
    np.testing.assert_allclose(found.idio_var, expected, rtol=1e-8)


# ---------------------------------------------------------------------------------------------- errors


def test_labels_in_order() -> None:
    np.testing.assert_array_equal(ordered_segments(np.array(["a", "a", "b"])), ["a", "b"])
    with pytest.raises(ValueError, match=re.escape("segments must be sorted: row 3 has a after b")):
        ordered_segments(np.array(["a", "b", "b", "a"]))
    with pytest.raises(ValueError, match="segments: there are no rows"):
        ordered_segments(np.array([]))
    with pytest.raises(ValueError, match=re.escape("segments: 2 is empty, all its rows have weight 0")):
        ordered_segments(np.array([1, 2, 2, 3]), np.array([1.0, 0.0, 0.0, 2.0]))


@pytest.mark.parametrize("bandwidth", [-1.0, np.nan])
def test_bandwidth_must_not_be_negative(bandwidth: float) -> None:
    segments = cut(drifting()[0], 3)
    with pytest.raises(
        ValueError, match=re.escape(f"bandwidth must be 0 or more, in units of the segments' times; got {bandwidth}")
    ):
        fit_time_varying(segments, 1, bandwidth)


def test_segments_that_do_not_fit_together() -> None:
    segments = cut(drifting()[0], 3)
    with pytest.raises(ValueError, match="segments: there are none"):
        fit_time_varying([], 1, 1.0)
    with pytest.raises(ValueError, match=re.escape("the time of segment 2 is 1.0, not after 1.0")):
        fit_time_varying(segments, 1, 1.0, positions=np.array([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match=re.escape("3 segments but times of shape (2,)")):
        fit_time_varying(segments, 1, 1.0, positions=np.arange(2.0))
    empty = replace(segments[1], head=replace(segments[1].head, n_rows=0))
    with pytest.raises(ValueError, match="segments: number 1 is empty"):
        fit_time_varying([segments[0], empty], 1, 1.0)
    other = compress_rows(simulate("own").system().rows, meter=Meter())
    with pytest.raises(ValueError, match="number 2 differs from the first in equations or regressors"):
        fit_time_varying([*segments[:2], other], 1, 1.0)
    with pytest.raises(ValueError, match=re.escape("bandwidth 1.0 reaches no neighbour of segment 0")):
        held_out_scores(segments, 1, [2.0, 1.0])
    assert fit(CompressedSystem(other), 1).n_obs == other.n_obs  # the odd one out is a fine system of its own
