"""`ds.lrgls`: what the functions that it calls give, by the same arguments."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import xarray as xr

from lrgls_dask import LowRankGLS, System, TimeVarying, TimeVaryingFit
from support.absorbed import grouped

DATA = grouped(120, 5)
DS = xr.Dataset(
    {
        "y": (("time", "firm"), DATA.Y),
        "a": ("time", DATA.X[:, 0]),
        "b": ("time", DATA.X[:, 1]),
        "one": ("time", np.ones(120)),
        "w": ("time", DATA.weights),
        "year": ("time", DATA.year),
    },
    {"firm": list("pqrst")},
)
WHERE = {"obs": "time", "equation": "firm"}


def test_a_fit_in_one_call_is_that_of_two() -> None:
    fit = DS.lrgls.fit("y", ["one", "a", "b"], **WHERE, weights="w", covariance="diagonal", use="normal")
    system = System.from_xarray(DS, "y", ["one", "a", "b"], obs="time", equation="firm", weights="w")
    wanted = LowRankGLS(covariance="diagonal", use="normal").fit(system).result_
    xr.testing.assert_identical(fit.params, wanted.params)
    xr.testing.assert_identical(fit.pvalues, wanted.pvalues)
    assert DS.chunk(time=17).lrgls.system("y", ["a"], **WHERE).compress().n_obs == 120


def test_it_takes_what_the_functions_take() -> None:
    taken = inspect.signature(DS.lrgls.fit).parameters
    system, model = inspect.signature(System.from_xarray).parameters, inspect.signature(LowRankGLS).parameters
    assert list(taken) == [*(name for name in system if name != "ds"), *model]
    assert all(taken[name].default == each.default for name, each in {**system, **model}.items() if name != "ds")
    assert list(inspect.signature(DS.lrgls.system).parameters) == [name for name in system if name != "ds"]
    absorbed = DS.lrgls.fit("y", ["a", "b"], **WHERE, absorb="year", rank=0)
    assert absorbed.effects()["effect_year"].sizes == {"year": 6, "firm": 5}
    varying = DS.lrgls.fit(
        "y", ["a"], **WHERE, covariance=TimeVarying(1, segments=DATA.year * 0 + np.arange(120) // 60)
    )
    assert isinstance(varying, TimeVaryingFit)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"rnk": 1}, "rnk"), ({"x": "a"}, "multiple values for argument 'x'"), ({"rank": "many"}, "rank")],
)
def test_what_it_does_not_take_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        DS.lrgls.fit("y", ["a"], **WHERE, **given)
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        DS.lrgls.fit("y")
