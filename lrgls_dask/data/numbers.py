"""Which dtypes are real numbers, and pandas and masked data as float64 with NaN for what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["check_real", "numbers_of_masked", "numbers_of_pandas", "same_plain_dtype"]

_NUMBERS = "convert it first, with .astype({!r})"
_REMEDIES = {
    "O": f"{_NUMBERS}, which takes numbers of other kinds and numbers written as text, and mend what it does not take",
    "S": "turn categories into 0/1 columns, or convert numbers written as text with .astype({!r})",
    "c": "pass .real and .imag as two columns",
    "M": "count from an origin, e.g. (t - t[0]) / np.timedelta64(1, 'D')",
    "m": "divide by a unit, e.g. by np.timedelta64(1, 'D')",
    "V": "take its fields as columns, e.g. with numpy.lib.recfunctions.structured_to_unstructured(...)",
    "f": "convert it with .astype({!r})",
}
_REMEDIES["U"] = _REMEDIES["T"] = _REMEDIES["S"]
_KINDS = {"O": "object", "S": "bytes", "U": "string", "T": "string", "c": "complex", "M": "datetime", "m": "timedelta"}


def check_real(name: str, dtype: Any, convert: str = "float64") -> None:
    """Raise TypeError unless the dtype is a float of at most 64 bits, an integer or a boolean, nullable or not.

    convert : the dtype that the message advises.
    """
    plain = _plain(dtype)
    kind = getattr(plain, "kind", "O")
    if (kind == "f" and np.dtype(plain).itemsize <= 8) or kind in "iub":
        return
    remedy = _REMEDIES.get(kind, _NUMBERS).format(convert)
    raise TypeError(
        f"{name} has dtype {dtype} ({_KINDS.get(kind, 'not a plain number')}) but must hold real numbers of at most "
        f"64 bits: {remedy}."
    )


def _plain(dtype: Any) -> Any:
    """The NumPy dtype of what an extension dtype holds, as far as it has one."""
    if isinstance(dtype, pd.SparseDtype):
        return dtype.subtype
    if isinstance(dtype, pd.StringDtype | pd.CategoricalDtype):
        return np.dtype(str)
    return getattr(dtype, "numpy_dtype", dtype)


def same_plain_dtype(dtypes: list[Any]) -> bool:
    """Whether columns of these dtypes make one array as they are."""
    return len(set(dtypes)) == 1 and isinstance(dtypes[0], np.dtype)


def numbers_of_pandas(name: str, data: pd.DataFrame | pd.Series) -> np.ndarray:
    """The values of a frame or series: as they are where all columns have one NumPy dtype, else float64, NA as NaN."""
    columns = data.to_frame() if isinstance(data, pd.Series) else data
    for label, dtype in columns.dtypes.items():
        check_real(name if isinstance(data, pd.Series) else f"{name}[{label!r}]", dtype, "Float64")
    if same_plain_dtype(columns.dtypes.tolist()):
        return data.to_numpy()
    return data.to_numpy(dtype=np.float64, na_value=np.nan)


def numbers_of_masked(block: Any) -> np.ndarray:
    """float64, NaN where masked."""
    return np.asarray(np.ma.filled(block.astype(np.float64), np.nan))
