"""What is said of effects that cannot be absorbed, and the ways out, followed to the letter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System, TimeVarying
from support.absorbed import grouped
from support.remedies import Case

DATA = grouped(80, 5, n_firms=6)
FRAME = pd.DataFrame(np.hstack([DATA.Y, DATA.X]), columns=[*"abcde", "x0", "x1", "x2"]).assign(
    firm=DATA.firm, year=DATA.year
)
HOLES = DATA.Y.copy()
HOLES[3, 1] = np.nan
DUMMIES = pd.get_dummies(DATA.firm).to_numpy(dtype=float)
LONGER = grouped(160, 5)
YEARS = System.from_arrays(DATA.Y, np.hstack([DATA.X, pd.get_dummies(DATA.year).to_numpy(dtype=float)]))
CELLS = np.ones((80, 5)) + np.arange(5)
VARYING = np.ones((80, 5)) + np.arange(80)[:, None] * np.arange(5)
SEGMENTS = np.repeat(np.arange(2), 40)


def system(Y: Any = DATA.Y, X: Any = DATA.X, absorb: Any = DATA.firm, **options: Any) -> System:
    return System.from_arrays(Y, X, absorb=absorb, **options)


def dummies(Y: Any = DATA.Y, **options: Any) -> System:
    return System.from_arrays(Y, np.hstack([DATA.X, DUMMIES]), **options)


def fit(data: Any, **options: Any) -> Fit:
    return LowRankGLS(**({"rank": 0} | options)).fit(data).result_


def formulas(**options: Any) -> Fit:
    return fit(System.from_frame(FRAME, "a + b + c + d + e ~ x0 + x1 + x2 + C(firm)"), **options)


def written_and_absorbed() -> Fit:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        System.from_arrays(DATA.Y, DATA.X).to_zarr(path)
        return fit(System.from_zarr(path).absorb(DATA.firm))


def with_groups_of_firms(ds: xr.Dataset) -> System:
    return System.from_xarray(ds, "y", ["x"], absorb="firm")


DS = xr.Dataset(
    {"y": (("obs", "equation"), DATA.Y), "x": ("obs", DATA.X[:, 0]), "firm": ("obs", DATA.firm)}, {"equation": range(5)}
)
BOTH = [DATA.firm, DATA.year]
KNOWN = DATA.firm != "f003"


def beside_nothing(absorb: Any, rows: Any = slice(None)) -> Fit:
    """A fit that skips an equation without a response."""
    Y = np.column_stack([DATA.Y, np.full(len(DATA.Y), np.nan)])
    return fit(system(Y[rows], DATA.X[rows], absorb[rows]), unusable="skip")


def with_years() -> System:
    return system(X=np.hstack([DATA.X, pd.get_dummies(DATA.year).to_numpy(dtype=float)[:, 1:]]))


ONE, TWO = fit(system()), fit(system(absorb=BOTH))
PLAIN = fit(System.from_arrays(DATA.Y, np.column_stack([np.ones(80), DATA.X])))
CONSTANT = np.column_stack([DATA.X, np.ones(80)])

ABSORB: list[Case] = [
    Case(
        "compares complete rows",
        lambda: fit(system(HOLES), missing="em", rank=1),
        (
            lambda: fit(system(HOLES), missing="drop", rank=1),
            lambda: fit(dummies(HOLES), missing="em", rank=1),
            formulas,
        ),
    ),
    Case(
        "finds effects from all rows",
        lambda: fit(system(), rank="cv"),
        (lambda: fit(system(), rank="bic"), lambda: fit(YEARS, rank="cv", n_folds=2)),
    ),
    Case(
        "needs one Sigma",
        lambda: fit(system(), rank="auto", covariance=TimeVarying(1, segments=SEGMENTS)),
        (lambda: fit(system(), covariance="lowrank"),),
    ),
    Case(
        "weights of cells tell apart",
        lambda: system(weights=VARYING),
        (lambda: fit(system(weights=VARYING[:, 1:2])), lambda: fit(dummies(weights=VARYING))),
    ),
    Case("weights of equations tell apart", lambda: system(weights=CELLS[:1]), (lambda: fit(system()),)),
    Case(
        "absorbs 'absorb' already",
        lambda: system().absorb(DATA.year),
        (lambda: fit(system(absorb=[DATA.firm, DATA.year])),),
    ),
    Case("absorb names no labels", lambda: system(absorb={}), (lambda: system(absorb=None),)),
    Case(
        "no variable 'frm' in",
        lambda: System.from_xarray(DS, "y", ["x"], absorb="frm"),
        (lambda: with_groups_of_firms(DS),),
    ),
    Case(
        "absorb has a int but",
        lambda: System.from_frame(FRAME, "a ~ x0", absorb=[3]),
        (lambda: System.from_frame(FRAME, "a ~ x0", absorb=["firm"]),),
    ),
    Case(
        "no regressor beside its intercept",
        lambda: System.from_frame(FRAME, "a ~ 1", absorb="firm"),
        (lambda: System.from_frame(FRAME, "a ~ x0", absorb="firm"), lambda: System.from_frame(FRAME, "a ~ 1")),
    ),
    Case(
        "keeps rows apart whose effects",
        lambda: system().compress(by=SEGMENTS),
        (
            lambda: system().compress(),
            lambda: system(DATA.Y[:40], DATA.X[:40], DATA.firm[:40]).compress(),
        ),
    ),
    Case(
        "absorbed from the rows of one system alone",
        lambda: system().append(system()),
        (lambda: system(np.vstack([DATA.Y] * 2), np.vstack([DATA.X] * 2), np.tile(DATA.firm, 2)).compress(),),
    ),
    Case("format 1 holds no labels", lambda: system().to_zarr("nowhere.zarr"), (written_and_absorbed,)),
    Case("is constant within every group", lambda: fit(system(X=CONSTANT)), (lambda: fit(system()),)),
    Case(
        "are constant once the effects",
        lambda: fit(system(X=np.column_stack([CONSTANT, DATA.year * 1.0]), absorb=[DATA.firm, DATA.year])),
        (lambda: fit(system(absorb=[DATA.firm, DATA.year])),),
    ),
    Case(
        "leave nothing of 80 rows",
        lambda: fit(system(absorb=np.arange(80))),
        (
            lambda: fit(system(absorb=np.arange(80) // 8)),
            lambda: fit(system(LONGER.Y, LONGER.X, np.tile(np.arange(80), 2))),
        ),
    ),
    Case(
        "divides by leverages",
        lambda: ONE.with_cov("robust", correction="HC3"),
        (
            lambda: ONE.with_cov("robust", correction="HC1"),
            lambda: fit(YEARS).with_cov("robust", correction="HC3"),
        ),
    ),
    Case(
        "the fit has no effects of",
        lambda: ONE.score(system(absorb=np.where(DATA.firm == "f003", "new", DATA.firm))),
        (lambda: ONE.score(system(DATA.Y[KNOWN], DATA.X[KNOWN], DATA.firm[KNOWN])),),
    ),
    Case(
        "holds none of the groups of its rows",
        lambda: ONE.score(system().compress()),
        (lambda: ONE.score(system()),),
    ),
    Case(
        "the rows come without labels",
        lambda: ONE.predict(DATA.X),
        (lambda: ONE.predict(system()), lambda: ONE.predict(system(np.full_like(DATA.Y, np.nan)))),
    ),
    Case(
        "of the fitted ones none were",
        lambda: PLAIN.with_cov("robust", system=system(X=np.column_stack([np.ones(80), DATA.X]))),
        (lambda: PLAIN.with_cov("robust"),),
    ),
    Case(
        "interval needs standard errors of sums of effects",
        lambda: TWO.predict(system(absorb=BOTH), interval=0.9),
        (
            lambda: TWO.predict(system(absorb=BOTH)),
            lambda: fit(with_years()).predict(with_years(), interval=0.9),
            lambda: fit(System.from_frame(FRAME, "a + b ~ x0 + C(year)", absorb="firm")),
        ),
    ),
    Case(
        "absorbed, which with_cov.* does not have",
        lambda: ONE.with_cov("robust").predict(system(), interval=0.9),
        (lambda: ONE.predict(system(), interval=0.9), lambda: ONE.with_cov("robust").predict(system())),
    ),
    Case(
        "in all equations together",
        lambda: ONE.predict_given(system(HOLES), interval=0.9),
        (
            lambda: ONE.predict_given(system(HOLES), interval=0.9, kind="error"),
            lambda: ONE.predict_given(system(HOLES)),
        ),
    ),
    Case("impute fills in rows", lambda: ONE.impute(system()), (lambda: ONE.predict_given(system(HOLES)),)),
    Case("effects are those of absorbed", PLAIN.effects, (lambda: PLAIN.params,)),
    Case("r2_within is beside", lambda: PLAIN.r2_within, (lambda: PLAIN.r2,)),
    Case(
        "they have other groups",
        lambda: ONE.with_cov("robust", system=system(absorb=np.where(DATA.firm == "f003", "new", DATA.firm))),
        (lambda: ONE.with_cov("robust", system=system()),),
    ),
]
WITHOUT_FIRST = np.where(np.arange(len(DATA.Y)) == 0, None, np.asarray(DATA.firm, dtype=object))
SKIPPING = [
    Case(
        "absorb: row 0 has no label, and shows all responses.* Give it one, or drop the row",
        lambda: beside_nothing(WITHOUT_FIRST),
        (lambda: beside_nothing(DATA.firm), lambda: beside_nothing(WITHOUT_FIRST, slice(1, None))),
    )
]
