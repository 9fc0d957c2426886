"""One at a time: a path that somebody works in, and who that is; what was killed there holds it no longer.

On a disk a lock of the operating system lies on a file beside the path, which goes when its owner does, however it
ends. Where there are no such locks, and in object stores, the file itself is the lock, for as long as its owner renews
it (`lrgls_dask.data.lease`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lrgls_dask.data.lease import leased, me, name_of, said_by
from lrgls_dask.data.locks import has_locks, is_at, locked
from lrgls_dask.data.places import local_path

__all__ = ["alone_at"]


@contextmanager
def alone_at(path: Any, refusal: Callable[[str, str], str]) -> Iterator[Callable[[], None]]:
    """While this lasts nobody else who asks gets the same path or URL.

    refusal : what to say to them, given who has it and the file that says so. Raises OSError with that.
    Gives what is to be called before anything is written there: it raises OSError where a lease was lost.
    """
    local = local_path(path)
    if local is None:
        lock, how = f"{str(path).rstrip('/')}.lock", leased
    else:
        target = Path(os.path.abspath(local))
        target.parent.mkdir(parents=True, exist_ok=True)
        lock, how = str(target.with_name(f".{target.name}.lock")), _by_system if has_locks() else leased
    with how(lock, refusal) as check:
        yield check


@contextmanager
def _by_system(lock: str, refusal: Callable[[str, str], str]) -> Iterator[Callable[[], None]]:
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            held = locked(file)
        except BlockingIOError as error:
            owner = said_by(os.pread(file, 1000, 0))
            os.close(file)
            raise OSError(refusal(name_of(owner), lock)) from error
        if not held:  # the file may be another's, who found the same
            os.close(file)
            with leased(f"{lock}.owner", refusal) as check:
                yield check
            return
        if is_at(lock, file):
            break
        os.close(file)
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(me()).encode(), 0)
        yield lambda: None  # it cannot be lost
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock)
        os.close(file)
