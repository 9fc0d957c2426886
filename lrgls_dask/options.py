"""Sigma that varies, and which options of the estimator go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lrgls_dask.checks import as_number, check_factors
from lrgls_dask.sigma.interface import SigmaOption

__all__ = [
    "CG_MAXIT",
    "TimeVarying",
    "check_goes_together",
    "check_varying",
]


@dataclass(frozen=True)
class TimeVarying:
    """Sigma_t = F_t F_t' + diag(d_t), one for each segment of rows from its neighbours; common coefficients.

    rank : number of factors.
    segments : (N,) labels of the rows, in order, each the segment of its row: an array, a Series or a DataArray along
        the rows such as ds["time"].dt.year; or the name of the dim of rows, "time", or of a part of its dates,
        "time.year"; or "groups" for those of the System.
    bandwidth : how many segments away a neighbour still counts, with weight 1 - (distance / bandwidth)^2. 0 keeps
        segments apart (and so does 1), infinity is the static fit, "cv" chooses by the likelihood of segments left out
        of their own Sigma_t: `fit.selection` has all that were tried.

    Raises TypeError or ValueError for other ranks and bandwidths; the labels are checked by `fit`.
    """

    rank: int
    segments: Any = field(repr=False)
    bandwidth: float | Literal["cv"] = "cv"

    def __post_init__(self) -> None:
        check_factors("rank", self.rank, least=0)
        if isinstance(self.bandwidth, str):
            if self.bandwidth != "cv":
                raise ValueError(f"bandwidth must be a number of segments or 'cv'; got {self.bandwidth!r}.")
        elif not as_number("bandwidth", self.bandwidth, "a number of segments or 'cv'") >= 0:
            raise ValueError(f"bandwidth must be 0 or more, in segments; got {self.bandwidth!r}.")


def _by_rows(covariance: Any) -> bool:
    return isinstance(covariance, SigmaOption) and covariance.by_rows


# What missing="em" does not go with, by parameter: the values that do, or a test of them, and what to do instead.
ALLOWED: dict[str, tuple[tuple[Any, ...], str]] = {
    "covariance": (
        ("lowrank", "diagonal", _by_rows),
        "Use covariance='lowrank' or GroupedLowRank(...), or missing='drop'",
    ),
    "algorithm": (("als", "em"), "Use algorithm='als' or 'em', or missing='drop'"),
    "debiased": ((False,), "Use debiased=False, or missing='drop'"),
    "sigma_step": (("ml",), "Use sigma_step='ml', or missing='drop'"),
}


# And algorithm="em", on any rows.
ALLOWED_BY_ROUNDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "covariance": (("lowrank", "diagonal", _by_rows), "Use algorithm='als'"),
    "debiased": ((False,), "Use algorithm='als', or debiased=False"),
    "sigma_step": (("ml",), "Use algorithm='als', or leave sigma_step out"),
}


def check_goes_together(settings: dict[str, Any]) -> None:
    """Raise ValueError for parameters of the estimator that missing="em" or algorithm="em" do not go with."""
    if isinstance(settings["covariance"], SigmaOption):
        _check_taken(settings["covariance"], settings)
    if settings["missing"] == "em":
        _check("missing", ALLOWED, settings)
        if settings["rank"] == "cv":
            raise ValueError("missing='em' does not go with rank='cv'. Use rank='bic', or missing='drop'.")
    if settings["algorithm"] == "em":
        _check("algorithm", ALLOWED_BY_ROUNDS, settings)
    elif not settings["accelerate"]:
        raise ValueError(
            f"accelerate=False is for algorithm='em'; got algorithm={settings['algorithm']!r}. Leave one of them out."
        )


def _check(what: str, table: dict[str, tuple[tuple[Any, ...], str]], settings: dict[str, Any]) -> None:
    for name, (allowed, remedy) in table.items():
        value = settings[name]
        if not any(_is(value, choice) for choice in allowed):
            raise ValueError(f"{what}='em' does not go with {name}={value!r}. {remedy}.")


def _check_taken(option: SigmaOption, settings: dict[str, Any]) -> None:
    for name, (allowed, remedy) in option.takes.items():
        if not any(_is(settings[name], choice) for choice in allowed):
            raise ValueError(
                f"covariance={type(option).__name__}(...) does not go with {name}={settings[name]!r}. {remedy}."
            )


def _is(value: Any, choice: Any) -> bool:
    if callable(choice):
        return bool(choice(value))
    return value is choice or (isinstance(choice, str) and isinstance(value, str) and value == choice)


def check_varying(
    engine: str, algorithm: str, debiased: bool, checkpoint: Any, cg_tol: float | None, cg_maxit: int
) -> None:
    """Raise ValueError for options of the estimator that a fit with a Sigma for each segment does not have."""
    if engine == "stream":
        raise ValueError(
            "covariance=TimeVarying(...) compresses every segment by itself, which engine='stream' does not. Use "
            "engine='compress' or 'auto'."
        )
    given = (
        ("algorithm", algorithm, "als"),
        ("debiased", debiased, False),
        ("checkpoint", checkpoint, None),
        ("cg_tol", cg_tol, None),
        ("cg_maxit", cg_maxit, CG_MAXIT),
    )
    for name, value, default in given:
        if value is not default and value != default:
            raise ValueError(f"covariance=TimeVarying(...) takes no {name}; got {value!r}. Leave it at {default!r}.")


CG_MAXIT = 500
