"""Options written as JSON and read again: what can be kept comes back as it was, of the rest a text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import GroupedLowRank, Known, LowRankGLS, SparseLowRank, TimeVarying
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.options import OPTIONS
from lrgls_dask.options.stored import as_stored, from_stored


def kept(**options: Any) -> dict[str, Any]:
    """The options after a way through JSON."""
    params = LowRankGLS(**options).get_params()
    return from_stored(json.loads(json.dumps(as_stored(params), allow_nan=False)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"rank": np.int64(3), "lam_B": np.float64(0.5)}, {"rank": 3, "lam_B": 0.5}),
        ({"lam_B": {"x": 1.0, ("a", 2): np.float64(0.5)}}, {}),
        ({"checkpoint": Path("kept.zarr")}, {"checkpoint": "kept.zarr"}),
        ({"restrictions": ["a:x = 1", "b:x = a:x"]}, {}),
        ({"restrictions": {"a:x": 1.0}}, {}),
        ({"restrictions": {("a", "x"): 1.0, ("b", 2): 0}}, {}),
        ({"covariance": SparseLowRank(2, 0.05)}, {}),
        ({"covariance": SparseLowRank(np.int64(2))}, {"covariance": SparseLowRank(2)}),
        ({"covariance": GroupedLowRank(1, "sector")}, {}),
        ({"covariance": GroupedLowRank(1, ["sector", {"a": 1, ("b", 2): None}], [1, 2])}, {}),
        ({"covariance": TimeVarying(1, "time.year", np.inf)}, {}),
    ],
)
def test_what_comes_back_makes_the_same_estimator(options: dict[str, Any], expected: dict[str, Any]) -> None:
    found = kept(**options)
    assert found == LowRankGLS(**options | expected).get_params()
    assert LowRankGLS(**found).get_params() == found


def test_arrays_and_series_of_few_values_come_back() -> None:
    groups = pd.Series({"a": "x", "b": "y"})
    for given in (groups, xr.DataArray(["x", "y"], {"firm": ["a", "b"]}, "firm")):
        pd.testing.assert_series_equal(kept(covariance=GroupedLowRank(1, given))["covariance"].groups, groups)
    years = np.repeat([2001, 2002], 20)
    np.testing.assert_array_equal(kept(covariance=TimeVarying(1, years))["covariance"].segments, years)
    np.testing.assert_array_equal(kept(covariance=Known(np.eye(2)))["covariance"].sigma, np.eye(2))
    for given in ((np.eye(2), [0.0, 1.0]), Restrictions(np.eye(2), np.array([0.0, 1.0]), ("a", "b"))):
        matrix, values = kept(restrictions=given)["restrictions"]
        np.testing.assert_array_equal(matrix, np.eye(2))
        np.testing.assert_array_equal(values, [0.0, 1.0])


def test_what_cannot_be_kept_is_described() -> None:
    years = np.repeat(np.arange(40), 100)
    assert kept(covariance=TimeVarying(1, years), progress=print) == {
        **LowRankGLS().get_params(),
        "covariance": "TimeVarying(rank=1, segments='<ndarray of shape (4000,)>', bandwidth='cv')",
        "progress": "<print>",
    }
    series = kept(covariance=TimeVarying(1, pd.Series(years, name="years")))["covariance"]
    assert series == "TimeVarying(rank=1, segments='<Series of shape (4000,)>', bandwidth='cv')"
    days = kept(covariance=GroupedLowRank(1, {"a": pd.Timestamp("2001")}))["covariance"]
    assert days == "GroupedLowRank(rank=1, groups={'a': '<Timestamp>'}, group_rank=1)"


def test_a_kind_of_sigma_of_the_users_own_is_described() -> None:
    @dataclass(frozen=True)
    class Own(SparseLowRank):
        pass

    assert kept(covariance=Own(2, 0.1))["covariance"].endswith("Own(rank=2, l1=0.1)")


def test_options_of_other_versions() -> None:
    """One that was not there yet has its default; a structure that is not there any more is described."""
    found = from_stored({"rank": 2})
    assert found == {name: each.default for name, each in OPTIONS.items()} | {"rank": 2}
    later = from_stored({"covariance": {"kind": "banded", "fields": {"width": 3}}, "sparks": True})
    assert (later["covariance"], later["sparks"]) == ("banded(width=3)", True)
