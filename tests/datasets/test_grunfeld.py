"""Grunfeld's investment data."""

import pandas as pd
import statsmodels.datasets.grunfeld

from lrgls_dask.datasets import grunfeld_csv


def test_every_number_is_the_one_statsmodels_ships() -> None:
    theirs = statsmodels.datasets.grunfeld.load_pandas().data.astype({"year": int, "firm": str})
    pd.testing.assert_frame_equal(pd.read_csv(grunfeld_csv()), theirs, check_dtype=False)
