"""A page on disk: complete or not there at all, and never in the place of something else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

from lrgls_dask.data.places import Location, check_apart, local_path

__all__ = ["MARK", "check_page", "write_page"]

MARK = '<meta name="generator" content="lrgls_dask">'  # by which a page of ours is told from other files
HEAD = 4_096  # bytes at the beginning of a page that hold the mark


def check_page(path: Any, *, overwrite: bool, apart_from: Iterable[Location] = ()) -> Path:
    """Where a page at `path` is to be written.

    apart_from : where the data lie that it is made of; `path` must be none of these, nor in or around one.
    Raises ValueError where it is, or no path of this machine; FileExistsError where something is there and overwrite is
    False, or where that is no page of ours; FileNotFoundError where its folder is not there.
    """
    local = local_path(path)
    if local is None:
        raise ValueError(
            f"a report is written to a path of this machine; got {path!s}. Write it here and copy it there."
        )
    check_apart(path, apart_from)
    target = Path(os.path.abspath(local))
    if os.path.lexists(target):
        if not _is_page(target):
            raise FileExistsError(f"{path!s} exists and is no report, so it is not replaced. Choose another path.")
        if not overwrite:
            raise FileExistsError(f"{path!s} exists. Choose another path, or pass overwrite=True.")
    elif not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent}. Make it first, or choose another path.")
    return target


def write_page(text: str, path: Any, *, overwrite: bool) -> None:
    """Write beside `path` and move there. Raises as `check_page`."""
    target = check_page(path, overwrite=overwrite)
    fresh = target.with_name(f".{target.name}.{uuid4().hex[:8]}.partial")
    try:
        fresh.write_text(text, encoding="utf-8", newline="\n")
        check_page(path, overwrite=overwrite)  # what came there meanwhile stays too
        os.replace(fresh, target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _is_page(path: Path) -> bool:
    """Whether a report lies there."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(HEAD)
