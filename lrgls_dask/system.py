"""`System`: K equations on the same N rows, labelled, checked and not yet read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from lrgls_dask.checks import made_of, shown, takes
from lrgls_dask.compression.by_pattern import AnyCompressed, compress_shown
from lrgls_dask.compression.compressed import compress_rows
from lrgls_dask.compression.either import absorbed_labels
from lrgls_dask.compression.labelled import MAKE_ONE, CompressedSystem, is_system, misses_responses, size_text
from lrgls_dask.compression.parts import compress_by
from lrgls_dask.data.absorbed import absorbing, labels_by_name, variables_of
from lrgls_dask.data.arrays import rows_from_arrays
from lrgls_dask.data.frames import rows_from_frame
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.marks import Marks
from lrgls_dask.data.parquet import open_parquet
from lrgls_dask.data.sortedcells import Sorting
from lrgls_dask.data.store import read_system
from lrgls_dask.data.storeappend import append_system
from lrgls_dask.data.storedlabels import StoredLabels
from lrgls_dask.data.storeplan import StorePlan, plan_store
from lrgls_dask.data.storewriter import rewrites, write_system
from lrgls_dask.data.unwritten import check_written
from lrgls_dask.data.variables import rows_from_xarray
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.rows import Rows

__all__ = [
    "MAKE_ONE",
    "CompressedSystem",
    "System",
    "is_system",
    "misses_responses",
]


@made_of("rows that it has checked", f"{MAKE_ONE}.", lambda rows: isinstance(rows, Rows))
@dataclass(frozen=True, eq=False, repr=False)
class System(LabelledRows):
    """K regression equations y_j = X_j b_j + e_j on the same N rows; no row has been read.

    Make one with `from_frame`, `from_parquet`, `from_xarray`, `from_arrays` or `from_zarr`. Everything that can be told
    from shapes, dtypes and labels is checked there; values are checked by the first pass. Costs no pass; memory is that
    of labels.
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
        equation: Hashable | Sequence[Hashable] = "equation",
        weights: Any = None,
        groups: Hashable | xr.DataArray | None = None,
        absorb: Hashable | Sequence[Hashable] | None = None,
        constant: bool = False,
        strict: bool = False,
    ) -> System:
        """A system from variables of a Dataset, which may be in memory, chunked, or a file opened lazily.

        y : a variable with dims (obs, equation) in any order, or (obs,) for one equation.
        x : a list of variables for every equation, or a mapping equation -> list. Dims (obs,) give one column shared by
        all, (obs, equation) a column of its own to each; one more dim gives several of either kind, named by its
        labels. weights : a variable with dim (obs,), w_i: Cov(e_i) = Sigma / w_i; with dims (obs, equation), w_ij:
        Cov(e_i) = W_i^-1/2 Sigma W_i^-1/2, which makes shared columns each equation's own in all that is summed; or
        (equation,); or a mapping equation -> variable (obs,). A cell of weight zero counts as missing; the weight of a
        response that is missing is not looked at.
        groups : a variable with dim (obs,).  absorb : one, or a list of such, whose effects are absorbed, see `absorb`.
        constant : True for a regressor "const" of ones in every equation, before the others, which is no variable and
        takes no memory; predictions from a Dataset or frame make it too. Effects that are absorbed are in its place.
        equation : of several dims, ("lat", "lon") say, an equation for every combination, called by a tuple, in a
        mapping x too; variables may have any of these dims, and results come back on them, see `Fit.to_dataset`.
        strict : refuse arrays of zarr whose chunks were not all written, of which there is a warning otherwise; costs a
        listing of their keys, see `lrgls_dask.data.unwritten`.
        DataArrays are taken in place of names, ds may then be None. All row labels must be the same in the same order,
        see `lrgls_dask.data.labels`.

        Raises ValueError or TypeError, before any read, for unknown or duplicate names, dims or labels that do not
        fit, and dtypes that are no real numbers.
        """
        own = constant and absorb is None
        made = rows_from_xarray(ds, y, x, obs=obs, equation=equation, weights=weights, groups=groups, constant=own)
        return cls._of(made if absorb is None else absorbing(made, variables_of(ds, absorb)), strict)

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
        absorb: Any = None,
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
        equations; or a mapping equation -> (N,) or a number. A cell of weight zero counts as missing; the weight of a
        response that is missing is not looked at.
        groups : (N,). Rows go by label where anything has labels, see `lrgls_dask.data.labels`.
        absorb : labels of rows whose effects are absorbed, see `absorb`.
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
        return cls._of(made if absorb is None else absorbing(made, labels_by_name(absorb)), strict)

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
        absorb: str | Sequence[str] | None = None,
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
        absorb : a column, or several, likewise, whose effects are absorbed in place of the intercept, see `absorb`.
        levels : of categories, column -> list; by default those of a categorical dtype, else all that occur.
        missing : "drop" takes a response as not observed where it, or a regressor of its equation, is missing, and
        leaves out rows that then show none; fit with missing="em" where rows show some. "raise" refuses it.

        A frame in memory is read at once, and so is a long Dask frame, its columns that are named; of a wide one each
        partition in the task that uses it, after a look at indexes, categories and columns with a state, one at those
        inside of lag(x, n), of which the ends of partitions are kept, and one that tells which rows show a response.
        What the formulas keep is saved with fits, which predict from frames.
        Raises ValueError or TypeError naming the column for what is missing, unknown, there twice, or no number.
        """
        made = rows_from_frame(
            frame,
            formulas,
            obs=obs,
            equation=equation,
            weights=weights,
            groups=groups,
            absorb=absorb,
            levels=levels,
            missing=missing,
        )
        return cls._of(made, strict=False)

    @classmethod
    @takes(
        "the path of Parquet files and the formulas of their equations",
        "Use System.from_parquet('data/*.parquet', 'ret_a + ret_b ~ mkt + smb').",
    )
    def from_parquet(
        cls,
        path: Any,
        formulas: Any,
        *,
        obs: str | None = None,
        equation: str | None = None,
        weights: str | Mapping[Hashable, str] | None = None,
        groups: str | None = None,
        absorb: str | Sequence[str] | None = None,
        levels: Mapping[str, Sequence[Any]] | None = None,
        missing: Literal["drop", "raise"] = "drop",
        storage_options: Mapping[str, Any] | None = None,
        filesystem: Any = None,
        memory_limit: int | str | None = None,
        temporary_directory: str | PathLike[str] | None = None,
        progress: bool | Callable[[str, int, int], object] = False,
    ) -> System:
        """A system from Parquet files, by formulas, as `from_frame` makes it of the frame that they hold.

        path : a file, a folder with all below it, a pattern such as "data/*.parquet", a list of these, or URLs of
        fsspec such as s3://...; files in natural order, part-2 before part-10. Folders named year=2020 are a column of
        categories.  storage_options : for URLs.  filesystem : of fsspec or pyarrow, in place of that of the URL.
        formulas, obs, equation, weights, groups, absorb, levels, missing : as in `from_frame`. Without obs rows are
        labelled by the index of the frame that pandas wrote, else numbered through.
        memory_limit : bytes or text such as "2GB", by default what is free, for reading and sorting long files.
        temporary_directory : where they are sorted, by default beside them.  progress : of that, True for a bar, or
        show(label, bytes_done, bytes_total).

        Footers are read now, of all files, and say how many rows there are. Of wide files a pass reads each row group
        once, its columns that are named, in the task that uses them; row groups of more than 32 MB, decoded, in
        stretches, which predictions may take in another order and then decode again. Before, a look reads columns of
        categories without levels=, those of obs, groups and absorb, those with a state, those inside of lag(x, n), of
        which the ends of row groups are kept, and with missing="drop" regressors and as many responses as tell which
        rows show one. Needs pyarrow, the extra `parquet`.
        Long files of at most 512 MB, at 48 bytes a cell and column that is named, are read at once; so are larger ones
        for lag(x, n). Others are streamed: the columns of obs and equation are scanned, then all that are named, and
        then a pass reads each row group once, and the beginning of one into which an obs goes on with the piece before.
        Where obs does not ascend from row to row and file to file the cells are sorted first, by DuckDB, the extra
        `duckdb`, within memory_limit; this takes disk of about twice the columns that are named, which is free again
        when the last system and fit of it are gone. Workers of a cluster must see that directory.
        Raises as `from_frame` does, ValueError or TypeError naming file and column where files differ in their columns,
        FileNotFoundError where there is none, MemoryError for long files that the limit is too small for, before they
        are read, ImportError without pyarrow, and for sorting without DuckDB.
        """
        frame = open_parquet(path, storage_options, filesystem)
        made = rows_from_frame(
            frame,
            formulas,
            obs=obs,
            equation=equation,
            weights=weights,
            groups=groups,
            absorb=absorb,
            levels=levels,
            missing=missing,
            sorting=Sorting(memory_limit, temporary_directory, progress),
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

    def absorb(self, labels: Any) -> System:
        """The system with fixed effects of groups of rows, taken out of all columns as these are read; reads labels.

        labels : (N,), such as the firm of each row, paired by label as `groups` are; of several kinds a list of such, a
        frame, or a mapping from names. Every equation has an effect for every group, as it would with a column of 0 and
        1 for each, which this equals to rounding: coefficients, Sigma, likelihood, standard errors and degrees of
        freedom, of which each equation gives up one for every group with rows, less those that the others determine.
        The effects hold the intercept: leave it out, and all that is the same in every row of a group; such a regressor
        is refused by name. `Fit.effects` has what they are.

        Costs of one label nothing but sums of its groups, 8 (q + K) bytes each, in the one pass of a compressed fit,
        and a pass before those of a streamed one; of several a pass before in both. Rows are compared within groups, so
        they must be complete ones: missing="raise" or "drop". A group of one row says nothing of coefficients and is
        counted, see `Fit.summary`.
        Raises ValueError for labels that are missing or of other rows, and for weights of cells or equations.
        """
        return self._of(absorbing(self, labels_by_name(labels)), strict=False)

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
        if self.rows.absorb is not None:
            return self._absorbed(by, meter)
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
        memory_limit: int | str | None = None,
        progress: bool | Callable[[str, int, int], object] = False,
    ) -> None:
        """Write format 1, which `from_zarr` and plain `xr.open_zarr` open.

        row_chunk : rows per chunk of X and Y, by default about 16 MB of both together.  compressors : as in zarr; none
        by default, since noise does not compress. Costs one read of every stored chunk and a few blocks of memory:
        `plan_to_zarr` prices it.  memory_limit : what this process may hold, "1GB" say, by default what is free.
        progress : True for a bar, or show(label, bytes_done, bytes_total).
        The store appears when it is complete; a failure leaves nothing behind, and an old store at a path or URL as it
        was. A store object has no place beside it, so there overwriting clears it first.

        A system opened with `from_zarr` may take the place of its own store, in other chunks, if nothing else is there.

        Raises FileExistsError where something is at `path`, unless it is a zarr store and overwrite is True; ValueError
        where else `path` is, holds or lies in a store that the system reads; MemoryError or OSError, before anything is
        read, where memory or the disk have too little room.
        """
        if self.rows.absorb is not None:
            raise ValueError(
                f"format 1 holds no labels whose effects are absorbed, and this system absorbs "
                f"{shown(absorbed_labels(self))}. Write the system without absorb, and absorb where it is opened: "
                "System.from_zarr(path).absorb(labels)."
            )
        options = None if storage_options is None else dict(storage_options)
        write_system(
            self,
            path,
            overwrite=overwrite,
            row_chunk=row_chunk,
            storage_options=options,
            compressors=compressors,
            memory_limit=memory_limit,
            progress=progress,
            apart_from=() if rewrites(self, path, options) else self.read_from,
        )

    def plan_to_zarr(
        self, path: str | Path | Any = None, *, row_chunk: int | None = None, memory_limit: int | str | None = None
    ) -> StorePlan:
        """What `to_zarr` would write and hold: chunks, bytes of disk, peak memory and its limit; reads nothing."""
        return plan_store(self, path, row_chunk=row_chunk, memory_limit=memory_limit)

    def append_to_zarr(
        self,
        path: str | Path | Any,
        *,
        storage_options: Mapping[str, Any] | None = None,
        memory_limit: int | str | None = None,
        progress: bool | Callable[[str, int, int], object] = False,
    ) -> None:
        """Append these rows to a store that `to_zarr` made; `from_zarr` then has them behind those that were there.

        Equations, regressors and what each equation uses must be those of the store, by label and in its order, and so
        must be what has weights, and whether rows have labels and groups; labels of the store's kind and not there yet.
        Rows of a frame are made for it by its own formulas: System.from_frame(frame, System.from_zarr(path).formulas).
        Formulas and further labels of equations stay the store's. Rows go in chunks of its size: one that was begun
        with few rows has small ones, until System.from_zarr(path).to_zarr(path, overwrite=True) has written it anew.

        memory_limit, progress : as of `to_zarr`. Costs one read of these rows and a few blocks of memory. Of the store
        the last chunk is read, and its row labels unless they ascend and the new ones go on from there. The new rows
        count once all are written: an append that fails or is killed leaves a store that opens as it was, and can be
        run again. Of a local store, another that is appended to at the same time is refused.

        Raises FileNotFoundError where no store is, ValueError naming what differs, and for values that the store's
        dtypes do not hold.
        """
        options = None if storage_options is None else dict(storage_options)
        append_system(self, path, storage_options=options, memory_limit=memory_limit, progress=progress)

    def __repr__(self) -> str:
        unread = self.n_obs * self.rows.row_bytes
        lines = [
            f"<System of {self.n_equations:,} equations on {self.n_obs:,} rows: {self.n_regressors:,} distinct "
            f"regressors, {self.n_coefficients:,} coefficients, {size_text(unread)}>",
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
        if self.rows.absorb is not None:
            lines.append(f"  effects absorbed: {shown(self.rows.absorb.names)}")
        return "\n".join(lines)

    def _absorbed(self, by: Any, meter: Meter) -> CompressedSystem:
        if by is not None:
            raise ValueError(
                f"compress(by=...) keeps rows apart whose effects of {shown(absorbed_labels(self))} are common to "
                "all. Compress without by, or select the rows of each label and absorb the effects of these."
            )
        return self._compressed(compress_rows(self.rows, meter=meter))

    def _compressed(self, rows: AnyCompressed) -> CompressedSystem:
        return CompressedSystem(rows, self.obs_dim, self.equation_dim, self.read_from, self.formulas)

    @classmethod
    def _of(cls, made: LabelledRows, strict: bool) -> System:
        check_written(made.sources, strict=strict)
        marks = made.rows.marks or Marks(made.sources)
        given = {field.name: getattr(made, field.name) for field in fields(made)}
        return cls(**given | {"rows": replace(made.rows, marks=marks)})
