"""Locks of the operating system on an open file or folder, which it takes back however their owner ends."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["has_locks", "is_at", "locked"]


def has_locks() -> bool:
    """Whether the operating system has any."""
    return fcntl is not None


def locked(opened: int) -> bool:
    """Whether what is open, by its descriptor, is locked from here on; False on a file system that has no locks.

    Raises BlockingIOError where another holds it.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def is_at(path: str | Path, opened: int) -> bool:
    """Whether what is open is still what has this name: its owner may have deleted it, and another made a new one."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(opened))
    except FileNotFoundError:
        return False
