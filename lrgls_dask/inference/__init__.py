"""Statistics of a fit: covariance of the coefficients and what follows from it."""

from lrgls_dask.inference.classical import CoefficientCovariance
from lrgls_dask.inference.hypothesis_tests import (
    HypothesisTest,
    breusch_pagan,
    likelihood_ratio,
    lr_diagonal,
    rank_test,
    wald,
)
from lrgls_dask.inference.measures import (
    SumsOfSquares,
    mcelroy_r2,
    mcelroy_r2_of_residuals,
    sums_of_squares,
    system_r2,
)
from lrgls_dask.rows.memory import MAX_COEFFICIENTS

__all__ = [
    "MAX_COEFFICIENTS",
    "CoefficientCovariance",
    "HypothesisTest",
    "SumsOfSquares",
    "breusch_pagan",
    "likelihood_ratio",
    "lr_diagonal",
    "mcelroy_r2",
    "mcelroy_r2_of_residuals",
    "rank_test",
    "sums_of_squares",
    "system_r2",
    "wald",
]
