"""What is said of hypotheses that cannot be tested across equations, and of ranks, and the ways out to the letter."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from lrgls_dask import Fit, FitWarning, LowRankGLS, System, TimeVarying
from lrgls_dask.datasets import load_french
from lrgls_dask.inference.structured import blocks_alone
from lrgls_dask.results.parts import BehindErrors
from support.remedies import Case
from support.systems import simulate

NULL = "*:x1 = 0"
DATA = simulate("shared", n=150, K=12)
BOTH = ["*:x1 = 0", "*:x2 = 0"]
HOLES = DATA.Y.copy()
HOLES[::5, 3] = np.nan


@cache
def fit(**options: Any) -> Fit:
    return LowRankGLS(**({"rank": 2} | options)).fit(DATA.system()).result_


@cache
def varying() -> Any:
    covariance = TimeVarying(rank=1, segments=np.repeat(np.arange(3), 50), bandwidth=1.0)
    return LowRankGLS(covariance=covariance).fit(DATA.system()).result_


@cache
def of_two_groups() -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit().with_cov("cluster", groups=np.arange(150) // 75)


def blocks_only() -> Fit:
    found = fit()
    blocks = [found.cov(equation=name).values for name in found.equations]
    return replace(found, behind_errors=BehindErrors(values=blocks_alone(found.design, blocks)))


@cache
def bare(**options: Any) -> Fit:
    """Returns of eight portfolios, which three factors leave no variance of one's own."""
    found = load_french()
    X = np.column_stack([found[name] for name in ("const", "mktrf", "smb", "hml", "mom")])
    Y = found["excess_return"].values[:, :8].astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return LowRankGLS(**({"rank": 3} | options)).fit(System.from_arrays(Y, X)).result_


def holes(rank: Any, missing: str) -> Fit:
    return LowRankGLS(rank, missing=missing).fit(System.from_arrays(HOLES[:, :6], DATA.X)).result_  # type: ignore[arg-type]


ACROSS = [
    Case(
        "is about several equations, and across tests",
        lambda: fit().across("y0:x1 = y1:x1"),
        (lambda: fit().wald_test("y0:x1 = y1:x1"),),
    ),
    Case(
        "has one for each segment. Use moderated=False",
        lambda: varying().across(NULL, moderated=True),
        (lambda: varying().across(NULL, moderated=False),),
    ),
    Case(
        "Or use bands='bonferroni' with method='holm', 'bh' or 'by'",
        lambda: blocks_only().across(NULL),
        tuple(
            lambda method=method: blocks_only().across(NULL, method, bands="bonferroni") for method in ("holm", "by")
        ),
    ),
    Case(
        "is more than 10,000 draws can tell. Use method='holm' with bands='bonferroni'",
        lambda: fit().across(NULL, "sup-t", level=0.99999),
        (lambda: fit().across(NULL, "holm", level=0.99999, bands="bonferroni"),),
    ),
    Case(
        "is more than 10,000 draws can tell. Use bands='bonferroni'",
        lambda: fit().across(NULL, level=0.99999),
        (lambda: fit().across(NULL, level=0.99999, bands="bonferroni"),),
    ),
    Case(
        "restricted combinations of equation 'y0' has rank 1. Test at most 1 of them together",
        lambda: of_two_groups().across(BOTH),
        (lambda: of_two_groups().across(NULL),),
    ),
    Case(
        "takes one restriction per equation, and these hypotheses have several",
        lambda: fit().across(BOTH, "factor-adjusted"),
        (lambda: fit().across(BOTH, "bh"), lambda: fit().across(NULL, "factor-adjusted")),
    ),
    Case(
        "and this fit has none. Use method='bh'",
        lambda: fit(rank=0).across(NULL, "factor-adjusted"),
        (lambda: fit(rank=0).across(NULL, "bh"), lambda: fit(rank=1).across(NULL, "factor-adjusted")),
    ),
    Case(
        "sees 2 factors by the estimates of many equations",
        lambda: fit().across(["y0:x1 = 0", "y1:x1 = 0"], "factor-adjusted"),
        (lambda: fit().across(["y0:x1 = 0", "y1:x1 = 0"], "holm"),),
    ),
    Case(
        "the factors explain the errors of equation 'y3' all but entirely",
        lambda: bare().across(NULL, "factor-adjusted"),
        (
            lambda: bare().across(NULL, "bh"),
            lambda: bare().across([f"y{j}:x1 = 0" for j in range(8) if j != 3], "factor-adjusted"),
            lambda: bare(rank=2).across(NULL, "factor-adjusted"),
            lambda: bare(rank="bic", improper="avoid").across(NULL, "factor-adjusted"),
        ),
    ),
    Case(
        r"Use with_cov\('classical'\).across\(...\), or moderated=False",
        lambda: fit().with_cov("robust").across(NULL, moderated=True),
        (
            lambda: fit().with_cov("robust").with_cov("classical").across(NULL, moderated=True),
            lambda: fit().with_cov("robust").across(NULL, moderated=False),
        ),
    ),
    Case(
        "have in common, which takes two or more.*Use moderated=False",
        lambda: fit().across("y0:x1 = 0", moderated=True),
        (lambda: fit().across("y0:x1 = 0", moderated=False),),
    ),
    Case(
        "rank='parallel' is of eigenvalues of residual covariances of complete rows",
        lambda: holes("parallel", "em"),
        (lambda: holes("bic", "em"), lambda: holes("parallel", "drop")),
    ),
    Case(
        "improper='avoid' chooses among numbers of factors, and rank=2 is no choice",
        lambda: fit(improper="avoid"),
        (lambda: fit(rank="bic", improper="avoid"),),
    ),
    Case(
        "improper='avoid' chooses among numbers of factors, and with covariance='full' there is no choice",
        lambda: fit(rank="auto", covariance="full", improper="avoid"),
        (lambda: fit(rank="auto", covariance="full"),),
    ),
]
