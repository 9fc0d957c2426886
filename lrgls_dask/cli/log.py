"""`--log FILE` and `--performance-report FILE`: what happened in a fit, as lines of JSON, and what a cluster did."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from distributed import performance_report

from lrgls_dask.cli.arguments import check_output
from lrgls_dask.rows.events import LOGGER, say

__all__ = ["add_log", "logged", "reported"]


class _JsonLines(logging.Formatter):
    """A line of JSON for each event: time, level, event and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "lrgls", {"event": record.getMessage()})
        return json.dumps({"time": time, "level": record.levelname, **fields}, default=str)


def add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", metavar="FILE", help="add a line of JSON to this file for each pass and half-step")
    report = "write Dask's page of what its workers did, with --scheduler or --workers; needs bokeh"
    parser.add_argument("--performance-report", metavar="FILE.html", help=report)


@contextlib.contextmanager
def logged(path: str | None, read: Sequence[str]) -> Iterator[None]:
    """Events inside go to the end of this file; what fails too.

    read : the files that are read, none of which it may be. Raises FileExistsError where it is no log of ours.
    """
    if path is None:
        yield
        return
    check_output(path, True, read)
    if Path(path).exists() and Path(path).read_bytes()[:1] not in (b"", b"{"):
        raise FileExistsError(f"--log {path}: the file that is there is no log. Choose another name.")
    handler, before = logging.FileHandler(path, encoding="utf-8"), LOGGER.level
    handler.setFormatter(_JsonLines())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        say("failed", level="ERROR", error=type(error).__name__, message=str(error))
        raise
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)
        handler.close()


def reported(
    path: str | None, on_cluster: bool, overwrite: bool, read: Sequence[str]
) -> contextlib.AbstractContextManager[object]:
    """Dask's page about what is done inside, where one is asked for."""
    if path is None:
        return contextlib.nullcontext()
    if not on_cluster:
        raise ValueError("--performance-report is of a cluster's workers. Use it with --scheduler or --workers.")
    if importlib.util.find_spec("bokeh") is None:
        raise ValueError("--performance-report is drawn by bokeh, which is not there. Install it: pip install bokeh.")
    check_output(path, overwrite, read)
    # with its scripts inside: it opens where there is no network
    report: contextlib.AbstractContextManager[object] = performance_report(filename=path, mode="inline")
    return report
