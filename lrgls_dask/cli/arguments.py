"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path

from dask.utils import parse_bytes

from lrgls_dask.results.fit import Fit


def add_memory_limit(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = "refuse a fit that needs more" + (" (default %(default)s)" if default else "")
    parser.add_argument("--memory-limit", type=size_in_bytes, default=default, metavar="SIZE", help=f"{text}, e.g. 1GB")


def add_overwrite(parser: argparse.ArgumentParser, text: str = "replace an output that exists") -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def size_in_bytes(text: str) -> int:
    try:
        return int(parse_bytes(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB or 1GB") from None


def save_fit(fit: Fit, path: str | Path, overwrite: bool) -> None:
    fit.to_zarr(path, overwrite=overwrite)
    print(f"\nSaved: {path}")


def refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Before the work, not after it."""
    if not overwrite and "://" not in str(path) and Path(path).exists():
        raise FileExistsError(f"{path} exists. Choose another name, or pass --overwrite to replace it.")
