"""Labels that mix whole numbers and others come back as they were from every table, array and store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System, compare

EQUATIONS = (1, 2.5, 2**53 + 1, 2.0**53)  # the last two are one float
REGRESSORS = (0, 0.5)
RNG = np.random.default_rng(4)
X = np.column_stack([np.ones(50), RNG.standard_normal(50)])
SYSTEM = System.from_arrays(
    RNG.standard_normal((50, 1)) + RNG.standard_normal((50, 4)), X, equations=EQUATIONS, regressors=REGRESSORS
)
FIT = LowRankGLS(1).fit(SYSTEM).result_


def kinds(labels: Any) -> list[tuple[type, Any]]:
    """Each label once, with its type: 1 and 1.0 are equal."""
    return list(dict.fromkeys((type(label), label) for label in labels))


def levels(index: Any) -> tuple[list[Any], list[Any]]:
    return [label for label, _ in index], [label for _, label in index]


ROADS: dict[str, Callable[[Fit], tuple[Any, Any]]] = {
    "tidy": lambda fit: (fit.tidy()["equation"], fit.tidy()["term"]),
    "glance": lambda fit: (fit.glance(by="equation")["equation"], REGRESSORS),
    "params": lambda fit: (fit.params["equation"].values.tolist(), fit.params["regressor"].values.tolist()),
    "coef_table": lambda fit: levels(fit.coef_table().index),
    "cov": lambda fit: (fit.cov()["equation_other"].values.tolist(), fit.cov()["regressor"].values.tolist()),
    "sigma": lambda fit: (fit.sigma()["equation"].values.tolist(), REGRESSORS),
    "to_dataset": lambda fit: tuple(fit.to_dataset()[name].values.tolist() for name in ("equation", "regressor")),
    "predict": lambda fit: (fit.predict(X)["equation"].values.tolist(), REGRESSORS),
    "across": lambda fit: (fit.across("*:0.5 = 0").table.index, REGRESSORS),
    "compare": lambda fit: levels(compare([fit]).coefficients.index),
    "one equation": lambda fit: (EQUATIONS, fit[2.5].params.index),
}


@pytest.fixture(scope="module")
def reopened(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    path = tmp_path_factory.mktemp("indices") / "fit.zarr"
    FIT.to_zarr(path)
    return Fit.from_zarr(path)


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS)
def test_whole_numbers_stay_whole_beside_others(road: Callable[[Fit], tuple[Any, Any]], reopened: Fit) -> None:
    for fit in (FIT, reopened):
        assert tuple(map(kinds, road(fit))) == (kinds(EQUATIONS), kinds(REGRESSORS))


def test_they_come_back_from_stores(tmp_path: Path, reopened: Fit) -> None:
    SYSTEM.to_zarr(tmp_path / "system.zarr")
    SYSTEM.compress().to_zarr(tmp_path / "sums.zarr")
    for design in (
        reopened.design,
        System.from_zarr(tmp_path / "system.zarr").design,
        CompressedSystem.from_zarr(tmp_path / "sums.zarr").design,
    ):
        assert (kinds(design.equations), kinds(design.regressors)) == (kinds(EQUATIONS), kinds(REGRESSORS))
