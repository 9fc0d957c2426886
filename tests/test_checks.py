"""What a user of another library types first is answered with a sentence that says what to type here."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import CompressedSystem, Fit, FitWarning, LowRankGLS, System, TimeVarying, TimeVaryingFit

N = 40
RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = X[:, 1:] + RNG.normal(size=(N, 3))
SYSTEM = System.from_arrays(Y, X)
SMALL = SYSTEM.compress()
VARYING = TimeVarying(1, np.arange(N) // 20, bandwidth=0.0)
MODEL = LowRankGLS(rank=0)
FIT = LowRankGLS(rank=0).fit(SYSTEM).result_
OVER_TIME: Any = LowRankGLS(covariance=VARYING).fit(SYSTEM).result_
DATA = {
    "array": Y,
    "frame": pd.DataFrame(Y),
    "Dask": da.from_array(Y),
    "DataArray": xr.DataArray(Y),
    "Dataset": xr.Dataset({"y": ("obs", Y[:, 0])}),
    "list": Y.tolist(),
    "dict": {"firm": {"dependent": Y[:, 0], "exog": X}},
    "path": "store.zarr",
    "fit": FIT,
    "None": None,
}
WHERE_A_SYSTEM_GOES: dict[str, Callable[..., Any]] = {
    "fit": LowRankGLS().fit,
    "fit drop": LowRankGLS(missing="drop").fit,
    "fit varying": LowRankGLS(covariance=VARYING).fit,
    "plan": LowRankGLS().plan,
    "plan varying": LowRankGLS(covariance=VARYING).plan,
    "score": FIT.score,
    "score of the estimator": LowRankGLS(rank=0).fit(SYSTEM).score,
    "score varying": OVER_TIME.score,
    "append": SYSTEM.append,
    "append to compressed": SMALL.append,
    "residuals": FIT.residuals,
    "System": System,
    "CompressedSystem": CompressedSystem,
}


def refused(call: Callable[..., Any], *args: Any, answer: str, **kwargs: Any) -> str:
    with pytest.raises(TypeError) as error:
        call(*args, **kwargs)
    text = str(error.value)
    assert answer in text and "takes" in text and len(text) < 500, text
    assert "\n" not in text and text.endswith(".")
    return text


@pytest.mark.parametrize("name", WHERE_A_SYSTEM_GOES)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_data_where_a_system_goes(data: Any, name: str) -> None:
    call = WHERE_A_SYSTEM_GOES[name]
    text = refused(call, data, answer="System.from_arrays(Y, X)")
    assert f"got ({type(data).__name__})" in text
    refused(call, data, X, answer="System.from_arrays(Y, X)")
    refused(call, answer="got nothing")
    refused(call, X=X, y=data, answer=f"got (X=ndarray, y={type(data).__name__})")


@pytest.mark.parametrize("data", [*DATA.values(), MODEL], ids=[*DATA, "model"])
def test_what_else_is_no_fit_or_system(data: Any) -> None:
    if data is not None:
        with pytest.raises(TypeError, match=r"system must be a System.* got a .*System\.from_arrays\(Y, X\)"):
            FIT.bootstrap(9, "blocks", system=data)
        with pytest.raises(TypeError, match=r"system must be a System.* got a .*System\.from_arrays\(Y, X\)"):
            FIT.bootstrap(9, system=data)
    if data is not FIT:  # which could be compared, but for having the same parameters
        refused(FIT.lr_test, data, answer="large.lr_test(small)")


@pytest.mark.parametrize(
    "data", [Y, pd.DataFrame(Y), SYSTEM, [1, 2], {"rank": 1}], ids=lambda data: type(data).__name__
)
def test_an_estimator_made_of_data(data: Any) -> None:
    answer = "LowRankGLS(rank=2).fit(System.from_arrays(Y, X))"
    refused(LowRankGLS, data, answer=answer)
    refused(LowRankGLS, data, X, answer=answer)
    refused(LowRankGLS, data, exog=X, answer=answer)
    assert "unexpected keyword argument 'fit_intercept'" in refused(LowRankGLS, fit_intercept=True, answer=answer)
    with pytest.raises(TypeError, match="rank must be an integer"):
        LowRankGLS(1.5)  # type: ignore[arg-type]


def test_options_and_names_given_elsewhere() -> None:
    assert "got (System, cov_type=str)" in refused(MODEL.fit, SYSTEM, cov_type="robust", answer="result_.with_cov(...)")
    refused(System.from_arrays, pd.DataFrame(Y), answer="System.from_arrays(Y, X)")
    refused(System.from_arrays, DATA["dict"], answer="System.from_arrays(Y, X)")
    refused(System.from_xarray, xr.Dataset(), answer="System.from_xarray(ds, y='returns'")
    for method in (FIT.predict, OVER_TIME.predict):
        refused(method, answer="fit.predict(system)")
        refused(method, X, Y, answer="fit.predict(system)")
    refused(FIT.predict_given, answer="the responses y")
    refused(FIT.factor_scores, answer="the responses y")
    refused(FIT.residuals, SMALL, answer="not compressed")


def test_what_an_estimator_without_a_fit_says() -> None:
    model: Any = LowRankGLS()
    for call in (
        model.predict,
        lambda: model.predict(X),
        lambda: model.score(SYSTEM),
        lambda: model.score(Y, X),
        lambda: model.result_,
        lambda: model.params_,
    ):
        with pytest.raises(AttributeError, match=r"has not been fitted. Call fit\(system\) first") as error:
            call()
        assert isinstance(error.value, ValueError)  # as scikit-learn's NotFittedError
    fitted: Any = LowRankGLS(rank=0).fit(SYSTEM)
    for name, there in {
        "summary": "summary",
        "params": "params",
        "coef_": "params",
        "std_errors": "std_errors",
    }.items():
        with pytest.raises(AttributeError, match=rf"model\.fit\(system\)\.result_\.{there}\."):
            getattr(fitted, name)
    assert not hasattr(model, "result_") and not hasattr(model, "transform") and not hasattr(fitted, "classes_")


def test_what_fits_is_as_it_was() -> None:
    base = pytest.importorskip("sklearn.base")
    model = LowRankGLS(2, algorithm="em", lam_F=0.5)
    copied = base.clone(model)
    assert copied.get_params() == model.get_params() and repr(copied) == repr(model)
    assert pickle.loads(pickle.dumps(LowRankGLS(2))).rank == 2 and copy.deepcopy(LowRankGLS(2)).rank == 2
    again = pickle.loads(pickle.dumps(SYSTEM))
    assert LowRankGLS(rank=0).fit(system=again).result_.loglik == FIT.loglik
    assert list(inspect.signature(LowRankGLS.fit).parameters) == ["self", "system"]
    assert "rank" in inspect.signature(LowRankGLS).parameters and "rows" in inspect.signature(System).parameters
    assert (LowRankGLS.fit.__doc__ or "").startswith("Fit and keep") and Fit.score.__name__ == "score"
    assert isinstance(OVER_TIME, TimeVaryingFit)


def test_warnings_of_a_fit_point_at_the_call() -> None:
    for model in (LowRankGLS(rank=1, max_sweeps=1), LowRankGLS(covariance=VARYING, max_sweeps=1)):
        with pytest.warns(FitWarning) as seen:
            model.fit(SYSTEM)
        assert {each.filename for each in seen} == {__file__}
