"""The flags for the covariance behind the standard errors, made from the kinds there are."""

from __future__ import annotations

import argparse

from lrgls_dask.cli.flags import add_object_flags, made_object
from lrgls_dask.results.cov.kind import CovKind
from lrgls_dask.results.cov.registry import KINDS

__all__ = ["add_cov", "cov_of"]

PREFIX = "cov-"  # bandwidth and debiased are options of the estimator too


def add_cov(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cov",
        choices=list(KINDS),
        help="the covariance behind standard errors, tests and intervals; of 'cluster' the groups are those of the "
        "store (default classical)",
    )
    add_object_flags(parser, KINDS, "cov", prefix=PREFIX)


def cov_of(args: argparse.Namespace) -> CovKind | None:
    """The kind that the flags describe, or None. Raises TypeError or ValueError for flags that do not go together."""
    made: CovKind | None = made_object(args, KINDS, "cov", args.cov or "nothing", {}, PREFIX)
    return made
