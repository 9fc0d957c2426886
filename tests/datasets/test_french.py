"""The data that ship with the package."""

import linearmodels.datasets.french
import numpy as np
import pandas as pd
import pytest

from lrgls_dask.datasets import load_french


@pytest.fixture(scope="module")
def french():
    return load_french()


def test_labels_and_sizes(french):
    assert french["sort"].to_series().value_counts().to_dict() == {"industry": 12, "value": 9, "momentum": 9}
    assert french["sort"].sel(portfolio=["Utils", "S3V1", "S5M5"]).values.tolist() == ["industry", "value", "momentum"]
    assert dict(french.sizes) == {"time": 819, "portfolio": 30}
    assert str(french["time"].values[0])[:7] == "1949-01" and str(french["time"].values[-1])[:7] == "2017-03"
    assert french.indexes["time"].equals(pd.date_range("1949-01-01", periods=819, freq="MS"))
    assert list(french["portfolio"].values[[0, 11, 12, 20, 21, 29]]) == [
        "NoDur",
        "Other",
        "S1V1",
        "S5V5",
        "S1M1",
        "S5M5",
    ]
    assert french["const"].dims == ("time",) and (french["const"] == 1).all()


def test_every_number_is_the_one_linearmodels_ships(french):
    theirs = linearmodels.datasets.french.load()
    for ours, name in {"mktrf": "MktRF", "smb": "SMB", "hml": "HML", "mom": "Mom", "rf": "RF"}.items():
        np.testing.assert_allclose(french[ours], theirs[name], rtol=0, atol=1e-16)
    for name in french["portfolio"].values:
        expected = theirs[name] - theirs["RF"]
        np.testing.assert_allclose(french["excess_return"].sel(portfolio=name), expected, rtol=0, atol=1e-15)


def test_units_are_decimals_per_month(french):
    assert french["excess_return"].attrs["units"] == "decimal per month"
    assert float(french["mktrf"].min()) == -0.2324  # October 1987
    assert str(french["time"].values[french["mktrf"].values.argmin()])[:7] == "1987-10"


def test_lag_is_the_month_before_and_the_first_month_has_none(french):
    lag, excess = french["lag_return"].values, french["excess_return"].values
    assert np.isnan(lag[0]).all()
    np.testing.assert_array_equal(lag[1:], excess[:-1])


def test_only_the_first_lag_is_missing(french):
    missing = {name: int(np.isnan(variable).sum()) for name, variable in french.data_vars.items()}
    assert missing == {**dict.fromkeys(missing, 0), "lag_return": 30}
