"""The options of `lrgls predict`, and the lazy Dataset they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import xarray as xr

from lrgls_dask.cli.arguments import AnyFit, add_overwrite, check_output, open_fit
from lrgls_dask.cli.sources import local_files, parquet_read_by
from lrgls_dask.data.parquet import open_parquet
from lrgls_dask.data.places import Location
from lrgls_dask.data.storage import new_store
from lrgls_dask.data.storedlabels import encode_labels
from lrgls_dask.prediction.conditional import GivenKind
from lrgls_dask.system import System

__all__ = ["add_predict"]


def add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("predict", help="write fitted values, intervals, or factor scores")
    parser.add_argument("fit", metavar="FIT.zarr")
    what = "a store of format 1, or Parquet files that the formulas of the fit read"
    parser.add_argument("data", metavar="DATA", help=what)
    parser.add_argument("--out", required=True, metavar="YHAT.zarr")
    _add_predict_options(parser)
    add_overwrite(parser)
    parser.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> None:
    check_output(args.out, args.overwrite, [args.fit, *local_files(args.data)])
    fit = open_fit(args.fit)
    data, apart_from = _rows(fit, args)
    with new_store(args.out, overwrite=args.overwrite, apart_from=apart_from) as store:
        _with_stored_labels(_predicted(fit, data, args)).to_zarr(store, zarr_format=2)
    print(f"Fitted values: {args.out}")


def _rows(fit: AnyFit, args: argparse.Namespace) -> tuple[Any, Iterable[Location]]:
    """What to predict from, and where that is read from, if that is a store."""
    if parquet_read_by(fit.formulas, args.data, args.fit):
        return open_parquet(args.data), ()
    system = System.from_zarr(args.data)
    return system, system.read_from


def _add_predict_options(parser: argparse.ArgumentParser) -> None:
    """What to write besides the fitted values."""
    parser.add_argument(
        "--interval", type=float, metavar="COVERAGE", help="also write std_error, lower and upper, e.g. 0.95"
    )
    parser.add_argument(
        "--kind",
        choices=["mean", "observation", "error"],
        help="what the interval is for: the mean (default) or an observation; with --given an observation (default), "
        "the mean, or the error alone",
    )
    parser.add_argument(
        "--given", metavar="EQ1,EQ2", help="predict the other equations from these, or 'all' from whatever is not NaN"
    )
    parser.add_argument("--scores", choices=["regression", "bartlett"], help="also write factor_scores")


def _predicted(fit: AnyFit, data: Any, args: argparse.Namespace) -> xr.Dataset:
    """`yhat`, with an interval its bounds, and `factor_scores` where they were asked for; lazy."""
    if args.given is None:
        if args.kind == "error":
            raise ValueError("--kind error goes with --given. Use mean or observation.")
        found = fit.predict(data, interval=args.interval, kind=args.kind or "mean")
    else:
        given = None if args.given == "all" else _equations_named(fit, args.given)
        kind: GivenKind = args.kind or "observation"
        found = fit.predict_given(data, observed=given, interval=args.interval, kind=kind)
    made = found.to_dataset(name="yhat") if isinstance(found, xr.DataArray) else found.rename(predicted="yhat")
    if args.scores is not None:
        made = xr.merge([made, fit.factor_scores(data, method=args.scores)], join="exact", compat="equals")
    return made


def _with_stored_labels(made: xr.Dataset) -> xr.Dataset:
    """The labels as `System.to_zarr` stores them: xarray has no way to store zones, periods, tuples and levels."""
    for dim, index in {dim: made.indexes[dim] for dim in made.dims if dim in made.indexes}.items():
        values, attributes = encode_labels(index, f"labels along {dim!r}")
        made = made.drop_vars([dim, *filter(None, index.names)], errors="ignore")
        made = made.assign_coords({dim: (dim, values, attributes)})
    return made


def _equations_named(fit: AnyFit, text: str) -> list[Any]:
    """The labels that read like the words between commas, whatever their type; words that are none stay words."""
    labels = {str(label): label for label in fit.equations}
    return [labels.get(word, word) for word in text.split(",")]
