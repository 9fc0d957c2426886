"""`lrgls table`: coefficients of saved fits as a table, several fits side by side."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from lrgls_dask.cli.arguments import AnyFit, open_fit
from lrgls_dask.results.side_by_side import BELOW, compare

__all__ = ["add_table"]

FORMATS = ("text", "csv", "markdown", "latex", "html")


def add_table(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("table", help="print coefficients of a saved fit, or of several side by side")
    parser.add_argument("fits", metavar="FIT.zarr", nargs="+")
    parser.add_argument(
        "--equation",
        action="append",
        metavar="NAME",
        help="only these: a label, or a pattern with * and ?; DIM=NAME where equations lie on several dims; repeatable",
    )
    parser.add_argument("--term", action="append", metavar="NAME", help="only these: a label or a pattern; repeatable")
    parser.add_argument(
        "--level", type=float, default=0.95, metavar="SHARE", help="coverage of intervals (default 0.95)"
    )
    parser.add_argument("--glance", choices=("fit", "equation"), help="a row a fit, or a row an equation, instead")
    parser.add_argument(
        "--below", choices=BELOW, default="std_error", help="of models side by side: below coefficients"
    )
    parser.add_argument("--stars", action="store_true", help="of models side by side: * for p < 0.1, ** 0.05, *** 0.01")
    parser.add_argument("--format", choices=FORMATS, default="text", help="csv has every digit (default text)")
    parser.set_defaults(run=_table)


def _table(args: argparse.Namespace) -> None:
    if args.glance and args.format not in ("text", "csv"):
        raise ValueError(f"--glance goes with --format text or csv; got {args.format}.")
    fits = {path: open_fit(path) for path in args.fits}
    if args.glance is None and (args.format not in ("text", "csv") or (len(fits) > 1 and args.format == "text")):
        first = next(iter(fits.values()))
        asked: dict[str, Any] = {"equation": _equations(first, args.equation), "term": args.term, "level": args.level}
        found = compare(fits, below=args.below, stars=args.stars, **asked)
        ways = {
            "text": found.to_text,
            "markdown": found.to_markdown,
            "latex": found.to_latex,
            "html": found._repr_html_,
        }
        print(ways[args.format]())
        return
    frames = []
    for path, fit in fits.items():
        frame = _frame(fit, args)
        if len(fits) > 1:
            frame.insert(0, "fit", path)
        frames.append(frame)
    _print(pd.concat(frames, ignore_index=True), args.format)


def _frame(fit: AnyFit, args: argparse.Namespace) -> pd.DataFrame:
    if args.glance:
        return fit.glance(None if args.glance == "fit" else "equation")
    return fit.tidy(_equations(fit, args.equation), args.term, args.level)


def _print(frame: pd.DataFrame, form: str) -> None:
    if form == "csv":
        print(frame.to_csv(index=False), end="")
    else:
        print(frame.to_string(index=False, float_format=lambda value: f"{value:.5g}"))


def _equations(fit: AnyFit, given: list[str] | None) -> Any:
    """What `tidy` takes for equations: names, or a mapping where they are given by dims."""
    dims = {str(name): name for name in fit.design.equation_dims}
    pairs = [text.split("=", 1) for text in given or () if text.split("=", 1)[0] in dims and "=" in text]
    if given is None or not pairs:
        return given
    found: dict[Any, list[str]] = {}
    for name, value in pairs:
        found.setdefault(dims[name], []).append(value)
    return found
