"""Statistics of a fit: covariance of the coefficients and what follows from it."""

from lrgls_dask.inference.classical import MAX_COEFFICIENTS, CoefficientCovariance

__all__ = ["MAX_COEFFICIENTS", "CoefficientCovariance"]
