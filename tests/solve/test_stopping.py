"""Where fits stop: in no more sweeps than asked for, whatever the algorithm; streamed, with no pass too many."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, FitWarning, LowRankGLS, System
from lrgls_dask.solve.record import Termination
from support.counted import counted
from support.incomplete import with_holes
from support.systems import simulate

COMPLETE = simulate("mixed", n=200)
HOLES = with_holes(COMPLETE, n_patterns=6)
ALGORITHMS: list[dict[str, Any]] = [
    {},
    {"covariance": "full", "rank": "auto"},
    {"sigma_step": "pca"},
    {"algorithm": "em"},
    {"algorithm": "em", "accelerate": False},
    {"missing": "em"},
    {"missing": "em", "algorithm": "em"},
    {"missing": "em", "algorithm": "em", "accelerate": False},
]


def cut_short(most: int, engine: str, options: dict[str, Any]) -> tuple[Fit, list[str]]:
    data = HOLES if "missing" in options else COMPLETE
    model = LowRankGLS(**{"rank": 2, **options}, engine=engine, rel_tol=1e-15, max_sweeps=most)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FitWarning)
        made = model.fit(data.system()).result_
    return made, [str(each.message) for each in caught if each.category is FitWarning]


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("options", ALGORITHMS, ids=range(len(ALGORITHMS)))
def test_max_sweeps_is_what_it_says(options: dict[str, Any], engine: str, most: int) -> None:
    made, said = cut_short(most, engine, options)
    assert made.n_sweeps == made.trace["sweep"].max() <= most
    counts = re.findall(r"after (\d+) sweep", " ".join([*said, made.summary()]))
    if made.termination is Termination.MAX_SWEEPS:
        assert made.n_sweeps == most and len(counts) == 2
    assert {int(count) for count in counts} == {made.n_sweeps}
    rounds = made.trace[made.trace["step"] == "em"]
    assert len(rounds) in (0, most + 1)  # the start is looked at before the first round


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_coefficients_of_a_fit_cut_short_are_those_of_its_sigma(engine: str) -> None:
    made, _ = cut_short(2, engine, {"algorithm": "em"})
    gls = COMPLETE.dense().gls(made.sigma().values)
    assert np.abs((made.params.values - gls) / made.std_errors.values).max() < 1e-6


def test_unless_told_otherwise_em_has_rounds_enough() -> None:
    """The textbook iteration of these data takes hundreds, ten times the sweeps that others may make."""
    assert LowRankGLS().max_sweeps is None
    made = LowRankGLS(2, algorithm="em", accelerate=False, rel_tol=1e-12).fit(COMPLETE.system()).result_
    assert made.termination is Termination.CONVERGED and made.n_sweeps > 50


@pytest.mark.parametrize(
    ("kind", "n", "K", "passes"),
    # those that the fit of each rel_tol took when it ended by what the last sweep had gained
    [
        ("own", 4000, 20, {1e-6: 7, 1e-8: 9, 1e-10: 11}),
        ("mixed", 4000, 20, {1e-6: 9, 1e-8: 12, 1e-10: 15}),
        ("own", 1000, 10, {1e-6: 8, 1e-8: 11, 1e-10: 14}),
        ("mixed", 300, 6, {1e-6: 12, 1e-8: 14, 1e-10: 20}),
        ("shared", 3000, 12, {1e-6: 3, 1e-8: 3, 1e-10: 3}),
    ],
)
def test_a_streamed_fit_stops_when_it_is_done(kind: str, n: int, K: int, passes: dict[float, int]) -> None:
    data = simulate(kind, n=n, K=K)
    best = LowRankGLS(2, rel_tol=1e-15, max_sweeps=500).fit(data.system()).result_
    store = counted(data, row_chunk=n // 4)
    for rel_tol, before in passes.items():
        store.gets.clear()
        found = LowRankGLS(2, engine="stream", rel_tol=rel_tol).fit(System.from_zarr(store)).result_
        (read,) = store.of("X")
        assert read == found.n_passes <= before
        assert found.termination is Termination.CONVERGED
        assert found.nll - best.nll < rel_tol * abs(best.nll)
        # of the coefficients less is missing than anyone sees
        off = np.abs((found.params.values - best.params.values) / best.std_errors.values).max()
        assert off < (1e-2 if rel_tol > 1e-10 else 1e-4)
    taken = found.n_passes
    assert kind == "shared" or taken < before  # at 1e-10: two passes and more are spared


def test_a_streamed_gls_step_is_finished_at_once_where_it_is_the_last() -> None:
    """Not again at a Sigma that differs from it by next to nothing."""
    trace = LowRankGLS(2, engine="stream", rel_tol=1e-8).fit(simulate("mixed", n=4000, K=20).system()).result_.trace
    moved = trace[trace["step"] == "beta"]
    assert trace["step"].tolist() == ["start", "sigma", "beta", "sigma", "beta", "covariance"]
    assert (moved["cg_iterations"] > 0).all()


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_an_equation_that_fits_perfectly_does_not_end_the_step_of_the_others(engine: Any) -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(60), rng.normal(size=60)])
    E = rng.normal(size=(60, 1)) + 0.5 * rng.normal(size=(60, 3))
    system = System.from_arrays(np.column_stack([np.ones(60), E + X.sum(axis=1)[:, None]]), [X, X, X[:, :1], X[:, 1:]])
    with pytest.warns(FitWarning, match="constant response"):
        loose, tight = (
            LowRankGLS(1, algorithm="fgls", engine=engine, cg_tol=tol).fit(system).result_ for tol in (1e-4, 1e-12)
        )
    assert np.abs((loose.params - tight.params) / tight.std_errors).max() < 0.05
    assert loose.trace["cg_iterations"].sum() > 0
