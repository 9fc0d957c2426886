"""The command line `lrgls`: demo, simulate, import, plan, fit, summary, table, report, predict, update."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from lrgls_dask import __version__
from lrgls_dask.cli.demo import add_demo
from lrgls_dask.cli.fit import add_fit, add_plan
from lrgls_dask.cli.importing import add_import
from lrgls_dask.cli.predict import add_predict
from lrgls_dask.cli.report import add_report
from lrgls_dask.cli.simulate import add_simulate
from lrgls_dask.cli.summary import add_summary
from lrgls_dask.cli.table import add_table
from lrgls_dask.cli.update import add_update
from lrgls_dask.errors import FitWarning

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """0 when done, 3 when a fit did not converge, 1 when something is refused or fails, 2 for words that mean nothing.

    The message is one line on stderr, with --debug a traceback.
    """
    args = _parser().parse_args(argv)
    try:
        with _short_warnings():
            return args.run(args) or 0
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("lrgls: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        print(f"lrgls: error: {_one_line(error)}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings of the library as one line each, those of others as Python shows them."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_short(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, FitWarning):
                print(f"lrgls: warning: {' '.join(str(message).split())}", file=sys.stderr)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_short
        warnings.simplefilter("always", FitWarning)  # a note to the user, whatever the filters outside
        yield


def _one_line(error: Exception) -> str:
    """The library's own messages as they are; anything else with its type and the way to learn more."""
    lines = [line for line in str(error).splitlines() if line.strip(" ^")]  # no mark under a line on the same line
    text = " ".join(" ".join(lines).split())
    if text and isinstance(error, ValueError | TypeError | OSError | MemoryError):
        return text
    return f"{type(error).__name__}: {text} (run `lrgls --debug ...` for the traceback)"


# ---------------------------------------------------------------------------------------------------- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lrgls",
        description="Seemingly unrelated regressions with a low-rank error covariance, on data larger than memory.",
    )
    parser.add_argument("--version", action="version", version=f"lrgls {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tables = add_summary, add_table, add_report
    for add in (add_demo, add_simulate, add_import, add_plan, add_fit, *tables, add_predict, add_update):
        add(commands)
    return parser
