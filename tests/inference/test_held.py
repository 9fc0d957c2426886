"""Coefficients that restrictions hold do not vary: in every covariance, engine and kind of fit, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying, TimeVaryingFit
from lrgls_dask.design.restrictions import Restrictions
from support.systems import simulate

DATA = simulate("own", n=120, K=4, k=1)  # 2, 3, 4, 2 coefficients
SHARED = simulate("shared", n=120, K=4, k=1)
# three ways to hold y1:x1: by itself, by two rows together, by another equation's
WAYS: dict[str, list[str]] = {
    "alone": ["y1:x1 = 0.5"],
    "together": ["y1:x1 + y2:x1 = 1", "y1:x1 - y2:x1 = 0.3"],
    "chained": ["y1:x1 = y2:x1", "y2:x1 = 3*y0:x1", "y0:x1 = 0.25"],
}
HELD = {
    "alone": [("y1", "x1")],
    "together": [("y1", "x1"), ("y2", "x1")],
    "chained": [("y0", "x1"), ("y1", "x1"), ("y2", "x1")],
}
KINDS: dict[str, dict[str, Any]] = {
    "classical": {"debiased": True},
    "robust": {"correction": "HC1"},
    "cluster": {"groups": np.arange(120) // 4},
    "hac": {"bandwidth": 3},
    "observed": {},
    "huber-white": {},
    "kackar-harville": {},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance"),
    pytest.mark.filterwarnings("ignore:clustered covariance"),
]


def holes(system: System) -> System:
    Y = DATA.Y.copy()
    Y[np.random.default_rng(0).random(Y.shape) < 0.1] = np.nan
    return System.from_arrays(Y, DATA.Xs)


MADE: dict[str, Any] = {
    "compress": lambda how: LowRankGLS(1, restrictions=how).fit(DATA.system()),
    "stream": lambda how: LowRankGLS(1, engine="stream", restrictions=how).fit(DATA.system()),
    "ridge": lambda how: LowRankGLS(1, lam_B=3.0, restrictions=how).fit(DATA.system()),
    "full": lambda how: LowRankGLS(covariance="full", restrictions=how).fit(SHARED.system()),
    "em": lambda how: LowRankGLS(1, missing="em", restrictions=how).fit(holes(DATA.system())),
    "drop": lambda how: LowRankGLS(1, missing="drop", restrictions=how).fit(holes(DATA.system())),
    "segments": lambda how: LowRankGLS(covariance=TimeVarying(1, np.arange(120) // 40), restrictions=how).fit(
        DATA.system()
    ),
}
MOST = {"stream": 4, "ridge": 6, "em": 1, "drop": 7, "segments": 4, "compress": 7, "full": 7}


def mask(made: Fit | TimeVaryingFit, way: str) -> np.ndarray:
    labels = zip(made.params["equation"].values, made.params["regressor"].values, strict=True)
    return np.array([label in HELD[way] for label in labels])


def check(made: Fit | TimeVaryingFit, way: str) -> None:
    held = mask(made, way)
    assert (made.std_errors.values[held] == 0).all() and (made.std_errors.values[~held] > 0).all()
    assert np.isnan(made.tvalues.values[held]).all() and np.isnan(made.pvalues.values[held]).all()
    assert np.isfinite(made.tvalues.values[~held]).all() and np.isfinite(made.pvalues.values[~held]).all()
    interval = made.conf_int().values
    assert (interval[held] == made.coefficients[held, None]).all()
    assert (interval[~held, 0] < interval[~held, 1]).all()
    assert (made.cov().values[held] == 0).all() and (made.cov().values[:, held] == 0).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("road", MADE)
def test_no_kind_gives_them_a_variance(road: str, way: str, tmp_path: Any) -> None:
    made = MADE[road](WAYS[way]).result_
    check(made, way)
    if road == "em":
        kinds: list[tuple[str, dict[str, Any]]] = [("observed", {})]
    else:
        allowed = [k for k in KINDS if MOST[road] == 7 or (k in list(KINDS)[: MOST[road]])]
        kinds = [(k, {} if road in ("ridge", "drop") else KINDS[k]) for k in allowed]
        kinds = [(k, KINDS["cluster"] if k == "cluster" else o) for k, o in kinds]
    for kind, options in kinds:
        check(made.with_cov(kind, **options), way)
        j = made.equations.index("y1")
        one = made.cov(kind, equation="y1", **options).values
        own = mask(made, way)[made.design.spans[j]]
        assert (one[own] == 0).all() and (one[:, own] == 0).all() and (np.diag(one)[~own] > 0).all()
    made.to_zarr(tmp_path / "fit")
    check(type(made).from_zarr(tmp_path / "fit"), way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("road", MADE)
def test_hypotheses_that_hold_by_construction_are_refused(road: str, way: str) -> None:
    made = MADE[road](WAYS[way]).result_
    value = made.params.sel(coefficient=mask(made, way)).values[-1]
    equation = HELD[way][-1][0]
    with pytest.raises(ValueError, match=rf"'{equation}:x1 = .* holds by construction: it follows from 'y"):
        made.wald_test(f"{equation}:x1 = {value:.12f}")
    with pytest.raises(ValueError, match=rf"'{equation}:x1 = 7' cannot hold: it contradicts 'y"):
        made.wald_test([f"{equation}:x0 = 0", f"{equation}:x1 = 7"])
    with pytest.raises(ValueError, match="holds by construction"):
        made.wald_test((made.restrictions.matrix.sum(axis=0), [made.restrictions.values.sum()]))


def test_hypotheses_are_refused_where_only_together_they_hold() -> None:
    made = LowRankGLS(1, restrictions="y0:x1 = y1:x1").fit(DATA.system()).result_
    assert made.wald_test("y0:x1 = 0").statistic == pytest.approx(made.wald_test("y1:x1 = 0").statistic, rel=1e-8)
    with pytest.raises(ValueError, match=r"'y1:x1 = 0' holds .* from 'y0:x1 = y1:x1' and 'y0:x1 = 0', to which"):
        made.wald_test(["y0:x1 = 0", "y1:x1 = 0"])
    assert (made.std_errors.values > 0).all()


@pytest.mark.parametrize("method", ["parametric", "cluster"])
@pytest.mark.parametrize("way", WAYS)
def test_replicates_hold_them_too(way: str, method: Any) -> None:
    made = LowRankGLS(1, restrictions=WAYS[way]).fit(DATA.system(groups=np.arange(120) // 4)).result_
    found, held = made.bootstrap(30, method, seed=3), mask(made, way)
    assert (found.std_errors.values[held] == 0).all() and (found.bias.values[held] == 0).all()
    assert (found.replicate_std_errors.values[:, held] == 0).all()
    assert (found.std_errors.values[~held] > 0).all()
    for kind in ("studentised", "percentile", "basic"):
        interval = found.conf_int(kind=kind).values
        assert (interval[held] == made.coefficients[held, None]).all()
        assert (interval[~held, 0] < interval[~held, 1]).all()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_what_is_held_does_not_depend_on_units(scale: float) -> None:
    for rows, wanted in (
        ([[1.0, scale, 0.0]], [0, 0, 0]),
        ([[1.0, scale, 0.0], [0.0, 1.0, 1.0]], [0, 0, 0]),
        ([[1.0, scale, 0.0], [1.0, -scale, 0.0]], [1, 1, 0]),
        ([[1.0, scale, scale], [0.0, 1.0, 1.0]], [1, 0, 0]),
        ([[scale, 0.0, 0.0], [0.0, 1.0, 1.0]], [1, 0, 0]),
    ):
        R = np.array(rows)
        made = Restrictions(R, np.zeros(len(R)), ("",) * len(R))
        assert made.held.tolist() == [bool(w) for w in wanted], (rows, scale)
