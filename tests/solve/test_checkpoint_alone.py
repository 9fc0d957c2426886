"""One fit at a time on one checkpoint: a second is refused by name, and one that was killed is in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data import lease, locks
from lrgls_dask.data.alone import alone_at
from lrgls_dask.errors import without_secrets
from lrgls_dask.rows.moments import RootMoments
from lrgls_dask.solve.checkpoint import Checkpoint
from support.buckets import s3_bucket
from support.systems import simulate

HOLD = """
import sys, time
from lrgls_dask.data.alone import alone_at
with alone_at(sys.argv[1], lambda owner, lock: owner):
    print("held", flush=True)
    time.sleep(600)
"""


def said(owner: str, lock: str) -> str:
    return f"{owner} has {lock}"


@contextmanager
def held_by_another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """While a process of its own has the path."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def rows() -> System:
    data = simulate("own", n=120, K=3, seed=1)
    return System.from_arrays(data.Y, data.Xs)


def test_a_second_fit_is_refused_until_the_first_is_killed(tmp_path: Path, rows: System) -> None:
    model = LowRankGLS(0, checkpoint=tmp_path / "kept")
    with held_by_another(tmp_path / "kept") as other:
        with pytest.raises(OSError, match=rf"kept is in use by another fit .process {other.pid} on .* path of its own"):
            model.fit(rows)
        LowRankGLS(0, checkpoint=tmp_path / "own").fit(rows)
        os.kill(other.pid, signal.SIGKILL)
        other.wait(60)
        found = model.fit(rows).result_
    assert np.array_equal(found.params, LowRankGLS(0).fit(rows).result_.params)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that has none."""
    monkeypatch.setattr(locks, "fcntl", None)


def owner(**change: Any) -> str:
    me = psutil.Process()
    known = {"pid": me.pid, "host": lease.socket.gethostname(), "started": me.create_time(), "since": "then"}
    return json.dumps(known | change)


@pytest.mark.parametrize("place", ["memory://locks/kept", "{}/kept"], ids=["object store", "disk"])
def test_a_file_is_the_lock_where_there_is_no_other(without_locks: None, tmp_path: Path, place: str) -> None:
    path = place.format(tmp_path)
    with alone_at(path, said):
        with pytest.raises(OSError, match=f"process {os.getpid()} on .* has .*kept.lock"), alone_at(path, said):
            pass
        filesystem, lock = fsspec.core.url_to_fs(f"{path}.lock" if "://" in path else str(tmp_path / ".kept.lock"))
        assert filesystem.exists(lock)
    assert not filesystem.exists(lock)
    for gone in (owner(pid=2**22 + 1), owner(started=1.0), owner(pid="?")):
        filesystem.pipe_file(lock, gone.encode())
        with alone_at(path, said):
            assert json.loads(filesystem.cat_file(lock))["pid"] == os.getpid()
    filesystem.pipe_file(lock, owner(host="elsewhere").encode())
    with pytest.raises(OSError, match="on elsewhere, since then"), alone_at(path, said):
        pass
    filesystem.rm_file(lock)
    with alone_at(path, said):
        pass


def test_a_disk_without_locks_takes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refused)
    for _ in range(2):
        with alone_at(tmp_path / "kept", said):
            for _ in range(2):
                with pytest.raises(OSError, match=f"process {os.getpid()} "), alone_at(tmp_path / "kept", said):
                    pass


def test_of_two_who_find_an_owner_gone_one_gets_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other deletes what the first has just made, and makes its own."""
    place = fsspec.filesystem("memory")
    gone = {"pid": 2**22 + 1, "host": lease.socket.gethostname(), "started": 0.0}
    place.pipe_file("/race.lock", json.dumps(gone).encode())
    other = json.dumps({"pid": os.getpid(), "host": "another", "started": 1.0}).encode()
    monkeypatch.setattr(lease.time, "sleep", lambda _: place.pipe_file("/race.lock", other))
    with pytest.raises(OSError, match="on another"), alone_at("memory://race", said):
        pass
    assert place.cat_file("/race.lock") == other
    place.rm_file("/race.lock")


ELSEWHERE: dict[str, Any] = {"host": "elsewhere", "system": "another", "token": "theirs", "renewed": 3}


def ages(path: str, seconds: float) -> None:
    """As if it had been written so long ago, by the store's own clock."""
    fsspec.filesystem("memory").store[path].modified -= timedelta(seconds=seconds)


def test_who_died_elsewhere_lets_go_when_not_renewed_for_long() -> None:
    place = fsspec.filesystem("memory")
    place.pipe_file("/lease.lock", owner(**ELSEWHERE).encode())
    ages("/lease.lock", lease.LEASE - 20)
    with (
        pytest.raises(OSError, match=r"on elsewhere, since then, renewed 10\d s ago"),
        alone_at("memory://lease", said),
    ):
        pass
    ages("/lease.lock", 21)
    with alone_at("memory://lease", said) as check:
        check()
        assert json.loads(place.cat_file("/lease.lock"))["pid"] == os.getpid()
    assert not place.glob("/lease*")
    place.pipe_file("/lease.lock", owner(host="elsewhere").encode())  # by an earlier version, which renews none
    ages("/lease.lock", 10 * lease.LEASE)
    with pytest.raises(OSError, match="on elsewhere, since then has"), alone_at("memory://lease", said):
        pass
    place.rm_file("/lease.lock")


def test_the_same_process_number_on_another_system_says_nothing() -> None:
    """Hosts of one name: containers, images of machines."""
    place = fsspec.filesystem("memory")
    place.pipe_file("/twin.lock", owner(pid=2**22 + 1, system="another", token="theirs").encode())
    with pytest.raises(OSError, match=f"process {2**22 + 1} on"), alone_at("memory://twin", said):
        pass
    place.rm_file("/twin.lock")


def test_who_lives_renews_and_one_deleted_by_hand_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = fsspec.filesystem("memory")
    monkeypatch.setattr(lease, "LEASE", 0.3)
    with alone_at("memory://kept", said):
        place.rm_file("/kept.lock")
        for _ in range(200):
            time.sleep(0.02)
            if place.exists("/kept.lock") and json.loads(place.cat_file("/kept.lock"))["renewed"] > 2:
                break
        with pytest.raises(OSError, match=f"process {os.getpid()} "), alone_at("memory://kept", said):
            pass
    assert not place.exists("/kept.lock")


def test_who_was_stopped_for_long_writes_nothing_more(rows: System) -> None:
    """Another has the checkpoint by then, and keeps it and its lock."""
    place = fsspec.filesystem("memory")
    theirs = owner(**ELSEWHERE).encode()
    with Checkpoint.alone("memory://taken", rows.rows, ()) as mine:
        place.pipe_file("/taken.lock", theirs)
        before = place.find("/taken")
        moments = RootMoments.__new__(RootMoments)
        for write in (mine.clear, lambda: mine.save_sum("a", 0, moments)):
            with pytest.raises(OSError, match=r"taken.lock was taken over by process \d+ on elsewhere"):
                write()
        assert place.find("/taken") == before
    assert place.cat_file("/taken.lock") == theirs
    place.rm("/taken", recursive=True)
    place.rm_file("/taken.lock")


HOLD_ELSEWHERE = """
import sys, time
from lrgls_dask.data import lease
from lrgls_dask.data.alone import alone_at
lease.socket.gethostname = lambda: "elsewhere"
lease.LEASE = float(sys.argv[2])
time.strftime = lambda *_: "2001-01-01 00:00:00"
with alone_at(sys.argv[1], lambda owner, lock: owner):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_of_a_bucket_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept while its owner lives, whatever its clock says; after a kill one of eight who ask gets it, in time."""
    seconds = 4.0  # of leases: the times of a bucket are whole seconds
    monkeypatch.setattr(lease, "LEASE", seconds)
    with s3_bucket("locks") as options:
        monkeypatch.setenv("AWS_ENDPOINT_URL", options["client_kwargs"]["endpoint_url"])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        url = "s3://locks/kept"
        command = [sys.executable, "-c", HOLD_ELSEWHERE, url, str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            for _ in range(3):
                time.sleep(seconds / 2)
                with pytest.raises(OSError, match=r"on elsewhere, since 2001.* renewed \d s ago"), alone_at(url, said):
                    pass
            other.kill()
        ends: list[str] = []
        over = threading.Event()

        def ask() -> None:
            for _ in range(40):
                try:
                    with alone_at(url, said):
                        ends.append("got it")
                        over.wait(60)
                        return
                except OSError as error:
                    if over.is_set() or f"process {os.getpid()} " in str(error):
                        ends.append("refused")
                        return
                    ends.append("waited")
                    time.sleep(0.25)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len([end for end in ends if end != "waited"]) < 8:
            time.sleep(0.05)
        over.set()
        for thread in threads:
            thread.join()
        assert ends.count("got it") == 1 and ends.count("refused") == 7 and ends.count("waited") >= 8
        with alone_at(url, said) as check:
            check()


def test_what_opens_a_url_is_not_shown() -> None:
    assert without_secrets("s3://key:word@bucket/fit.zarr?sig=planted") == "s3://bucket/fit.zarr"
    assert without_secrets(Path("/data/a@b?c")) == "/data/a@b?c"
