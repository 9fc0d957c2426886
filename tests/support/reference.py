"""The numbers of other programs in `tests/reference`, and systems made of their data."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask import Fit, FitWarning, LowRankGLS, System

REFERENCE = Path(__file__).parents[1] / "reference"
EXACT: dict[str, Any] = {"rel_tol": 1e-15, "max_sweeps": 2000, "d_floor": 1e-10}
JOINT_CASES = [
    "case05a_sim_k1_K6_N300",
    "case05c_sim_k2_K7_N250_scales",
    "case05e_real_holzinger_K8_N301",
    "case05g_sim_heywood_K6_N120",
]
MISSING_CASES = ["case06a_k1_K6_mcar10", "case06c_k1_K6_mar25", "case06e_k1_K6_monotone_emptyrows"]
RANKS = {"diagonal": 0, "factor_k1": 1, "factor_k2": 2}


def load(case: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """What other programs say of a case, and its data."""
    reference = json.loads((REFERENCE / case / "reference.json").read_text())
    return reference, pd.read_csv(REFERENCE / case / reference["data"].split()[0])


def by_linearmodels(case: str) -> dict[str, Any]:
    """The fits of a case by linearmodels."""
    fits: dict[str, Any] = json.loads((REFERENCE / case / "reference_linearmodels.json").read_text())["fits"]
    return fits


def system_of(equations: dict[str, Any], data: pd.DataFrame, outcomes: dict[str, str] | None = None) -> System:
    """One design an equation; "const" is a column of ones, "x^3" a power of x; outcomes may have names of their own."""

    def column(name: str) -> np.ndarray:
        if name == "const":
            return np.ones(len(data))
        base, _, power = name.partition("^")
        return data[base].to_numpy(float) ** int(power or 1)

    names = [[c] if isinstance(c, str) else c for c in equations.values()]
    designs = [np.column_stack([column(c) for c in each]) for each in names]
    Y = data[[(outcomes or {}).get(name, name) for name in equations]].to_numpy(float)
    return System.from_arrays(Y, designs, equations=list(equations), regressors=names)


def joint(case: str, structure: str) -> tuple[dict[str, Any], Fit]:
    """Coefficients and Sigma by joint maximum likelihood: as other programs have them, and as fitted here."""
    reference, data = load(case)
    expected = reference["fits"][structure]
    model = LowRankGLS(RANKS[structure], **EXACT)
    with warnings.catch_warnings():
        if expected.get("heywood"):
            warnings.filterwarnings("ignore", "LowRankGLS: idiosyncratic variance on d_floor", FitWarning)
        return expected, model.fit(system_of(reference["equations"], data)).result_


def apart(got: Fit, expected: dict[str, Any]) -> tuple[float, float]:
    """Largest distances of another program's coefficients, in its observed standard errors, and of its Sigma, in
    standard deviations of the errors."""
    observed = table(expected["se"]["observed"], got)
    coefficients = (got.params.values - table(expected["coefficients"], got)) / observed
    sigma = np.array(expected["sigma"])
    sd = np.sqrt(np.diag(sigma))
    return np.abs(coefficients).max(), np.abs((got.sigma().values - sigma) / np.outer(sd, sd)).max()


def table(values: dict[str, dict[str, float]], fit: Fit) -> np.ndarray:
    """(P,) numbers stored by equation and regressor."""
    pairs = zip(fit.params["equation"].values, fit.params["regressor"].values, strict=True)
    return np.array([values[equation][regressor] for equation, regressor in pairs])
