"""Frames that several tests share: panels of other programs, and one of every kind of column."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask import System


def grunfeld() -> pd.DataFrame:
    """Investment of eleven firms in twenty years, long, as statsmodels ships it."""
    from statsmodels.datasets import grunfeld as data

    return data.load_pandas().data.astype({"year": int, "firm": str})


def munnell() -> pd.DataFrame:
    """Output of nine regions in seventeen years, long: states of linearmodels' panel, summed, in logs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from linearmodels.datasets import munnell as data

        frame = data.load()
    regions = {
        "GF": ["AL", "FL", "LA", "MS"],
        "SW": ["AZ", "NV", "NM", "TX", "UT"],
        "WC": ["CA", "OR", "WA"],
        "MT": ["CO", "ID", "MT", "ND", "SD", "WY"],
        "NE": ["CT", "ME", "MA", "NH", "RI", "VT"],
        "MA": ["DE", "MD", "NJ", "NY", "PA", "VA"],
        "SO": ["GA", "NC", "SC", "TN", "WV", "AR"],
        "MW": ["IL", "IN", "KY", "MI", "MN", "OH", "WI"],
        "CN": ["IA", "KS", "MO", "NE", "OK"],
    }
    of = {state: region for region, states in regions.items() for state in states}
    frame["region"] = frame["ST_ABB"].map(of)
    return frame.groupby(["region", "YR"], as_index=False)[["GSP", "PC", "HWY", "WATER", "UTIL", "EMP", "UNEMP"]].sum()


def mixed(n_rows: int = 101, seed: int = 3) -> pd.DataFrame:
    """Two responses, and regressors of every kind that formulas take."""
    rng = np.random.default_rng(seed)
    words = rng.choice(["u", "v", "w"], n_rows)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n_rows),
            "y2": rng.normal(size=n_rows),
            "x": rng.normal(size=n_rows),
            "z": rng.gamma(2, size=n_rows),
            "i": rng.integers(0, 9, n_rows),
            "s": words,
            "k": pd.Categorical(rng.choice(["b", "a"], n_rows), categories=["b", "a"]),
            "b": rng.normal(size=n_rows) > 0,
            "f": rng.normal(size=n_rows).astype("f4"),
            "day": pd.to_datetime("2020") + pd.to_timedelta(rng.integers(0, 3, n_rows), "D"),
            "my col": rng.normal(size=n_rows),
        }
    )


def x_of(system: System) -> np.ndarray:
    """(N, q) the distinct columns."""
    return np.column_stack([np.asarray(part.array).reshape(system.n_obs, -1) for part in system.rows.x])


def y_of(system: System) -> np.ndarray:
    """(N, K) the responses."""
    return np.column_stack([np.asarray(part.array).reshape(system.n_obs, -1) for part in system.rows.y])


def check_same(system: System, expected: System) -> None:
    """The same rows, bit for bit, by the same names."""
    assert system.regressors == expected.regressors
    assert system.equations == expected.equations
    np.testing.assert_array_equal(x_of(system), x_of(expected))
    np.testing.assert_array_equal(y_of(system), y_of(expected))
    assert system.obs is not None
    assert expected.obs is not None
    assert system.obs.tolist() == expected.obs.tolist()
    assert system.dims == expected.dims


def containers(frame: pd.DataFrame) -> dict[str, Any]:
    """The same frame in every kind, without the index of pandas."""
    import dask.dataframe as dd
    import polars as pl
    import pyarrow as pa

    return {
        "pandas": frame,
        "nullable": frame.convert_dtypes(dtype_backend="numpy_nullable"),
        "arrow dtypes": frame.convert_dtypes(dtype_backend="pyarrow"),
        "polars": pl.from_pandas(frame),
        "lazy": pl.from_pandas(frame).lazy(),
        "record batch": pa.Table.from_pandas(frame, preserve_index=False).combine_chunks().to_batches()[0],
        "arrow": pa.Table.from_pandas(frame, preserve_index=False),
        "dask": dd.from_pandas(frame, npartitions=3),
    }
