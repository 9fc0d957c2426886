"""`lrgls import`: CSV, Parquet, NetCDF and zarr of other layouts made a store of format 1."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize

from lrgls_dask.cli.arguments import add_memory_limit, add_overwrite, check_output
from lrgls_dask.cli.sources import FORMULA, formulas_of, kind_of, local_files
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.sentinels import suspicious_constants, without_zeros_before_first
from lrgls_dask.data.storage import is_store
from lrgls_dask.data.storepieces import rows_written, write_in_pieces
from lrgls_dask.data.storeplan import plan_store
from lrgls_dask.system import System

__all__ = ["add_import"]

CSV_BLOCK = "4MB"  # of text, of which each thread holds the frame too while labels are looked at
LOOKED_AT = 1_000  # rows of a table that say what its labels are
HOW = "CSV and Parquet files are told by their names (.csv, .parquet), NetCDF by .nc, all else is opened as zarr"


def add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "make a store of CSV or Parquet files, NetCDF, or zarr in another layout"
    more = f"{text}. {HOW}. An import that was killed goes on where it was when it is run again."
    parser = commands.add_parser("import", help=text, description=more)
    parser.add_argument("source", metavar="SOURCE", help="a file, a pattern such as 'data/*.csv', or a folder")
    parser.add_argument("out", metavar="OUT.zarr")
    _add_tables(parser)
    _add_arrays(parser)
    group = parser.add_argument_group("missing values")
    what = "a number or text that stands for a missing value, -999 or . for instance; repeatable"
    group.add_argument("--missing-value", action="append", default=[], metavar="VALUE", help=what)
    what = "a response that is zero in all rows before its first other value is missing there; one more read of them"
    group.add_argument("--zero-before-first", action="store_true", help=what)
    parser.add_argument("--row-chunk", type=int, metavar="N", help="rows per chunk (default: about 16 MB of X and Y)")
    parser.add_argument("--plan", action="store_true", help="say what would be written and needed, and end")
    parser.add_argument("--progress", action="store_true", help="show a bar")
    add_memory_limit(parser, default=None, of="an import")
    add_overwrite(parser)
    parser.set_defaults(run=_import)


def _add_tables(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tables: CSV and Parquet")
    group.add_argument("--formula", action="append", default=[], metavar="FORMULA", help=FORMULA)
    group.add_argument("--obs", metavar="NAME", help="the column, or of arrays the dim, that says which row is which")
    what = (
        "of tables with a row for each cell, which are held in memory, the column that names the equation; of arrays "
    )
    group.add_argument("--equation", metavar="NAME", help=f"{what}their dim, or several with commas between")
    group.add_argument("--one-file-an-equation", action="store_true", help="files are equations, called as the file is")
    group.add_argument("--weights", metavar="NAME", help="a column or variable")
    group.add_argument("--groups", metavar="NAME", help="a column or variable")


def _add_arrays(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("arrays: NetCDF and zarr")
    group.add_argument("--y", metavar="NAME", help="the variable of responses; without it zarr must have Y and X")
    group.add_argument("--x", metavar="NAME,...", help="variables of regressors")


def _import(args: argparse.Namespace) -> None:
    files = _files(args.source)
    if not args.plan:
        check_output(args.out, args.overwrite, files)
    system: LabelledRows = _system(args, files)
    if args.zero_before_first and not args.plan:
        system = without_zeros_before_first(system)
    plan = plan_store(system, args.out, row_chunk=args.row_chunk, memory_limit=args.memory_limit)
    made_of = _made_of(args, files)
    done = rows_written(args.out, made_of)
    print(plan)
    if done:
        print(f"  resumed after {done:,} rows that were written before")
    if args.plan:
        return
    write_in_pieces(system, args.out, made_of, plan, overwrite=args.overwrite, progress=args.progress)
    stored = System.from_zarr(args.out)
    print(f"\n{args.out}: {stored.n_obs:,} rows, {stored.n_equations:,} equations, {stored.n_regressors:,} regressors")
    _report(stored)


def _report(stored: System) -> None:
    """Values that may stand for missing ones, on stderr."""
    for each in suspicious_constants(stored):
        name = stored.column_name(each.array, each.column)
        print(
            f"lrgls: warning: {name} is {each.value:g} in {each.count:,} rows, far from the others ({each.low:g} .. "
            f"{each.high:g}). If that stands for a missing value, import again with --missing-value {each.value:g} "
            "--overwrite.",
            file=sys.stderr,
        )


def _made_of(args: argparse.Namespace, files: Sequence[str]) -> str:
    """Tells an import from all others: what was asked for, and the files as they are."""
    asked = {name: value for name, value in vars(args).items() if isinstance(value, str | int | list | None)}
    asked = {name: value for name, value in asked.items() if name not in ("plan", "progress", "overwrite", "debug")}
    stats = [(name, Path(name).stat().st_size, Path(name).stat().st_mtime_ns) for name in files if Path(name).exists()]
    return str(tokenize(asked | {"memory_limit": None}, stats))


def _files(source: str) -> list[str]:
    """The files of a path, a pattern or a folder of tables. Raises FileNotFoundError where there is none."""
    path = Path(source)
    if path.is_dir() and not is_store(path):
        found = sorted(str(each) for each in path.rglob("*") if kind_of(each) in ("csv", "parquet"))
        if found:
            return found
    found = local_files(source)
    if not found:
        raise FileNotFoundError(f"nothing is at {source}. Check the path.")
    return found


# ---------------------------------------------------------------------------------------------- sources


def _system(args: argparse.Namespace, files: Sequence[str]) -> System:
    kinds = {(kind_of(name) or "zarr") for name in files}
    if len(kinds) > 1:
        raise ValueError(
            f"the files of {args.source} are of several kinds: {', '.join(sorted(kinds))}. Import one kind."
        )
    (kind,) = kinds
    if kind in ("csv", "parquet"):
        return _of_tables(args, files, kind)
    return _of_arrays(args, files, kind)


def _of_tables(args: argparse.Namespace, files: Sequence[str], kind: str) -> System:
    if not args.formula:
        raise ValueError(f"{args.source} is a table: --formula must say which columns are what. Give one, 'y ~ x' say.")
    keys = [each for each in (args.obs, args.equation, args.groups) if each is not None]
    frames = [_without(_read_table(name, kind, args.missing_value, keys), args.missing_value) for name in files]
    equation = args.equation
    if args.one_file_an_equation:
        if args.obs is None:
            raise ValueError(
                "--one-file-an-equation needs --obs, the column by which rows of the files belong together."
            )
        equation = equation or "equation"
        frames = [frame.assign(**{equation: _stem(name)}) for frame, name in zip(frames, files, strict=True)]
    dd = _dask_frames()
    frame = frames[0] if len(frames) == 1 else dd.concat(frames, axis=0, interleave_partitions=False)
    more = {"obs": args.obs, "equation": equation, "weights": args.weights, "groups": args.groups}
    return System.from_frame(frame, formulas_of(args.formula), **more)


def _dask_frames() -> Any:
    try:
        import dask.dataframe as dd
    except ImportError as error:
        raise ImportError("tables are read by dask.dataframe. Install it: pip install 'dask[dataframe]'.") from error
    return dd


def _read_table(name: str, kind: str, missing: Sequence[str], keys: Sequence[str]) -> Any:
    dd = _dask_frames()
    if kind == "parquet":
        return dd.read_parquet(name)
    packed = name.lower().endswith(".gz")
    how: dict[str, Any] = {"na_values": list(missing), "sep": "\t" if ".tsv" in name.lower() else ","}
    first = pd.read_csv(name, nrows=LOOKED_AT, **how)
    for key in {*keys} & {*first.columns}:  # labels stay whole numbers, and become dates where they are
        if first[key].dtype.kind in "iu":
            how.setdefault("dtype", {})[key] = first[key].dtype
        elif first[key].dtype.kind != "f" and _are_dates(first[key]):
            how.setdefault("parse_dates", []).append(key)
    return dd.read_csv(name, blocksize=None if packed else CSV_BLOCK, sample=2**20, assume_missing=True, **how)


def _are_dates(labels: pd.Series) -> bool:
    return bool(pd.to_datetime(labels, format="ISO8601", errors="coerce").notna().all())


def _stem(name: str) -> str:
    return Path(name).name.split(".")[0]


def _numbers(missing: Iterable[str]) -> list[float]:
    found = []
    for text in missing:
        try:
            found.append(float(text))
        except ValueError:
            continue
    return found


def _without(frame: Any, missing: Sequence[str]) -> Any:
    """A Dask frame with nothing in place of the values that stand for it."""
    numbers, texts = _numbers(missing), list(missing)
    if not missing:
        return frame

    def blank(piece: Any) -> Any:
        piece = piece.copy()
        for name in piece.columns:
            column = piece[name]
            if column.dtype.kind in "iuf":
                piece[name] = column.astype("float64").mask(column.isin(numbers))
            elif column.dtype.kind in "OT" or str(column.dtype).startswith("str"):
                piece[name] = column.mask(column.isin(texts))
        return piece

    return frame.map_partitions(blank, meta=blank(frame._meta))


def _of_arrays(args: argparse.Namespace, files: Sequence[str], kind: str) -> System:
    if args.y is None and kind == "zarr":
        if args.missing_value:
            raise ValueError("--missing-value needs --y and --x, the variables it is looked for in. Give both.")
        return System.from_zarr(files[0])
    if args.y is None or args.x is None:
        raise ValueError(f"{args.source} holds arrays: give --y and --x, the variables of responses and regressors.")
    found = [xr.open_zarr(name) if kind == "zarr" else xr.open_dataset(name, chunks={}) for name in files]
    obs = args.obs or str(found[0][args.y].dims[0])
    ds = found[0] if len(found) == 1 else xr.concat(found, dim=obs, data_vars="minimal", coords="minimal")
    names = [*args.x.split(","), args.y]
    numbers = _numbers(args.missing_value)
    if numbers:
        ds = ds.assign({name: ds[name].where(~ds[name].isin(np.array(numbers))) for name in names})
    dims = [dim for dim in ds[args.y].dims if dim != obs]
    equation: Any = args.equation.split(",") if args.equation else [str(dim) for dim in dims] or ["equation"]
    one = equation[0] if len(equation) == 1 else tuple(equation)
    return System.from_xarray(ds, args.y, names[:-1], obs=obs, equation=one, weights=args.weights, groups=args.groups)
