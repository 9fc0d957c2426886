"""Seemingly unrelated regressions with a low-rank error covariance, on data larger than memory."""

from lrgls_dask.als import Termination
from lrgls_dask.compressed import CompressedSystem
from lrgls_dask.errors import FitWarning
from lrgls_dask.factorstructures import GroupedLowRank, SparseLowRank, TimeVarying
from lrgls_dask.inference import HypothesisTest
from lrgls_dask.model import LowRankGLS
from lrgls_dask.plan import Plan
from lrgls_dask.results import Fit
from lrgls_dask.system import System
from lrgls_dask.varying.result import TimeVaryingFit

__version__ = "0.1.0"
__all__ = [
    "CompressedSystem",
    "Fit",
    "FitWarning",
    "GroupedLowRank",
    "HypothesisTest",
    "LowRankGLS",
    "Plan",
    "SparseLowRank",
    "System",
    "Termination",
    "TimeVarying",
    "TimeVaryingFit",
]
