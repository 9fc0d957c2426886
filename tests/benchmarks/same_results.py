"""Show that a change of structure changed no result.

Code that is moved, split or renamed must compute what it computed before. This script fits the small cases of
`same_results_cases.py` through the public API alone and writes down all that a fit says: numbers to the last bit,
texts, warnings, messages of refusals, and the names, types and values in the saved file. Two recordings, by the code
before and by the code after, are then compared, and files that the old code saved are opened by the new code::

    python same_results.py record DIR           # once with the old code, once with the new
    python same_results.py compare DIR_A DIR_B  # one line a case; --all shows every difference
    python same_results.py open DIR             # the saved fits of DIR, opened by the code that runs

Two recordings agree to the last bit only on one machine with one set of libraries; BLAS is held to one thread.

Parameters
----------
DIR : folder of a recording. Each case leaves NAME.npz (numbers), NAME.json (texts) and NAME.zarr (the saved fit).
--only TEXT : only cases whose names contain TEXT.

Returns
-------
Exit status 1 where a coefficient moved by more than 1e-9 of its standard error, another number by more than 1e-6 of the
quantity, or a message, a summary, a name or a type in a saved file is another or missing. The trace alone, and what the
second recording or its saved files hold in addition, are reported and are no failure. Seconds are not recorded.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["BLIS_NUM_THREADS"] = "1"

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from same_results_cases import CASES, Case
from same_results_recording import Recording, ask_opened, recorded

import lrgls_dask

KINDS = ("coefficients", "Sigma", "likelihood", "missing", "text", "shape", "numbers", "trace")  # as they are shown
COEFFICIENTS_WITHIN, NUMBERS_WITHIN = 1e-9, 1e-6


# ---------------------------------------------------------------------------------------------- what differs


@dataclass(frozen=True)
class Difference:
    """Of one quantity. kind : what the sizes of several cases are compared by.  text : for the reader."""

    name: str
    kind: str
    size: float
    text: str
    fails: bool


def differences(a: Recording, b: Recording) -> tuple[list[Difference], list[str]]:
    """What differs, the worst of each kind first, and what b, or its saved files, has in addition."""
    found, added = [], []
    for name in sorted({*a.numbers, *a.texts, *b.numbers, *b.texts}):
        here, there = (each.numbers.get(name, each.texts.get(name)) for each in (a, b))
        if here is None and not name.endswith((" raises", " warns")):
            added.append(name)
        elif here is None or there is None:
            where = "the second" if here is None else "the first"
            said = f", {a.texts.get(name, b.texts.get(name, 'a number'))[:200]!r}"
            found.append(Difference(name, "missing", np.inf, f"{name}: only in {where} recording{said}", True))
        elif isinstance(here, np.ndarray) and isinstance(there, np.ndarray):
            found += [] if _same_bits(here, there) else [_of_numbers(name, here, there, a)]
        elif str(here) != str(there):
            found.append(Difference(name, "text", np.inf, f"{name}: {_shown(str(here), str(there))}", True))
    return _one_of_each_kind_first(found), added


def _one_of_each_kind_first(found: list[Difference]) -> list[Difference]:
    """The worst of each kind, then the second worst of each, and so on; failures before the others."""
    found = sorted(found, key=lambda each: (not each.fails, -each.size, len(each.name)))
    kinds = [each.kind for each in found]
    places = [kinds[:at].count(kind) for at, kind in enumerate(kinds)]
    order = sorted(range(len(found)), key=lambda at: (not found[at].fails, places[at], KINDS.index(kinds[at])))
    return [found[at] for at in order]


def _same_bits(here: np.ndarray, there: np.ndarray) -> bool:
    return here.dtype == there.dtype and here.shape == there.shape and here.tobytes() == there.tobytes()


def _of_numbers(name: str, here: np.ndarray, there: np.ndarray, a: Recording) -> Difference:
    """In units that suit the quantity."""
    trace = "trace" in name
    if here.shape != there.shape or here.dtype != there.dtype:
        text = f"{name}: {here.dtype} {here.shape} -> {there.dtype} {there.shape}"
        return Difference(name, "trace" if trace else "shape", np.inf, text, not trace)
    if here.dtype.kind in "mM":
        return Difference(name, "numbers", np.inf, f"{name}: other times", True)
    kind, unit, scale = _unit(name, here.astype(float), a)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.where(here == there, 0.0, np.abs(here.astype(float) - there.astype(float)) / scale)
    apart = np.where(np.isnan(here) & np.isnan(there), 0.0, np.where(np.isnan(apart), np.inf, apart))
    size = float(apart.max())
    relative = size / float(np.abs(here).max() or 1.0) if unit == "" else size
    limit = COEFFICIENTS_WITHIN if kind == "coefficients" else NUMBERS_WITHIN
    counted = f"{name}: {here.tolist()} -> {there.tolist()}" if here.size == 1 and here.dtype.kind in "iub" else ""
    fails = relative > limit and not trace
    return Difference(name, kind, size, counted or f"{name}: {size:.2g}{unit}", fails)


def _unit(name: str, here: np.ndarray, a: Recording) -> tuple[str, str, Any]:
    """Kind, name of the unit and its size: standard errors, standard deviations, absolute, or the largest number."""
    size = np.abs(here[np.isfinite(here)]).max(initial=0.0) or 1.0
    last = name.replace(".", " ").replace("/", " ").split()[-1]
    if last in ("params", "coef"):
        errors = a.numbers.get("std_errors", np.zeros(0))
        if errors.shape == here.shape[-1:]:
            return "coefficients", " standard errors", np.where(errors > 0, errors, size)
        return "coefficients", " of the largest", size
    if here.ndim == 2 and "sigma" in name.split(".")[0] and here.shape[0] == here.shape[1]:
        sd = np.sqrt(here.diagonal())
        return "Sigma", " of standard deviations", np.outer(sd, sd)
    if last in ("loglik", "nll", "objective", "aic", "bic"):
        return "likelihood", "", 1.0
    return ("trace" if "trace" in name else "numbers"), " of the largest", size


def trace_change(a: Recording, b: Recording) -> str:
    """Passes and rows of the trace, where they are others."""
    said = []
    for what, name in (("passes", "trace.passes"), ("sweeps", "trace.sweep"), ("rows", "trace.nll")):
        ends = [each.numbers.get(name, np.zeros(0)) for each in (a, b)]
        counts = [len(end) if what == "rows" else int(end[-1]) if len(end) else 0 for end in ends]
        if counts[0] != counts[1]:
            said.append(f"{what} {counts[0]} -> {counts[1]}")
    return "trace: " + ", ".join(said) if said else ""


def _shown(here: str, there: str) -> str:
    """The first line that differs, cut around the place."""
    a, b = here.splitlines() or [""], there.splitlines() or [""]
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    lines = [each[first] if first < len(each) else "(no such line)" for each in (a, b)]
    common = (i for i, (x, y) in enumerate(zip(*lines, strict=False)) if x != y)
    start = max(0, next(common, min(map(len, lines))) - 20)
    return " -> ".join(repr(line[start : start + 70]) for line in lines)


# ---------------------------------------------------------------------------------------------- reports


@dataclass
class Tally:
    """Of all cases: how many are the same, and the largest difference of each kind."""

    same: int = 0
    within: int = 0
    failed: list[str] = field(default_factory=list)
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, a: Recording, b: Recording, *, everything: bool) -> None:
        """Compare two recordings of a case and print its line."""
        found, added = differences(a, b)
        for extra in added:
            self.added[extra] = self.added.get(extra, 0) + 1
        for each in found:
            if each.size >= self.largest.get(each.kind, (0.0, ""))[0]:
                self.largest[each.kind] = (each.size, f"{name}, {each.name}")
        more = f"; {len(added)} additions" if added else ""
        if not found:
            self.same += 1
            print(f"{name:<40} equal to the last bit ({len(a.numbers)} numbers, {len(a.texts)} texts){more}")
            return
        failed = any(each.fails for each in found)
        self.within += not failed
        self.failed += [name] if failed else []
        texts = [trace_change(a, b)] if trace_change(a, b) else []
        texts += [each.text for each in found if everything or each.fails or each.kind != "trace"]
        shown = texts if everything else texts[:5]
        rest = f"; and {len(texts) - len(shown)} more" if len(texts) > len(shown) else ""
        join = "\n    " if everything else "; "
        print(f"{name:<40} {'FAILS' if failed else 'differs'}: {join.join(shown)}{rest}{more}")

    def close(self, n_cases: int) -> int:
        """Print the table; the exit status."""
        counts = f"{self.same} equal to the last bit, {self.within} within tolerance, {len(self.failed)} fail"
        print(f"\n{n_cases} cases: {counts}")
        for kind, (size, where) in sorted(self.largest.items()):
            print(f"  largest difference, {kind:<13} {size:<10.2g} {where}")
        for name, count in sorted(self.added.items()):
            print(f"  only in the second{' saved files' if name.startswith('saved') else ''}: {name}, in {count} cases")
        if self.failed:
            print(f"  failed: {', '.join(self.failed)}")
        return int(bool(self.failed))


def record_all(folder: Path, cases: Sequence[Case]) -> int:
    """Fit every case; what an earlier recording left of it is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"recording {len(cases)} cases with {Path(lrgls_dask.__file__).parent}")
    start = time.perf_counter()
    for case in cases:
        store, began = folder / f"{case.name}.zarr", time.perf_counter()
        shutil.rmtree(store, ignore_errors=True)
        found = recorded(case, store)
        found.write(folder / case.name)
        said = found.texts.get("fit", found.texts.get("fit raises"))
        print(f"{case.name:<40} {time.perf_counter() - began:6.2f} s  {said}", flush=True)
    print(f"{len(cases)} cases in {time.perf_counter() - start:.0f} s")
    return 0


def compare_all(a: Path, b: Path, only: str, *, everything: bool) -> int:
    """Compare two recordings."""
    tally = Tally()
    names = sorted({path.stem for folder in (a, b) for path in folder.glob("*.json") if only in path.stem})
    for name in names:
        if all((folder / f"{name}.json").exists() for folder in (a, b)):
            tally.count(name, Recording.read(a / name), Recording.read(b / name), everything=everything)
        else:
            print(f"{name:<40} FAILS: only in one of the recordings")
            tally.failed.append(name)
    return tally.close(len(names))


def open_all(folder: Path, only: str, *, everything: bool) -> int:
    """Open every saved fit of a recording and compare what it says with what the opened fit said then."""
    tally = Tally()
    print(f"opening with {Path(lrgls_dask.__file__).parent}")
    names = sorted(path.stem for path in folder.glob("*.zarr") if only in path.stem)
    for name in names:
        before = Recording.read(folder / name)
        now = Recording(texts={"class": before.texts["class"]})
        ask_opened(now, folder / f"{name}.zarr")
        now.numbers["std_errors"] = before.numbers.get("std_errors", np.zeros(0))
        for each in (before, now):
            each.numbers = each.part("opened").numbers | each.part("std_errors").numbers
            each.texts = each.part("opened").texts
        before.texts.pop("opened fit is the same to the last bit")
        tally.count(name, before, now, everything=everything)
    return tally.close(len(names))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the three modes."""
    parser = argparse.ArgumentParser(prog="same_results.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mode", choices=("record", "compare", "open"))
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--all", action="store_true", help="show every difference")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose names contain TEXT")
    args = parser.parse_args(argv)
    if len(args.folders) != (2 if args.mode == "compare" else 1):
        parser.error(f"{args.mode} takes {'two folders' if args.mode == 'compare' else 'one folder'}")
    if args.mode == "record":
        return record_all(args.folders[0], [case for case in CASES if args.only in case.name])
    if args.mode == "compare":
        return compare_all(args.folders[0], args.folders[1], args.only, everything=args.all)
    return open_all(args.folders[0], args.only, everything=args.all)


if __name__ == "__main__":
    sys.exit(main())
