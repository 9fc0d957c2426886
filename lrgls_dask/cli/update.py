"""`lrgls update`: new rows appended to those of a fit, and all of them fitted, without the old data."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from lrgls_dask.cli.arguments import add_overwrite, check_output, exit_code, open_fit, save_fit
from lrgls_dask.cli.flags import add_cov, add_model, cov_of, model_of
from lrgls_dask.cli.sources import kind_of, local_files, new_rows
from lrgls_dask.data.storage import open_group
from lrgls_dask.results.fit import Fit
from lrgls_dask.system import CompressedSystem

__all__ = ["add_update"]

OF_SIGMA = ("rank", "ranks", "sigma_step", "lam_F", "folds", "n_folds")  # said anew with another --covariance
NOT_OF_THE_DATA = ("checkpoint", "engine", "memory_limit", "progress")


def add_update(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "append rows to a fit and fit all of them, without the data it was made from"
    parser = commands.add_parser("update", help=text, description=f"{text}; options are the fit's, unless given here")
    parser.add_argument("fit", metavar="FIT.zarr", help="a saved fit, or a saved compressed system")
    parser.add_argument("rows", metavar="NEW_ROWS", help="a store of format 1, a saved compressed system, or Parquet")
    parser.add_argument("--out", required=True, metavar="NEWFIT.zarr")
    add_model(parser)
    add_cov(parser)
    add_overwrite(parser)
    parser.set_defaults(run=_update)


def _update(args: argparse.Namespace) -> int:
    check_output(args.out, args.overwrite, local_files(args.rows))
    before, options, kind = _kept(args.fit)
    if "covariance" in vars(args):
        options = {name: value for name, value in options.items() if name not in OF_SIGMA}
    model, cov = model_of(args, options), cov_of(args)
    new = _compressed(args.rows) or new_rows(args.rows, before.formulas, args.fit)
    both = before.append(new)
    fit = model.fit(both).result_
    if cov is not None:
        fit = fit.with_cov(cov)
    elif kind != "classical":
        print(f"lrgls: warning: standard errors are classical, those of {args.fit} were {kind}", file=sys.stderr)
    print(fit.summary())
    print(f"\nRows {before.n_obs:,} of before, {both.n_obs - before.n_obs:,} new")
    save_fit(fit, args.out, args.overwrite)
    return exit_code(fit)


def _kept(path: str) -> tuple[CompressedSystem, dict[str, Any], str]:
    """The rows that are kept there, the options they were fitted with, and the kind of standard errors."""
    rows = _compressed(path)
    if rows is not None:
        return rows, {}, "classical"
    fit: Any = open_fit(path)
    options = {name: value for name, value in fit.options.items() if name not in NOT_OF_THE_DATA}
    return fit.compressed(), options, fit.cov_kind if isinstance(fit, Fit) else "classical"


def _compressed(path: str) -> CompressedSystem | None:
    """The compressed system there, None where something else is."""
    if kind_of(path) not in ("zarr", None):
        return None
    return CompressedSystem.from_zarr(path) if "lrgls_compressed_format" in open_group(path).attrs else None
