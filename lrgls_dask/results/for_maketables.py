"""What `maketables` asks of a model, by which its tables, and those of great_tables, LaTeX and Word, show fits too.

Source: the plug-in format of maketables 0.2, docs/Plugin_Extractor.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lrgls_dask.results.reported import Reported
from lrgls_dask.results.tidy import glance

__all__ = ["LABELS", "coef_table", "coefficient_names", "depvar", "fixef_string", "stat", "vcov_info"]

COLUMNS = {
    "estimate": "b",
    "std_error": "se",
    "statistic": "t",
    "p_value": "p",
    "conf_low": "ci95l",
    "conf_high": "ci95u",
}
STATS = {
    "N": "n_obs",
    "ll": "loglik",
    "aic": "aic",
    "bic": "bic",
    "df_resid": "df_resid",
    "n_equations": "n_equations",
    "rank": "rank",
    "mcelroy_r2": "mcelroy_r2",
    "se_type": "cov_kind",
}
LABELS = {"n_equations": "Equations", "rank": "Factors", "mcelroy_r2": "McElroy R²"}


def coef_table(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """A tidy frame, at level 0.95, as maketables has its columns.  names : of the coefficients."""
    found = frame[list(COLUMNS)].rename(columns=COLUMNS)
    return found.set_axis(pd.Index(names, name="Coefficient"), axis=0)


def coefficient_names(fit: Reported) -> list[str]:
    """ "Telcm, smb" of every coefficient, since a colon is an interaction there; of one equation alone its terms."""
    whole = fit._whole
    if whole.n_equations == 1:
        return [str(term) for term in whole.terms[0]]
    return [f"{name}, {term}" for name, own in zip(whole.equations, whole.terms, strict=True) for term in own]


def stat(fit: Reported, key: str) -> Any:
    """A statistic of the whole fit, None where there is none by that key."""
    return glance(fit)[STATS[key]].item() if key in STATS else None


def depvar(fit: Reported) -> str:
    """What is explained: the one equation, or how many."""
    return str(fit.equations[0]) if fit.n_equations == 1 else f"{fit.n_equations:,} equations"


def vcov_info(fit: Reported) -> dict[str, Any]:
    """Which covariance the errors are of."""
    return {"vcov_type": fit.cov_kind, "clustervar": None}


def fixef_string(fit: Reported) -> str | None:
    """The labels whose effects were absorbed, as formulas have fixed effects."""
    absorbed = fit.design.absorbed
    return None if absorbed is None else "+".join(map(str, absorbed.names))
