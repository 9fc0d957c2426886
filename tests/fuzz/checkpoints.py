"""Checkpoints of fits that were ended in the middle, of which bytes and metadata were changed, sealed and unsealed."""

from __future__ import annotations

import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from fuzz.judge import Finding, require
from fuzz.stores import change, said_of, system, without_seal
from lrgls_dask import LowRankGLS
from lrgls_dask.solve.checkpoint import Checkpoint

OPTIONS: dict[str, Any] = {"engine": "stream", "algorithm": "em", "max_sweeps": 4}
MOST_SAVES = 3


class Ended(Exception):
    """Stands for the end of the client."""


def resumed(path: Path | None) -> list[float]:
    fit = LowRankGLS(1, checkpoint=path, **OPTIONS).fit(system()).result_
    return list(said_of(fit))


@cache
def whole() -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return resumed(None)


@cache
def kept(saves: int) -> dict[str, bytes]:
    """The files of a checkpoint after so many saves."""
    save, done = Checkpoint.save_point, []

    def counted(self: Checkpoint, *args: object) -> None:
        save(self, *args)  # type: ignore[arg-type]
        done.append(args)
        if len(done) == saves:
            raise Ended

    with tempfile.TemporaryDirectory() as folder, patch.object(Checkpoint, "save_point", counted):
        try:
            resumed(Path(folder) / "kept")
        except Ended:
            files = [each for each in Path(folder).rglob("*") if each.is_file()]
            return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}
    raise RuntimeError("the fit ended before that")


def run(rng: np.random.Generator) -> None:
    """One or two changes, then the fit goes on to the bits of one that was let be, or says what is damaged."""
    held = dict(kept(int(rng.integers(1, MOST_SAVES + 1))))
    sealed = rng.random() < 0.7
    if not sealed:
        for key in [key for key in held if key.endswith("zarr.json")]:
            held[key] = without_seal(held[key])
    told = [change(rng, held) for _ in range(1 if rng.random() < 0.8 else 2)]
    with tempfile.TemporaryDirectory() as folder:
        for key, content in held.items():
            (Path(folder) / key).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / key).write_bytes(content)
        try:
            found = resumed(Path(folder) / "kept")
        except Finding:
            raise
        except Exception as error:
            error.add_note(f"{'' if sealed else 'un'}sealed: {told}")
            raise
    if sealed:
        require(np.array_equal(found, whole()), f"{told} goes on to {found[:4]}")
