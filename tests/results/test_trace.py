"""What the trace of a fit says each pass was for: the words of the plan and of progress."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.rows import purposes
from support.systems import dask_rows, simulate

KNOWN = {value for name, value in vars(purposes).items() if name.isupper()}


def system(kind: str, missing: bool) -> System:
    data = simulate(kind, n=160)
    if missing:
        rng = np.random.default_rng(1)
        data.Y[rng.random(data.Y.shape) < 0.1] = np.nan
    return data.system(dask_rows(20))


def expanded(words: Sequence[str]) -> list[str]:
    """One word for each pass."""
    found: list[str] = []
    for each in words:
        for part in each.split(", ") if each else ():
            name, _, times = part.partition(" x ")
            found += [name] * int(times or 1)
    return found


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", ["shared", "own"])
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_every_pass_has_the_purpose_that_progress_shows(engine: str, kind: str, missing: bool) -> None:
    shown: list[tuple[str, int, int]] = []
    how = {"missing": "em"} if missing else {}
    model = LowRankGLS(2, engine=engine, progress=lambda *args: shown.append(args), **how)  # type: ignore[arg-type]
    data = system(kind, missing)
    planned = model.plan(data)
    found = model.fit(data).result_
    watched = [label for label, done, total in shown if done == total]
    told = expanded(found.trace["read_for"])
    assert len(told) == found.n_passes
    assert sorted(told) == sorted(watched)
    in_turn = [word for word, _ in groupby(watched)]
    assert told[0] == in_turn[0] and told[-1] == in_turn[-1]
    assert {word.removesuffix(" (QR)") for word in told} <= KNOWN
    assert told[0].removesuffix(" (QR)") in planned.purposes
    assert sum(planned.purposes.values()) == planned.passes
    for row, before in zip(found.trace.itertuples(), [0, *found.trace["passes"]], strict=False):
        assert len(expanded([row.read_for])) == row.passes - before


def test_a_streamed_plan_says_what_its_passes_are_for() -> None:
    data = system("own", False)
    plan = LowRankGLS(2, engine="stream").plan(data)
    assert "about 10 times, in" in str(plan)
    assert ", for OLS, residuals, coefficients x 8\n" in str(plan)
    told = set(expanded(LowRankGLS(2, engine="stream").fit(data).result_.trace["read_for"]))
    assert told == {*plan.purposes, "standard errors"}


def test_purposes_come_back_from_a_file(tmp_path: Path) -> None:
    made = LowRankGLS(2, engine="stream").fit(system("own", False)).result_
    made.to_zarr(tmp_path / "fit")
    back = Fit.from_zarr(tmp_path / "fit")
    assert back.trace["read_for"].tolist() == made.trace["read_for"].tolist()
