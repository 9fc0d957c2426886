"""Regressors that are columns of numbers as they stand go into rows without formulaic: the same values and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from formulaic import Formula
from formulaic.materializers import PandasMaterializer

from lrgls_dask import LowRankGLS, System
from support.frames import check_same, containers, mixed, x_of
from support.parquet import written

pytest.importorskip("pyarrow")
pytest.importorskip("polars")
FRAME = mixed(60)
FRAME.loc[7, "z"] = FRAME.loc[9, "y2"] = np.nan
FRAME["n"] = np.random.default_rng(1).integers(0, 9, 60).astype("u1")
PLAIN = ["x + z", "0 + z + x", "i - 1", "1", "f + n + i", "x + `my col`", "0 + f"]
OTHER = ["x + b", "x * z", "x + s", "x + np.log(z)", "x:z + z"]


def matrix(right: str, frame: pd.DataFrame) -> pd.DataFrame:
    """What formulaic makes of all rows."""
    return pd.DataFrame(Formula(right).get_model_matrix(frame, na_action="ignore"))


@pytest.mark.parametrize("kind", containers(FRAME))
@pytest.mark.parametrize("right", [*PLAIN, *OTHER])
def test_values_and_names_are_those_of_formulaic(right: str, kind: str) -> None:
    system = System.from_frame(containers(FRAME)[kind], f"y ~ {right}")
    expected = matrix(right, FRAME)
    whole = expected.notna().all(axis=1).to_numpy()
    assert system.regressors == tuple(expected.columns)
    np.testing.assert_array_equal(x_of(system), expected[whole].to_numpy(np.float64))


@pytest.mark.parametrize("right", PLAIN)
def test_formulaic_is_asked_for_names_alone(tmp_path: Path, right: str) -> None:
    formulas = {"y": f"~ {right}", "y2": f"~ {right}"}
    expected = System.from_frame(FRAME, formulas)
    systems = {
        "files": System.from_parquet(written(tmp_path / "data", FRAME), formulas),
        "dask": System.from_frame(dd.from_pandas(FRAME, npartitions=3), formulas),
    }
    fit = LowRankGLS(0, missing="em").fit(expected).result_
    with patch.object(PandasMaterializer, "get_model_matrix", side_effect=AssertionError("asked")):
        for system in systems.values():
            check_same(system, expected)
            found = LowRankGLS(0, missing="em").fit(system).result_
            np.testing.assert_array_equal(found.coefficients, fit.coefficients)
        predicted = fit.predict(FRAME)
    np.testing.assert_array_equal(predicted.to_numpy()[expected.obs], fit.predict(expected))  # type: ignore[index]


@pytest.mark.parametrize("rows", [7, 1000])
@pytest.mark.parametrize("rights", [("x + z", "i"), ("x + z", "x + s"), ("x", "center(x)")])
def test_equations_of_several_formulas(tmp_path: Path, rights: tuple[str, str], rows: int) -> None:
    formulas = {"y": f"~ {rights[0]}", "y2": f"~ {rights[1]}", "log": "np.log(x ** 2) ~ z"}
    given: dict[str, Any] = {"weights": {"y": "n", "y2": "f", "log": "i"}}
    frame = FRAME.assign(n=FRAME["n"] + 1, f=FRAME["f"] ** 2, i=FRAME["i"] + 1)
    path = written(tmp_path / "data", frame, rows=rows)
    ours, expected = System.from_parquet(path, formulas, **given), System.from_frame(frame, formulas, **given)
    check_same(ours, expected)
    fits = [LowRankGLS(0, missing="em").fit(each).result_ for each in (ours, expected)]
    np.testing.assert_array_equal(fits[0].coefficients, fits[1].coefficients)


def test_words_as_weights_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "data", FRAME.dropna())
    system = System.from_parquet(path, "y ~ x", weights="x", missing="raise")
    with pytest.raises(Exception, match=r"column 's' has dtype .* where it must hold numbers"):
        LowRankGLS(0).fit(System.from_parquet(path, "y ~ x", weights="s", missing="raise"))
    assert system.rows.weighted == "rows"
