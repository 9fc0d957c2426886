"""Which options of the estimator go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from lrgls_dask.options.covariances import TimeVarying
from lrgls_dask.sigma.interface import SigmaOption

__all__ = ["CHOSEN", "RULES", "Rule", "check_improper", "rules_of"]

CHOSEN = ("bic", "cv", "parallel", "eigenvalue-ratio")  # by what the number of factors is chosen


@dataclass(frozen=True)
class Rule:
    """Where option `where` is one of `these`, option `name` must be one of `only`, by default its default.

    these, only : values, types, or tests of values.
    says : what is wrong and what to do instead, with {given} and {default} for the value of `name` and its default,
    and {other} for the value of `where`.
    """

    where: str
    these: tuple[Any, ...]
    name: str
    says: str
    only: tuple[Any, ...] | None = None

    def check(self, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Raise ValueError where settings, by name, break the rule."""
        other, given, default = settings[self.where], settings[self.name], defaults[self.name]
        if not _is_one(other, self.these) or _is_one(given, (default,) if self.only is None else self.only):
            return
        shown_other = f"{type(other).__name__}(...)" if isinstance(other, OBJECTS) else repr(other)
        raise ValueError(self.says.format(name=self.name, given=repr(given), other=shown_other, default=repr(default)))


def check_improper(settings: Mapping[str, Any]) -> None:
    """Raise ValueError where ranks are to be avoided and there is no choice among them."""
    rank, covariance = settings["rank"], settings["covariance"]
    if settings["improper"] != "avoid" or (isinstance(rank, str) and rank in CHOSEN):
        return
    says = "improper='avoid' chooses among numbers of factors, and "
    if covariance != "lowrank":
        shown = f"{type(covariance).__name__}(...)" if isinstance(covariance, OBJECTS) else repr(covariance)
        raise ValueError(f"{says}with covariance={shown} there is no choice. Drop improper.")
    if settings["ranks"] is None or rank != "auto":
        raise ValueError(f"{says}rank={rank!r} is no choice. Use rank='bic'.")


def rules_of(covariance: Any) -> tuple[Rule, ...]:
    """What a kind of Sigma says of itself: the options it goes with only at some values."""
    if not isinstance(covariance, SigmaOption):
        return ()
    says = "covariance={other} does not go with {name}={given}. "
    return tuple(
        Rule("covariance", (SigmaOption,), name, f"{says}{remedy}.", only)
        for name, (only, remedy) in covariance.takes.items()
    )


def _is_one(value: Any, choices: tuple[Any, ...]) -> bool:
    return any(_is(value, each) for each in choices)


def _is(value: Any, choice: Any) -> bool:
    if isinstance(choice, type):
        return isinstance(value, choice)
    return bool(np.all(choice(value) if callable(choice) else value == choice))


def _by_rows(covariance: Any) -> bool:
    """Whether EM finds the loadings, equation by equation."""
    return isinstance(covariance, SigmaOption) and covariance.by_rows


OBJECTS = (SigmaOption, TimeVarying)
BY_ROWS = ("lowrank", "diagonal", _by_rows)


def _of_missing(name: str, only: tuple[Any, ...], instead: str) -> Rule:
    """What the likelihood of what each row shows goes with."""
    says = f"missing='em' does not go with {{name}}={{given}}. Use {instead}, or missing='drop'."
    return Rule("missing", ("em",), name, says, only)


def _of_rounds(name: str, only: tuple[Any, ...], instead: str = "") -> Rule:
    """What expectation-maximisation goes with, on any rows."""
    says = f"algorithm='em' does not go with {{name}}={{given}}. Use algorithm='als'{instead}."
    return Rule("algorithm", ("em",), name, says, only)


def _of_factors(covariances: tuple[Any, ...], name: str, why: str, only: tuple[Any, ...] | None = None) -> Rule:
    """What only plain factors have is refused where there are none."""
    says = f"covariance={{other}} {why}, so {{name}} must keep its default; got {{given}}. Drop {{name}}, or use "
    return Rule("covariance", covariances, name, says + "covariance='lowrank'.", only)


def _of_segments(name: str) -> Rule:
    """What a fit with a Sigma for each segment does not have."""
    says = "covariance={other} takes no {name}; got {given}. Leave it at {default}."
    return Rule("covariance", (TimeVarying,), name, says)


RULES: tuple[Rule, ...] = (
    _of_missing("debiased", (False,), "debiased=False"),
    _of_missing("sigma_step", ("ml",), "sigma_step='ml'"),
    _of_rounds("covariance", BY_ROWS),
    _of_rounds("debiased", (False,), ", or debiased=False"),
    _of_rounds("sigma_step", ("ml",), ", or leave sigma_step out"),
    Rule(
        "algorithm",
        ("ols",),
        "lam_B",
        "algorithm={other} is least squares, which does not go with {name}={given}. Use algorithm='fgls' or 'als'.",
    ),
    Rule(
        "accelerate",
        (False,),
        "algorithm",
        "accelerate={other} is for algorithm='em'; got {name}={given}. Leave one of them out.",
        ("em",),
    ),
    _of_factors(("full", "diagonal"), "rank", "has no factors", ("auto", 0)),
    _of_factors(("full", "diagonal"), "ranks", "has no factors"),
    _of_factors(("full", "diagonal"), "lam_F", "has no factors"),
    _of_factors(("full", "diagonal"), "sigma_step", "has no factors"),
    *(_of_factors(OBJECTS, name, "says what the factors are") for name in ("rank", "ranks", "lam_F", "sigma_step")),
    Rule(
        "rank",
        (Integral,),
        "ranks",
        "rank={other} is the number of factors, so ranks has nothing to choose; got {given}. Leave one of them out.",
    ),
    Rule(
        "covariance",
        (TimeVarying,),
        "engine",
        "covariance={other} compresses every segment by itself, which engine={given} does not. Use engine='compress' "
        "or 'auto'.",
        ("auto", "compress"),
    ),
    *(_of_segments(name) for name in ("algorithm", "debiased", "checkpoint", "cg_tol", "cg_maxit")),
)
