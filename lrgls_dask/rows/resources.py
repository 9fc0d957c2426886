"""What tasks of one process share: BLAS threads and memory that blocks are read into."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import threadpoolctl

__all__ = ["SMALL_MATRIX", "blas_for", "one_blas_thread", "spare_arrays"]

SMALL_MATRIX = 2_500  # columns; where others use the machine too, more threads take many times as long below it


class SpareArrays:
    """Arrays that blocks were read into and may be again: fresh memory costs more than reading does.

    Holds no more than were in use at once, of one pass at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[tuple[tuple[int, ...], Any], list[np.ndarray]] = {}
        self._lent: dict[int, np.ndarray] = {}

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        with self._lock:
            free = self._free.get((shape, dtype))
            array = free.pop() if free else np.empty(shape, dtype)
            self._lent[id(array)] = array
        return array

    def give_back(self, arrays: Sequence[np.ndarray]) -> None:
        """Take back those of `arrays` that were lent."""
        with self._lock:
            for array in arrays:
                if self._lent.pop(id(array), None) is not None:
                    self._free.setdefault((array.shape, array.dtype), []).append(array)

    def clear(self) -> None:
        with self._lock:
            self._free.clear()
            self._lent.clear()


spare_arrays = SpareArrays()


class OneBlasThread(AbstractContextManager[None]):
    """One BLAS thread while anybody is inside: oversubscribed BLAS is many times slower than none.

    OpenBLAS heeds one thread of a process at a time, so the limit is set and lifted by a thread of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._keeper: ThreadPoolExecutor | None = None
        self._controller: threadpoolctl.ThreadpoolController | None = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                if self._keeper is None:
                    self._keeper = ThreadPoolExecutor(1, thread_name_prefix="lrgls-blas")
                self._keeper.submit(self._set).result()
            self._users += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._keeper is not None:
                self._keeper.submit(self._lift).result()

    def _set(self) -> None:
        if self._controller is None:
            self._controller = threadpoolctl.ThreadpoolController()
        self._limit = self._controller.limit(limits=1, user_api="blas")
        self._limit.__enter__()

    def _lift(self) -> None:
        self._limit.__exit__(None, None, None)


one_blas_thread = OneBlasThread()


def blas_for(width: int) -> AbstractContextManager[None]:
    """One BLAS thread for work on small matrices, where more only wait for each other; as many as set for large."""
    return one_blas_thread if width <= SMALL_MATRIX else nullcontext()
