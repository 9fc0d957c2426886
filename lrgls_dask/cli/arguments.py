"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from lrgls_dask.cli.objects import argument_type
from lrgls_dask.data.places import check_apart, local_path, location_of
from lrgls_dask.data.storage import open_group
from lrgls_dask.options import OPTIONS
from lrgls_dask.results.fit import Fit
from lrgls_dask.results.time_varying import TimeVaryingFit
from lrgls_dask.solve.record import Termination


def add_memory_limit(parser: argparse.ArgumentParser, default: str | None, of: str = "a fit") -> None:
    read, text = argument_type(OPTIONS["memory_limit"].allowed.read), f"refuse {of} that needs more, e.g. 1GB"
    shown = "what is free" if default is None else default
    help_text = f"{text} (default {shown})"
    parser.add_argument("--memory-limit", type=read, default=default, metavar="SIZE", help=help_text)


def add_overwrite(parser: argparse.ArgumentParser, text: str = "replace an output that exists") -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


AnyFit = Fit | TimeVaryingFit


def open_fit(path: str) -> AnyFit:
    """A saved fit of whichever kind it is."""
    varies = "lrgls_timevarying_format" in open_group(path).attrs
    return TimeVaryingFit.from_zarr(path) if varies else Fit.from_zarr(path)


def exit_code(fit: AnyFit) -> int:
    """0 where the fit converged, 3 where it ended without."""
    return 0 if fit.termination is Termination.CONVERGED else 3


def save_fit(fit: AnyFit, path: str | Path, overwrite: bool) -> None:
    fit.to_zarr(path, overwrite=overwrite)
    print(f"\nSaved: {path}")


def check_output(path: str | Path, overwrite: bool, inputs: Iterable[str | Path | None]) -> None:
    """Before the work, not after it: refuse an output that exists, or that is, holds or lies in an input."""
    places = [location_of(each) for each in inputs if each is not None]
    check_apart(str(path), [place for place in places if place is not None])
    local = local_path(path)
    if not overwrite and local is not None and local.exists():
        raise FileExistsError(f"{path} exists. Choose another name, or pass --overwrite to replace it.")
