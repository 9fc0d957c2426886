"""`lrgls table`: coefficients of saved fits as a table, several fits side by side."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from lrgls_dask.checks import closest, shown
from lrgls_dask.cli.arguments import AnyFit, open_fit
from lrgls_dask.results.chosen import chosen_equations
from lrgls_dask.results.side_by_side import BELOW, compare
from lrgls_dask.results.tidy import glance_by_equation

__all__ = ["add_table"]

CSV = "csv has every digit, and an apostrophe before names that begin as formulas of spreadsheets do (default text)"
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
    parser.add_argument("--format", choices=FORMATS, default="text", help=CSV)
    parser.set_defaults(run=_table)


def _table(args: argparse.Namespace) -> None:
    if args.glance and args.format not in ("text", "csv"):
        raise ValueError(f"--glance goes with --format text or csv; got {args.format}.")
    if args.glance and args.term:
        raise ValueError("--glance has no rows of terms. Leave --term out.")
    if args.glance == "fit" and args.equation:
        raise ValueError("--glance fit has no rows of equations. Use --glance equation, or leave --equation out.")
    fits = _named(args.fits)
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
    frames = {path: _frame(fit, args) for path, fit in fits.items()}
    if len(fits) > 1:
        called = "file" if any("fit" in frame for frame in frames.values()) else "fit"  # which a dim may be called
        for path, frame in frames.items():
            frame.insert(0, called, path)
    _print(pd.concat(frames.values(), ignore_index=True), args.format)


def _named(paths: list[str]) -> dict[str, AnyFit]:
    """Fits by path, one that is given again by its number too."""
    fits: dict[str, AnyFit] = {}
    for path in paths:
        name, number = path, 1
        while name in fits:
            number += 1
            name = f"{path} ({number})"
        fits[name] = open_fit(path)
    return fits


def _frame(fit: AnyFit, args: argparse.Namespace) -> pd.DataFrame:
    if args.glance == "fit":
        return fit.glance()
    if args.glance == "equation":
        wanted = chosen_equations(fit._whole, fit.equation_dim, _equations(fit, args.equation))
        return glance_by_equation(fit, wanted)
    return fit.tidy(_equations(fit, args.equation), args.term, args.level)


def _print(frame: pd.DataFrame, form: str) -> None:
    if form == "csv":
        texts = frame.select_dtypes(exclude="number")
        safe = frame.assign(**{name: column.map(_no_formula) for name, column in texts.items()})
        print(safe.set_axis([_no_formula(name) for name in safe], axis=1).to_csv(index=False), end="")
    else:
        print(frame.to_string(index=False, float_format=lambda value: f"{value:.5g}"))


def _no_formula(cell: Any) -> Any:
    """The cell, behind an apostrophe where it is a text that a spreadsheet would take for a formula and run."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _equations(fit: AnyFit, given: list[str] | None) -> Any:
    """What `tidy` takes for equations: names, or a mapping where they are given by dims.

    Raises ValueError where some are given by dims and others are not."""
    dims = {str(name): name for name in fit.design.equation_dims}
    pairs = [text.split("=", 1) for text in given or () if text.split("=", 1)[0] in dims and "=" in text]
    if given is None or not pairs:
        return given
    odd = [text for text in given if text.split("=", 1)[0] not in dims or "=" not in text]
    if odd:
        raise ValueError(
            f"some equations are given by the dims that they lie on, {shown(list(dims))}, and {shown(odd)} "
            f"{'is' if len(odd) == 1 else 'are'} not{closest(odd[0].split('=', 1)[0], dims)} Give all of them as "
            "DIM=NAME, or all by their labels."
        )
    found: dict[Any, list[str]] = {}
    for name, value in pairs:
        found.setdefault(dims[name], []).append(value)
    return found
