"""What commands read: which kind of files these are, and the system of a store, or of Parquet files by formulas."""

from __future__ import annotations

import argparse
import glob
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec

from lrgls_dask.data.framefit import FittedFormulas
from lrgls_dask.data.storage import is_store, is_store_at
from lrgls_dask.system import System

__all__ = [
    "FORMULA",
    "add_data",
    "files_at",
    "formulas_of",
    "kind_of",
    "local_files",
    "new_rows",
    "parquet_read_by",
    "system_of",
]

TABLES = {".csv": "csv", ".csv.gz": "csv", ".tsv": "csv", ".txt": "csv"}
TABLES |= {".parquet": "parquet", ".parq": "parquet", ".pq": "parquet"}
ARRAYS = {".nc": "netcdf", ".nc4": "netcdf", ".h5": "netcdf", ".zarr": "zarr"}
CALLED = {"csv": "CSV", "netcdf": "NetCDF"}
OF_TABLES = ("formula", "obs", "equation", "weights", "obs_groups")
FORMULA = "as of System.from_frame, such as 'y1 + y2 ~ x1'; of one equation also 'name: y ~ x'; repeatable"


def kind_of(path: str | Path) -> str | None:
    """ "csv", "parquet", "netcdf" or "zarr", by the name, and of a folder by what is in it; None where nothing says."""
    name = str(path).lower().rstrip("/")
    by_name = next((kind for end, kind in (TABLES | ARRAYS).items() if name.endswith(end)), None)
    folder = Path(path)
    if by_name is not None or not folder.is_dir():
        return by_name
    if is_store(folder):
        return "zarr"
    found = {kind_of(each) for each in folder.rglob("*") if each.is_file()}
    return next((kind for kind in ("parquet", "csv") if kind in found), None)


def local_files(source: str) -> list[str]:
    """The paths that a pattern stands for, or else the one that it is; a URL as it is."""
    if "://" in source or Path(source).exists():
        return [source]
    return sorted(glob.glob(source, recursive=True))


def files_at(source: str) -> list[str]:
    """The files of tables in a folder, those of a pattern, or else the path or URL itself.

    Raises FileNotFoundError where there is none.
    """
    filesystem, root = fsspec.core.url_to_fs(source)
    remote = "://" in source
    found = [source] if filesystem.exists(root) else sorted(filesystem.glob(root) if remote else local_files(source))
    if found == [source] and filesystem.isdir(root) and not is_store_at(source):
        tables = sorted(each for each in filesystem.find(root) if kind_of(each) in ("csv", "parquet"))
        found = tables if remote else [str(Path(source) / Path(each).relative_to(root)) for each in tables]
        found = found or [source]
    if not found:
        raise FileNotFoundError(f"nothing is at {source}. Check the path.")
    return [each if "://" in each or not remote else filesystem.unstrip_protocol(each) for each in found]


def formulas_of(given: Sequence[str]) -> Any:
    """One formula, a list, or equations by name."""
    named = {left.strip(): right.strip() for left, colon, right in (each.partition(": ") for each in given) if colon}
    if named and len(named) < len(given):
        raise ValueError("either every --formula has the name of its equation before a colon, or none has.")
    return named or (given[0] if len(given) == 1 else list(given))


# ---------------------------------------------------------------------------------------------- fit and plan


def add_data(parser: argparse.ArgumentParser) -> None:
    """A store, or Parquet files and how their columns are read; what is absorbed of either."""
    what = "a store of format 1, or Parquet: files, a folder, a pattern such as 'data/*.parquet', or URLs"
    parser.add_argument("data", nargs="+", metavar="DATA", help=what)
    group = parser.add_argument_group("Parquet files; a store has all this")
    group.add_argument("--formula", action="append", default=[], metavar="FORMULA", help=FORMULA)
    group.add_argument("--obs", metavar="NAME", help="the column that says which row is which")
    what = "of files with a row for each cell, the column that names the equation"
    group.add_argument("--equation", metavar="NAME", help=what)
    group.add_argument("--weights", metavar="NAME", help="a column")
    group.add_argument("--obs-groups", metavar="NAME", help="a column of the groups of rows that --cov cluster takes")
    what = (
        "columns whose effects are absorbed in place of the intercept; of a store 'groups', or the name of its rows' "
    )
    what += "labels or a part of their dates, time.year for instance"
    parser.add_argument("--absorb", action="extend", nargs="+", default=[], metavar="NAME", help=what)


def system_of(args: argparse.Namespace, *, priced: bool = False) -> System:
    """The system of what `add_data` took.

    priced : whether it is only to be priced: then wide Parquet files are taken as if they missed nothing, which their
    footers tell, and labels of rows are read only where those of columns in formulas depend on them.
    """
    kinds = {kind_of(path) or ("parquet" if args.formula else "zarr") for path in args.data}
    if len(kinds) > 1:
        raise ValueError(f"the data are of several kinds: {', '.join(sorted(kinds))}. Give files of one kind.")
    (kind,) = kinds
    if kind == "zarr":
        return _of_store(args)
    if kind != "parquet":
        raise ValueError(_import_first(args, kind))
    if not args.formula:
        raise ValueError(
            f"{args.data[0]} is Parquet: --formula must say which columns are what. Give one, 'y ~ x' say."
        )
    how: dict[str, Any] = {"obs": args.obs, "equation": args.equation, "weights": args.weights}
    how |= {
        "groups": args.obs_groups,
        "absorb": args.absorb or None,
        "memory_limit": getattr(args, "memory_limit", None),
    }
    if priced and args.equation is None:
        how["missing"] = "raise"
        if not any(mark in text for text in args.formula for mark in ".{"):
            how |= {"obs": None, "groups": None}
    made: System = System.from_parquet(_one_or_many(args.data), formulas_of(args.formula), **how)
    return made


def _of_store(args: argparse.Namespace) -> System:
    given = [name for name in OF_TABLES if getattr(args, name)]
    path = args.data[0]
    if len(args.data) > 1:
        raise ValueError(f"{len(args.data)} stores were given. Give one, or append the rows of one to the other.")
    if given:
        flag = f"--{given[0].replace('_', '-')}"
        raise ValueError(f"{flag} is for Parquet files; {path} is a store, which has its equations. Leave it out.")
    if Path(path).is_file():
        raise ValueError(
            f"{path} is neither a store nor Parquet by its name. Write it as Parquet, e.g. with pandas: "
            "frame.to_parquet('data.parquet'); or give --formula if it is."
        )
    system = System.from_zarr(path)
    if not args.absorb:
        return system
    remedy = "Write the store again with them as its groups, by lrgls import ... --groups NAME, and absorb 'groups'."
    return system.absorb({name: system.labels_named("absorb", name, remedy) for name in args.absorb})


def _import_first(args: argparse.Namespace, kind: str) -> str:
    """What to do first with files that a fit does not read."""
    source, out = args.data[0], f"{Path(args.data[0]).name.split('.')[0] or 'data'}.zarr"
    words = ["lrgls", "import", source, out]
    if kind == "netcdf":
        words += ["--y", "NAME", "--x", "NAME,NAME"]
    else:
        for formula in args.formula or ["y ~ x"]:
            words += ["--formula", formula]
        for flag, name in (("obs", "obs"), ("equation", "equation"), ("weights", "weights"), ("groups", "obs_groups")):
            words += [f"--{flag}", getattr(args, name)] if getattr(args, name) else []
    return (
        f"{source} is {CALLED[kind]}, which fits do not read. Make a store of it, {shlex.join(words)}, and fit {out}."
    )


def _one_or_many(paths: Sequence[str]) -> Any:
    return paths[0] if len(paths) == 1 else list(paths)


# ---------------------------------------------------------------------------------------------- new rows


def parquet_read_by(formulas: FittedFormulas | None, path: str, fit: str) -> bool:
    """Whether new rows for a fit lie in Parquet files, rather than in a store.

    formulas : of the fit that is kept at `fit`. Raises ValueError for other files, and where there are no formulas.
    """
    kind = kind_of(path)
    if kind in ("csv", "netcdf"):
        raise ValueError(
            f"{path} is {CALLED[kind]}, which is not read here. Write it as Parquet, e.g. with pandas: "
            "frame.to_parquet('new.parquet')."
        )
    if kind == "parquet" and formulas is None:
        raise ValueError(
            f"{fit} was not made by formulas, which say how columns of Parquet files are read. Give a store, or fit "
            "Parquet files with --formula first."
        )
    return kind == "parquet"


def new_rows(path: str, formulas: FittedFormulas | None, fit: str) -> System:
    """New rows for a fit: of a store, or of Parquet files by the formulas of the fit."""
    if not parquet_read_by(formulas, path, fit):
        return System.from_zarr(path)
    made: System = System.from_parquet(path, formulas)
    return made
