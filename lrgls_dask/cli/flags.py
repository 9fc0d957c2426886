"""The flags of a fit: one for every option of the estimator, made from the table of options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from lrgls_dask.cli.objects import Choice, argument_type, as_flag, help_text
from lrgls_dask.model import LowRankGLS
from lrgls_dask.options import DESCRIBED, OPTIONS, Option
from lrgls_dask.results.cov.kind import CovKind
from lrgls_dask.results.cov.registry import KINDS

__all__ = ["add_cov", "add_model", "cov_of", "model_of"]

SIGMAS = Choice("covariance", DESCRIBED, known=tuple(OPTIONS))
COVS = Choice("cov", KINDS, prefix="cov_")  # bandwidth and debiased are options of the estimator too


def add_model(parser: argparse.ArgumentParser) -> None:
    """A flag for every option of `LowRankGLS`, and for every field of the objects that `covariance` may be."""
    group = parser.add_argument_group("options of the estimator")
    for option in OPTIONS.values():
        how = _how(option)
        group.add_argument(as_flag(option.flag or option.name), dest=option.name, default=argparse.SUPPRESS, **how)
    SIGMAS.add_fields(parser)


def model_of(args: argparse.Namespace, known: Mapping[str, Any] = MappingProxyType({})) -> LowRankGLS:
    """The estimator that the flags describe. Raises TypeError or ValueError for flags that do not go together.

    known : options that hold where no flag says otherwise.
    """
    given = {name: value for name, value in vars(args).items() if name in OPTIONS}
    given |= {n: OPTIONS[n].allowed.together(v) for n, v in given.items() if OPTIONS[n].allowed.form == "values"}
    word = given.get("covariance", OPTIONS["covariance"].default)
    given = {**known, **given}
    described = SIGMAS.made(args, word, given)
    if described is not None:
        taken = {each.name for each in fields(described)}
        given = {name: value for name, value in given.items() if name not in taken} | {"covariance": described}
    return LowRankGLS(**given)


def add_cov(parser: argparse.ArgumentParser) -> None:
    """The covariance behind the standard errors, and its options."""
    text = "the covariance behind standard errors, tests and intervals, by default classical; groups are the store's"
    parser.add_argument("--cov", choices=list(KINDS), help=text)
    COVS.add_fields(parser)


def cov_of(args: argparse.Namespace) -> CovKind | None:
    """The kind that the flags describe, or None. Raises TypeError or ValueError for flags that do not go together."""
    made: CovKind | None = COVS.made(args, args.cov, {})
    return made


def _how(option: Option) -> dict[str, Any]:
    """How argparse reads it. The default is the estimator's, so that none is said twice."""
    allowed, text = option.allowed, option.help
    how: dict[str, Any] = {}
    if allowed.form == "flag":
        how["action"] = "store_false" if option.default else "store_true"
    elif allowed.words:
        how["choices"] = allowed.words
        if allowed.form == "flag or value":
            how |= {"nargs": "?", "const": True}
    else:
        how |= {"metavar": allowed.written, "type": argument_type(allowed.read)}
    if allowed.form == "values":
        how["action"] = "append"
        text = f"{text} Repeatable."
    elif allowed.form == "value" and option.default is not None:
        text = f"{text} (default {option.default})"
    return how | {"help": help_text(text)}
