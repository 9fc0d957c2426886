"""Which of some rows count, however the rows are cut."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from lrgls_dask import System
from lrgls_dask.rows.counting import rows_that_count

N = 40
Y = np.random.default_rng(5).normal(size=(N, 3))
Y[[4, 31]] = np.nan
SOME = np.array([3, 4, 31, 39])
pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.mark.parametrize("length", [1, 7, 20, N])
@pytest.mark.parametrize("columns", [1, 3])
def test_blocks_without_any_of_the_rows(length: int, columns: int) -> None:
    responses = da.from_array(Y[:, :columns], chunks=(length, columns))
    rows = System.from_arrays(responses, np.ones((N, 1))).rows
    np.testing.assert_array_equal(rows_that_count(rows, SOME), [3, 39])
