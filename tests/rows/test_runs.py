"""Stretches that are decoded from their beginning on are taken whole by one task; what is joined stays in its task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from lrgls_dask import LowRankGLS, System
from lrgls_dask.rows import layout, run_pass
from lrgls_dask.rows.kernels import gram_kernel
from lrgls_dask.rows.layout import cut_rows
from lrgls_dask.rows.memory import task_bytes
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.rows import Rows

RNG = np.random.default_rng(0)


def rows_in(runs: list[list[int]], run_bytes: int = 0) -> Rows:
    """Rows in these chunks, which runs are made of; (n, 4) of X and (n, 4) of Y."""
    chunks = tuple(n for run in runs for n in run)
    y, x = (da.from_array(RNG.normal(size=(sum(chunks), 4)), chunks=(chunks, 4)) for _ in range(2))
    rows = System.from_arrays(y, x).rows
    lengths = tuple(map(sum, runs))

    def with_runs(parts: Any) -> Any:
        return tuple(replace(part, runs=lengths, run_bytes=run_bytes) for part in parts)

    return replace(rows, x=with_runs(rows.x), y=with_runs(rows.y))


@pytest.mark.parametrize(
    "runs",
    [
        [[40, 40, 13]] * 9,
        [[3]] * 50 + [[40, 40]] * 5 + [[3]] * 50,
        [[7], [40, 40, 40, 1], [2], [2], [30, 30], [1]],
        [[10, 10, 10, 10]],
        [[9]] * 20,
    ],
)
def test_a_task_takes_whole_runs(runs: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SMALL_BLOCK_BYTES", "BLOCK_BYTES"):
        monkeypatch.setattr(layout, name, 64 * 45)
    monkeypatch.setattr(layout, "GROUPS_WANTED", 4)
    found = cut_rows(rows_in(runs), 0)
    edges = np.cumsum([0, *map(sum, runs)])
    assert set(found.blocks[found.groups].tolist()) <= set(edges.tolist())
    assert found.blocks[0] == 0
    assert found.blocks[-1] == edges[-1]
    inside = [(a, b) for a, b, run in zip(edges[:-1], edges[1:], runs, strict=True) if len(run) > 1]
    for first, last in zip(found.blocks[:-1], found.blocks[1:], strict=True):
        assert all(last <= a or first >= b or (a <= first and last <= b) for a, b in inside)
    of_several = sum(len(run) for run in runs if len(run) > 1)
    assert found.n_blocks >= of_several  # each chunk of a run of several is a block
    assert found.n_blocks < of_several + max(2, sum(len(run) == 1 for run in runs))  # others are joined


def test_a_plan_counts_what_decoding_holds() -> None:
    runs = [[40, 40]] * 3
    little, much = (rows_in(runs, held) for held in (0, 10**8))
    cut = cut_rows(little, 0)
    assert task_bytes(much, cut, 0) - task_bytes(little, cut, 0) == 10**8


def test_chunks_that_are_joined_or_renamed_are_made_in_the_task_that_uses_them() -> None:
    """The scheduler sees none of them, and so keeps none: of a thousand partitions a few are in memory."""
    values = RNG.normal(size=(4000, 6))
    pieces = [
        da.from_delayed(dask.delayed(values.__getitem__)(slice(i, i + 500)), (500, 6), float)
        for i in range(0, 4000, 500)
    ]
    whole = da.concatenate(pieces)
    seen: list[Any] = []

    def get(graph: Any, keys: Any, **options: Any) -> Any:
        seen.extend(graph)
        return dask.get(graph, keys)

    with dask.config.set(scheduler=get):
        fit = LowRankGLS(0).fit(System.from_arrays(whole[:, 2:], whole[:, :2])).result_
    names = {str(key[0] if isinstance(key, tuple) else key) for key in seen}
    assert [name for name in names if name.startswith(("getitem", "from-value", "concatenate", "__getitem__"))] == []
    expected = LowRankGLS(0).fit(System.from_arrays(values[:, 2:], values[:, :2])).result_
    np.testing.assert_allclose(fit.coefficients, expected.coefficients, rtol=1e-12)


@pytest.mark.parametrize("chunk", [7, 40])
def test_blocks_of_a_store_are_planned_in_their_tasks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client makes no object for each of a million chunks, and the sums are those of the rows in memory."""
    Y, X = RNG.normal(size=(400, 5)), RNG.normal(size=(400, 3))
    monkeypatch.setattr(layout, "SMALL_BLOCK_BYTES", 64 * 40)
    stored = [zarr.array(each, chunks=(chunk, each.shape[1]), store={}) for each in (Y, X)]
    system = System.from_arrays(*stored)
    planned: list[int] = []
    monkeypatch.setattr(run_pass, "plan_blocks", lambda *_: planned.append(1))
    moments = run_pass.run_pass(system.rows, gram_kernel, None, partial_bytes=8, meter=Meter())
    assert not planned
    both = np.hstack([X, Y])
    centred = both - both.mean(axis=0)
    np.testing.assert_allclose(np.tril(moments.cross), np.tril(centred.T @ centred), rtol=1e-10, atol=1e-10)


def test_chunks_of_a_usual_size_are_blocks_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no two neighbours may be joined none is looked at, which for millions of chunks takes long."""
    monkeypatch.setattr(layout, "SMALL_BLOCK_BYTES", 64 * 45)
    lengths = [30] * 50 + [44, 3]
    rows = rows_in([[n] for n in lengths])
    assert cut_rows(rows, 0).n_blocks == len(lengths) - 1  # the last two together
    whole = rows_in([[n] for n in lengths[:-1]])
    monkeypatch.setattr(layout, "bisect_right", lambda *_: pytest.fail("looked at neighbours"))
    assert cut_rows(whole, 0).blocks.tolist() == np.cumsum([0, *lengths[:-1]]).tolist()
