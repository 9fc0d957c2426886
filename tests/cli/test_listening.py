"""Who may reach what we start: this machine alone, and no dashboard where none is asked for."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client, get_client

from lrgls_dask.cli import fit

PAGES = sorted((Path(__file__).parents[2] / "deploy").glob("*.md"))


def listeners(parent: int) -> set[tuple[str, int]]:
    """Address and port of everything that a process and its children listen at."""
    process = psutil.Process(parent)
    found = [c for each in (process, *process.children(recursive=True)) for c in each.net_connections(kind="inet")]
    return {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}


def has_dashboard(address: tuple[str, int]) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/status", timeout=5):
            return True
    except (http.client.HTTPException, OSError):
        return False


def test_workers_of_a_fit_listen_on_loopback_and_have_no_dashboard() -> None:
    before = listeners(os.getpid())
    with fit._cluster(None, 1):
        get_client().wait_for_workers(1)
        opened = listeners(os.getpid()) - before
        assert len(opened) >= 4  # of scheduler, nanny and worker, and of their pages of health
        assert {host for host, _ in opened} == {"127.0.0.1"}
        assert [each for each in opened if has_dashboard(each)] == []


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Of each page the commands that start a scheduler or workers, on loopback."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            if line.startswith(f"    dask {program} "):
                words = re.sub(r"#.*", "", line).split()
                assert not any("tls" in word for word in words) or page.name == "TLS.md"
                yield page.name, [re.sub(r"\b(ADDRESS|OWN|10\.0\.0\.1)\b", "127.0.0.1", word) for word in words]


@pytest.mark.slow
def test_what_the_pages_start_listens_where_they_say(tmp_path: Path) -> None:
    """Scheduler and workers as each page starts them, but for TLS, which changes no address."""
    schedulers, workers = dict(commands("scheduler")), dict(commands("worker"))
    assert set(schedulers) == set(workers) >= {"SSH.md", "TLS.md"}
    for page, scheduler in schedulers.items():
        file = tmp_path / f"{page}.json"
        start = [sys.executable, "-m", *[w for w in scheduler if w not in ("--protocol", "tls")], "--port", "0"]
        begin = [sys.executable, "-m", *[w for w in workers[page] if "://" not in w], "--scheduler-file", str(file)]
        begin = [str(tmp_path) if word == "/local/scratch" else word for word in begin]
        running = [subprocess.Popen(words) for words in ([*start, "--scheduler-file", str(file)], begin)]
        try:
            with Client(scheduler_file=str(file), timeout=120) as client:
                client.wait_for_workers(1, timeout=120)
                time.sleep(0.5)
                for process in running:
                    opened = listeners(process.pid)
                    assert opened, page
                    assert {host for host, _ in opened} == {"127.0.0.1"}, (page, process.args)
                    assert [each for each in opened if has_dashboard(each)] == []
        finally:
            for process in running:
                process.terminate()
                process.wait(30)
