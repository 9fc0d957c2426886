"""One at a time: a path that somebody works in, and who that is; what was killed there holds it no longer.

On a disk a lock of the operating system lies on a file beside the path, which goes when its owner does, however it
ends. Where there are no such locks, and in object stores, the file itself is the lock: it is made only if it is not
there, and says which process of which machine made it, so that one that is gone is told on its own machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import psutil

from lrgls_dask.data.places import local_path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["alone_at"]

TAKING_OVER = 0.5  # seconds in which whoever read an old lock has deleted it
SAME_START = 1.0  # seconds between two looks at when one process began


@contextmanager
def alone_at(path: Any, refusal: Callable[[str, str], str]) -> Iterator[None]:
    """While this lasts nobody else who asks gets the same path or URL.

    refusal : what to say to them, given who has it and the file that says so. Raises OSError with that.
    """
    local = local_path(path)
    if local is None:
        lock, how = f"{str(path).rstrip('/')}.lock", _by_file
    else:
        target = Path(os.path.abspath(local))
        target.parent.mkdir(parents=True, exist_ok=True)
        lock, how = str(target.with_name(f".{target.name}.lock")), _by_system if fcntl is not None else _by_file
    with how(lock, refusal):
        yield


@contextmanager
def _by_system(lock: str, refusal: Callable[[str, str], str]) -> Iterator[None]:
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _said(os.pread(file, 1000, 0))
            os.close(file)
            raise OSError(refusal(_name(owner), lock)) from error
        except OSError:  # a file system that has no locks; the file may be another's, who found the same
            os.close(file)
            with _by_file(f"{lock}.owner", refusal):
                yield
            return
        if _is_there(lock, file):
            break
        os.close(file)  # its owner has just deleted it: another may have made a new one
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, _me(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock)
        os.close(file)


def _is_there(lock: str, file: int) -> bool:
    """Whether an open file is still the one by its name."""
    try:
        there, mine = os.stat(lock), os.fstat(file)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


@contextmanager
def _by_file(lock: str, refusal: Callable[[str, str], str]) -> Iterator[None]:
    filesystem, place = fsspec.core.url_to_fs(lock)
    me = _me()
    try:
        filesystem.pipe_file(place, me, mode="create")
    except OSError as error:  # FileExistsError, which object stores say in ways of their own
        filesystem.invalidate_cache()
        if not filesystem.exists(place):
            raise
        owner = _said(filesystem.cat_file(place))
        if not _is_gone(owner):
            raise OSError(refusal(_name(owner), lock)) from error
        filesystem.rm_file(place)
        filesystem.pipe_file(place, me, mode="create")
        time.sleep(TAKING_OVER)  # another may have found the same owner gone, and deleted this file for that one's
        filesystem.invalidate_cache()
        if (now := filesystem.cat_file(place)) != me:
            raise OSError(refusal(_name(_said(now)), lock)) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            filesystem.rm_file(place)


def _me() -> bytes:
    me = psutil.Process()
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    said = {"pid": me.pid, "host": socket.gethostname(), "started": me.create_time(), "since": since}
    return json.dumps(said).encode()


def _said(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except ValueError:  # not written yet
        return {}


def _name(owner: dict[str, Any]) -> str:
    known = {"pid": "unknown", "host": "unknown", "since": "now"} | owner
    return f"process {known['pid']} on {known['host']}, since {known['since']}"


def _is_gone(owner: dict[str, Any]) -> bool:
    """Whether who made a lock is known to be there no longer: its machine is this one, where no such process runs."""
    if owner.get("host") != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["started"])) > SAME_START
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True
