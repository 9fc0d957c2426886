"""Work in a process of its own that is killed at some moment, as by the kernel that runs out of memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zarr

from lrgls_dask import System
from lrgls_dask.cli import main
from lrgls_dask.data import storepieces, tablesaside
from lrgls_dask.data.storage import new_store

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["support.killed"])
SECONDS = 120  # in which anything here is done


def killed_after(seconds: float | None, work: Callable[..., None], *given: Any) -> float:
    """Do work(*given) in a new process and kill that so many seconds after it began; the seconds that it took.

    None : let it end. Raises AssertionError where it then fails.
    """
    begun = SERVER.Event()
    process = SERVER.Process(target=_work, args=(begun, work, given))
    process.start()
    assert begun.wait(SECONDS)
    since = time.perf_counter()
    process.join(SECONDS if seconds is None else seconds)
    process.kill()
    process.join()
    assert seconds is not None or process.exitcode == 0
    process.close()
    return time.perf_counter() - since


def _work(begun: Any, work: Callable[..., None], given: tuple[Any, ...]) -> None:
    begun.set()
    work(*given)


def import_in_small_pieces(*words: str) -> None:
    """`lrgls import`, in pieces of a few rows."""
    storepieces.PIECE_BYTES = 8 * 5 * 40
    tablesaside.BLOCK_BYTES = 2_000
    raise SystemExit(main(["import", *words]))


def append_rows(path: str, start: int, stop: int) -> None:
    """Append some rows of `rows_of`."""
    rows_of(start, stop).append_to_zarr(path)


def rows_of(start: int, stop: int) -> System:
    """Rows that their numbers tell, of 60 equations."""
    numbers = np.arange(start, stop, dtype=float)[:, None]
    return System.from_arrays(numbers + np.arange(60), np.hstack([np.ones_like(numbers), numbers]))


def killed_while_writing(path: str) -> None:
    """Write half of a store, and be killed."""
    with new_store(path, overwrite=True) as store:
        zarr.create_group(store).create_array("Y", data=np.ones(3))
        os.kill(os.getpid(), signal.SIGKILL)
