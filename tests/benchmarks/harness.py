"""What the benchmarks share: fresh interpreters, alternating runs, peak memory, cold files, a table and a JSON file.

A script names its tasks, plain functions of JSON values, and says which to run. Every run is a new interpreter that
imports first and then does one task, so that runs share nothing but the machine; cases alternate, A B A B, so that a
slow minute falls on all of them alike. The scripts print medians and ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import dask
import numpy as np
import psutil
import threadpoolctl

import lrgls_dask
from lrgls_dask import FitWarning, LowRankGLS, System
from lrgls_dask.simulate import simulate_to_zarr

__all__ = [
    "Case",
    "Report",
    "Session",
    "Task",
    "dense_nll",
    "fit_store",
    "main",
    "median",
    "ratio",
    "store_files",
    "timed",
]

SAMPLE_SECONDS = 0.02  # between two looks at the memory of a run; the high-water mark of its main process is exact
SAMPLES_PER_SCAN = 25  # listing a process's children walks the process table, which would disturb the timing

Task = Callable[..., dict[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    task, arguments : the task of the script and its JSON arguments.  cold : files dropped from the page cache before
    every run.  at_most : the most runs of a case too slow to repeat as often as the others.
    """

    name: str
    task: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cold: tuple[Path, ...] = ()
    at_most: int = sys.maxsize


@dataclass(frozen=True)
class Report:
    """What a benchmark found. settings : its sizes.  runs : one record a run.  table : what is printed, by default
    one line a case.  summary : the figures it exists for, by name."""

    settings: dict[str, Any]
    runs: list[dict[str, Any]]
    summary: dict[str, Any]
    table: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Session:
    """One call of a script. script : its file.  small : sizes for a test.  repeat : runs of each case.
    folder : where stores are kept or made.  rows : of the data, where the script lets one say it, else None."""

    script: Path
    small: bool
    repeat: int
    folder: Path
    rows: int | None = None

    def alternate(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """One record a run, all cases in turn, then all again."""
        runs = []
        for turn in range(self.repeat):
            for case in cases:
                if turn < case.at_most:
                    drop_from_page_cache(case.cold)
                    runs.append({"case": case.name, **_fresh(self.script, case.task, case.arguments)})
        return runs

    def store(self, *, n_obs: int, n_equations: int, n_regressors: int, row_chunk: int) -> Path:
        """An uncompressed store of simulated data of this shape, rank 3; made unless a run before left it here."""
        path = self.folder / f"N{n_obs}-K{n_equations}-p{n_regressors}-chunk{row_chunk}.zarr"
        if not path.exists():
            print(f"writing {8e-9 * n_obs * n_equations * (n_regressors + 1):.2f} GB of simulated data", flush=True)
            simulate_to_zarr(
                path, n_obs=n_obs, n_equations=n_equations, n_regressors=n_regressors, rank=3, row_chunk=row_chunk
            )
        return path


def main(
    script: str,
    description: str,
    tasks: Mapping[str, Task],
    run: Callable[[Session], Report],
    argv: Sequence[str] | None,
    *,
    sized: bool = False,
) -> None:
    """Be one task in a fresh interpreter, if called as `_fresh` calls, else the whole benchmark.

    sized : whether the script takes the number of rows.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--task"]:
        _be_task(tasks[words[1]], json.loads(words[2]), Path(words[3]))
        return
    name = Path(script).stem
    parser = _arguments(name, description or "")
    if sized:
        parser.add_argument("--rows", type=int, help="rows of the data, in place of the script's own")
    args = parser.parse_args(words)
    machine = machine_facts()
    with _folder(args.store) as folder:
        report = run(Session(Path(script), args.small, args.repeat, folder, vars(args).get("rows")))
    _print(name, report)
    found = {"benchmark": name, "small": args.small, "machine": machine, **vars(report)}
    args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _arguments(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{name}.py", description=description.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes; its figures mean nothing")
    parser.add_argument("--json", type=Path, default=Path(f"{name}.json"), help="what was found (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each case (default %(default)s)")
    parser.add_argument("--store", type=Path, help="folder to keep simulated stores in; by default a temporary one")
    return parser


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """The folder to keep stores in, or a temporary one beside the output: the system's own may be in memory."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="benchmark-") as folder:
        yield Path(folder)


# ---------------------------------------------------------------------------------------------- fresh interpreters


def _fresh(script: Path, task: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the task returned from an interpreter of its own, and peak_sum, peak_max: bytes of the process and its
    children together, and of the largest of them. Raises RuntimeError with what a failed task said."""
    here = str(Path(lrgls_dask.__file__).parents[1])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        found, said = Path(folder) / "found.json", Path(folder) / "stderr.txt"
        command = [sys.executable, str(script), "--task", task, json.dumps(dict(arguments)), str(found)]
        with said.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env={**os.environ, "PYTHONPATH": path})
            sampled_sum, sampled_max = _watch(process)
        if process.returncode != 0:
            raise RuntimeError(f"task {task!r} ended with {process.returncode}:\n{said.read_text(errors='replace')}")
        record = json.loads(found.read_text(encoding="utf-8"))
    exact = record.pop("high_water")
    return {**record, "peak_sum": max(sampled_sum, exact), "peak_max": max(sampled_max, exact)}


def _watch(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Largest sampled bytes of the process with its children, and of any one of them, until it ends."""
    parent = psutil.Process(process.pid)
    family, peak_sum, peak_max, count = [parent], 0, 0, 0
    while process.poll() is None:
        if count % SAMPLES_PER_SCAN == 0:
            family = _family(parent)
        sizes = [_resident(member) for member in family]
        peak_sum, peak_max = max(peak_sum, sum(sizes)), max(peak_max, *sizes)
        count += 1
        time.sleep(SAMPLE_SECONDS)
    return peak_sum, peak_max


def _family(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [parent]


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has ended meanwhile
        return 0


def _be_task(task: Task, arguments: dict[str, Any], found: Path) -> None:
    """Run the task here; keep what it returned, the fit's warnings, bytes read from disk and this process's peak."""
    before = _disk_bytes()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FitWarning)
        record = task(**arguments)
    said = [str(w.message) for w in caught if issubclass(w.category, FitWarning)]
    record |= {"warnings": said, "disk_bytes": _disk_bytes() - before, "high_water": _high_water()}
    found.write_text(json.dumps(record), encoding="utf-8")


def _disk_bytes() -> int:
    """Bytes this process and the children it has waited for fetched from storage, not from the page cache."""
    return int(psutil.Process().io_counters().read_bytes) if hasattr(psutil.Process, "io_counters") else 0


def _high_water() -> int:
    """Peak resident bytes of this process; getrusage would count the process that started it as well."""
    status = Path("/proc/self/status")
    if not status.exists():
        return int(psutil.Process().memory_info().rss)
    (line,) = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


# ---------------------------------------------------------------------------------------------- measuring


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """The value of the call and its seconds."""
    began = time.perf_counter()
    value = function()
    return value, time.perf_counter() - began


def fit_store(path: str, threads: int) -> dict[str, Any]:
    """A task: the fit of rank 3 of a store, from its path to the result, and what its plan said before."""
    model = LowRankGLS(rank=3)
    with dask.config.set(scheduler="threads", num_workers=threads):
        fit, seconds = timed(lambda: model.fit(System.from_zarr(path)).result_)
    return {
        "seconds": seconds,
        "planned_peak": model.plan_.client_peak,
        "passes": fit.n_passes,
        "bytes_read": fit.bytes_read,
        "nll": fit.nll,
        "termination": fit.termination.value,
    }


def median(runs: Sequence[Mapping[str, Any]], case: str, key: str = "seconds") -> float:
    return float(statistics.median(run[key] for run in runs if run["case"] == case))


def ratio(runs: Sequence[Mapping[str, Any]], case: str, other: str, key: str = "seconds") -> float:
    """Median of one case over median of the other."""
    return median(runs, case, key) / median(runs, other, key)


def dense_nll(Y: np.ndarray, fitted: np.ndarray, F: np.ndarray, d: np.ndarray) -> float:
    """1/2 [K log(2 pi) + log|Sigma| + tr(Sigma^-1 R'R / N)] with Sigma = F F' + diag(d) formed and factored.

    Y, fitted : (N, K).  F : (K, k).  d : (K,).  One formula for the results of every library compared.
    """
    residuals = Y - fitted
    sigma = F @ F.T + np.diag(d)
    quadratic = np.trace(np.linalg.solve(sigma, residuals.T @ residuals / len(Y)))
    return 0.5 * float(len(d) * np.log(2 * np.pi) + np.linalg.slogdet(sigma)[1] + quadratic)


def store_files(path: Path) -> tuple[Path, ...]:
    """Every file of a store, in a fixed order."""
    return tuple(sorted(file for file in path.rglob("*") if file.is_file()))


def drop_from_page_cache(files: Sequence[Path]) -> None:
    """Make the next read of these files come from storage. Written pages must reach it first, hence fsync."""
    if files and not hasattr(os, "posix_fadvise"):
        raise OSError("this system has no posix_fadvise, so files cannot be made cold. Use Linux.")
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def machine_facts() -> dict[str, Any]:
    """What a reader needs to judge the figures; no name of a host, a user or a path."""
    pools = threadpoolctl.threadpool_info()
    packages = ("alsgls", "dask", "distributed", "linearmodels", "numpy", "scipy", "zarr")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_at_start": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": sorted({f"{p['internal_api']} {p['version']}" for p in pools if p["user_api"] == "blas"}),
        "lrgls_dask": lrgls_dask.__version__,
        **{name: version(name) for name in packages},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


# ---------------------------------------------------------------------------------------------- printing


def _print(name: str, report: Report) -> None:
    print(f"\n{name}: " + ", ".join(f"{key} = {_shown(value)}" for key, value in report.settings.items()))
    rows = _by_case(report.runs) if report.table is None else report.table
    cells = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first, *others]))
    for key, value in report.summary.items():
        print(f"{key}: {_shown(value)}")


def _by_case(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for case in dict.fromkeys(run["case"] for run in runs):
        seconds = [run["seconds"] for run in runs if run["case"] == case]
        rows.append(
            {
                "case": case,
                "runs": len(seconds),
                "median s": statistics.median(seconds),
                "least s": min(seconds),
                "most s": max(seconds),
                "peak MB": round(max(run["peak_sum"] for run in runs if run["case"] == case) / 1e6),
            }
        )
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
