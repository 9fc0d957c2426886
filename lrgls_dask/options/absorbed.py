"""What does not go with effects that are absorbed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from lrgls_dask.checks import shown
from lrgls_dask.options.covariances import TimeVarying

__all__ = ["check_goes_with_effects"]


def check_goes_with_effects(settings: Mapping[str, Any], names: tuple[Hashable, ...]) -> None:
    """Raise ValueError where options, by name, ask for what rows without the effects of their groups do not have."""
    if not names:
        return
    covariance, wanted = settings["covariance"], ""
    if settings["missing"] == "em":
        wanted = "compares complete rows within groups, which missing='em' does not take. Use missing='drop'"
    elif settings["rank"] == "cv":
        wanted = "finds effects from all rows, which rank='cv' leaves out by turns. Use rank='bic'"
    elif isinstance(covariance, TimeVarying):
        wanted = f"needs one Sigma for all rows; got {type(covariance).__name__}(...). Use covariance='lowrank'"
    if wanted:
        raise ValueError(
            f"absorb of {shown(names)} {wanted}, or give the groups as columns of 0 and 1 in place of absorb, C(...) "
            "in formulas."
        )
