"""Absorbed effects against linearmodels' PanelOLS and AbsorbingLS, statsmodels with dummies, and pyfixest's digits."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from linearmodels.iv.absorbing import AbsorbingLS
from linearmodels.panel import PanelOLS

from lrgls_dask import Fit, LowRankGLS, System
from support.frames import grunfeld, munnell

GRUNFELD = grunfeld()
MUNNELL = munnell()
MUNNELL = MUNNELL.assign(
    y=np.log(MUNNELL["GSP"]), hwy=np.log(MUNNELL["HWY"]), emp=np.log(MUNNELL["EMP"]), unemp=MUNNELL["UNEMP"]
)
UNBALANCED = MUNNELL.drop(index=MUNNELL.index[[3, 4, 5, 40, 77, 100, 101, 150]])
CASES: dict[str, tuple[pd.DataFrame, str, list[str], str, str]] = {
    "Grunfeld": (GRUNFELD, "invest", ["value", "capital"], "firm", "year"),
    "Munnell": (MUNNELL, "y", ["hwy", "emp", "unemp"], "region", "YR"),
    "unbalanced": (UNBALANCED, "y", ["hwy", "emp", "unemp"], "region", "YR"),
}


def ours(case: str, both: bool, *, weights: str | None = None, **options: Any) -> Fit:
    frame, y, x, entity, time = CASES[case]
    absorb = [entity, time] if both else entity
    system = System.from_frame(frame, f"{y} ~ {' + '.join(x)}", absorb=absorb, weights=weights)
    return LowRankGLS(0, **options).fit(system).result_


def panel(case: str, both: bool, **how: Any) -> Any:
    frame, y, x, entity, time = CASES[case]
    indexed = frame.set_index([entity, time])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PanelOLS(indexed[y], indexed[x], entity_effects=True, time_effects=both).fit(**how)


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_panel_regressions_of_linearmodels(case: str, both: bool, engine: Any) -> None:
    fit, theirs = ours(case, both, debiased=True, engine=engine), panel(case, both, cov_type="unadjusted")
    np.testing.assert_allclose(fit.params, theirs.params, rtol=1e-9)
    np.testing.assert_allclose(fit.std_errors, theirs.std_errors, rtol=1e-9)
    np.testing.assert_allclose(fit.pvalues, theirs.pvalues, rtol=1e-7, atol=1e-14)
    np.testing.assert_allclose(fit.r2, theirs.rsquared_inclusive, rtol=1e-9)
    np.testing.assert_allclose(fit.r2_within, theirs.rsquared, rtol=1e-9)
    assert fit.df_resid == theirs.df_resid
    np.testing.assert_allclose(ours(case, both, engine=engine).loglik, theirs.loglik, rtol=1e-9)
    robust = panel(case, both, cov_type="robust")
    np.testing.assert_allclose(fit.with_cov("robust").std_errors, robust.std_errors, rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_effects_are_those_of_linearmodels(case: str) -> None:
    frame, _, _, entity, _ = CASES[case]
    fit, theirs = ours(case, False), panel(case, False)
    found = fit.effects()[f"effect_{entity}"].sel({entity: frame[entity].to_numpy()}).values[:, 0]
    wanted = theirs.estimated_effects["estimated_effects"].to_numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_absorbing_least_squares_with_weights(case: str, both: bool) -> None:
    frame, y, x, entity, time = CASES[case]
    weights = np.random.default_rng(1).uniform(0.5, 2.0, len(frame))
    labels = frame[[entity, time] if both else [entity]].astype("category")
    how = {"cov_type": "unadjusted", "debiased": True}
    theirs = AbsorbingLS(frame[y], frame[x], absorb=labels, weights=weights).fit(**how)
    system = System.from_frame(
        frame.assign(w=weights), f"{y} ~ {' + '.join(x)}", absorb=list(labels.columns), weights="w"
    )
    fit = LowRankGLS(0, debiased=True).fit(system).result_
    np.testing.assert_allclose(fit.params, theirs.params, rtol=1e-8)
    np.testing.assert_allclose(fit.std_errors, theirs.std_errors, rtol=1e-8)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_dummies_of_statsmodels(case: str, both: bool) -> None:
    frame, y, x, entity, time = CASES[case]
    dummies = " + ".join(f"C({name})" for name in ([entity, time] if both else [entity]))
    theirs = smf.ols(f"{y} ~ {' + '.join(x)} + {dummies}", frame).fit()
    fit = ours(case, both, debiased=True)
    np.testing.assert_allclose(fit.params, theirs.params[x], rtol=1e-8)
    np.testing.assert_allclose(fit.std_errors, theirs.bse[x], rtol=1e-8)
    np.testing.assert_allclose((fit.r2.item(), fit.adj_r2.item()), (theirs.rsquared, theirs.rsquared_adj), rtol=1e-9)
    assert fit.df_resid == theirs.df_resid
    groups = frame[time].to_numpy()  # of which the entities are no part
    if not both:
        clustered = theirs.get_robustcov_results("cluster", groups=pd.factorize(groups)[0]).bse
        found = fit.with_cov("cluster", groups=groups, correction="CR1").std_errors
        np.testing.assert_allclose(found, clustered[[theirs.params.index.get_loc(name) for name in x]], rtol=1e-7)


# pyfixest 0.60.0, feols("invest ~ value + capital | firm", data, vcov) of statsmodels' grunfeld, and "| firm + year"
PYFIXEST: dict[bool, dict[str, list[float]]] = {
    False: {
        "params": [0.11012911902575984, 0.31003344187500403],
        "iid": [0.0112998432895952, 0.016540476519482036],
        "hetero": [0.019363718929954764, 0.042771876198016055],
        "by firm": [0.015108266998570095, 0.05247240439197664],
        "by year": [0.017316621875720948, 0.03226350227392653],
        "r2": [0.9460750127751029, 0.7666706515488428, 0.9429489265591667],
    },
    True: {
        "params": [0.11668113209689102, 0.3514356941574033],
        "iid": [0.012933033751238185, 0.021048604143774123],
        "hetero": [0.019100753421267287, 0.052870109840347866],
        "by firm": [0.01147547751653438, 0.04788372755702981],
        "by year": [0.01886382038088465, 0.049627714238784634],
        "r2": [0.9526976271860225, 0.725266994188691, 0.9448977678390368],
    },
}


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("both", [False, True])
def test_digits_of_fixest(both: bool, engine: Any) -> None:
    """Its small-sample corrections are the defaults: nested effects do not count where errors are clustered."""
    wanted, fit = PYFIXEST[both], ours("Grunfeld", both, debiased=True, engine=engine)
    errors = {
        "iid": fit.std_errors,
        "hetero": fit.with_cov("robust", correction="HC1").std_errors,
        "by firm": fit.with_cov("cluster", groups=GRUNFELD["firm"], correction="CR1").std_errors,
        "by year": fit.with_cov("cluster", groups=GRUNFELD["year"], correction="CR1").std_errors,
    }
    np.testing.assert_allclose(fit.params, wanted["params"], rtol=1e-10)
    for name, found in errors.items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-10, err_msg=name)
    found = [fit.r2.item(), fit.r2_within.item(), fit.adj_r2.item()]
    np.testing.assert_allclose(found, wanted["r2"], rtol=1e-10)
