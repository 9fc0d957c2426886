"""What is asked of rows that were read, or not yet: of a `System` and of a `CompressedSystem` alike."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from lrgls_dask.compression.compressed import Compressed, compress_rows
from lrgls_dask.compression.labelled import CompressedSystem, misses_responses
from lrgls_dask.compression.narrowed import narrowed_compressed
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.design.narrowed import narrowed
from lrgls_dask.design.skipped import status_of, unusable_equations
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.narrowed import narrowed_rows

__all__ = ["absorbed_labels", "check_compressed", "check_more_rows", "complete_only", "complete_rows", "some_equations"]

AnyRows = TypeVar("AnyRows", bound=LabelledRows)
SKIP_OTHERS = ", or use unusable='skip', which fits the other equations"
DROP_OR_EM = "Fit with missing='em', or with missing='drop', which takes the rows that show every equation"


def absorbed_labels(system: LabelledRows | CompressedSystem) -> tuple[Hashable, ...]:
    """Names of the labels whose effects are absorbed."""
    if isinstance(system, LabelledRows):
        return () if system.rows.absorb is None else system.rows.absorb.names
    return () if system.design.absorbed is None else system.design.absorbed.names


def complete_only(system: AnyRows) -> AnyRows:
    """The system without the rows that miss a response."""
    return replace(system, rows=replace(system.rows, complete_only=True))


def complete_rows(system: LabelledRows | CompressedSystem, missing: str) -> Compressed:
    """The q + K + 1 rows that stand for the rows of a system; those of a System are read.

    missing : "drop" leaves out rows that miss a response.
    Raises BadValues or ValueError where rows miss responses otherwise.
    """
    if isinstance(system, LabelledRows):
        rows = complete_only(system).rows if missing == "drop" else system.rows
        return compress_rows(rows, meter=Meter())
    if isinstance(system.rows, Compressed):
        return system.rows
    if missing == "drop":
        return system.rows.complete()
    raise ValueError(f"{misses_responses(system)}, and complete ones are needed. {DROP_OR_EM}.")


def check_compressed(system: CompressedSystem, missing: str, engine: str) -> None:
    """Raise ValueError for options that take rows which a compressed system does not have."""
    if missing == "raise" and system.n_patterns:
        raise ValueError(
            f"{misses_responses(system)}, and missing='raise' takes complete ones. Use missing='em', or "
            "missing='drop', which takes the rows that show every equation."
        )
    if engine == "stream":
        raise ValueError("a compressed system holds no rows to stream. Use engine='compress' or 'auto'.")


def check_more_rows(system: LabelledRows | CompressedSystem, *, of_any: bool = False) -> None:
    """Raise ValueError where there are no more rows than regressors of an equation.

    of_any : whether it is enough that there are of some equation.
    """
    sizes = system.design.sizes
    few = sizes >= system.n_obs
    if not few.any() or (of_any and not few.all()):
        return
    largest = int(sizes.argmax())
    also = ""
    if few.sum() > 1 and not few.all():
        status = [status_of(system.n_obs, int(size)) for size in sizes]
        also = f" This stops {unusable_equations(system.equations, status)}."
    raise ValueError(
        f"equation {system.equations[largest]!r} has {sizes[largest]} regressors but there are only "
        f"{system.n_obs} rows: the rows must outnumber the regressors.{also} Drop regressors or add rows"
        f"{'' if few.all() else SKIP_OTHERS}."
    )


def some_equations(system: LabelledRows | CompressedSystem, equations: np.ndarray) -> Any:
    """The system of the equations at these positions, as if there were no others; nothing is read.

    Of arrays in memory the columns that are left are copied, of others they are chosen as rows are read.
    """
    kept = narrowed(system.design, equations)
    if isinstance(system, LabelledRows):
        return replace(system, rows=narrowed_rows(system.rows, kept))
    return replace(system, rows=narrowed_compressed(system.rows, kept))
