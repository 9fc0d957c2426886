"""What a machine does in a second: four rates, measured once in about a second and kept in the user's cache folder."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from lrgls_dask.rows.block import Block
from lrgls_dask.rows.kernels import gram_kernel
from lrgls_dask.rows.resources import one_blas_thread

__all__ = ["NOMINAL", "Rates", "machine_rates"]


@dataclass(frozen=True)
class Rates:
    """What one thread does in a second, and what storage gives to one process.

    numbers : centred, scaled and looked at.  flops : of products of large matrices.  memory : bytes of matrices that no
    cache holds.  read : bytes from storage.
    """

    numbers: float
    flops: float
    memory: float
    read: float


NOMINAL = Rates(numbers=1.4e8, flops=3.5e10, memory=8e9, read=1e9)


@cache
def machine_rates() -> Rates:
    """Of this machine: from the user's cache folder, else measured, in about a second, and kept there."""
    path, key = _cache_folder() / "rates.json", _machine()
    kept: dict[str, dict[str, float]] = {}
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = dict(json.loads(path.read_text(encoding="utf-8")))
        found = Rates(**kept[key])
        if all(0 < each < np.inf for each in asdict(found).values()):
            return found
    rates = _measured()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"rates-{os.getpid()}.json")
        aside.write_text(json.dumps({**kept, key: asdict(rates)}, indent=1) + "\n", encoding="utf-8")
        aside.replace(path)
    return rates


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "lrgls_dask"


def _machine() -> str:
    return " ".join([platform.node(), platform.machine(), str(os.cpu_count()), np.__version__])


def _measured() -> Rates:
    rng = np.random.default_rng(0)
    with one_blas_thread:
        narrow, wide = rng.normal(size=(40_000, 24)), rng.normal(size=(2_000, 600))
        slim = _fastest(lambda: gram_kernel(Block(0, (narrow[:, :4],), (narrow[:, 4:],), None)))
        square = _fastest(lambda: wide.T @ wide)
        flops = wide.shape[0] * wide.shape[1] ** 2 / square
        numbers = narrow.size / max(slim - narrow.size * narrow.shape[1] / flops, 0.2 * slim)
        tall = np.ones((2_500, 2_500))  # more than caches hold
        memory = tall.nbytes / _fastest(lambda: tall @ tall[0])
    return Rates(numbers=numbers, flops=flops, memory=memory, read=_read_rate())


def _read_rate() -> float:
    """Of a file that has left the page cache, where the system lets one ask for that."""
    size = 2**26
    with tempfile.TemporaryFile() as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        began = time.perf_counter()
        file.read()
        return size / (time.perf_counter() - began)


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the best of a few turns, after one that does not count, others who use the machine left out."""
    work()
    turns = []
    for _ in range(5):
        began = time.thread_time()
        work()
        turns.append(time.thread_time() - began)
    return max(min(turns), 1e-9)
