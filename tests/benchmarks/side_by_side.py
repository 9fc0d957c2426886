"""Two checkouts of the library against each other: seconds of typical fits and of the import, in turns, A B A B.

    python tests/benchmarks/side_by_side.py OLD NEW [--repeat 5] [--only TEXT] [--small]

OLD, NEW : folders that hold `lrgls_dask`. Every run is a fresh interpreter that imports one of them, makes the same
data and times one fit; printed are medians, least times and ratios NEW / OLD. Only the public API is used, so that
checkouts of very different structure can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RANK, SEED = 3, 0


def panel(n_obs: int, n_equations: int, n_regressors: int) -> tuple[Any, Any]:
    """Responses (N, K) and K designs of their own, errors with RANK factors."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    xs = [rng.standard_normal((n_obs, n_regressors)) for _ in range(n_equations)]
    z = rng.standard_normal((n_obs, RANK)) @ rng.standard_normal((RANK, n_equations))
    y = np.stack([x.sum(axis=1) for x in xs], axis=1) + z + rng.standard_normal((n_obs, n_equations))
    return y, xs


def holes(y: Any, n_patterns: int) -> Any:
    """The responses with a tenth missing, in so many patterns; 0 for as many as there are rows."""
    import numpy as np

    rng = np.random.default_rng(SEED + 1)
    masks = rng.random((n_patterns or len(y), y.shape[1])) < 0.1
    out = y.copy()
    out[masks[np.arange(len(y)) % len(masks)]] = np.nan
    return out


def fit(y: Any, xs: Any, **options: Any) -> Callable[[], Any]:
    from lrgls_dask import LowRankGLS, System

    return lambda: LowRankGLS(**options).fit(System.from_arrays(y, xs)).result_


def stored(small: bool, folder: str) -> Callable[[], Any]:
    from lrgls_dask import LowRankGLS, System

    path = Path(folder) / "store.zarr"
    if not path.exists():
        y, xs = panel(2_000 if small else 200_000, 40, 5)
        System.from_arrays(y, xs).to_zarr(path)
    return lambda: LowRankGLS(RANK).fit(System.from_zarr(path)).result_


def task(name: str, small: bool, folder: str) -> Callable[[], Any]:
    """The fit to time, its data made."""
    n = 20 if small else 1
    if name == "one pass from zarr":
        return stored(small, folder)
    if name == "arrays, N = 100,000":
        return fit(*panel(100_000 // n, 50, 5), rank=RANK, rel_tol=1e-9)
    if name == "BIC over 12 ranks":
        return fit(*panel(10_000 // n, 50, 5), rank="bic")
    if name == "full":
        return fit(*panel(20_000 // n, 30, 5), covariance="full")
    if name == "EM":
        return fit(*panel(20_000 // n, 50, 5), rank=RANK, algorithm="em")
    if name == "streamed":
        return fit(*panel(20_000 // n, 50, 5), rank=RANK, engine="stream")
    y, xs = panel(40_000 // n, 30, 3)
    y = holes(y, 40 if name == "missing, 40 patterns" else 0)
    return fit(y, xs, rank=RANK, missing="em")


TASKS = (
    "import",
    "one pass from zarr",
    "arrays, N = 100,000",
    "BIC over 12 ranks",
    "full",
    "EM",
    "streamed",
    "missing, 40 patterns",
    "missing, streamed",
)


def run_here(name: str, small: bool, folder: str) -> None:
    """Print the seconds of one task in this interpreter, and how many passes it took."""
    start = time.perf_counter()
    import lrgls_dask

    seconds, passes = time.perf_counter() - start, 0
    if name != "import":
        run = task(name, small, folder)
        start = time.perf_counter()
        passes = run().n_passes
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "passes": passes, "file": lrgls_dask.__file__}))


def measured(checkout: str, name: str, small: bool, folder: str) -> dict[str, Any]:
    """One run in a fresh interpreter that imports from `checkout`."""
    command = [sys.executable, "-W", "ignore", __file__, "--task", name, "--folder", folder, *(["--small"] * small)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": checkout}, capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode:
        raise RuntimeError(f"{name} in {checkout}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["file"]).is_relative_to(Path(checkout).resolve()), found["file"]
    return found


def compare(old: str, new: str, repeat: int, only: str, small: bool) -> None:
    print(f"{'':<24}{'old median':>12}{'new median':>12}{'ratio':>8}{'of least':>10}{'passes':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name in (each for each in TASKS if only in each):
            measured(new, name, small, folder)  # makes what is stored, warms the file cache
            pairs = [(measured(old, name, small, folder), measured(new, name, small, folder)) for _ in range(repeat)]
            a, b = ([pair[i]["seconds"] for pair in pairs] for i in (0, 1))
            middle = statistics.median(a), statistics.median(b)
            passes = f"{pairs[0][0]['passes']} -> {pairs[0][1]['passes']}"
            ratios = middle[1] / middle[0], min(b) / min(a)
            print(
                f"{name:<24}{middle[0]:>12.3f}{middle[1]:>12.3f}{ratios[0]:>8.3f}{ratios[1]:>10.3f}{passes:>10}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", metavar="OLD NEW")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        run_here(args.task, args.small, args.folder)
    else:
        old, new = (str(Path(each).resolve()) for each in args.checkouts)
        compare(old, new, args.repeat, args.only, args.small)


if __name__ == "__main__":
    main()
