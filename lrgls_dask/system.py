"""`System`: K equations on the same N rows, labelled, checked and not yet read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import xarray as xr
import zarr

from lrgls_dask.checks import made_of, shown, takes
from lrgls_dask.compression.by_pattern import AnyCompressed, CompressedPatterns, compress_shown, merged
from lrgls_dask.compression.compressed import Compressed, compress_rows
from lrgls_dask.compression.parts import compress_by
from lrgls_dask.compression.stored import read_any, write_any
from lrgls_dask.data.arrays import rows_from_arrays
from lrgls_dask.data.framefit import FittedFormulas, check_same_states, read_formulas, write_formulas
from lrgls_dask.data.frames import rows_from_frame
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.places import Location
from lrgls_dask.data.storage import new_store, open_group
from lrgls_dask.data.store import read_system
from lrgls_dask.data.storedlabels import StoredLabels
from lrgls_dask.data.storewriter import rewrites, write_system
from lrgls_dask.data.unwritten import check_written
from lrgls_dask.data.variables import rows_from_xarray
from lrgls_dask.data.zarrio import check_version, read_design, write_design
from lrgls_dask.design.design import Design, Designed
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import Meter

__all__ = [
    "MAKE_ONE",
    "CompressedSystem",
    "System",
    "check_more_rows",
    "complete_only",
    "complete_rows",
    "is_system",
    "misses_responses",
]

COMPLETE_FORMAT, PATTERNS_FORMAT = 1, 2  # of compressed systems; the second where rows miss responses
MAKE_ONE = (
    "Make one with System.from_arrays(Y, X), Y (N, K) and X (N, p) with its constant; System.from_frame(frame, "
    "'y1 + y2 ~ x'); System.from_xarray(ds, y, x); or System.from_zarr(path)"
)


def is_system(data: Any) -> bool:
    """Whether these are rows, compressed or not, with responses, regressors and labels."""
    return isinstance(data, System | CompressedSystem)


@made_of(
    "rows that are compressed",
    f"{MAKE_ONE}, and compress it: system.compress().",
    lambda rows: isinstance(rows, Compressed | CompressedPatterns),
)
@dataclass(frozen=True, eq=False)
class CompressedSystem(Designed):
    """K equations on N rows that have been read once; fits, rank selection and appended rows cost no further read.

    Made by `System.compress`. Holds 8 (q + K)^2 bytes, however many rows it stands for. Where rows miss responses it
    holds as much for every pattern of them, less where a pattern has few rows, and is fitted with missing="em".
    rows : q + K + 1 of them, or those of every pattern.
    read_from : where the rows that were compressed lie, so that nothing is written over them; not saved.
    formulas : by which the columns were made of a frame, None where they were given.
    """

    rows: AnyCompressed
    obs_dim: Hashable = "obs"
    equation_dim: Hashable = "equation"
    read_from: frozenset[Location] = frozenset()
    formulas: FittedFormulas | None = None

    @property
    def design(self) -> Design:
        return self.rows.design

    @property
    def n_obs(self) -> int:
        """N, the rows (of positive weight) it stands for."""
        return self.rows.n_obs

    @property
    def n_patterns(self) -> int:
        """Patterns of missing responses that are kept apart, complete rows among them; 0 where none is missing."""
        return self.rows.n_patterns if isinstance(self.rows, CompressedPatterns) else 0

    def compress(self) -> CompressedSystem:
        """Itself."""
        return self

    @takes("a System or CompressedSystem with the same designs", f"{MAKE_ONE}.", check=is_system)
    def append(self, other: System | CompressedSystem) -> CompressedSystem:
        """The compressed system of these rows and those of `other`, a System (read once) or a compressed one.

        Any number of rows is appended, one or none complete ones too: responses may be missing, in patterns that are
        new. A fit of the sum is that of all rows. Costs O((q + K)^3) for each pattern of both.
        Raises ValueError, naming what differs, for other equations, regressors or designs.
        """
        check_same_states(self.formulas, other.formulas)
        more: CompressedSystem = other.compress()
        return replace(self, rows=merged(self.rows, more.rows), read_from=self.read_from | more.read_from)

    def to_zarr(self, path: Any, *, overwrite: bool = False, storage_options: Mapping[str, Any] | None = None) -> None:
        """Write it to a zarr group, complete or not at all; 8 (q + K)^2 bytes. Days later, append to it and refit.

        Raises FileExistsError where something is at `path`, unless overwrite is True; ValueError where `path` is, holds
        or lies in a store of the rows that were compressed.
        """
        options = None if storage_options is None else dict(storage_options)
        with new_store(path, overwrite=overwrite, storage_options=options, apart_from=self.read_from) as store:
            group = zarr.open_group(store, mode="w", zarr_format=3)
            write_design(group, self.design)
            write_any(group, self.rows)
            group.attrs.update(
                obs_dim=str(self.obs_dim),
                equation_dim=str(self.equation_dim),
                lrgls_compressed_format=PATTERNS_FORMAT if self.n_patterns else COMPLETE_FORMAT,
            )
            write_formulas(group, self.formulas)

    @classmethod
    def from_zarr(cls, path: Any, *, storage_options: Mapping[str, Any] | None = None) -> CompressedSystem:
        """A compressed system as `to_zarr` wrote it, to the last bit."""
        group = open_group(path, None if storage_options is None else dict(storage_options))
        versions = COMPLETE_FORMAT, PATTERNS_FORMAT
        check_version(group, "lrgls_compressed_format", versions, path, "compressed system")
        known: dict[str, Any] = dict(group.attrs)
        rows, formulas = read_any(group, read_design(group)), read_formulas(group)
        return cls(rows, known["obs_dim"], known["equation_dim"], formulas=formulas)

    def __repr__(self) -> str:
        return (
            f"<CompressedSystem of {self.n_equations:,} equations standing for {self.n_obs:,} rows: "
            f"{self.n_regressors:,} distinct regressors, {self.n_coefficients:,} coefficients{self._holes()}>"
        )

    def _holes(self) -> str:
        rows = self.rows
        if not isinstance(rows, CompressedPatterns):
            return ""
        return f"; {rows.n_patterns:,} patterns of missing responses in {rows.n_rows:,} rows, {_size(rows.n_bytes)}"


def complete_only(system: System) -> System:
    """The system without the rows that miss a response."""
    return replace(system, rows=replace(system.rows, complete_only=True))


def complete_rows(system: System | CompressedSystem, missing: str) -> Compressed:
    """The q + K + 1 rows that stand for the rows of a system; a System is read.

    missing : "drop" leaves out rows that miss a response.
    Raises BadValues or ValueError where rows miss responses otherwise.
    """
    if isinstance(system, System):
        rows = complete_only(system).rows if missing == "drop" else system.rows
        return compress_rows(rows, meter=Meter())
    if isinstance(system.rows, Compressed):
        return system.rows
    if missing == "drop":
        return system.rows.complete()
    raise ValueError(f"{misses_responses(system)}, and complete ones are needed. {DROP_OR_EM}.")


DROP_OR_EM = "Fit with missing='em', or with missing='drop', which takes the rows that show every equation"


def misses_responses(system: CompressedSystem) -> str:
    """What a compressed system stands for, where that misses responses, for messages."""
    assert isinstance(system.rows, CompressedPatterns)
    seen = system.rows.cells
    least = int(seen.argmin())
    return (
        f"the compressed system stands for rows that miss responses: equation {system.equations[least]!r} is observed "
        f"in {seen[least]:,} of {system.n_obs:,} rows"
    )


def check_more_rows(system: System | CompressedSystem) -> None:
    """Raise ValueError where there are no more rows than regressors of an equation."""
    sizes = system.design.sizes
    largest = int(sizes.argmax())
    if system.n_obs <= sizes[largest]:
        raise ValueError(
            f"equation {system.equations[largest]!r} has {sizes[largest]} regressors but there are only "
            f"{system.n_obs} rows: the rows must outnumber the regressors. Drop regressors or add rows."
        )


@made_of("rows that it has checked", f"{MAKE_ONE}.", lambda rows: isinstance(rows, Rows))
@dataclass(frozen=True, eq=False, repr=False)
class System(LabelledRows):
    """K regression equations y_j = X_j b_j + e_j on the same N rows; no row has been read.

    Make one with `from_frame`, `from_xarray`, `from_arrays` or `from_zarr`. Everything that can be told from shapes,
    dtypes and labels is checked there; values are checked by the first pass. Costs no pass; memory is that of labels.
    """

    @classmethod
    @takes(
        "a Dataset and the names of responses and regressors in it",
        "Use System.from_xarray(ds, y='returns', x=['const', 'market'], obs='time', equation='firm').",
    )
    def from_xarray(
        cls,
        ds: xr.Dataset | None,
        y: Hashable | xr.DataArray,
        x: Any,
        *,
        obs: Hashable = "obs",
        equation: Hashable = "equation",
        weights: Any = None,
        groups: Hashable | xr.DataArray | None = None,
        strict: bool = False,
    ) -> System:
        """A system from variables of a Dataset, which may be in memory, chunked, or a file opened lazily.

        y : a variable with dims (obs, equation) in any order, or (obs,) for one equation.
        x : a list of variables for every equation, or a mapping equation -> list. Dims (obs,) give one column shared by
        all, (obs, equation) a column of its own to each; one more dim gives several of either kind, named by its
        labels. weights : a variable with dim (obs,), w_i: Cov(e_i) = Sigma / w_i; with dims (obs, equation), w_ij:
        Cov(e_i) = W_i^-1/2 Sigma W_i^-1/2, which makes shared columns each equation's own in all that is summed; or
        (equation,); or a mapping equation -> variable (obs,). A cell of weight zero counts as missing.
        groups : a variable with dim (obs,).
        strict : refuse arrays of zarr whose chunks were not all written, of which there is a warning otherwise; costs a
        listing of their keys, see `lrgls_dask.data.unwritten`.
        DataArrays are taken in place of names, ds may then be None. All row labels must be the same in the same order,
        see `lrgls_dask.data.labels`.

        Raises ValueError or TypeError, before any read, for unknown or duplicate names, dims or labels that do not
        fit, and dtypes that are no real numbers.
        """
        made = rows_from_xarray(ds, y, x, obs=obs, equation=equation, weights=weights, groups=groups)
        return cls._of(made, strict)

    @classmethod
    @takes(
        "responses Y (N, K) and regressors Xs",
        "Use System.from_arrays(Y, X), with one (N, p) for all equations or a list of K; of a frame "
        "System.from_arrays(frame[['y1', 'y2']], frame[['const', 'x1']]).",
    )
    def from_arrays(
        cls,
        Y: Any,
        Xs: Any,
        *,
        incidence: Any = None,
        equations: Iterable[Hashable] | None = None,
        regressors: Iterable[Any] | None = None,
        weights: Any = None,
        groups: Any = None,
        strict: bool = False,
    ) -> System:
        """A system from NumPy, Dask or zarr arrays, pandas or Dask frames or DataArrays; row chunks may differ.

        Y : (N, K), or (N,) for one equation.
        Xs : (N, p) shared by all equations; or (N, q) distinct columns with `incidence`; or (N, K, p), or a list of K
        arrays (N, p_j), where the same array given twice is stored once.
        incidence : (q, K), true where an equation uses a column; an array or scipy sparse.
        equations : K labels.  regressors : names of the columns of Xs; for a list of arrays one list for each, or one
        for all. Frames bring their own labels; the defaults are "y0", ... and "x0", ....
        weights : (N,) or (N, 1) of rows, w_i: Cov(e_i) = Sigma / w_i; (N, K) of cells, w_ij: Cov(e_i) =
        W_i^-1/2 Sigma W_i^-1/2, which makes shared columns each equation's own in all that is summed; (K,) or (1, K) of
        equations; or a mapping equation -> (N,) or a number. A cell of weight zero counts as missing.
        groups : (N,). Rows go by label where anything has labels, see `lrgls_dask.data.labels`.
        strict : refuse zarr arrays whose chunks were not all written, see `lrgls_dask.data.unwritten`.

        Nullable, Arrow and mixed columns and masked arrays are taken as float64, NaN where a value is missing. Of Dask
        frames the index is read, once, which also counts their rows; nothing else is read.

        Raises ValueError or TypeError, before any other read, where shapes, dtypes or labels do not fit.
        """
        made = rows_from_arrays(
            Y,
            Xs,
            incidence=incidence,
            equations=equations,
            regressors=regressors,
            weights=weights,
            groups=groups,
        )
        return cls._of(made, strict)

    @classmethod
    @takes(
        "a frame and the formulas of its equations",
        "Use System.from_frame(frame, 'ret_a + ret_b ~ mkt + smb'); of a long frame System.from_frame(frame, "
        "'invest ~ value + capital', equation='firm', obs='year').",
    )
    def from_frame(
        cls,
        frame: Any,
        formulas: Any,
        *,
        obs: str | None = None,
        equation: str | None = None,
        weights: str | Mapping[Hashable, str] | None = None,
        groups: str | None = None,
        levels: Mapping[str, Sequence[Any]] | None = None,
        missing: Literal["drop", "raise"] = "drop",
    ) -> System:
        """A system from a frame of pandas, polars, Dask, Arrow or DuckDB, by formulas as formulaic has them.

        formulas : wide frames have a column for each response: "ret_a + ret_b ~ mkt + smb", with patterns "{ret_*} ~
        mkt", a list of formulas, or a mapping equation -> formula, where "~ mkt" has the column of its key as response.
        Long ones, a row for each cell, have one formula, or a mapping with "*" for all equations that it does not name.
        The `formulas` of a system or fit are taken with their levels and states, for rows to append to its own.
        Intercepts, categories, interactions, transforms of one row (np.log(x)) or with a state (center, scale, poly,
        bs, cr, cc), C(...) with contrasts, and lag(x, n), n steps earlier of the same equation along obs, NaN where
        that is not there. Columns of equal name, and in long frames those that say the same of all equations in every
        row, are stored once.
        obs : the column of row labels, by default the index of a pandas or Dask frame.  equation : of a long frame, the
        column that says of which equation a row is; rows come in the order of obs, ascending, equations likewise.
        weights : a column; of a wide frame with weights of rows, or a mapping equation -> column with those of cells;
        of a long one with weights of cells.  groups : a column, of a long frame the same for all cells of an obs.
        levels : of categories, column -> list; by default those of a categorical dtype, else all that occur.
        missing : "drop" takes a response as not observed where it, or a regressor of its equation, is missing, and
        leaves out rows that then show none; fit with missing="em" where rows show some. "raise" refuses it.

        A frame in memory is read at once, and so is a long Dask frame, its columns that are named; of a wide one each
        partition in the task that uses it, after a look at indexes, categories and columns with a state, and another
        that tells which rows show a response. What the formulas keep is saved with fits, which predict from frames.
        Raises ValueError or TypeError naming the column for what is missing, unknown, there twice, or no number.
        """
        made = rows_from_frame(
            frame,
            formulas,
            obs=obs,
            equation=equation,
            weights=weights,
            groups=groups,
            levels=levels,
            missing=missing,
        )
        return cls._of(made, strict=False)

    @classmethod
    def from_zarr(cls, path: Any, *, storage_options: Mapping[str, Any] | None = None, strict: bool = False) -> System:
        """A system in a zarr group: format 1, or any with `Y` and `X`, or `Y` and one `X/<equation>` per equation.

        path : a path, an fsspec URL such as s3://..., a zarr store or group.  storage_options : for the URL.
        strict : refuse a store that lacks chunks of rows, of which there is a warning otherwise; costs a listing of
        the keys of arrays whose fill value is not NaN, see `lrgls_dask.data.unwritten`.
        Reads metadata and the labels of equations and regressors; rows and row labels stay on disk.

        Raises FileNotFoundError where nothing is, ValueError for a store of another kind or of a newer format.
        """
        options = None if storage_options is None else dict(storage_options)
        return cls._of(read_system(path, storage_options=options), strict)

    def compress(self, by: Any = None) -> Any:
        """These rows as q + K + 1 equivalent ones: a `CompressedSystem`, or one per label of `by`, in a dict.

        Rows that miss responses are kept by what they show, as many equivalent ones for every pattern; there may be 256
        patterns, and 10,000 where the rows are few. More do not pay and are refused.
        by : (N,) labels of rows (folds, segments, groups), paired with the rows by index where both have one. One pass,
        or a second one by QR where the first shows that digits would be lost; afterwards fits read nothing. Holds
        8 (q + K)^2 bytes per label.

        Raises BadValues for NaN in regressors and infinite values, ValueError for too many patterns and for labels of
        another length or of other rows.
        """
        meter = Meter()
        if by is None:
            return self._compressed(compress_shown(self.rows, meter=meter))
        parts = compress_by(self.rows, self.values_of_rows("by", by), meter=meter)
        return {label: self._compressed(rows) for label, rows in parts.items()}

    @takes("a System or CompressedSystem with the same designs", f"{MAKE_ONE}.", check=is_system)
    def append(self, other: System | CompressedSystem) -> CompressedSystem:
        """The compressed system of these rows and those of `other`; reads once what has not been compressed yet.

        Raises ValueError, naming what differs, for other equations, regressors or designs.
        """
        return self.compress().append(other)

    def to_zarr(
        self,
        path: str | Path | Any,
        *,
        overwrite: bool = False,
        row_chunk: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
        compressors: Any = None,
    ) -> None:
        """Write format 1, which `from_zarr` and plain `xr.open_zarr` open.

        row_chunk : rows per chunk of X and Y, by default about 16 MB of the wider.  compressors : as in zarr; none by
        default, since noise does not compress. Costs one read of every stored chunk and a few blocks of memory.
        The store appears when it is complete; a failure leaves nothing behind, and an old store at a path or URL as it
        was. A store object has no place beside it, so there overwriting clears it first.

        A system opened with `from_zarr` may take the place of its own store, in other chunks, if nothing else is there.

        Raises FileExistsError where something is at `path`, unless it is a zarr store and overwrite is True; ValueError
        where else `path` is, holds or lies in a store that the system reads.
        """
        options = None if storage_options is None else dict(storage_options)
        write_system(
            self,
            path,
            overwrite=overwrite,
            row_chunk=row_chunk,
            storage_options=options,
            compressors=compressors,
            apart_from=() if rewrites(self, path, options) else self.read_from,
        )

    def __repr__(self) -> str:
        unread = self.n_obs * self.rows.row_bytes
        lines = [
            f"<System of {self.n_equations:,} equations on {self.n_obs:,} rows: {self.n_regressors:,} distinct "
            f"regressors, {self.n_coefficients:,} coefficients, {_size(unread)}>",
            f"  {self.equation_dim!s}: {shown(self.equations)}",
            f"  regressors: {shown(self.regressors)}",
        ]
        if isinstance(self.obs_labels, StoredLabels):
            lines.append(f"  {self.obs_dim!s}: labels on disk")
        elif self.obs_labels is not None:
            lines.append(f"  {self.obs_dim!s}: {self.obs_labels[0]} .. {self.obs_labels[-1]}")
        weighted = self.rows.weighted
        if weighted:
            lines.append("  with weights" if weighted == "rows" else f"  with weights of {weighted}")
        if self.groups is not None:
            lines.append("  with groups")
        return "\n".join(lines)

    def _compressed(self, rows: AnyCompressed) -> CompressedSystem:
        return CompressedSystem(rows, self.obs_dim, self.equation_dim, self.read_from, self.formulas)

    @classmethod
    def _of(cls, made: LabelledRows, strict: bool) -> System:
        check_written(made.sources, strict=strict)
        return cls(**{field.name: getattr(made, field.name) for field in fields(made)})


def _size(n_bytes: int) -> str:
    amount = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
