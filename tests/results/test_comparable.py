"""Likelihoods are compared where they are at their maxima: fits of another kind are refused with what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from lrgls_dask import Fit, Known, LowRankGLS, System
from lrgls_dask.solve.record import Termination
from support.fits import remade
from support.systems import simulate

DATA = simulate("own", n=120, K=5, k=1)
RESTRICTED = "y0:x1 = 0"
KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "fgls": ({"covariance": "full", "algorithm": "fgls"}, "algorithm='fgls' takes one step", "algorithm='als'"),
    "factors": ({"rank": 1, "algorithm": "fgls"}, "algorithm='fgls' takes one step", "algorithm='als'"),
    "debiased": ({"rank": 1, "debiased": True}, "debiased=True moves Sigma away", "debiased=False"),
    "both": ({"covariance": "full", "algorithm": "fgls", "debiased": True}, "algorithm='fgls'", "algorithm='als'"),
    "pca": ({"rank": 1, "sigma_step": "pca"}, "sigma_step='pca' does not look", "sigma_step='ml'"),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance"),
    pytest.mark.filterwarnings("ignore:LowRankGLS. stalled"),
    pytest.mark.filterwarnings("ignore:LowRankGLS. not converged"),
]


def made(how: dict[str, Any], engine: str = "compress", **more: Any) -> Fit:
    return LowRankGLS(**how, engine=engine, **more).fit(DATA.system()).result_


@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_estimates_have_no_likelihood_to_compare(kind: str, engine: str, stored: bool, tmp_path: Any) -> None:
    how, why, remedy = KINDS[kind]
    free, held = made(how, engine), made(how, engine, restrictions=RESTRICTED)
    if stored:
        free.to_zarr(tmp_path / "fit")
        free = Fit.from_zarr(tmp_path / "fit")
    best = made({"rank": 1}, engine)
    for name, ask in (
        ("lr_test", lambda: free.lr_test(held)),
        ("lr_test", lambda: best.lr_test(held)),
        ("lr_diagonal", free.lr_diagonal),
        ("rank_test", free.rank_test),
        ("aic", lambda: free.aic),
        ("bic", lambda: free.bic),
    ):
        with pytest.raises(ValueError, match=rf"{name} compares .*{why}.*{remedy}, or test .* wald_test"):
            ask()
    assert np.isfinite(free.loglik) and 0 <= free.wald_test(RESTRICTED).pvalue <= 1
    for text in (free.summary(), free._repr_html_().replace("&#x27;", "'")):
        assert f"AIC or BIC compares likelihoods at their maxima, and this fit is at none: {why}" in " ".join(
            text.split()
        )
    assert next(line for line in free.summary().splitlines() if "AIC:" in line).split()[-1] == "-"
    # the remedy at its word
    option, _, value = remedy.partition("=")
    mended = {name: v for name, v in how.items() if name not in ("algorithm", "debiased", "sigma_step")}
    if kind != "both":
        mended = how | {option: value == "True" if value in ("True", "False") else value.strip("'")}
    a, b = made(mended, engine), made(mended, engine, restrictions=RESTRICTED)
    assert a.lr_test(b).df == 1 and np.isfinite(a.aic) and f"{a.bic:,.2f}" in a.summary()


@pytest.mark.parametrize("how", [{"rank": 1}, {"covariance": "full"}, {"rank": 1, "algorithm": "em"}])
def test_a_fit_that_did_not_arrive_is_refused(how: dict[str, Any]) -> None:
    best, held = made(how), made(how, restrictions=RESTRICTED, max_sweeps=1)
    if held.termination is Termination.CONVERGED:  # too easy a likelihood for one sweep to miss
        held = remade(held, termination=Termination.MAX_SWEEPS)
    for ask in (lambda: best.lr_test(held), held.lr_diagonal, held.rank_test):
        with pytest.raises(ValueError, match=r"did not arrive at its own: it ended with 'max_sweeps' .* max_sweeps\."):
            ask()
    assert np.isfinite(held.aic)
    assert best.lr_test(made(how, restrictions=RESTRICTED)).df == 1


def test_a_known_sigma_is_a_maximum_in_one_step() -> None:
    sigma = np.cov(DATA.Y.T)
    free, held = (
        LowRankGLS(covariance=Known(sigma), restrictions=r).fit(DATA.system()).result_ for r in (None, RESTRICTED)
    )
    assert free.lr_test(held).statistic == pytest.approx(free.wald_test(RESTRICTED).statistic, rel=1e-8)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_no_factors_have_no_principal_components(engine: str) -> None:
    plain, by_pca = made({"rank": 0}, engine), made({"rank": 0, "sigma_step": "pca"}, engine)
    assert by_pca.aic == pytest.approx(plain.aic, rel=1e-9)


@pytest.mark.slow
def test_the_size_of_what_is_left() -> None:
    """A true null at 5 %, where one-step likelihood ratios reject three times as often."""
    rejected, n = 0, 120
    for seed in range(n):
        rng = np.random.default_rng(20000 + seed)
        e = rng.standard_normal((60, 2)) @ np.linalg.cholesky([[1, 0.8], [0.8, 25.0]]).T
        X = [np.c_[np.ones(60), rng.standard_normal(60)] for _ in range(2)]
        Y = np.column_stack([X[0] @ [0, 1.0], X[1] @ [0, 1.0]]) + e
        system = System.from_arrays(Y, X)
        free, held = (
            LowRankGLS(covariance="full", restrictions=r).fit(system).result_ for r in (None, "y0:x1 = y1:x1")
        )
        rejected += free.lr_test(held).pvalue < 0.05
    assert scipy.stats.binomtest(rejected, n, 0.05).pvalue > 0.001
