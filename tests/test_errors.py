"""Bad input at fit time: refused with what was found, where, and what to do about it; nothing is left behind."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from typing import Any

import dask.array as da
import numpy as np
import pytest

from lrgls_dask import FitWarning, LowRankGLS, System
from lrgls_dask.errors import BadValues, UnreadableRows
from support.systems import Data, dask_rows, simulate, zarr_rows

pytestmark = pytest.mark.usefixtures("every_chunk_a_block")

DATA = simulate("shared", n=100)
NAMES = {"equations": ["a", "b", "c", "d", "e", "f"], "regressors": ["const", "mkt", "smb", "hml"]}
STORAGES = {"numpy": np.asarray, "dask": dask_rows(30), "zarr": zarr_rows(30)}


def system(X: np.ndarray = DATA.X, Y: np.ndarray = DATA.Y, weights: Any = None, wrap: Any = STORAGES["dask"]) -> System:
    return System.from_arrays(wrap(Y), wrap(X), weights=None if weights is None else wrap(weights), **NAMES)


def changed(array: np.ndarray, rows: Any, column: int, value: float) -> np.ndarray:
    out = array.copy()
    out[rows, column] = value
    return out


# ---------------------------------------------------------------------------------- values


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("wrap", STORAGES.values(), ids=STORAGES)
@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("X", np.nan, "X, regressor 'smb': NaN value at row 62 (3 in the chunk of rows 60 to 89). Drop or fill"),
        ("X", -np.inf, "X, regressor 'smb': infinite value at row 62 (3 in the chunk of rows 60 to 89). Replace"),
        ("Y", np.nan, "Y, equation 'c': NaN value at row 62 (3 in the chunk of rows 60 to 89). Drop or fill"),
        ("Y", np.inf, "Y, equation 'c': infinite value at row 62 (3 in the chunk of rows 60 to 89). Replace"),
        ("Y", 1e200, "Y, equation 'c': too large value at row 62 (3 in the chunk of rows 60 to 89). Divide"),
    ],
)
def test_values_no_fit_can_use(where: str, value: float, message: str, wrap: Any, engine: str) -> None:
    bad = changed(getattr(DATA, where), [62, 70, 71], 2, value)
    # rows in memory are cut anywhere, here one by one
    where_found = "(1 in the chunk of rows 62 to 62)" if wrap is np.asarray else "(3 in the chunk of rows 60 to 89)"
    with pytest.raises(BadValues, match=re.escape(message.replace("(3 in the chunk of rows 60 to 89)", where_found))):
        LowRankGLS(1, engine=engine).fit(system(**{where: bad}, wrap=wrap))


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("wrap", [dask_rows(30), zarr_rows(30)], ids=["dask", "zarr"])
def test_weights_no_fit_can_use(wrap: Any, engine: str) -> None:
    weights = np.ones(100)
    weights[41] = -2.0
    with pytest.raises(BadValues, match=r"weights: negative value at row 41 \(1 in the chunk of rows 30 to 59"):
        LowRankGLS(1, engine=engine).fit(system(weights=weights, wrap=wrap))
    weights[41] = np.nan
    with pytest.raises(BadValues, match="weights: NaN value at row 41"):
        LowRankGLS(1, engine=engine).fit(system(weights=weights, wrap=wrap))
    with pytest.raises(ValueError, match=r"weights: no row has a positive weight\. Give at least one row"):
        LowRankGLS(1, engine=engine).fit(system(weights=np.zeros(100), wrap=wrap))


def test_too_few_rows_of_positive_weight() -> None:
    """Four rows cannot determine four coefficients and a variance, however many rows of weight zero there are."""
    weights = np.zeros(100)
    weights[:4] = 1.0
    with pytest.raises(ValueError, match="rows"):
        LowRankGLS(1).fit(system(weights=weights))


def test_errors_survive_pickling_word_for_word() -> None:
    for error in (
        BadValues("Y", 2, "NaN", 62, 3, 60, 90, "Y, equation 'c'"),
        UnreadableRows("Y", 60, 90, "ValueError: bad magic"),
    ):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert vars(back) == vars(error)
    assert "rows 60 to 89" in str(back)


def test_bytes_that_cannot_be_read_name_array_and_rows() -> None:
    def torn(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info[0]["chunk-location"][0] == 2:
            raise RuntimeError("checksum mismatch")
        return block

    Y = da.from_array(DATA.Y, chunks=(30, 6)).map_blocks(torn, dtype=float)
    message = "rows 60 to 89 cannot be read (RuntimeError: checksum mismatch). Restore or rewrite this chunk"
    with pytest.raises(UnreadableRows, match=re.escape(message)):
        LowRankGLS(1).fit(System.from_arrays(Y, da.from_array(DATA.X, chunks=(30, 4)), **NAMES))


# ---------------------------------------------------------------------------------- designs


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        (DATA.X[:, 1], "columns 'mkt' and 'hml' are collinear (rank 3 of 4). Drop one, or set lam_B > 0."),
        (2 * DATA.X[:, 1] - DATA.X[:, 2], "columns 'mkt', 'smb' and 'hml' are collinear (rank 3 of 4)"),
        (np.full(100, 7.0), "columns 'const' and 'hml' are collinear (rank 3 of 4)"),
        (5 + 3 * DATA.X[:, 2], "columns 'const', 'smb' and 'hml' are collinear (rank 3 of 4)"),
        (1e9 * DATA.X[:, 1], "columns 'mkt' and 'hml' are collinear (rank 3 of 4)"),
        (np.zeros(100), "column 'hml' is zero in every row (rank 3 of 4)"),
    ],
    ids=["copy", "sum", "constant", "shifted", "scaled", "zero"],
)
def test_collinear_columns_are_named(column: np.ndarray, message: str, engine: str) -> None:
    X = DATA.X.copy()
    X[:, 3] = column
    with pytest.raises(np.linalg.LinAlgError, match=re.escape(message)) as error:
        LowRankGLS(1, engine=engine).fit(system(X))
    assert str(error.value).startswith("equation 'a' (and 5 more with the same columns): ")


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_collinear_columns_share_their_coefficient_with_a_ridge(engine: str) -> None:
    X = DATA.X.copy()
    X[:, 3] = X[:, 1]
    b = LowRankGLS(1, engine=engine, lam_B=1.0, rel_tol=1e-14).fit(system(X)).result_.params.values.reshape(6, 4)
    np.testing.assert_allclose(b[:, 1], b[:, 3], rtol=1e-8)
    assert np.isfinite(b).all()


@pytest.mark.parametrize("engine", ["compress", "stream"])
@pytest.mark.parametrize("kind", ["constant", "zero", "fitted"])
def test_a_response_without_residuals_is_named_in_one_warning(kind: str, engine: str) -> None:
    column = {"constant": np.full(100, 3.0), "zero": np.zeros(100), "fitted": DATA.X @ [1.0, 2.0, 3.0, 4.0]}[kind]
    Y = DATA.Y.copy()
    Y[:, 4] = column
    with pytest.warns(FitWarning, match="a constant response or a perfect fit in equation 'e'") as caught:
        fit = LowRankGLS(1, engine=engine).fit(system(Y=Y)).result_
    assert len(caught) == 1
    assert "e" in fit.on_floor
    assert np.isfinite(fit.loglik)
    np.testing.assert_allclose(fit.predict(system(Y=Y)).values[:, 4], column, atol=1e-6)


# ---------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"rank": -1}, ValueError, "rank must be 0 or more; got -1"),
        (
            {"rank": 2.0},
            TypeError,
            "rank must be an integer, 'auto', 'bic', 'cv', 'parallel' or 'eigenvalue-ratio'; got 2.0",
        ),
        (
            {"rank": True},
            TypeError,
            "rank must be an integer, 'auto', 'bic', 'cv', 'parallel' or 'eigenvalue-ratio'; got True",
        ),
        ({"rank": None}, TypeError, "got None"),
        (
            {"rank": "aic"},
            ValueError,
            "rank must be 'auto' or 'bic' or 'cv' or 'parallel' or 'eigenvalue-ratio'; got 'aic'",
        ),
        ({"lam_F": -0.1}, ValueError, "lam_F must be at least 0 and finite; got -0.1"),
        ({"lam_B": -1}, ValueError, "lam_B must be at least 0 and finite; got -1"),
        ({"lam_B": np.inf}, ValueError, "lam_B must be at least 0 and finite; got inf"),
        ({"lam_B": np.nan}, ValueError, "lam_B must be at least 0 and finite; got nan"),
        ({"lam_B": True}, TypeError, "lam_B must be a number or a mapping from names to them; got True"),
        ({"lam_F": "0.1"}, TypeError, "lam_F must be a number; got '0.1'"),
        ({"d_floor": 0}, ValueError, "d_floor must be above 0 and finite; got 0"),
        ({"d_floor": 1.0}, ValueError, "must be below 1; got 1.0"),
        ({"d_floor": False}, TypeError, "d_floor must be a number; got False"),
        ({"rel_tol": 0.0}, ValueError, "rel_tol must be above 0 and finite; got 0.0"),
        ({"rel_tol": True}, TypeError, "rel_tol must be a number; got True"),
        ({"cg_tol": -1e-8}, ValueError, "cg_tol must be above 0 and finite; got -1e-08"),
        ({"max_sweeps": 0}, ValueError, "max_sweeps must be a positive integer; got 0"),
        ({"max_sweeps": 2.5}, ValueError, "max_sweeps must be a positive integer; got 2.5"),
        ({"max_sweeps": True}, ValueError, "max_sweeps must be a positive integer; got True"),
        ({"cg_maxit": -3}, ValueError, "cg_maxit must be a positive integer; got -3"),
        ({"engine": "dask"}, ValueError, "engine must be 'auto' or 'compress' or 'stream'; got 'dask'"),
        ({"covariance": "dense"}, ValueError, "covariance must be 'lowrank' or 'full' or 'diagonal'; got 'dense'"),
        ({"algorithm": "gmm"}, ValueError, "algorithm must be 'als' or 'fgls' or 'em' or 'ols'; got 'gmm'"),
        ({"sigma_step": "ML"}, ValueError, "sigma_step must be 'ml' or 'pca'; got 'ML'"),
        ({"missing": "mean"}, ValueError, "missing must be 'raise' or 'em' or 'drop'; got 'mean'"),
        ({"progress": "yes"}, TypeError, "progress must be True, False or a callable; got 'yes'"),
        ({"lamB": 1.0}, TypeError, "unexpected keyword argument 'lamB'"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else None,
)
def test_options_are_checked_when_they_are_given(options: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        LowRankGLS(**options)
    if "lamB" not in options:
        model = LowRankGLS(1)
        with pytest.raises(kind, match=re.escape(message)):
            model.set_params(**options)
        assert model.get_params() == LowRankGLS(1).get_params()


def test_set_params_refuses_unknown_names() -> None:
    with pytest.raises(ValueError, match="unknown parameter 'lamB'; the parameters are rank, covariance, ranks"):
        LowRankGLS().set_params(lamB=1.0)


@pytest.mark.parametrize(("K", "most"), [(1, 0), (2, 0), (3, 1), (6, 3), (10, 6)])
def test_ranks_above_what_the_equations_identify(K: int, most: int) -> None:
    few = System.from_arrays(np.random.default_rng(0).normal(size=(50, K)), np.ones((50, 1)))
    message = f"rank {most + 1} is more than {K} equations identify: the largest k with (K - k)^2 >= K + k is {most}."
    for act in (LowRankGLS(most + 1).fit, LowRankGLS(most + 1).plan):
        with pytest.raises(ValueError, match=re.escape(message)):
            act(few)


def test_numpy_integers_are_ranks() -> None:
    assert LowRankGLS(np.int64(1)).fit(system()).rank_ == 1


def test_using_a_model_before_it_is_fitted() -> None:
    for act in (LowRankGLS().predict, LowRankGLS().score):
        with pytest.raises(AttributeError, match=r"this LowRankGLS has not been fitted\. Call fit\(system\) first"):
            act(system())


def test_a_compressed_system_cannot_be_streamed() -> None:
    with pytest.raises(ValueError, match="a compressed system holds no rows to stream"):
        LowRankGLS(1, engine="stream").fit(system().compress())


# ---------------------------------------------------------------------------------- nothing is left behind


def test_a_fit_that_fails_half_way_leaves_nothing(tmp_path: Any) -> None:
    good = tmp_path / "good.zarr"
    system().to_zarr(good)
    bad = tmp_path / "bad.zarr"
    system(Y=changed(DATA.Y, 99, 0, np.nan)).to_zarr(bad)
    model = LowRankGLS(1).fit(System.from_zarr(good))
    before = model.result_
    with pytest.raises(BadValues):
        model.fit(System.from_zarr(bad))
    assert model.result_ is before
    script = "from lrgls_dask.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    ran = subprocess.run(
        [sys.executable, "-c", script, "fit", str(bad), "--out", str(tmp_path / "fit.zarr"), "--rank", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "Y, equation 'a': NaN value at row 99" in ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zarr", "good.zarr"]


def test_the_example_is_sound() -> None:
    """So that every refusal above is due to what it changed."""
    fit = LowRankGLS(1).fit(system()).result_
    assert (fit.n_obs, fit.on_floor) == (100, ())
    assert isinstance(DATA, Data)
