"""Seemingly unrelated regressions with a low-rank error covariance, on data larger than memory.

    system = System.from_frame(frame, "{y*} ~ x1 + x2", obs="date")  # or from_parquet, from_xarray, from_arrays
    fit = LowRankGLS(rank="bic").fit(system).result_  # `LowRankGLS` has all options, `Fit` all that a fit says
    print(fit.summary(), fit.tidy(term="x1"), fit.across("*:x1 = 0"), fit.predict(new_frame), sep="\\n")

`LowRankGLS(...).plan(system)` prices a fit without a read; `covariance=` takes `SparseLowRank`, `GroupedLowRank`,
`BlockLowRank`, `TimeVarying`, `Known`; `lrgls --help` does the same from a shell. README.md and notebooks/ say more.

The house, from the street to the cellar. A room imports only from rooms below it; `tests/` has the same rooms.

    cli/           the command line: a command is a file
    accessor.py    `ds.lrgls` of xarray: a system and its fit in one call
    model.py       `LowRankGLS`: options in, the road chosen, a fit out
    results/       `Fit` and `TimeVaryingFit`, made of parts: estimates, run, evidence; their tables, pages and files
    varying/       Sigma that changes along the rows
    missing/       rows that show only some equations
    prediction/    rows out: fitted, conditional, scores, imputed; intervals
    resampling/    the bootstrap: draws, refits
    inference/     covariance of the coefficients, tests, measures of fit
    plan/          prices: passes, bytes, memory, seconds; reads nothing
    solve/         what the data answer, and the one loop that asks: ALS, EM, selection, cross-validation, checkpoint
    simulate.py    systems drawn from known parameters
    system.py      `System` and `CompressedSystem`: the public faces of data
    compression/   N rows to q + K + 1 rows: made, merged, kept by parts
    datasets/      data that ship with the package
    data/          how rows come in: a file a source; labels, storage
    options/       every option once: type, default, what it may be and goes with, what is kept of it
    rows/          how rows are touched: blocks, kernels, moments, passes, memory, progress
    design/        which equation uses which column; restrictions, hypotheses
    sigma/         error covariances across equations: a file a structure
    page.py        how objects look in a notebook
    checks.py      arguments and labels: what is wrong with one, and the nearest right one
    errors.py      errors that know where in the data they arose

A chunk of data on its way from a store to a coefficient: data/ opens it, rows/ reads and sums it, compression/ or
solve/ makes the few numbers of it that the loop in solve/ asks for, results/ labels what the loop ends with.

Notation, in kernels and covariances only: Y (N, K) responses, X (N, q) distinct columns, R (N, K) residuals,
S = R'R / N, Sigma = F F' + D, F (K, k) loadings, D = diag(d), b coefficients, c the same in whitened coordinates.
"""

from lrgls_dask.accessor import LrglsAccessor
from lrgls_dask.errors import ChangedStore, DamagedStore, FitWarning, UnwrittenChunks
from lrgls_dask.inference import HypothesisTest
from lrgls_dask.model import LowRankGLS
from lrgls_dask.options import TimeVarying
from lrgls_dask.plan.plan import Plan
from lrgls_dask.results.fit import Fit
from lrgls_dask.results.like_statsmodels import EquationView
from lrgls_dask.results.multiple_tests import MultipleTests
from lrgls_dask.results.side_by_side import Comparison, compare
from lrgls_dask.results.time_varying import TimeVaryingFit
from lrgls_dask.sigma import registry
from lrgls_dask.sigma.registry import *  # noqa: F403  (a new kind of Sigma is entered there and nowhere else)
from lrgls_dask.solve.record import Termination
from lrgls_dask.system import CompressedSystem, System

__all__ = [
    "ChangedStore",
    "Comparison",
    "CompressedSystem",
    "DamagedStore",
    "EquationView",
    "Fit",
    "FitWarning",
    "HypothesisTest",
    "LowRankGLS",
    "LrglsAccessor",
    "MultipleTests",
    "Plan",
    "System",
    "Termination",
    "TimeVarying",
    "TimeVaryingFit",
    "UnwrittenChunks",
    "compare",
    *registry.__all__,
]

__version__ = "0.1.0"
