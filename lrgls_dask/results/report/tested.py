"""The tests that a fit answers without a read and without another fit to its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lrgls_dask.inference import HypothesisTest
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.report.long_tables import p_value
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.tidy import NOT_TO_BE_HAD

__all__ = ["Tested", "tests_of"]

MOST_TERMS = 12
MOST_AT_ONCE = 2_000  # coefficients in a joint test, whose covariance is formed
REFITS = "is not asked here: of rows with missing responses it fits another model, which takes as long as a fit."


@dataclass(frozen=True, eq=False)
class Tested:
    """cells : null hypothesis, statistic with its distribution, p-value."""

    name: str
    cells: tuple[str, str, str]


def tests_of(fit: Reported) -> tuple[list[Tested], list[str]]:
    """What was tested, and why other tests are not there."""
    found: list[Tested] = []
    said: list[str] = []
    for name, null, test in _wanted(fit, said):
        try:
            got = test()
        except NOT_TO_BE_HAD as error:
            said.append(f"{name}: {error}")
            continue
        freedom = f"{got.df:,}" if got.df_denominator is None else f"{got.df:,}, {got.df_denominator:,}"
        cells = null or got.null, f"{got.distribution}({freedom}) = {got.statistic:.6g}", p_value(got.pvalue)
        found.append(Tested(name, cells))
    return found, said


def _wanted(fit: Reported, said: list[str]) -> Iterator[tuple[str, str, Callable[[], HypothesisTest]]]:
    """Name, null hypothesis where the test has none in a few words, and the test."""
    if isinstance(fit, Measures):
        if fit.n_equations > 1:
            yield "Breusch-Pagan", "", fit.breusch_pagan
        for name in ("lr_diagonal", "rank_test"):
            if not fit.evidence.complete:
                said.append(f"{name}() {REFITS}")
            elif fit.rank:
                yield {"lr_diagonal": "Likelihood ratio", "rank_test": "Rank"}[name], "", getattr(fit, name)
    yield from _of_terms(fit, said)


def _of_terms(fit: Reported, said: list[str]) -> Iterator[tuple[str, str, Callable[[], HypothesisTest]]]:
    """That a regressor does nothing in any equation, of those that several have."""
    design = fit.design
    counts = Counter(term for own in design.terms for term in own)
    several = [term for term, count in counts.items() if count > 1 or design.n_equations == 1]
    for term in several[:MOST_TERMS]:
        if counts[term] > MOST_AT_ONCE:
            said.append(f"Wald test of {term} in all {counts[term]:,} equations: more than {MOST_AT_ONCE:,} at once.")
            continue
        places = [int(design.offsets[j]) + own.index(term) for j, own in enumerate(design.terms) if term in own]
        one = f"{counts[term]:,} equations" if counts[term] > 1 else "the equation"
        yield "Wald", f"all coefficients of {term} are zero, in {one}", _joint(fit, places)
    if len(several) > MOST_TERMS:
        said.append(f"Wald tests of the other {len(several) - MOST_TERMS:,} regressors: wald_test('*:name = 0').")


def _joint(fit: Reported, places: list[int]) -> Callable[[], HypothesisTest]:
    """That coefficients are zero.  places : among those that were estimated."""

    def test() -> HypothesisTest:
        there = np.arange(fit.n_coefficients) if fit.skipped is None else fit.skipped.kept.coefficients
        matrix = np.zeros((len(places), fit._whole.n_coefficients))
        matrix[np.arange(len(places)), there[places]] = 1.0
        return fit.wald_test(matrix)

    return test
