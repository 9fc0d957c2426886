"""Options that do not go together are refused, and what the message says to do instead is accepted."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import pytest

from lrgls_dask import GroupedLowRank, LowRankGLS, SparseLowRank, TimeVarying
from lrgls_dask.options import OPTIONS
from lrgls_dask.options.rules import RULES, Rule
from lrgls_dask.sigma.interface import SigmaOption

OBJECTS: dict[Any, Any] = {SigmaOption: SparseLowRank(2), TimeVarying: TimeVarying(1, "time.year"), Integral: 2}
# For each option a value that some rule forbids.
FORBIDDEN = {
    "covariance": TimeVarying(1, "time.year"),
    "algorithm": "fgls",
    "debiased": True,
    "sigma_step": "pca",
    "rank": "cv",
    "ranks": [1, 2],
    "lam_F": 0.5,
    "lam_B": 2.0,
    "engine": "stream",
    "checkpoint": "kept.zarr",
    "cg_tol": 1e-9,
    "cg_maxit": 20,
}


def broken() -> list[tuple[Rule, dict[str, Any]]]:
    """Each rule with settings that break it, for each value that calls it."""
    cases = []
    for rule in RULES:
        for value in rule.these:
            settings = {rule.where: OBJECTS.get(value, value) if isinstance(value, type) else value}
            if rule.where != "accelerate":  # which is broken by the default of the other
                settings[rule.name] = FORBIDDEN[rule.name]
            cases.append((rule, settings))
    return cases


@pytest.mark.parametrize(("rule", "settings"), broken(), ids=lambda each: getattr(each, "name", str(each)))
def test_what_does_not_go_together_is_refused_with_a_way_out(rule: Rule, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rule.name) as caught:
        LowRankGLS(**settings)
    message = str(caught.value)
    value = settings.get(rule.name, OPTIONS[rule.name].default)
    assert repr(value) in message
    ways = list(ways_out(message, rule, settings))
    assert ways
    for way in ways:
        LowRankGLS(**way)


def ways_out(message: str, rule: Rule, settings: dict[str, Any]) -> Any:
    """The settings with each advice of the message followed."""
    advice = re.findall(r"(?:Use|Drop|Leave) .*$", message)[0]
    for name, value in re.findall(r"(\w+)=('[^']*'|True|False)", advice):
        yield settings | {name: ast.literal_eval(value)}
    if "GroupedLowRank(...)" in advice:
        yield settings | {"covariance": GroupedLowRank(1, "sector")}
    for name in re.findall(r"Drop (\w+)|leave (\w+) out", advice):
        yield {key: value for key, value in settings.items() if key not in name}
    if found := re.match(r"Leave it at (.*)\.$", advice):
        yield settings | {rule.name: ast.literal_eval(found[1])}
    if advice == "Leave one of them out.":
        yield {key: value for key, value in settings.items() if key != rule.where}


@dataclass(frozen=True)
class Choosy(SparseLowRank):
    """A kind of Sigma that says itself what it goes with."""

    takes: ClassVar[Any] = {"algorithm": (("als",), "Leave algorithm out"), "lam_B": ((0.0,), "Use lam_B=0")}


def test_a_kind_of_sigma_says_what_it_goes_with() -> None:
    LowRankGLS(covariance=Choosy(1))
    for options, said in (
        ({"algorithm": "fgls"}, "algorithm='fgls'. Leave algorithm out."),
        ({"lam_B": 2}, "lam_B=2. Us"),
    ):
        with pytest.raises(ValueError, match=rf"covariance=Choosy\(\.\.\.\) does not go with {re.escape(said)}"):
            LowRankGLS(covariance=Choosy(1), **options)


TOGETHER: tuple[dict[str, Any], ...] = (
    {
        "missing": "em",
        "algorithm": "em",
        "accelerate": False,
        "covariance": GroupedLowRank(1, "sector"),
        "checkpoint": "kept",
    },
    {"rank": "bic", "missing": "em", "lam_F": 0.1, "engine": "stream"},
    {"rank": 0, "covariance": "diagonal", "algorithm": "em", "missing": "drop"},
    {
        "covariance": TimeVarying(1, "time"),
        "missing": "drop",
        "engine": "compress",
        "lam_B": 1.0,
        "restrictions": "a:x = 0",
    },
    {"covariance": SparseLowRank(1), "algorithm": "fgls", "debiased": True, "checkpoint": "kept", "cg_maxit": 20},
)


@pytest.mark.parametrize("options", TOGETHER, ids=lambda options: "-".join(options))
def test_all_other_pairs_of_names_go_together(options: dict[str, Any]) -> None:
    assert LowRankGLS(**options).get_params().items() >= options.items()
