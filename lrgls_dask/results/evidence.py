"""What statistics of a fit may draw on: compressed rows, sums of a streamed fit, or the cells of rows with holes.

Each answers what it can without a read of the data, and refuses the rest with its own remedy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import zarr

from lrgls_dask.compression.by_pattern import AnyCompressed, CompressedPatterns
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.stored import read_any, read_compressed, write_any, write_compressed
from lrgls_dask.data.zarrio import read_array, write_array
from lrgls_dask.design.design import Design
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.inference import SumsOfSquares, sums_of_squares
from lrgls_dask.results.cov.kind import CovSource
from lrgls_dask.results.cov_source import CellsSource, CompleteSource, OneSigmaFit
from lrgls_dask.results.parts import Estimated, attributes_of, read_fingerprint, write_fingerprint
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.moments import Head
from lrgls_dask.solve.fingerprint import fingerprint_of_compressed
from lrgls_dask.solve.whiten import group_rows, resolution_of

__all__ = ["CellsOfRows", "CompressedRows", "Evidence", "StreamedSums", "read_evidence"]

# What to do where rows are asked for that a fit does not have, unless who asks knows better.
COMPRESS = "which a streamed fit does not keep. Fit with engine='compress'"
DROP = "Fit complete rows only with missing='drop'"
APPENDING = "appending rows to a fit"


class Evidence(ABC):
    """What statistics draw on.

    complete : whether every row shows every equation.  system_measures : why there are no measures of the system, for
    tables; nothing where there are.
    """

    complete: ClassVar[bool] = True
    system_measures: ClassVar[str] = ""

    @property
    def knows_products(self) -> bool:
        """Whether X'X is at hand, or will never be: False where another read of the rows tells what it takes."""
        return True

    @property
    def n_patterns(self) -> int:
        """Patterns of missing responses that were met."""
        return 0

    @abstractmethod
    def cells(self, estimated: Estimated) -> np.ndarray:
        """(K,) rows that show each equation."""

    @abstractmethod
    def x_rows(self, estimated: Estimated) -> np.ndarray:
        """(r, q) with x_rows'x_rows = X'X."""

    @abstractmethod
    def sums(self, estimated: Estimated, restrictions: Restrictions | None) -> SumsOfSquares:
        """Residual and total sums of squares of each equation."""

    @abstractmethod
    def rows_for(self, estimated: Estimated, what: str, *, streamed: str = COMPRESS, holes: str = DROP) -> Compressed:
        """The compressed rows, for `what`.  streamed, holes : why a fit of that kind has none, and what to do then."""

    def kept(self, estimated: Estimated) -> AnyCompressed:
        """The rows that stand for all, to which others may be appended."""
        return self.rows_for(estimated, APPENDING)

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint | None:
        """By which the rows are told from others, in the pass of a statistic; None in files that do not have it."""

    @abstractmethod
    def write(self, group: zarr.Group) -> None:
        """Everything of it."""

    def has_sums(self) -> bool:
        """Whether `sums` has an answer."""
        return True

    def responses(self, design: Design) -> tuple[np.ndarray, np.ndarray] | None:
        """(K,) mean and size of each response, by which fits of other data are told apart; None where not known."""
        return None

    def notes(self, estimated: Estimated) -> list[str]:
        """What tables say of the rows."""
        return []

    @abstractmethod
    def source(self, fit: OneSigmaFit) -> CovSource:
        """What answers the kinds of covariances of the coefficients of a fit with this evidence."""


@dataclass(frozen=True, eq=False)
class CompressedRows(Evidence):
    """The q + K + 1 rows that stand for the data: everything is answered without a read."""

    rows: Compressed

    def cells(self, estimated: Estimated) -> np.ndarray:
        return np.full(estimated.design.n_equations, estimated.n_obs, dtype=np.int64)

    def x_rows(self, estimated: Estimated) -> np.ndarray:
        return self.rows.rows_of_x()

    def sums(self, estimated: Estimated, restrictions: Restrictions | None) -> SumsOfSquares:
        return sums_of_squares(group_rows(self.rows), estimated.coefficients, resolution_of(self.rows), restrictions)

    def rows_for(self, estimated: Estimated, what: str, *, streamed: str = COMPRESS, holes: str = DROP) -> Compressed:
        return self.rows

    def responses(self, design: Design) -> tuple[np.ndarray, np.ndarray] | None:
        q = design.n_regressors
        absorbed = self.rows.design.absorbed
        mean = self.rows.head.mean[q:] if absorbed is None else absorbed.center[q:]
        return mean, np.sqrt(np.mean(self.rows.root[:, q:] ** 2, axis=0)) + np.abs(mean)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return fingerprint_of_compressed([self.rows])

    def write(self, group: zarr.Group) -> None:
        write_compressed(group, self.rows)

    @property
    def head(self) -> Head:
        """Number, weight and mean of the rows."""
        return self.rows.head

    def source(self, fit: OneSigmaFit) -> CovSource:
        return CompleteSource(fit, self)


@dataclass(frozen=True, eq=False)
class StreamedSums(Evidence):
    """What a streamed fit has kept.

    x : (r, q) rows that stand for X, None where there was no memory for them.  squares : of residuals and responses.
    Those and the fingerprint are None in files of earlier versions.
    """

    x: np.ndarray | None
    squares: SumsOfSquares | None
    fingerprint: Fingerprint | None = None
    head: ClassVar[None] = None  # where the rows stand is not kept
    system_measures: ClassVar[str] = "not kept by a streamed fit"

    @property
    def knows_products(self) -> bool:
        return self.x is not None

    def cells(self, estimated: Estimated) -> np.ndarray:
        return np.full(estimated.design.n_equations, estimated.n_obs, dtype=np.int64)

    def x_rows(self, estimated: Estimated) -> np.ndarray:
        if self.x is None:
            raise ValueError(
                "this covariance needs X'X, which this streamed fit had no memory for "
                f"({8e-9 * estimated.design.n_regressors**2:.2f} GB). Fit again with a larger memory_limit."
            )
        return self.x

    def sums(self, estimated: Estimated, restrictions: Restrictions | None) -> SumsOfSquares:
        if self.squares is None:
            raise ValueError("this fit was saved without sums of squares, so it has no R2. Fit again.")
        return self.squares

    def has_sums(self) -> bool:
        return self.squares is not None

    def rows_for(self, estimated: Estimated, what: str, *, streamed: str = COMPRESS, holes: str = DROP) -> Compressed:
        raise ValueError(f"{what} needs the compressed rows, {streamed}.")

    def source(self, fit: OneSigmaFit) -> CovSource:
        return CompleteSource(fit, self)

    def write(self, group: zarr.Group) -> None:
        if self.x is not None:
            write_array(group, "x_rows", self.x, ("x_row", "regressor"))
        _write_squares(group, self.squares)
        write_fingerprint(group, self.fingerprint)


@dataclass(frozen=True, eq=False)
class CellsOfRows(Evidence):
    """Rows that show only some equations: they cannot be stood for by q + K + 1 complete ones.

    shown : (K,) rows that show each equation.  patterns : how many patterns of holes there are.  by_patterns : whether
    the rows of each were compressed; streamed rows may have more patterns than were counted.  fingerprint : None in
    files of earlier versions, and so are squares : of residuals and responses of each equation over its own rows, and
    rows : the few of every pattern, also where rows were streamed or held, or those few are many.
    """

    shown: np.ndarray
    patterns: int
    by_patterns: bool
    fingerprint: Fingerprint | None = None
    squares: SumsOfSquares | None = None
    rows: CompressedPatterns | None = None
    complete: ClassVar[bool] = False
    system_measures: ClassVar[str] = "see mcelroy_r2()"

    def __post_init__(self) -> None:
        self.shown.flags.writeable = False

    @property
    def n_patterns(self) -> int:
        return self.patterns

    def cells(self, estimated: Estimated) -> np.ndarray:
        return self.shown

    def has_sums(self) -> bool:
        return self.squares is not None

    def x_rows(self, estimated: Estimated) -> np.ndarray:
        P = estimated.design.n_coefficients
        why = f"The {8e-9 * P**2:.2f} GB it takes did not fit: fit again with a larger memory_limit, or fewer equations"
        if P > MAX_COEFFICIENTS:
            why = f"It is limited to {MAX_COEFFICIENTS} coefficients, and these are {P}: fit fewer equations"
        raise self._refusal(estimated, "the covariance behind these standard errors", why)

    def sums(self, estimated: Estimated, restrictions: Restrictions | None) -> SumsOfSquares:
        if self.squares is None:
            raise ValueError(
                "R2 of equations with missing responses needs sums of squares, which files of earlier versions do not "
                "keep. Fit again."
            )
        return self.squares

    def rows_for(self, estimated: Estimated, what: str, *, streamed: str = COMPRESS, holes: str = DROP) -> Compressed:
        raise self._refusal(estimated, what, holes)

    def kept(self, estimated: Estimated) -> AnyCompressed:
        if self.rows is None:
            raise ValueError(
                f"{APPENDING} needs the few rows of every pattern of missing responses, which this fit does not keep: "
                f"it met {self.n_patterns:,} patterns or more. Fit all rows again."
            )
        return self.rows

    def notes(self, estimated: Estimated) -> list[str]:
        seen, all_cells = self._counts(estimated)
        atleast = "" if self.by_patterns else "at least "
        return [
            f"Missing responses: {all_cells - seen:,} of {all_cells:,} ({1 - seen / all_cells:.1%}), in "
            f"{atleast}{self.n_patterns:,} patterns; rows that show none are not counted"
        ]

    def source(self, fit: OneSigmaFit) -> CovSource:
        return CellsSource(fit, self.shown, not self.by_patterns, self.fingerprint, self.rows)

    def write(self, group: zarr.Group) -> None:
        write_array(group, "cells", self.shown, ("equation",))
        _write_squares(group, self.squares)
        write_fingerprint(group, self.fingerprint)
        if self.rows is not None:
            write_any(group.create_group("patterns"), self.rows)

    def _counts(self, estimated: Estimated) -> tuple[int, int]:
        return int(self.shown.sum()), estimated.n_obs * estimated.design.n_equations

    def _refusal(self, estimated: Estimated, what: str, remedy: str) -> ValueError:
        seen, all_cells = self._counts(estimated)
        return ValueError(
            f"{what} needs complete rows, and this fit has missing responses ({seen:,} of {all_cells:,} observed). "
            f"{remedy}."
        )


def read_evidence(group: zarr.Group, design: Design) -> Evidence:
    """What a saved fit has kept."""
    if "cells" in group:
        known = attributes_of(group)
        by_patterns = known["engine"] == "compress"
        fingerprint = read_fingerprint(group)
        patterns = known.get("n_patterns", 0)
        kept: Any = group.get("patterns")
        rows = None if kept is None else read_any(kept, design)
        assert not isinstance(rows, Compressed)
        return CellsOfRows(read_array(group, "cells"), patterns, by_patterns, fingerprint, _read_squares(group), rows)
    if "root" in group:
        return CompressedRows(read_compressed(group, design))
    x = read_array(group, "x_rows") if "x_rows" in group else None
    return StreamedSums(x, _read_squares(group), read_fingerprint(group))


def _write_squares(group: zarr.Group, squares: SumsOfSquares | None) -> None:
    if squares is not None:
        for each in fields(SumsOfSquares):
            write_array(group, f"sums_{each.name}", getattr(squares, each.name), ("equation",))


def _read_squares(group: zarr.Group) -> SumsOfSquares | None:
    if "sums_residual" not in group:
        return None
    return SumsOfSquares(**{each.name: read_array(group, f"sums_{each.name}") for each in fields(SumsOfSquares)})
