"""Folders beside a store: what is being written, or cleared away, and what a killed process has left of either.

The one at work holds a lock on the folder, which the system takes from it when it is killed: what nobody holds is
nobody's. Locks are those of one running system, which the names of folders tell; those of others are let be.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path

from lrgls_dask.data.locks import has_locks, is_at, locked

__all__ = ["beside", "new_folder", "remove_folder"]

BOOT = Path("/proc/sys/kernel/random/boot_id")


def beside(target: Path, use: str) -> Path:
    """A name that nothing has, for a folder of this system; use : "partial", "replaced" or "removed"."""
    return target.with_name(f".{target.name}.{_system()}-{uuid.uuid4().hex[:8]}.{use}")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty one beside `target`, held while this lasts; what killed processes left there is cleared first.

    Raises OSError, of the kind that the system gives, where there can be none.
    """
    _clear_abandoned(target)
    while True:
        folder = beside(target, "partial")
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise type(error)(f"{target} cannot be written: {reason}. Choose another place or name.") from error
        with _held(folder) as found:
            if found is not None:  # nobody cleared it before it was held
                yield folder
                return


def remove_folder(folder: Path) -> None:
    """Delete a folder of `beside`, which another may be clearing away too."""
    with _held(folder):
        shutil.rmtree(folder, onerror=_unless_gone)


def _clear_abandoned(target: Path) -> None:
    """Delete the folders beside `target` whose processes were killed."""
    name = re.compile(rf"\.{re.escape(target.name)}\.{_system()}-[0-9a-f]{{8}}\.(partial|replaced|removed)")
    for path in glob.glob(f".{glob.escape(target.name)}.*", root_dir=target.parent):
        folder = target.parent / path
        if name.fullmatch(path) and folder.is_dir() and not folder.is_symlink():
            with _held(folder) as found:
                if found:
                    shutil.rmtree(folder, ignore_errors=True)


@cache
def _system() -> str:
    """Of the running system, whose processes see each other's locks."""
    try:
        known = BOOT.read_text()
    except OSError:
        known = str(uuid.getnode())
    return blake2b(known.encode(), digest_size=4).hexdigest()


@contextmanager
def _held(folder: Path) -> Iterator[bool | None]:
    """Whether it is held while this lasts, which it cannot be where there are no locks; None where another holds it, or
    where it is gone."""
    opened = None
    try:
        try:
            opened = os.open(folder, os.O_RDONLY)
            held = has_locks() and locked(opened)
            found = held if is_at(folder, opened) else None
        except (BlockingIOError, FileNotFoundError):
            found = None
        except PermissionError:  # folders are not opened there
            found = False
        yield found
    finally:
        if opened is not None:
            os.close(opened)


def _unless_gone(function: object, path: str, error: tuple[type[BaseException], BaseException, object]) -> None:
    if not issubclass(error[0], FileNotFoundError):
        raise error[1]
