"""Products that sum over many rows into few numbers: their digits, and that other threads run meanwhile."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lrgls_dask.rows.sums import batched_sums, sums

SHAPES = [(1, 1, 40_000, 1), (50, 5, 834, 1), (3, 2, 9_001, 4), (7, 3, 10, 2), (60, 3, 300, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("as_stored", [True, False], ids=["side by side", "gathered"])
def test_batches_are_summed_however_the_rows_are_cut(shape: tuple[int, int, int, int], as_stored: bool) -> None:
    g, a, n, b = shape
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, g, a)) + 3.0, rng.normal(size=(g, n, b))
    left = x.transpose(1, 2, 0) if as_stored else np.ascontiguousarray(x.transpose(1, 2, 0))
    np.testing.assert_allclose(batched_sums(left, y), np.einsum("nga,gnb->gab", x, y), rtol=1e-11, atol=1e-9)


def test_sums_are_those_of_the_matrix_product_in_every_bit() -> None:
    x = np.random.default_rng(0).normal(size=(500, 7))
    for left, right in ((x.T, x), (x[:, :3].T, x), (np.ones(500), x)):
        assert np.array_equal(sums(left, right), left @ right)
    out = np.empty((7, 7))
    assert sums(x.T, x, out=out) is out
    assert np.array_equal(out, x.T @ x)


@pytest.fixture
def no_turns() -> Iterator[None]:
    """A thread runs until it lets others run of its own accord."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("no_turns")
@pytest.mark.parametrize("kind", ["one product", "a batch"])
def test_other_threads_run_while_rows_are_summed_into_few_numbers(kind: str) -> None:
    """A thread counts on while a product of some hundredths of a second is taken; np.matmul would stop it."""
    x = np.ones((400_000, 12))
    batch = x.reshape(-1, 4, 3).transpose(1, 2, 0)
    values = np.ones((4, len(x), 2))
    counted, over = [0], threading.Event()

    def count() -> None:
        while not over.is_set():
            counted[0] += 1
            time.sleep(0)  # lets others run

    thread = threading.Thread(target=count)
    thread.start()
    try:
        went_on = []
        for _ in range(20):
            before = counted[0]
            if kind == "one product":
                sums(x.T, x[:, :3])
            else:
                batched_sums(batch, values)
            went_on.append(counted[0] - before)
    finally:
        over.set()
        thread.join()
    assert max(went_on) > 0, went_on
