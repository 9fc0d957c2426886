"""A file that is a lock while its owner lives: who has it renews it, and loses it if that ends for long.

The file says who made it and how often it was renewed. Whether an owner elsewhere is gone is read off the store: when
the file was last written, held against when a second one is written just now. Both times are the store's, so that no
clocks of two machines are ever compared. Where a store writes on condition (If-None-Match and If-Match of S3), of two
who take over at once one gets it. Elsewhere both may think so for one renewal, after which one is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import fsspec
import psutil

from lrgls_dask.data.patientstore import asked_of
from lrgls_dask.errors import without_secrets
from lrgls_dask.rows.patience import status_of

__all__ = ["LEASE", "leased", "me", "name_of", "said_by"]

Found = TypeVar("Found")
LEASE = 120.0  # seconds without a renewal after which a lock is another's: longer than a store is out of reach
RENEWALS = 6  # in that time, so that some may fail
TAKING_OVER = 0.5  # seconds in which whoever read an old lock has written over it
SAME_START = 1.0  # seconds between two looks at when one process began
REFUSED = (404, 409, 412)  # HTTP: what a condition was set on is gone, being written, or another


@contextmanager
def leased(lock: str, refusal: Callable[[str, str], str]) -> Iterator[Callable[[], None]]:
    """While this lasts the file `lock`, a path or URL, is ours. Raises OSError with `refusal` where it is another's.

    Gives what raises OSError once it is ours no longer, as after a stop of this process for longer than `LEASE`. Costs
    three requests to begin with, one in each `LEASE / RENEWALS` seconds, and one whenever that is asked.
    """
    filesystem, place = fsspec.core.url_to_fs(lock)
    lease = _Lease(filesystem, place, lock)
    lease.take(refusal)
    ended = threading.Event()
    renewing = threading.Thread(target=lease.keep, args=(ended,), daemon=True, name="lrgls-lease")
    renewing.start()
    try:
        yield lease.check
    finally:
        ended.set()
        renewing.join(LEASE / RENEWALS)
        lease.let_go()


def me() -> dict[str, Any]:
    """This process, as a lock says it. system : what numbers of processes belong to, which names of hosts may not."""
    own = psutil.Process()
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {
        "pid": own.pid,
        "host": socket.gethostname(),
        "system": _system(),
        "started": own.create_time(),
        "since": since,
    }


def said_by(content: bytes) -> dict[str, Any]:
    """Whom a lock names; nothing where it is not written yet."""
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError):
        return {}


def name_of(owner: dict[str, Any]) -> str:
    known = {"pid": "unknown", "host": "unknown", "since": "now"} | owner
    return f"process {known['pid']} on {known['host']}, since {known['since']}"


def _system() -> str:
    """Which running system and which of its tables of processes this is; empty where that cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


@dataclass(eq=False)
class _Lease:
    """filesystem, place : where the file is.  lock : how to call it.  token : of this owner.  count : of renewals."""

    filesystem: Any
    place: str
    lock: str
    count: int = 0
    token: str = field(default_factory=lambda: uuid4().hex)

    def take(self, refusal: Callable[[str, str], str]) -> None:
        while not self._ask(self._create):
            version, owner = self._ask(self._look)
            if owner.get("token") == self.token:  # made by a request whose answer got lost
                return
            try:
                age = None if _is_gone(owner) else self._ask(self._age)
            except FileNotFoundError:  # let go just now
                continue
            if not _is_gone(owner) and (age is None or age < LEASE or (owner and "token" not in owner)):
                renewed = f", renewed {max(age, 0):.0f} s ago" if age is not None and "token" in owner else ""
                raise OSError(refusal(name_of(owner) + renewed, self.lock))
            if not self._ask(lambda version=version: self._replace(version, wait=True)):  # type: ignore[misc]
                raise OSError(refusal(name_of(self._ask(self._look)[1]), self.lock))
            return

    def keep(self, ended: threading.Event) -> None:
        """Renew it until it is another's or this is over; a request that fails may be the only one."""
        while not ended.wait(LEASE / RENEWALS):
            with contextlib.suppress(Exception):
                if not self._renew():
                    return

    def check(self) -> None:
        """Raise OSError where it is another's now."""
        owner = self._ask(self._look)[1]
        if owner.get("token") == self.token or (not owner and self._ask(self._renew)):
            return
        owner = owner or self._ask(self._look)[1]
        raise OSError(
            f"{without_secrets(self.lock)} was taken over by {name_of(owner)}: this process had not renewed it for "
            f"{LEASE:.0f} s, being stopped or cut off from the store. Begin again when the other has ended: nothing "
            "that it left is lost."
        )

    def let_go(self) -> None:
        with contextlib.suppress(Exception):
            if self._look()[1].get("token") == self.token:
                self.filesystem.rm_file(self.place)

    # ------------------------------------------------------------------------------------------ requests

    def _ask(self, request: Callable[[], Found]) -> Found:
        return asked_of(self.lock, "the lock", request)

    def _content(self) -> bytes:
        return json.dumps(me() | {"token": self.token, "renewed": self.count}).encode()

    def _look(self) -> tuple[str, dict[str, Any]]:
        """Its version, and then whom it names: a later one is not written over under the name of an earlier."""
        self.filesystem.invalidate_cache()
        try:
            version = str(self.filesystem.info(self.place).get("ETag") or "")
            return version, said_by(self.filesystem.cat_file(self.place))
        except FileNotFoundError:
            return "", {}

    def _create(self) -> bool:
        """Whether there was none, and this one is made."""
        try:
            self.filesystem.pipe_file(self.place, self._content(), mode="create")
        except OSError:  # FileExistsError, which object stores say in ways of their own
            self.filesystem.invalidate_cache()
            if not self.filesystem.exists(self.place):
                raise
            return False
        return True

    def _renew(self) -> bool:
        """Whether it is still ours. One that somebody deleted is made again."""
        version, owner = self._look()
        self.count += 1
        if not owner:
            return self._create()
        return owner.get("token") == self.token and self._replace(version, wait=False)

    def _replace(self, version: str, *, wait: bool) -> bool:
        """Write over what has this version. False where that is not there any more."""
        if version and "s3" in self.filesystem.protocol:
            try:
                self.filesystem.pipe_file(self.place, self._content(), IfMatch=version)
                return True
            except OSError as error:
                if status_of(error) in REFUSED:
                    return self._look()[1].get("token") == self.token
                if status_of(error) != 501:  # not every server knows the condition
                    raise
        self.filesystem.pipe_file(self.place, self._content())
        if wait:
            time.sleep(TAKING_OVER)
        return self._look()[1].get("token") == self.token

    def _age(self) -> float | None:
        """Seconds since it was written, by the store's own clock; None where that tells no times."""
        probe = f"{self.place}.{uuid4().hex}.now"
        try:
            self.filesystem.pipe_file(probe, b"now")
            self.filesystem.invalidate_cache()
            now = self.filesystem.modified(probe)
            return float((now - self.filesystem.modified(self.place)).total_seconds())
        except NotImplementedError:
            return None
        finally:
            with contextlib.suppress(OSError):
                self.filesystem.rm_file(probe)


def _is_gone(owner: dict[str, Any]) -> bool:
    """Whether who made a lock is known to be there no longer: its system is this one, where no such process runs."""
    if owner.get("host") != socket.gethostname() or owner.get("system", _system()) != _system():
        return False
    try:
        return abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["started"])) > SAME_START
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True
