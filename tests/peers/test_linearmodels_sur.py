"""linearmodels' own tests of SUR, run on this package: what fails is listed, each with its reason.

linearmodels' wheel carries its tests; none of their code is here. They run in a process of their own, in which
`as_linearmodels` stands for `linearmodels.SUR`. A test that fails and is not listed fails here, and so does one that is
listed and passes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import lrgls_dask

MODULES = ["test_sur", "test_sur_against_stata", "test_nobs", "test_formula_missing"]
NOT_SUR = "not IV3SLS and not GMM"

WORDS = "refused in words of our own, which a regular expression for linearmodels' does not match"
ABOUT = (
    "Breusch and Pagan's correlations are about zero, of OLS residuals; linearmodels' of scaled ones about their mean"
)
FAILS = {
    "test_sur.py::test_errors": WORDS,
    "test_sur.py::test_unknown_method": WORDS,
    "test_sur.py::test_invalid_kernel_options?*": WORDS,
    "test_sur.py::test_brequsch_pagan?3]": "the test is of OLS residuals, as Breusch and Pagan have it",
    "test_sur.py::test_weighted_residual_correlation_tests?*": ABOUT,
    "test_sur.py::test_likelihood_ratio?3]": "refused for one-step fits, which are at no maximum of the likelihood",
}


def outcomes(report: Path) -> dict[str, dict[str, Any]]:
    """By the name of each test what became of it, whether we fitted in it, and why it failed."""
    pytest.importorskip("linearmodels")
    root, here = Path(lrgls_dask.__file__).parents[1], Path(__file__).parents[1]
    environment = {**os.environ, "LRGLS_PEERS_REPORT": str(report), "PYTHONPATH": f"{root}{os.pathsep}{here}"}
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(report.parent)]
    command += ["-p", "no:cacheprovider", "-p", "peers.as_linearmodels", "-k", NOT_SUR, "--pyargs"]
    command += [f"linearmodels.tests.system.{module}" for module in MODULES]
    ran = subprocess.run(command, env=environment, cwd=report.parent, capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stdout[-2000:] + ran.stderr[-2000:]
    return {line["test"]: line for line in map(json.loads, report.read_text(encoding="utf-8").splitlines())}


@pytest.mark.slow
def test_what_fails_of_linearmodels_own_tests_is_known(tmp_path: Path) -> None:
    found = outcomes(tmp_path / "outcomes.jsonl")
    print(Counter((each["outcome"], "fitted by us" if each["fits"] else "no fit") for each in found.values()))
    assert len(found) > 800
    assert sum(each["fits"] > 0 for each in found.values()) > 300
    listed = {name: [pattern for pattern in FAILS if fnmatchcase(name, pattern)] for name in found}
    failed = {name for name, each in found.items() if each["outcome"] == "failed"}
    assert {name: found[name]["why"] for name in sorted(failed) if not listed[name]} == {}
    assert {name: listed[name] for name in sorted(found) if listed[name] and name not in failed} == {}
    assert set(FAILS) <= {pattern for patterns in listed.values() for pattern in patterns}
