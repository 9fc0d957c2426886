"""What a pass over the rows is for: the words that progress, plans and the trace of a fit share."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "COEFFICIENTS",
    "COMPRESS",
    "ERRORS",
    "LAST_LOOK",
    "LEFT_OUT",
    "LIKELIHOOD",
    "MEANS",
    "OLS",
    "PATTERNS",
    "PRODUCTS",
    "READING",
    "REPLICATES",
    "RESIDUALS",
    "in_words",
]

READING = "reading"
COMPRESS = "compress"  # cross-products of all columns, in the place of the rows
MEANS = "means of groups"
PATTERNS = "patterns of missing values"
OLS = "OLS"  # each equation's own cross-products
RESIDUALS = "residuals"  # residual products of all pairs of equations
PRODUCTS = "products"  # residual products with some columns, where those of all pairs are too many
LIKELIHOOD = "likelihood"  # what rows that miss responses say of coefficients and Sigma
COEFFICIENTS = "coefficients"  # gradients and products of conjugate gradients
ERRORS = "standard errors"
LAST_LOOK = "likelihood and standard errors"  # both from one pass, where it is expected to be the last
LEFT_OUT = "rows left out"  # fits without each fold, all of them at once, and what they say of it
REPLICATES = "replicates"  # fits of data that are drawn, many of them at once


def in_words(purposes: Mapping[str, int]) -> str:
    """Purposes with the number of passes for each, "" where there are none."""
    return ", ".join(f"{purpose} x {n}" if n > 1 else purpose for purpose, n in purposes.items())
