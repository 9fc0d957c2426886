"""One fit at a time on one checkpoint: a second is refused by name, and one that was killed is in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.data import alone
from lrgls_dask.data.alone import alone_at
from lrgls_dask.errors import without_secrets
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
    monkeypatch.setattr(alone, "fcntl", None)


def owner(**change: Any) -> str:
    me = psutil.Process()
    known = {"pid": me.pid, "host": alone.socket.gethostname(), "started": me.create_time(), "since": "then"}
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

    monkeypatch.setattr(alone.fcntl, "flock", refused)
    for _ in range(2):
        with alone_at(tmp_path / "kept", said):
            for _ in range(2):
                with pytest.raises(OSError, match=f"process {os.getpid()} "), alone_at(tmp_path / "kept", said):
                    pass


def test_of_two_who_find_an_owner_gone_one_gets_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other deletes what the first has just made, and makes its own."""
    place = fsspec.filesystem("memory")
    gone = {"pid": 2**22 + 1, "host": alone.socket.gethostname(), "started": 0.0}
    place.pipe_file("/race.lock", json.dumps(gone).encode())
    other = json.dumps({"pid": os.getpid(), "host": "another", "started": 1.0}).encode()
    monkeypatch.setattr(alone.time, "sleep", lambda _: place.pipe_file("/race.lock", other))
    with pytest.raises(OSError, match="on another"), alone_at("memory://race", said):
        pass
    assert place.cat_file("/race.lock") == other
    place.rm_file("/race.lock")


def test_what_opens_a_url_is_not_shown() -> None:
    assert without_secrets("s3://key:word@bucket/fit.zarr?sig=planted") == "s3://bucket/fit.zarr"
    assert without_secrets(Path("/data/a@b?c")) == "/data/a@b?c"
