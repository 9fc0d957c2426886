"""What pictures refuse, and what they draw instead."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lrgls_dask import LowRankGLS, System, TimeVarying
from support.incomplete import with_holes
from support.remedies import Case
from support.systems import simulate

__all__ = ["PICTURES", "WORDS"]

DATA = simulate("shared", n=90, K=6)
SEGMENTS = TimeVarying(rank=1, segments=np.repeat([1, 2, 3], 30), bandwidth=1.0)


@cache
def fit(**options: Any) -> Any:
    return LowRankGLS(**({"rank": 1} | options)).fit(DATA.system()).result_


@cache
def varying() -> Any:
    return LowRankGLS(covariance=SEGMENTS).fit(DATA.system()).result_


@cache
def many_patterns() -> Any:
    found = LowRankGLS(1, missing="em").fit(with_holes(DATA).system()).result_
    return replace(found, evidence=replace(found.evidence, rows=None))


def axes(count: int = 1) -> Any:
    return Figure().subplots(count)


PICTURES = [
    Case(
        "this picture has 3 parts, and ax has 1",
        lambda: fit().plot.residuals(DATA.system(), ax=axes()),
        (lambda: fit().plot.residuals(DATA.system(), ax=axes(3)),),
    ),
    Case(
        "segment=2 asks for one of several Sigmas",
        lambda: fit().plot.loadings(segment=2),
        (lambda: fit().plot.loadings(ax=axes()), lambda: varying().plot.loadings(segment=2, ax=axes())),
    ),
    Case(
        "the fit has no factors, so there are no loadings",
        lambda: fit(rank=0).plot.loadings(),
        (lambda: fit().plot.loadings(ax=axes()), lambda: fit(rank=0).plot.errors(ax=axes())),
    ),
    Case(
        "which the fit did not estimate. Give labels of fit.equations",
        lambda: fit().plot.loadings(order=["y9"]),
        (lambda: fit().plot.loadings(order=fit().equations[::-1], ax=axes()),),
    ),
    Case(
        "has nothing that is the equations' own, so factors leave nothing",
        lambda: fit(rank="auto", covariance="full").plot.errors("after"),
        (lambda: fit(rank="auto", covariance="full").plot.errors("before", ax=axes()),),
    ),
    Case(
        "by the few rows of every pattern of missing responses",
        lambda: many_patterns().plot.errors(),
        (lambda: many_patterns().plot.errors("before", ax=axes()),),
    ),
    Case(
        "what the factors leave needs the compressed rows",
        lambda: fit(engine="stream").plot.errors(),
        (
            lambda: fit(engine="stream").plot.errors("before", ax=axes()),
            lambda: fit(engine="compress").plot.errors(ax=axes()),
        ),
    ),
    Case(
        "is told by the compressed rows of segments",
        lambda: replace(varying(), compressed_segments=()).plot.errors(),
        (lambda: replace(varying(), compressed_segments=()).plot.errors("before", ax=axes()),),
    ),
    Case(
        "this fit has one Sigma for all rows, so it has no course",
        lambda: fit().plot.sigma_over_time(),
        (lambda: varying().plot.sigma_over_time(ax=axes(3)), lambda: fit().plot.errors(ax=axes())),
    ),
    Case(
        "the system has 89 rows, and the segments of this fit cover 90",
        lambda: varying().plot.residuals(DATA.take(slice(1, None)).system()),
        (lambda: varying().plot.residuals(DATA.system(), ax=axes(3)),),
    ),
]

WORDS = [
    Case(
        "order is 'given', a list of labels of equations",
        lambda: fit().plot.loadings(order=3),
        (lambda: fit().plot.loadings(order=fit().equations, ax=axes()),),
    ),
    Case(
        "order has no equations",
        lambda: fit().plot.errors(order=[]),
        (
            lambda: fit().plot.errors(order=fit().equations[:2], ax=axes()),
            lambda: fit().plot.errors(order=None, ax=axes()),
        ),
    ),
    Case(
        "residuals takes a System, not compressed",
        lambda: fit().plot.residuals(DATA.Y),
        (lambda: fit().plot.residuals(System.from_arrays(DATA.Y, DATA.X), ax=axes(3)),),
    ),
]
