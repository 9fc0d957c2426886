"""The rows with holes that a bootstrap draws again: patterns of them, the rows themselves, or streamed."""

from __future__ import annotations

from lrgls_dask.compression.by_pattern import AnyCompressed, CompressedPatterns
from lrgls_dask.compression.patterns import are_few, first_pass
from lrgls_dask.compression.shown_parts import SeenRows
from lrgls_dask.prediction.fitted import check_same_design
from lrgls_dask.prediction.skipped import as_estimated
from lrgls_dask.results.cov_source import CellsSource
from lrgls_dask.results.evidence import CellsOfRows
from lrgls_dask.results.measures import Measures
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.rows import Rows
from lrgls_dask.system import CompressedSystem, System

__all__ = ["are_streamed", "seen_rows"]


def are_streamed(fit: Measures, rows: Rows) -> bool:
    """Whether rows with holes are neither held nor taken together by patterns; a pass, where the fit does not tell."""
    if are_few(rows):
        return False
    evidence = fit.evidence
    if isinstance(evidence, CellsOfRows):
        return not evidence.by_patterns
    return first_pass(rows, meter=Meter()).patterns is None


def seen_rows(fit: Measures, system: System | CompressedSystem | None) -> SeenRows | Rows:
    """What a first pass finds in the rows, patterns or the rows themselves; read once unless the fit keeps them. The
    rows where these are neither few nor of few patterns."""
    source = fit._source
    assert isinstance(source, CellsSource)
    rows: Rows | AnyCompressed | None = source.kept
    if system is not None or rows is None:
        system = fit.system if system is None else system
        if system is None:
            raise ValueError(
                "bootstrap draws at the holes of the fitted rows, which a fit opened from a file holds only where they "
                "were compressed by few patterns. Pass system=..., the System that was fitted."
            )
        seen: System | CompressedSystem = as_estimated(system, fit.skipped)
        check_same_design(seen.design, fit.design)
        rows = seen.rows
    if not isinstance(rows, Rows):
        rows = CompressedPatterns.of(rows)
        return SeenRows(rows.design, rows.varying_weights, rows.first())
    first = first_pass(rows, meter=Meter())
    if first.patterns is None and not first.rows:
        return rows
    return SeenRows(rows.design, rows.varying_weights, first)
