"""`lrgls import`: CSV, Parquet, NetCDF and zarr of other layouts made a store of format 1."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import xarray as xr
from dask.base import tokenize

from lrgls_dask.cli.arguments import add_memory_limit, add_overwrite, check_output
from lrgls_dask.cli.sources import FORMULA, files_at, formulas_of, kind_of
from lrgls_dask.data.framefit import FittedFormulas
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.sentinels import suspicious_constants, without_zeros_before_first
from lrgls_dask.data.storeappend import append_system
from lrgls_dask.data.storepieces import rows_written, write_in_pieces
from lrgls_dask.data.storeplan import plan_store
from lrgls_dask.data.tablefiles import TableFiles
from lrgls_dask.data.tablesaside import Aside, NotSorted, as_parquet, fetched, merged_by_obs
from lrgls_dask.system import System

__all__ = ["add_import"]

ONE_FILE = "files are equations, called as the file is; in bounded memory where each is sorted by --obs"
HOW = "CSV and Parquet files are told by their names (.csv, .parquet), NetCDF by .nc, all else is opened as zarr. "
HOW += "CSV, files of equations and --missing-value make Parquet files aside, and NetCDF at a URL is fetched there, "
HOW += "gone in the end"


def add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "make a store of CSV or Parquet files, NetCDF, or zarr in another layout"
    more = f"{text}. {HOW}. An import that was killed goes on where it was when it is run again."
    parser = commands.add_parser("import", help=text, description=more)
    parser.add_argument("source", metavar="SOURCE", help="a file, a pattern such as 'data/*.csv', a folder, or a URL")
    parser.add_argument("out", metavar="OUT.zarr", help="a path or a URL such as s3://...")
    _add_tables(parser)
    _add_arrays(parser)
    group = parser.add_argument_group("missing values")
    what = "a number or text that stands for a missing value, -999 or . for instance; repeatable"
    group.add_argument("--missing-value", action="append", default=[], metavar="VALUE", help=what)
    what = "a response that is zero in all rows before its first other value is missing there; one more read of them"
    group.add_argument("--zero-before-first", action="store_true", help=what)
    what = "put the rows behind those of the store OUT.zarr, all of them or none; tables are read by its own formulas"
    parser.add_argument("--append", action="store_true", help=what)
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
    what = "of tables with a row for each cell the column that names the equation; of arrays "
    group.add_argument("--equation", metavar="NAME", help=f"{what}their dim, or several with commas between")
    group.add_argument("--one-file-an-equation", action="store_true", help=ONE_FILE)
    group.add_argument("--weights", metavar="NAME", help="a column or variable")
    group.add_argument("--groups", metavar="NAME", help="a column or variable")


def _add_arrays(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("arrays: NetCDF and zarr")
    group.add_argument("--y", metavar="NAME", help="the variable of responses; without it zarr must have Y and X")
    group.add_argument("--x", metavar="NAME,...", help="variables of regressors")
    group.add_argument("--constant", action="store_true", help="a regressor 'const' of ones in every equation besides")


def _import(args: argparse.Namespace) -> None:
    files = files_at(args.source)
    if args.append and (args.overwrite or args.formula):
        given = "--overwrite replaces the store" if args.overwrite else "--formula is of a new one"
        raise ValueError(f"--append goes on with the store {args.out}, but {given}. Leave one of them out.")
    if not args.plan:
        check_output(args.out, args.overwrite or args.append, files)
    made_of = _made_of(args, files)
    aside = Aside(args.out, made_of)
    try:
        _import_of(args, files, made_of, aside)
    except Exception:
        if not rows_written(args.out, made_of):  # nothing that could be gone on with
            aside.remove()
        raise
    if not (args.plan and rows_written(args.out, made_of)):
        aside.remove()


def _import_of(args: argparse.Namespace, files: Sequence[str], made_of: str, aside: Aside) -> None:
    system: LabelledRows = _system(args, files, aside)
    if args.zero_before_first and not args.plan:
        system = without_zeros_before_first(system)
    plan = plan_store(system, args.out, row_chunk=args.row_chunk, memory_limit=args.memory_limit)
    done = rows_written(args.out, made_of)
    print(plan)
    if done:
        print(f"  resumed after {done:,} rows that were written before")
    if args.plan:
        return
    if args.append:
        append_system(system, args.out, memory_limit=args.memory_limit, progress=args.progress)
    else:
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
    return str(tokenize(asked | {"memory_limit": None}, [_state(name) for name in files]))


def _state(name: str) -> tuple[str, ...]:
    """What tells a file from one that was written since."""
    filesystem, root = fsspec.core.url_to_fs(name)
    known = filesystem.info(root)
    return name, *(str(known.get(each)) for each in ("size", "mtime", "LastModified", "ETag"))


# ---------------------------------------------------------------------------------------------- sources


def _system(args: argparse.Namespace, files: Sequence[str], aside: Aside) -> System:
    kinds = {(kind_of(name) or "zarr") for name in files}
    if len(kinds) > 1:
        raise ValueError(
            f"the files of {args.source} are of several kinds: {', '.join(sorted(kinds))}. Import one kind."
        )
    (kind,) = kinds
    if kind in ("csv", "parquet"):
        return _of_tables(args, files, kind, aside)
    return _of_arrays(args, files if kind == "zarr" else fetched(files, aside), kind)


def _of_tables(args: argparse.Namespace, files: Sequence[str], kind: str, aside: Aside) -> System:
    formulas = _formulas_of_store(args.out) if args.append else formulas_of(args.formula)
    if not formulas:
        raise ValueError(f"{args.source} is a table: --formula must say which columns are what. Give one, 'y ~ x' say.")
    obs, equation = args.obs, args.equation
    if isinstance(formulas, FittedFormulas):
        obs, equation = obs or formulas.obs, equation or formulas.equation
    keys = [obs, equation, args.groups]
    tables = TableFiles(tuple(files), kind, tuple(name for name in keys if name is not None), tuple(args.missing_value))
    path = args.source
    if args.one_file_an_equation:
        if obs is None:
            raise ValueError(
                "--one-file-an-equation needs --obs, the column by which rows of the files belong together."
            )
        equation = equation or "equation"
        path = _one_table(tables, aside, obs, (equation, list(map(_stem, files))), args.progress)
    elif kind == "csv" or args.missing_value:
        path = as_parquet(tables, aside.folder(), progress=args.progress)
    made: System = System.from_parquet(
        path,
        formulas,
        obs=obs,
        equation=equation,
        weights=args.weights,
        groups=args.groups,
        memory_limit=args.memory_limit,
    )
    return made


def _formulas_of_store(path: str) -> FittedFormulas:
    found: FittedFormulas | None = System.from_zarr(path).formulas
    if found is None:
        raise ValueError(
            f"{path} was not made by formulas, by which tables that are appended are read. Use "
            "System.from_arrays(...).append_to_zarr(path), or import all rows with --formula."
        )
    return found


def _one_table(tables: TableFiles, aside: Aside, obs: str, equation: tuple[str, list[str]], progress: bool) -> str:
    """Files of an equation each as one table, in the order of obs where each of them is."""
    try:
        return merged_by_obs(tables, aside.folder(), obs, equation, progress=progress)
    except NotSorted as error:
        print(
            f"lrgls: warning: {error}, so that cells of all files are sorted, which takes more memory.", file=sys.stderr
        )
        aside.remove()
        return as_parquet(tables, aside.folder(), equation=equation, progress=progress)


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
    how: dict[str, Any] = {"weights": args.weights, "groups": args.groups, "constant": args.constant}
    return System.from_xarray(ds, args.y, names[:-1], obs=obs, equation=one, **how)
