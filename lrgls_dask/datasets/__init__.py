"""Real data small enough to ship with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["french_csv", "grunfeld_csv", "load_french"]

FACTORS = {"MktRF": "mktrf", "SMB": "smb", "HML": "hml", "Mom": "mom"}
SORTS = {"V": "value", "M": "momentum"}  # by the third letter of such names as S1V5

LONG_NAMES = {
    "excess_return": "return of the portfolio minus the risk-free rate",
    "const": "one in every month",
    "mktrf": "return of the market minus the risk-free rate",
    "smb": "size factor, small minus big",
    "hml": "value factor, high minus low book-to-market",
    "mom": "momentum factor, winners minus losers",
    "rf": "risk-free rate, one-month Treasury bill",
    "lag_return": "excess_return of the month before; the first month has none and holds NaN",
}


def french_csv() -> str:
    """Path of the file that `load_french` reads: a line a month, dates and a column of decimals for each portfolio and
    factor, returns of portfolios as they are."""
    return str(Path(__file__).parent / "french.csv.gz")


def grunfeld_csv() -> str:
    """Path of Grunfeld's investment data, a line for each of 11 US firms and 20 years, 1935 to 1954.

    Columns invest (gross investment), value (of the firm's shares), capital (stock of plant and equipment), in millions
    of dollars of 1947, firm, year. README.md beside the file tells where it comes from.
    """
    return str(Path(__file__).parent / "grunfeld.csv")


def load_french() -> xr.Dataset:
    """Monthly excess returns of 30 US portfolios and the Fama-French factors, January 1949 to March 2017.

    Dims: time (819 months, the first day of each), portfolio (30: 12 industries, 9 by size and value, 9 by size and
    momentum, which the coordinate `sort` tells apart). Every return is a decimal per month: 0.0123 is 1.23 %.

    - excess_return (time, portfolio): return of the portfolio minus the risk-free rate.
    - const, mktrf, smb, hml, mom (time,): an intercept, the market, size, value and momentum factors; mktrf is an
      excess return already, the other factors are long-short and need no subtraction.
    - rf (time,): the risk-free rate that was subtracted.
    - lag_return (time, portfolio): excess_return one month before. January 1949 has no month before and holds NaN:
      drop it with ``ds.isel(time=slice(1, None))`` before using this variable as a regressor.

    In memory, about 0.5 MB. Source: Kenneth R. French's data library,
    http://mba.tuck.dartmouth.edu/pages/faculty/ken.french/data_library.html, in the selection of
    linearmodels.datasets.french; README.md beside the file describes every column.
    """
    table = _read_table()
    portfolios = [name for name in table.columns if name not in (*FACTORS, "RF")]
    excess = table[portfolios].to_numpy() - table[["RF"]].to_numpy()
    lag = np.vstack([np.full((1, len(portfolios)), np.nan), excess[:-1]])
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "excess_return": (("time", "portfolio"), excess),
        "const": (("time",), np.ones(len(table))),
        **{ours: (("time",), table[theirs].to_numpy()) for theirs, ours in FACTORS.items()},
        "rf": (("time",), table["RF"].to_numpy()),
        "lag_return": (("time", "portfolio"), lag),
    }
    sort = [SORTS[name[2]] if name[1].isdigit() else "industry" for name in portfolios]
    coords = {
        "time": table.index.to_numpy(),
        "portfolio": np.array(portfolios, dtype=object),
        "sort": ("portfolio", np.array(sort)),
    }
    ds = xr.Dataset(variables, coords)
    for name, text in LONG_NAMES.items():
        ds[name].attrs["long_name"] = text
        if name != "const":
            ds[name].attrs["units"] = "decimal per month"
    ds.attrs["title"] = "30 US portfolios on the Fama-French factors, monthly, 1949-01 to 2017-03"
    ds.attrs["source"] = "http://mba.tuck.dartmouth.edu/pages/faculty/ken.french/data_library.html"
    return ds


def _read_table() -> pd.DataFrame:
    """The file as it is, indexed by month."""
    table = pd.read_csv(french_csv(), index_col="dates")
    table.index = pd.to_datetime(table.index, format="%Y-%m").astype("datetime64[ns]")
    return table
