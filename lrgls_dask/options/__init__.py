"""Every option of the estimator once: type, default, what it may be, what it goes with, and what is kept of it.

table : the options, from which the constructor, its docstring and the flags of the command line are made.
rules : which of them go together.
covariances : what `covariance` may be besides a word.
stored : options as a saved fit keeps them.

To add one: a field of `table.EstimatorOptions`, a rule where it does not go with another, and the line where it acts.
"""

from lrgls_dask.options.covariances import DESCRIBED, TimeVarying
from lrgls_dask.options.table import CG_MAXIT, OPTIONS, Engine, EstimatorOptions, Option, estimator

__all__ = [
    "CG_MAXIT",
    "DESCRIBED",
    "OPTIONS",
    "Engine",
    "EstimatorOptions",
    "Option",
    "TimeVarying",
    "estimator",
]
