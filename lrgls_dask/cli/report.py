"""`lrgls report`: a saved fit as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import PurePosixPath

from lrgls_dask.cli.arguments import add_overwrite, check_output, open_fit
from lrgls_dask.data.places import local_path

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
    fit, local = open_fit(args.fit), local_path(args.fit)
    called = PurePosixPath(args.fit.rstrip("/") if local is None else local.resolve().name)  # . has no name of its own
    out = args.out or (called.with_suffix(".html").name if called.name else "fit.html")
    check_output(out, args.overwrite, [args.fit])
    fit.report(out, level=args.level, overwrite=args.overwrite)
    print(f"Report: {out}")
