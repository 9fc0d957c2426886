"""`lrgls report`: a saved fit as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import PurePosixPath

from lrgls_dask.cli.arguments import add_overwrite, check_output, open_fit

__all__ = ["add_report"]


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("report", help="write a saved fit as one HTML page that opens offline")
    parser.add_argument("fit", metavar="FIT.zarr")
    parser.add_argument("--out", metavar="PAGE.html", help="default: here, under the name of the fit")
    parser.add_argument(
        "--level", type=float, default=0.95, metavar="SHARE", help="coverage of intervals (default 0.95)"
    )
    add_overwrite(parser)
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    out = args.out or PurePosixPath(args.fit.rstrip("/")).with_suffix(".html").name
    check_output(out, args.overwrite, [args.fit])
    open_fit(args.fit).report(out, level=args.level, overwrite=args.overwrite)
    print(f"Report: {out}")
