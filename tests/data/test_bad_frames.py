"""What is wrong with frames and Datasets is said in the user's words, by partition and row, whatever they are."""

from __future__ import annotations

from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import LowRankGLS, System
from support.frames import check_same, mixed

FRAME = mixed(60)[["y", "y2", "x", "s", "day"]].assign(t=np.arange(60))
LONG = FRAME.melt(["t", "x", "s"], ["y", "y2"], var_name="e", value_name="v")
KEYS: dict[str, Any] = {"equation": "e", "obs": "t"}


def parts(*pieces: pd.DataFrame) -> Any:
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(lambda i: pieces[i], range(len(pieces)), meta=pieces[0][:0])


def with_second(**changed: Any) -> Any:
    return parts(FRAME[:20], FRAME[20:40].assign(**changed), FRAME[40:])


ODD = {
    "text for numbers": ("y ~ x", {"x": list("ab") * 10}, "partition 1 .* 'x' has dtype .* and holds a, at row 0"),
    "text for a response": ("y ~ x", {"y": "q"}, "partition 1 .* 'y' has dtype .* and holds q, .* must hold numbers"),
    "numbers for text": ("y ~ s", {"s": 1.5}, "partition 1 .* 's' has dtype float64 and holds 1.5, .* hold categories"),
    "dates for numbers": ("y ~ x", {"x": pd.Timestamp("2000")}, "partition 1 .* 'x' .* must hold numbers"),
    "numbers for dates": ("y ~ C(day)", {"day": 3}, "partition 1 .* 'day' has dtype int64 and holds 3, .* hold dates"),
    "both in one": (
        "y ~ x",
        {"x": pd.Series([1.0, "q"] * 10, index=range(20, 40), dtype=object)},
        "partition 1 .* holds float such as 1.0, at row 0, and str such as 'q', at row 1",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_a_partition_of_another_kind_is_named(name: str) -> None:
    formula, changed, says = ODD[name]
    with dask.config.set({"dataframe.convert-string": False}), pytest.raises(TypeError, match=says):
        System.from_frame(with_second(**changed), formula)


def test_a_partition_whose_column_is_all_missing_is_none_of_another_kind() -> None:
    with dask.config.set({"dataframe.convert-string": False}):
        found = System.from_frame(with_second(s=np.nan, x=pd.Series([None] * 20, range(20, 40), dtype="str")), "y ~ x")
        lost = System.from_frame(with_second(s=np.nan), "y ~ s")
    whole = pd.concat([FRAME[:20], FRAME[40:]])
    check_same(found, System.from_frame(whole, "y ~ x"))
    check_same(lost, System.from_frame(whole, "y ~ s"))


def test_a_partition_that_lacks_a_column() -> None:
    with pytest.raises(ValueError, match=r"other columns than frame.columns: .*'x'"):
        System.from_frame(parts(FRAME[:20], FRAME[20:].drop(columns="x")), "y ~ x")


def test_a_long_frame_of_numbers_and_text_says_both() -> None:
    with dask.config.set({"dataframe.convert-string": False}):
        frame = parts(LONG[:40], LONG[40:].assign(v="q"))
        with pytest.raises(TypeError, match=r"holds float such as .*, at row 0, and str such as 'q', at row 40"):
            System.from_frame(frame, "v ~ x", **KEYS)


TOKYO = [pd.Timestamp("2000", tz=("UTC", "Asia/Tokyo")[i >= 20]) + pd.Timedelta(i, "D") for i in range(60)]


def test_time_zones_that_differ_are_refused() -> None:
    says = "'t' are times in several zones, UTC at row 0 and Asia/Tokyo at row 20"
    mixed_zones = FRAME.assign(t=TOKYO)
    assert mixed_zones["t"].dtype == object
    pieces = parts(*(each.assign(t=list(each["t"])) for each in (mixed_zones[:20], mixed_zones[20:])))
    for frame in (mixed_zones, pieces):
        with pytest.raises(ValueError, match=says):
            System.from_frame(frame, "y ~ x", obs="t")
    long = LONG.assign(t=LONG["t"].map(dict(enumerate(TOKYO))))
    with pytest.raises(ValueError, match="'t' are times in several zones"):
        System.from_frame(long, "v ~ x", **KEYS)
    with pytest.raises(ValueError, match="'t' are times in several zones"):
        System.from_arrays(FRAME[["y"]].set_axis(pd.Index(TOKYO, name="t")), FRAME[["x"]].to_numpy())
    one = System.from_frame(FRAME.assign(t=pd.to_datetime(TOKYO, utc=True)), "y ~ x", obs="t")
    assert str(one.obs.dtype).endswith("UTC]")  # type: ignore[union-attr]


@pytest.mark.parametrize("chunks", [None, 17])
def test_a_response_on_the_right_of_a_dataset(chunks: int | None) -> None:
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {"y": (("time", "k"), rng.normal(size=(60, 3))), "x": ("time", rng.normal(size=60))}, {"time": np.arange(60)}
    )
    ds = ds if chunks is None else ds.chunk(time=chunks)
    where: dict[str, Any] = {"obs": "time", "equation": "k"}
    for x in (["x", "y"], [ds["x"], ds["y"]], {"y0": ["x"], "y1": ["y"], "y2": ["x"]}):
        with pytest.raises(ValueError, match="the response 'y' is a regressor too, in x"):
            System.from_xarray(ds, "y", x, **where)
    with pytest.raises(ValueError, match="the response 'y' is a regressor too"):
        System.from_xarray(None, ds["y"], [ds["y"]], **where)
    lagged = System.from_xarray(ds, "y", ["x", ds["y"].shift(time=1)], **where)
    assert LowRankGLS(0, missing="drop").fit(lagged).result_.n_obs == 59
