"""`lrgls summary`: a saved fit, and tests of it."""

from __future__ import annotations

import argparse

from lrgls_dask.cli.arguments import open_fit


def add_summary(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("summary", help="print a saved fit")
    parser.add_argument("fit", metavar="FIT.zarr")
    parser.add_argument(
        "--test",
        action="append",
        default=[],
        metavar="HYPOTHESES",
        help="a Wald test, e.g. 'Telcm:smb = 0'; repeatable",
    )
    parser.set_defaults(run=_summary)


def _summary(args: argparse.Namespace) -> None:
    fit = open_fit(args.fit)
    tests = [fit.wald_test(text) for text in args.test]  # a mistake in one is told before anything is printed
    print("\n".join([fit.summary(), *map(str, tests)]))
