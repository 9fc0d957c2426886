"""Do structures of Sigma find what made the data? Support of sparse loadings, held-out likelihood, a drifting loading.

- sparse: simple structure with some loadings on a second factor; F1 of the support that BIC chooses along the path.
- hierarchical: one general factor and one of each group; nll per row under the true Sigma of the grouped fit less that
  of the unstructured fit with as many general factors, and of the best unstructured rank up to the number of all.
- time-varying: one factor whose loadings swing; squared error of F_t F_t' with the bandwidth that held-out likelihood
  chooses, static, and segment by segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case, Report, Session, main, timed
from scipy.optimize import linear_sum_assignment

from lrgls_dask import System
from lrgls_dask.compression.parts import compress_by
from lrgls_dask.rows.meter import Meter
from lrgls_dask.sigma.blocks import Blocks
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.grouped_structure import grouped_candidates
from lrgls_dask.sigma.ml import ml_candidates
from lrgls_dask.sigma.sparse import sparse_path
from lrgls_dask.varying.bandwidth import held_out_scores
from lrgls_dask.varying.estimate import fit_time_varying

FLOOR = 1e-8
FULL: dict[str, Any] = {
    "seeds": 100,
    "sparse": {"n_obs": 5_000, "n_equations": 30, "rank": 3},
    "hierarchical": {"n_obs": 300, "groups": 5, "group_size": 6},
    "time_varying": {"n_segments": 20, "segment_rows": 60, "n_equations": 8},
}
SMALL: dict[str, Any] = {
    "seeds": 2,
    "sparse": {"n_obs": 5_000, "n_equations": 12, "rank": 2},
    "hierarchical": {"n_obs": 200, "groups": 3, "group_size": 4},
    "time_varying": {"n_segments": 12, "segment_rows": 60, "n_equations": 6},
}
BANDWIDTHS = (1.5, 2.5, 4.0, 6.0, 10.0, float("inf"))


def support_f1(found: np.ndarray, truth: np.ndarray) -> float:
    """2 hits / (found + true) of entries that are not zero, columns matched to the true ones (K, k)."""
    overlap = np.abs(found.T @ truth)
    found = found[:, np.argsort(linear_sum_assignment(-overlap)[1])]
    hits = np.count_nonzero((found != 0) & (truth != 0))
    return 2.0 * hits / (np.count_nonzero(found) + np.count_nonzero(truth))


def sparse(seeds: int, n_obs: int, n_equations: int, rank: int) -> dict[str, Any]:
    def one(seed: int) -> float:
        rng = np.random.default_rng([1, seed])
        own = np.zeros((n_equations, rank), dtype=bool)
        own[np.arange(n_equations), np.arange(n_equations) % rank] = True
        own |= rng.random(own.shape) < 0.1
        F = own * rng.uniform(0.4, 0.9, own.shape) * rng.choice([-1.0, 1.0], own.shape)
        E = rng.normal(size=(n_obs, rank)) @ F.T + rng.normal(size=(n_obs, n_equations)) * rng.uniform(
            0.6, 1, n_equations
        )
        path = sparse_path(np.corrcoef(E.T), rank, np.full(n_equations, FLOOR), n_obs=n_obs)
        return support_f1(min(path, key=lambda point: point.bic).sigma.F, F)

    scores, seconds = timed(lambda: [one(seed) for seed in range(seeds)])
    return {"seconds": seconds, "f1": scores}


def hierarchical(seeds: int, n_obs: int, groups: int, group_size: int) -> dict[str, Any]:
    codes = np.repeat(np.arange(groups), group_size)
    K = codes.size
    blocks, floor = Blocks((np.zeros(K, dtype=np.intp), codes), (1, 1)), np.full(K, FLOOR)

    def one(seed: int) -> tuple[float, float]:
        rng = np.random.default_rng([2, seed])
        truth = GroupedFactors(blocks, rng.uniform(0.3, 0.9, (K, 2)), rng.uniform(0.3, 0.8, K))
        S = np.cov((rng.normal(size=(n_obs, K)) @ np.linalg.cholesky(truth.dense()).T).T, bias=True)
        scale = np.sqrt(np.diag(S))
        unit, population = S / np.outer(scale, scale), truth.dense() / np.outer(scale, scale)
        grouped = grouped_candidates(unit, blocks, floor)[0].sigma.nll(population)
        plain = [ml_candidates(unit, k, floor)[0].sigma.nll(population) for k in range(1, groups + 2)]
        return grouped - plain[0], grouped - min(plain)

    gaps, seconds = timed(lambda: [one(seed) for seed in range(seeds)])
    return {"seconds": seconds, "less_same_rank": [a for a, _ in gaps], "less_best_rank": [b for _, b in gaps]}


def time_varying(seeds: int, n_segments: int, segment_rows: int, n_equations: int) -> dict[str, Any]:
    labels = np.repeat(np.arange(n_segments), segment_rows)

    def one(seed: int) -> dict[str, float]:
        rng = np.random.default_rng([3, seed])
        phase = np.linspace(0.0, np.pi, n_segments)[:, None] + rng.uniform(0.0, 2.0, n_equations)
        truth = 0.9 + 0.8 * np.sin(phase)
        E = truth[labels] * rng.normal(size=(labels.size, 1)) + 0.7 * rng.normal(size=(labels.size, n_equations))
        X = np.column_stack([np.ones(labels.size), rng.normal(size=(labels.size, 2))])
        rows = System.from_arrays(X @ rng.normal(size=(3, n_equations)) + E, X).rows
        segments = list(compress_by(rows, labels, meter=Meter()).values())
        chosen = held_out_scores(segments, 1, BANDWIDTHS)[0].bandwidth

        def error(bandwidth: float) -> float:
            F = fit_time_varying(segments, 1, bandwidth).loadings[:, :, 0]
            return float(np.mean((F[:, :, None] * F[:, None, :] - truth[:, :, None] * truth[:, None, :]) ** 2))

        errors = {"static": error(float("inf")), "segmentwise": error(0.0), "time_varying": error(chosen)}
        return errors | {"bandwidth": chosen if np.isfinite(chosen) else -1.0}

    found, seconds = timed(lambda: [one(seed) for seed in range(seeds)])
    return {"seconds": seconds, **{name: [each[name] for each in found] for name in found[0]}}


def run(session: Session) -> Report:
    size = SMALL if session.small else FULL
    cases = [Case(name, name, {"seeds": size["seeds"], **size[name]}, at_most=1) for name in TASKS]
    runs = session.alternate(cases)
    support, groups, drift = runs
    summary = {
        "mean_f1": float(np.mean(support["f1"])),
        "share_f1_at_least_0.95": float(np.mean(np.array(support["f1"]) >= 0.95)),
        "share_better_than_same_rank": float(np.mean(np.array(groups["less_same_rank"]) < 0)),
        "share_better_than_best_rank": float(np.mean(np.array(groups["less_best_rank"]) < 0)),
        "mean_nll_less_best_rank": float(np.mean(groups["less_best_rank"])),
        "error_over_static": float(np.sum(drift["time_varying"]) / np.sum(drift["static"])),
        "error_over_segmentwise": float(np.sum(drift["time_varying"]) / np.sum(drift["segmentwise"])),
        "share_better_than_both": float(
            np.mean(np.array(drift["time_varying"]) < np.minimum(drift["static"], drift["segmentwise"]))
        ),
    }
    return Report(size, runs, summary)


TASKS = {"sparse": sparse, "hierarchical": hierarchical, "time_varying": time_varying}


def cli(argv: Sequence[str] | None = None) -> None:
    main(__file__, __doc__, TASKS, run, argv)


if __name__ == "__main__":
    cli()
