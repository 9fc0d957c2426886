"""Every remedy at its word: a mistake is made, what is said to it names a way out, and the way out is taken.

A new message that tells its reader what to do belongs into `CASES`, or into `ELSEWHERE` with the reason why not.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
import warnings
from array import array
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import xarray as xr
import zarr
from numpy.lib.recfunctions import structured_to_unstructured

from lrgls_dask import (
    BlockLowRank,
    CompressedSystem,
    Fit,
    FitWarning,
    GroupedLowRank,
    Known,
    LowRankGLS,
    SparseLowRank,
    System,
    TimeVarying,
    UnwrittenChunks,
)
from lrgls_dask.results.cov.cluster import Cluster
from lrgls_dask.simulate import simulate_system
from lrgls_dask.varying.segments import segment_times
from support.remedies import Case, command, said_to, templates
from support.remedies_of_absorb import ABSORB, SKIPPING
from support.remedies_of_across import ACROSS
from support.remedies_of_commands import COMMANDS
from support.remedies_of_damage import CODECS, damage
from support.remedies_of_formulas import FORMULAS
from support.remedies_of_frames import FRAMES
from support.remedies_of_parquet import PARQUET
from support.remedies_of_pictures import PICTURES, WORDS
from support.remedies_of_report import REPORT
from support.remedies_of_stores import stores
from support.remedies_of_tables import TABLES

N, K = 60, 5
RNG = np.random.default_rng(5)
X = np.column_stack([np.ones(N), RNG.normal(size=(N, 2))])
Y = X @ RNG.normal(size=(3, K)) + RNG.normal(size=(N, 1)) * [1, 0.8, 0.6, -0.9, 0.7] + RNG.normal(size=(N, K))
HOLES = Y.copy()
HOLES[RNG.random((N, K)) < 0.1] = np.nan
APART = HOLES.copy()  # no row shows the first two equations together
APART[::2, 0] = APART[1::2, 1] = np.nan
COPIED = HOLES.copy()  # what the first equation's responses are, the second's are too
COPIED[:, 1] = np.where(np.isnan(HOLES[:, 1]), np.nan, Y[:, 0] + X[:, 1])
LATE_X, FIRST_UNSEEN = X.copy(), HOLES.copy()  # a regressor that starts a row late, and responses that do
LATE_X[0, 1] = FIRST_UNSEEN[0] = np.nan
NO_ROW = Y.copy()
NO_ROW[np.arange(N), np.arange(N) % K] = np.nan
FLAT = Y.copy()
FLAT[:, 4] = 0.1
UNUSABLE = HOLES.copy()
UNUSABLE[2:, 0] = UNUSABLE[:, 4] = np.nan
UNUSABLE[:2, 0] = 1.0, 2.0
FEW_ROWS = [X[:10], np.column_stack([X[:10], np.random.default_rng(6).normal(size=(10, 9))])]
GROUPS = np.arange(N) // 6
NAMES = ["const", "x1", "x2"]
YEARS = np.repeat(np.arange(3), N // 3)
SYSTEM = System.from_arrays(Y, X, regressors=NAMES)
FRAME = pd.DataFrame(X, columns=NAMES)
DATES = pd.date_range("2000", periods=N)
DS = xr.Dataset(
    {
        "ret": (("time", "firm"), Y),
        "const": ("time", X[:, 0]),
        "mkt": ("time", X[:, 1]),
        "own": (("time", "firm"), X[:, [1]] + Y[:, ::-1]),
        "two": (("time", "firm", "extra"), np.stack([Y[:, ::-1], Y[:, ::-1] ** 2], axis=2)),
    },
    coords={"time": DATES, "firm": list("abcde")},
)
SIX = xr.DataArray(
    np.column_stack([Y[:, ::-1], Y[:, 0] ** 2]), {"time": DATES, "firm": list("abcdez")}, ("time", "firm"), name="six"
)
FOLDER = Path(tempfile.mkdtemp(prefix="remedies"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


@cache
def fitted(*how: Any, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LowRankGLS(*how, **options).fit(SYSTEM).result_


def fit(Y: Any = Y, X: Any = X, *how: Any, **options: Any) -> Any:
    """Fitted; options of System.from_arrays have `_` before their names."""
    made = {name[1:]: options.pop(name) for name in list(options) if name.startswith("_")}
    return LowRankGLS(*how, **options).fit(System.from_arrays(Y, X, **made)).result_


def arrays(Y: Any = Y, X: Any = X, **options: Any) -> System:
    return System.from_arrays(Y, X, **options)


def of(ds: Any = DS, y: Any = "ret", x: Any = ("const", "mkt"), **options: Any) -> System:
    return System.from_xarray(
        ds, y, list(x) if isinstance(x, tuple) else x, **{"obs": "time", "equation": "firm"} | options
    )


def with_holes(**options: Any) -> Fit:
    return LowRankGLS(options.pop("rank", 1), missing="em", **options).fit(System.from_arrays(HOLES, X)).result_


@cache
def skipping() -> Fit:
    return fit(UNUSABLE, X, 1, missing="em", unusable="skip", _regressors=NAMES)


def quietly(done: Any, *args: Any, **options: Any) -> None:
    """A remedy of what is only warned of: nothing is left to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done(*args, **options)


def exact_and_holes() -> Fit:
    """A response that its regressors reproduce, which the fit warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(np.where(np.arange(K) == 0, X[:, [1]], HOLES), X, 1, missing="em")


def structured() -> np.ndarray:
    return np.array([tuple(row) for row in X], dtype=[("a", float), ("b", float), ("c", float)])


def weighted(weights: Any, **options: Any) -> Any:
    return fit(Y, X, options.pop("rank", 1), _weights=weights, **options)


def labelled(values: np.ndarray, names: list[str], index: Any = None) -> pd.DataFrame:
    return pd.DataFrame(values, columns=names, index=index)


STREAMED = {"engine": "stream"}
VARYING = {"covariance": TimeVarying(1, YEARS, bandwidth=0.0)}
OPTIONS: list[Case] = [
    Case(
        "has not been fitted. Call fit",
        lambda: LowRankGLS().params_,
        (lambda: LowRankGLS(1).fit(SYSTEM).params_,),
    ),
    Case(
        "rank='cv' keeps .* was not allowed. Use engine='compress' or rank='bic'",
        lambda: LowRankGLS("cv", engine="stream").fit(SYSTEM),
        (
            lambda: LowRankGLS("cv", engine="compress").fit(SYSTEM),
            lambda: LowRankGLS("bic", engine="stream").fit(SYSTEM),
        ),
    ),
    Case(
        "stands for rows that miss responses.* Use missing='em', or missing='drop'",
        lambda: LowRankGLS(1).fit(arrays(HOLES).compress()),
        (
            lambda: LowRankGLS(1, missing="em").fit(arrays(HOLES).compress()),
            lambda: LowRankGLS(1, missing="drop").fit(arrays(HOLES).compress()),
        ),
    ),
    Case(
        "holds no rows to stream",
        lambda: LowRankGLS(1, engine="stream").fit(SYSTEM.compress()),
        (
            lambda: LowRankGLS(1, engine="compress").fit(SYSTEM.compress()),
            lambda: LowRankGLS(1, engine="auto").fit(SYSTEM.compress()),
        ),
    ),
    Case(
        "rank='cv' leaves rows out",
        lambda: LowRankGLS("cv").fit(SYSTEM.compress()),
        (lambda: LowRankGLS("cv").fit(SYSTEM), lambda: LowRankGLS("bic").fit(SYSTEM.compress())),
    ),
    Case(
        "n_folds=99 is more than",
        lambda: LowRankGLS("cv", n_folds=99).fit(SYSTEM),
        (lambda: LowRankGLS("cv", n_folds=3).fit(SYSTEM),),
    ),
    Case(
        "missing='em' does not go with sigma_step='pca'",
        lambda: LowRankGLS(1, sigma_step="pca", missing="em"),
        (
            lambda: LowRankGLS(1, sigma_step="ml", missing="em").fit(arrays(HOLES)),
            lambda: LowRankGLS(1, sigma_step="pca", missing="drop").fit(arrays(HOLES)),
        ),
    ),
    Case(
        "never observed in the same row.* Use covariance='lowrank'.* or 'diagonal', or leave equations out",
        lambda: fit(APART, X, covariance="full", missing="em"),
        (
            lambda: fit(APART, X, 1, covariance="lowrank", missing="em"),
            lambda: fit(APART, X, covariance="diagonal", missing="em"),
            lambda: fit(APART[:, 1:], X, covariance="full", missing="em"),
        ),
    ),
    Case(
        "no fit with this Sigma exists.* Use covariance='lowrank', fewer equations or more rows",
        lambda: fit(COPIED, X, covariance="full", missing="em"),
        (
            lambda: fit(COPIED, X, 1, covariance="lowrank", missing="em"),
            lambda: fit(COPIED[:, 1:], X, covariance="full", missing="em"),
        ),
    ),
    Case(
        "algorithm='em' does not go with debiased",
        lambda: LowRankGLS(1, algorithm="em", debiased=True),
        (
            lambda: LowRankGLS(1, algorithm="als", debiased=True).fit(SYSTEM),
            lambda: LowRankGLS(1, algorithm="em", debiased=False).fit(SYSTEM),
        ),
    ),
    Case(
        "has no factors, so rank must keep its default",
        lambda: LowRankGLS(2, covariance="full"),
        (lambda: LowRankGLS(covariance="full").fit(SYSTEM), lambda: LowRankGLS(2, covariance="lowrank").fit(SYSTEM)),
    ),
    Case(
        "takes no cg_maxit; got 3. Leave it at 500",
        lambda: LowRankGLS(cg_maxit=3, **VARYING),
        (lambda: LowRankGLS(cg_maxit=500, **VARYING).fit(SYSTEM),),
    ),
    Case(
        "algorithm='em' does not go with sigma_step='pca'. Use algorithm='als', or leave sigma_step out",
        lambda: LowRankGLS(1, algorithm="em", sigma_step="pca"),
        (
            lambda: LowRankGLS(1, algorithm="als", sigma_step="pca").fit(SYSTEM),
            lambda: LowRankGLS(1, algorithm="em").fit(SYSTEM),
        ),
    ),
    Case(
        "has dtype .*float128.* convert it with .astype",
        lambda: arrays(Y, X.astype(np.longdouble)),
        (lambda: arrays(Y, X.astype(np.longdouble).astype("float64")),),
    ),
    Case(
        "accelerate=False is for algorithm='em'",
        lambda: LowRankGLS(1, accelerate=False),
        (lambda: LowRankGLS(1).fit(SYSTEM), lambda: LowRankGLS(1, algorithm="em").fit(SYSTEM)),
    ),
    Case(
        "ranks has nothing to choose",
        lambda: LowRankGLS(2, ranks=[1, 2]),
        (lambda: LowRankGLS(2).fit(SYSTEM), lambda: LowRankGLS(ranks=[1, 2]).fit(SYSTEM)),
    ),
    Case(
        "compresses every segment by itself, which engine='stream' does not",
        lambda: LowRankGLS(engine="stream", **VARYING),
        (
            lambda: LowRankGLS(engine="compress", **VARYING).fit(SYSTEM),
            lambda: LowRankGLS(engine="auto", **VARYING).fit(SYSTEM),
        ),
    ),
    Case(
        "rank 9 is more than 5 equations identify.* Use rank <= 2",
        lambda: LowRankGLS(9).fit(SYSTEM),
        (lambda: LowRankGLS(2).fit(SYSTEM),),
    ),
    Case(
        "Known takes either sigma",
        lambda: Known(),
        (
            lambda: LowRankGLS(covariance=Known(np.eye(K))).fit(SYSTEM),
            lambda: LowRankGLS(covariance=Known(loadings=np.ones((K, 1)), idio_var=np.ones(K))).fit(SYSTEM),
        ),
    ),
    Case(
        "sigma must be symmetric",
        lambda: LowRankGLS(covariance=Known(np.eye(K) + np.eye(K, k=1) / 9)).fit(SYSTEM),
        (lambda: LowRankGLS(covariance=Known(np.eye(K) + (np.eye(K, k=1) + np.eye(K, k=-1)) / 18)).fit(SYSTEM),),
    ),
    Case(
        "sigma must be positive definite.* Drop it, or give loadings",
        lambda: LowRankGLS(covariance=Known(np.ones((K, K)))).fit(SYSTEM),
        (lambda: LowRankGLS(covariance=Known(loadings=np.ones((K, 1)), idio_var=np.full(K, 0.1))).fit(SYSTEM),),
    ),
    Case(
        "has 3 entries along axis 0, but there are 5 equations",
        lambda: LowRankGLS(covariance=Known(np.eye(3))).fit(SYSTEM),
        (lambda: LowRankGLS(covariance=Known(np.eye(K))).fit(SYSTEM),),
    ),
    Case(
        "'a' is not an equation.* Label it as the equations are, or pass its values alone",
        lambda: LowRankGLS(covariance=Known(labelled(np.eye(K), list("abcde"), list("abcde")))).fit(SYSTEM),
        (
            lambda: LowRankGLS(covariance=Known(labelled(np.eye(K), *2 * [list(SYSTEM.equations)]))).fit(SYSTEM),
            lambda: LowRankGLS(covariance=Known(np.eye(K))).fit(SYSTEM),
        ),
    ),
    Case(
        "equation 'y0' has no group|has no group. Give every equation one",
        lambda: LowRankGLS(covariance=GroupedLowRank(1, {"y1": 1})).fit(SYSTEM),
        (lambda: LowRankGLS(covariance=GroupedLowRank(1, dict.fromkeys(SYSTEM.equations, "a"))).fit(SYSTEM),),
    ),
    Case(
        "groups: 'z' is not an equation.* Use the labels of the equations",
        lambda: LowRankGLS(covariance=GroupedLowRank(1, {"z": 1})).fit(SYSTEM),
        (lambda: LowRankGLS(covariance=GroupedLowRank(1, dict.fromkeys(SYSTEM.equations, "a"))).fit(SYSTEM),),
    ),
    Case(
        "groups names a coordinate 'sector'.* Pass equation -> group",
        lambda: LowRankGLS(covariance=GroupedLowRank(1, "sector")).fit(SYSTEM),
        (lambda: LowRankGLS(covariance=GroupedLowRank(1, dict.fromkeys(SYSTEM.equations, "a"))).fit(SYSTEM),),
    ),
    Case(
        "groups must map equations to groups",
        lambda: GroupedLowRank(1, 3),
        (lambda: LowRankGLS(covariance=GroupedLowRank(1, dict.fromkeys(SYSTEM.equations, "a"))).fit(SYSTEM),),
    ),
    Case(
        "equation 'y0' is there more than once. Give it one group",
        lambda: GroupedLowRank(1, pd.Series(list("ab"), index=["y0", "y0"])),
        (lambda: GroupedLowRank(1, pd.Series(list("a"), index=["y0"])),),
    ),
]


INPUT: list[Case] = [
    Case(
        "incidence goes with one .* but Xs is a list",
        lambda: arrays(Y, [X] * K, incidence=np.ones((3, K), bool)),
        (lambda: arrays(Y, [X] * K), lambda: arrays(Y, X, incidence=np.ones((3, K), bool))),
    ),
    Case(
        "incidence goes with one .* but Xs is 3-D",
        lambda: arrays(Y, np.stack([X] * K, axis=1), incidence=np.ones((3, K), bool)),
        (lambda: arrays(Y, np.stack([X] * K, axis=1)), lambda: arrays(Y, X, incidence=np.ones((3, K), bool))),
    ),
    Case(
        "incidence is a DataFrame",
        lambda: arrays(Y, X, incidence=pd.DataFrame(np.ones((3, K)))),
        (lambda: arrays(Y, X, incidence=pd.DataFrame(np.ones((3, K))).to_numpy()),),
    ),
    Case(
        "must say yes or no. Use incidence != 0",
        lambda: arrays(Y, X, incidence=np.full((3, K), 2.0)),
        (lambda: arrays(Y, X, incidence=np.full((3, K), 2.0) != 0),),
    ),
    Case(
        "equations has 2 labels but Y has 5 columns",
        lambda: arrays(equations=["a", "b"]),
        (lambda: arrays(equations=list("abcde")),),
    ),
    Case("regressors has 2 names but Xs", lambda: arrays(regressors=["a", "b"]), (lambda: arrays(regressors=NAMES),)),
    Case(
        "regressors has 2 lists of names",
        lambda: arrays(Y, [X] * K, regressors=[NAMES, NAMES]),
        (lambda: arrays(Y, [X] * K, regressors=[NAMES] * K),),
    ),
    Case("holds 2 designs for 5 equations", lambda: arrays(Y, [X, X]), (lambda: arrays(Y, [X] * K),)),
    Case(
        "rows, 'time', must come first. Use .transpose|must come first",
        lambda: arrays(DS["ret"], xr.DataArray(X, dims=("time", "p")).transpose("p", "time")),
        (lambda: arrays(DS["ret"], xr.DataArray(X, dims=("time", "p")).transpose("p", "time").transpose("time", ...)),),
    ),
    Case("Y has no equations", lambda: arrays(Y[:, :0]), (lambda: arrays(Y[:, :1]),)),
    Case(
        "has no regressors. Give it at least a constant column, or drop it",
        lambda: arrays(Y, X, incidence=np.arange(K) > 0 * np.ones((3, 1))),
        (lambda: arrays(Y, X, incidence=np.ones((3, K), bool)), lambda: arrays(Y[:, 1:], X)),
    ),
    Case(
        "has 12 regressors but there are only 10 rows.*Drop regressors or add rows, or use unusable='skip'",
        lambda: fit(Y[:10, :2], FEW_ROWS, 0),
        (
            lambda: fit(Y[:10, :2], [FEW_ROWS[0], FEW_ROWS[1][:, :3]], 0),
            lambda: fit(Y[:20, :2], [X[:20], np.column_stack([X[:20], np.eye(20)[:, :9]])], 0),
            lambda: fit(Y[:10, :2], FEW_ROWS, 0, unusable="skip"),
        ),
    ),
    Case(
        "rows must outnumber the regressors. Drop regressors or add rows",
        lambda: LowRankGLS(0).plan(arrays(Y[:3], X[:3])),
        (
            lambda: LowRankGLS(0).plan(arrays(Y[:3], X[:3, :2])),
            lambda: LowRankGLS(0).plan(arrays(Y[:4], X[:4])),
        ),
    ),
    Case(
        "row labels along 'obs' must be unique.* Drop the repeats, or number",
        lambda: arrays(labelled(Y[:20], list("abcde"), [*range(5, 24), 5]), X[:20]),
        (
            lambda: arrays(labelled(Y[:20], list("abcde"), [*range(5, 24), 5]).iloc[:19], X[:19]),
            lambda: arrays(labelled(Y[:20], list("abcde"), [*range(5, 24), 5]).reset_index(drop=True), X[:20]),
        ),
    ),
    Case(
        "every array needs one row for each observation|Align them first",
        lambda: arrays(Y, X[:-1]),
        (lambda: arrays(Y[:-1], X[:-1]),),
    ),
    Case(
        "weights are all zero.* Give at least some rows a positive weight",
        lambda: arrays(weights=np.zeros(N)),
        (lambda: arrays(weights=np.arange(N) % 2),),
    ),
    Case(
        "weights must be .* Set the weight of a row to leave out to 0",
        lambda: arrays(weights=np.arange(N) - 1.0),
        (lambda: arrays(weights=np.maximum(np.arange(N) - 1.0, 0)),),
    ),
    Case(
        "equation labels.* must be unique|must be unique.*Rename or drop",
        lambda: arrays(equations=list("abcda")),
        (lambda: arrays(equations=list("abcde")), lambda: arrays(Y[:, :4], equations=list("abcd"))),
    ),
    Case(
        "must be hashable values",
        lambda: arrays(equations=[["a"], ["b"], 3, 4, 5]),
        (lambda: arrays(equations=["a", 2, 3, 4, ("t", 1)]),),
    ),
    Case(
        "the same labels are there in another order|are there in another order",
        lambda: arrays(labelled(Y, list("abcde"), DATES), FRAME.set_index(DATES).iloc[::-1]),
        (
            lambda: arrays(labelled(Y, list("abcde"), DATES), FRAME.set_index(DATES).iloc[::-1].loc[DATES]),
            lambda: arrays(labelled(Y, list("abcde"), DATES), FRAME.set_index(DATES).iloc[::-1].reindex(DATES)),
        ),
    ),
    Case(
        "keep the rows that both have",
        lambda: arrays(labelled(Y, list("abcde"), DATES), FRAME.set_index(DATES + DATES.freq)),
        (
            lambda: arrays(
                labelled(Y, list("abcde"), DATES).reindex(DATES[1:]),
                FRAME.set_index(DATES + DATES.freq).reindex(DATES[1:]),
            ),
        ),
    ),
    Case(
        "has dtype complex128.*pass .real and .imag",
        lambda: arrays(Y, X + 1j * X[:, ::-1]),
        (lambda: arrays(Y, np.column_stack([(X + 1j * X).real, X.imag])),),
    ),
    Case(
        "has dtype datetime64.*count from an origin",
        lambda: arrays(Y, DATES.values[:, None]),
        (lambda: arrays(Y, ((DATES.values - DATES.values[0]) / np.timedelta64(1, "D"))[:, None]),),
    ),
    Case(
        "has dtype timedelta64.*divide by a unit",
        lambda: arrays(Y, (DATES - DATES[0]).values[:, None]),
        (lambda: arrays(Y, ((DATES - DATES[0]).values / np.timedelta64(1, "D"))[:, None]),),
    ),
    Case(
        "convert numbers written as text|turn categories",
        lambda: arrays(Y, X.astype(str)),
        (
            lambda: arrays(Y, X.astype(str).astype("float64")),
            lambda: arrays(Y, (np.where(X[:, 1:] > 0, "up", "down") == "up").astype(int)),
        ),
    ),
    Case(
        r"convert it first, with .astype\('Float64'\)",
        lambda: arrays(Y, pd.DataFrame({"c": 1.0, "side": np.where(X[:, 1] > 0, "up", "down")}, dtype=object)),
        (
            lambda: arrays(Y, pd.DataFrame({"c": np.ones(N), "up": (X[:, 1] > 0).astype(int)})),
            lambda: arrays(Y, pd.DataFrame(X).astype(object).astype("Float64")),
            lambda: arrays(Y, X.astype(object).astype("float64")),
        ),
    ),
    Case(
        "take its fields as columns, e.g. with numpy.lib.recfunctions.structured_to_unstructured",
        lambda: arrays(Y, structured()[:, None]),
        (lambda: arrays(Y, structured_to_unstructured(structured())),),
    ),
    Case(
        "is a scipy sparse matrix.* Use .toarray",
        lambda: arrays(Y, sp.csr_array(X)),
        (lambda: arrays(Y, sp.csr_array(X).toarray()),),
    ),
    Case(
        "unknown chunk sizes.* Call .compute_chunk_sizes",
        lambda: arrays(Y, da.from_array(X)[da.from_array(X)[:, 0] > 0]),
        (lambda: arrays(Y, da.from_array(X)[da.from_array(X)[:, 0] > 0].compute_chunk_sizes()),),
    ),
    Case(
        "blocks but must have NumPy blocks. Use .map_blocks",
        lambda: arrays(Y, da.from_array(X, chunks=(20, 3)).map_blocks(sp.csr_matrix)),
        (
            lambda: arrays(
                Y,
                da.from_array(X, chunks=(20, 3))
                .map_blocks(sp.csr_matrix)
                .map_blocks(lambda block: block.toarray(), meta=np.empty((0, 0))),
            ),
        ),
    ),
    Case(
        "weights has shape .* of rows, .* of cells, .* of equations. Reshape it",
        lambda: arrays(weights=np.ones((N, 2))),
        (lambda: arrays(weights=np.ones((N, 1))), lambda: arrays(weights=np.ones((N, K)))),
    ),
    Case(
        "must be 1-D with one label per row.* Pass one column",
        lambda: arrays(groups=np.ones((N, 2))),
        (lambda: arrays(groups=np.ones((N, 2))[:, 0]),),
    ),
    Case(
        "a list that makes no rectangular array.* Give one array",
        lambda: arrays([[1.0, 2.0], [3.0]], X[:2]),
        (lambda: arrays(np.array([[1.0], [3.0], [2.0], [1.0]]), X[:4]),),
    ),
    Case("ds is a DataFrame.* Use System.from_arrays", lambda: of(FRAME), (lambda: System.from_arrays(Y, FRAME),)),
    Case(
        "ds is a DataArray.* Use .to_dataset",
        lambda: of(DS["ret"], "r", x=(DS["const"],)),
        (lambda: of(DS["ret"].to_dataset(name="r"), "r", x=(DS["const"],)),),
    ),
    Case("obs and equation are both", lambda: of(obs="time", equation="time"), (lambda: of(),)),
    Case(
        "but must have 'obs' and 'equation'. Pass obs=... and equation=|Pass obs=",
        lambda: System.from_xarray(DS, "ret", ["const", "mkt"]),
        (lambda: of(),),
    ),
    Case(
        "must vary along 'time'. Use .expand_dims or xr.broadcast",
        lambda: of(DS.assign(one=1.0), x=("one", "mkt")),
        (
            lambda: of(DS.assign(one=xr.DataArray(1.0).expand_dims(time=DS.time)), x=("one", "mkt")),
            lambda: of(DS.assign(one=xr.broadcast(xr.DataArray(1.0), DS["mkt"])[0]), x=("one", "mkt")),
        ),
    ),
    Case(
        "there may be one more. Use .stack",
        lambda: of(DS.assign(three=DS["two"].expand_dims(more=2)), x=("const", "three")),
        (
            lambda: of(
                DS.assign(three=DS["two"].expand_dims(more=[0, 1]) ** xr.DataArray([1, 3], dims="more")).stack(
                    regressor=["extra", "more"]
                ),
                x=("const", "three"),
            ),
        ),
    ),
    Case(
        "x must list regressors for every equation.* Add them to x",
        lambda: of(x={"a": ["const"]}),
        (lambda: of(x={name: ["const"] for name in "abcde"}),),
    ),
    Case("x names no variable", lambda: of(x=()), (lambda: of(x=("mkt",)), lambda: of(x=(), constant=True))),
    Case(
        "the response 'ret' is a regressor too",
        lambda: of(x=("const", "ret")),
        (lambda: of(x=("const",)), lambda: of(x=("const", DS["ret"].shift(time=1)))),
    ),
    Case(
        "x has a regressor 'const'",
        lambda: of(x=("const",), constant=True),
        (lambda: of(x=("const",)), lambda: of(x=(), constant=True)),
    ),
    Case(
        "a DataArray without a name. Use .rename",
        lambda: of(x=(DS["const"].rename(None), "mkt")),
        (lambda: of(x=(DS["const"].rename(None).rename("one"), "mkt")),),
    ),
    Case(
        "must name variables. Pass names or DataArrays",
        lambda: of(x=(X[:, 1], "mkt")),
        (lambda: of(x=("const", "mkt")), lambda: of(x=(DS["const"], DS["mkt"]))),
    ),
    Case(
        "must have the labels of y along 'firm' but has 'z', more than y. Use .sel",
        lambda: of(x=("const", SIX)),
        (lambda: of(x=("const", SIX.sel(firm=DS["ret"]["firm"]))),),
    ),
    Case(
        "must have the labels of y along 'firm' but lacks 'e'. Add them, or leave",
        lambda: of(DS, x=("const", DS["own"][:, :4])),
        (lambda: of(DS, x=("const", DS["own"])), lambda: of(DS, DS["ret"][:, :4], x=("const", DS["own"][:, :4]))),
    ),
    Case(
        "has 3 entries along 'firm' but y has 5 equations|must have the labels of y along",
        lambda: of(DS, x=("const", DS["own"].drop_vars("firm")[:, :3])),
        (lambda: of(x=("const", "own")),),
    ),
    Case(
        "must have 'time' only. Select one column",
        lambda: of(groups=np.abs(DS["own"])),
        (lambda: of(groups=np.abs(DS["own"])[:, 0].drop_vars("firm")),),
    ),
    Case(
        "NaN value at row 0.* or fit with missing='em'.*, or missing='drop'",
        lambda: fit(np.where(np.arange(N)[:, None] == 0, np.nan, Y), X, 1),
        (
            lambda: fit(Y[1:], X[1:], 1),
            lambda: fit(np.where(np.arange(N)[:, None] == 0, np.nan, Y), X, 1, missing="em"),
            lambda: fit(np.where(np.arange(N)[:, None] == 0, np.nan, Y), X, 1, missing="drop"),
        ),
    ),
    Case(
        "NaN value at row 2.*every value must be observed",
        lambda: fit(Y, np.where(np.arange(N)[:, None] == 2, np.nan, X), 1),
        (lambda: fit(np.delete(Y, 2, 0), np.delete(X, 2, 0), 1),),
    ),
    Case(
        "infinite value at row 2.* Replace or drop",
        lambda: fit(Y, np.where(np.arange(N)[:, None] == 2, np.inf, X), 1),
        (lambda: fit(np.delete(Y, 2, 0), np.delete(X, 2, 0), 1),),
    ),
    Case(
        "too large value.* Divide the column by a constant",
        lambda: fit(Y, X * [1, 1e200, 1], 1),
        (lambda: fit(Y, X * [1, 1e200, 1] / [1, 1e200, 1], 1),),
    ),
    Case(
        "columns 'x1' and 'x2' are collinear.* Drop one, or set lam_B > 0",
        lambda: fit(Y, X[:, [0, 1, 1]], 1),
        (lambda: fit(Y, X[:, [0, 1]], 1), lambda: fit(Y, X[:, [0, 1, 1]], 1, lam_B=0.1)),
    ),
    Case(
        "only 2 rows have a positive weight. Use more rows than regressors",
        lambda: fit(Y, X, 1, _weights=(np.arange(N) < 2) * 1.0),
        (lambda: fit(Y, X, 1, _weights=np.ones(N)),),
    ),
    Case(
        "is observed in no row. Leave it out .*or use unusable='skip'",
        lambda: fit(Y * [1, 1, 1, 1, np.nan], X, 1, missing="em"),
        (
            lambda: fit(Y[:, :4] * [1, 1, 1, 1], X, 1, missing="em"),
            lambda: fit(Y * [1, 1, 1, 1, np.nan], X, 1, missing="em", unusable="skip"),
        ),
    ),
    Case(
        "2 of 5 equations: 'y0' .too few rows .2 of 3.., 'y4' .no rows.*leave those or some .*, or use unusable='skip'",
        lambda: fit(UNUSABLE, X, 1, missing="em"),
        (
            lambda: fit(UNUSABLE[:, 1:4], X, 1, missing="em"),
            lambda: fit(UNUSABLE[:, :4], X[:, :1], 1, missing="em"),
            lambda: fit(UNUSABLE, X, 1, missing="em", unusable="skip"),
        ),
    ),
    Case(
        "observed in 2 rows and has 3 regressors.*leave it or some regressors out, or use unusable='skip'",
        lambda: fit(UNUSABLE[:, :4], X, 1, missing="em"),
        (
            lambda: fit(UNUSABLE[:, 1:4], X, 1, missing="em"),
            lambda: fit(UNUSABLE[:, :4], X[:, :1], 1, missing="em"),
            lambda: fit(UNUSABLE[:, :4], X, 1, missing="em", unusable="skip"),
        ),
    ),
    Case(
        "constant response or a perfect fit in equation 'y4'.* drop the equation or the regressor .*unusable='skip'",
        lambda: fit(FLAT, X, 0),
        (
            lambda: quietly(fit, FLAT[:, :4], X, 0),
            lambda: quietly(fit, FLAT, X[:, 1:], 0),
            lambda: quietly(fit, FLAT, X, 0, unusable="skip"),
        ),
    ),
    Case(
        "no equation can be estimated: 5 of 5.* Add rows, or drop regressors",
        lambda: fit(Y[:2], X[:2], 0, unusable="skip", missing="em"),
        (lambda: fit(Y, X, 0, unusable="skip"), lambda: fit(Y[:2], X[:2, :1], 0, unusable="skip")),
    ),
    Case(
        "is about equation 'y4', which is skipped .no rows.*Leave it out",
        lambda: skipping().wald_test(["y1:x1 = 0", "y4:x1 = 0"]),
        (lambda: skipping().wald_test(["y1:x1 = 0"]),),
    ),
    Case(
        "a compressed system whose cells have weights .*Fit the System itself",
        lambda: LowRankGLS(1, missing="em", unusable="skip").fit(
            arrays(UNUSABLE, weights=np.full((N, K), 2.0)).compress()
        ),
        (lambda: fit(UNUSABLE, X, 1, missing="em", unusable="skip", _weights=np.full((N, K), 2.0)),),
    ),
    Case(
        "no row of positive weight shows every equation. Use missing='em' with covariance='lowrank' and .* or leave",
        lambda: fit(NO_ROW, X, covariance="full", missing="drop"),
        (
            lambda: fit(NO_ROW, X, 1, covariance="lowrank", algorithm="als", missing="em"),
            lambda: fit(NO_ROW[:, :4], X, covariance="full", missing="drop"),
        ),
    ),
    Case(
        "no maximum likelihood fit with covariance='full' exists.* Use algorithm='fgls', covariance='lowrank', fewer",
        lambda: fit(*WIDE, covariance="full"),
        (
            lambda: fit(*WIDE, covariance="full", algorithm="fgls"),
            lambda: fit(*WIDE, 1, covariance="lowrank"),
            lambda: fit(WIDE[0][:, :2], WIDE[1][:2], covariance="full"),
        ),
    ),
    Case(
        "no maximum likelihood fit with covariance='full' exists.* Use covariance='lowrank', fewer",
        lambda: fit(Y[:, [0, 1, 0]], X, covariance="full"),
        (lambda: fit(Y[:, [0, 1, 0]], X, covariance="lowrank"), lambda: fit(Y[:, :2], X, covariance="full")),
    ),
    Case(
        "fitted one by one is singular .* Use covariance='lowrank', fewer equations",
        lambda: fit(Y[:, [0, 1, 0]], X, covariance="full", algorithm="fgls"),
        (
            lambda: fit(Y[:, [0, 1, 0]], X, covariance="lowrank", algorithm="fgls"),
            lambda: fit(Y[:, :2], X, covariance="full", algorithm="fgls"),
        ),
    ),
    Case(
        "fold 4 of 5 has no row .* Use fewer folds, or folds='rows', or rank='bic'",
        lambda: fit(Y, X, "cv", folds="blocks", _weights=IDLE),
        (
            lambda: fit(Y, X, "cv", folds="blocks", n_folds=2, _weights=IDLE),
            lambda: fit(Y, X, "cv", folds="rows", _weights=IDLE),
            lambda: fit(Y, X, "bic", folds="blocks", _weights=IDLE),
        ),
    ),
    Case(
        "without the rows of fold .* Or use rank='bic', which leaves no rows out",
        lambda: fit(Y, np.column_stack([X, np.arange(N) == 3]), "cv"),
        (lambda: fit(Y, np.column_stack([X, np.arange(N) == 3]), "bic"),),
    ),
    Case(
        "without the rows of fold .* Or use folds='rows', or rank='bic'",
        lambda: fit(Y, np.column_stack([X, np.arange(N) < 12]), "cv", folds="blocks"),
        (
            lambda: fit(Y, np.column_stack([X, np.arange(N) < 12]), "cv", folds="rows"),
            lambda: fit(Y, np.column_stack([X, np.arange(N) < 12]), "bic"),
        ),
    ),
    Case(
        "debiased='max' divides each pair.* Use debiased=True",
        lambda: fit(*PAIR, covariance="full", algorithm="fgls", debiased="max"),
        (lambda: fit(*PAIR, covariance="full", algorithm="fgls", debiased=True),),
    ),
]
WIDE = (
    np.random.default_rng(1).normal(size=(12, 5)),
    [np.random.default_rng(j).normal(size=(12, 3)) for j in range(5)],
)
IDLE = np.where(np.arange(N) // 12 == 3, 0.0, 1.0)
PAIR_X = np.column_stack([np.ones(12), np.random.default_rng(0).normal(size=(12, 8))])
PAIR_Y = np.random.default_rng(1).normal(size=12)
PAIR_Y = PAIR_Y - PAIR_X @ np.linalg.lstsq(PAIR_X, PAIR_Y, rcond=None)[0]
PAIR = (np.column_stack([PAIR_Y, PAIR_Y + 1e-3 * np.random.default_rng(2).normal(size=12)]), [PAIR_X[:, :1], PAIR_X])


def saved(name: str, made: Any = None) -> Path:
    """Where a system or fit was written."""
    path = FOLDER / name
    if not path.exists():
        (SYSTEM if made is None else made).to_zarr(path)
    return path


def opened(**options: Any) -> Fit:
    """A fit that was saved, which holds no rows."""
    name = "-".join(f"{key}{value}" for key, value in options.items()) or "plain"
    return Fit.from_zarr(saved(f"fit-{name}", fitted(1, **options)))


HELD = {"restrictions": ["y0:x1 = 0.5"]}
AGAIN = System.from_arrays(Y + 0.1, X, regressors=NAMES)
DEFINED: Any = LowRankGLS(**VARYING)
HYPOTHESES: list[Case] = [
    Case(
        "'y0:x1 = 1' contradicts 'y0:x1 = 0'. Drop or change",
        lambda: fitted(1).wald_test(["y0:x1 = 0", "y0:x1 = 1"]),
        (lambda: fitted(1).wald_test(["y0:x1 = 0"]), lambda: fitted(1).wald_test(["y0:x1 = 0", "y0:x2 = 1"])),
    ),
    Case(
        "is redundant: it follows from .* Drop it",
        lambda: fitted(1).wald_test(["y0:x1 = 0", "2*y0:x1 = 0"]),
        (lambda: fitted(1).wald_test(["y0:x1 = 0"]),),
    ),
    Case(
        "row 0 of R is zero: it restricts nothing. Drop it",
        lambda: fitted(1).wald_test(np.eye(2, 15) * [[0], [1]]),
        (lambda: fitted(1).wald_test((np.eye(2, 15) * [[0], [1]])[1:]),),
    ),
    Case(
        "only equality can be tested: use '='",
        lambda: fitted(1).wald_test("y0:x1 > 0"),
        (lambda: fitted(1).wald_test("y0:x1 = 0"),),
    ),
    Case(
        "cannot hold: it contradicts .* drop it, or fit without restrictions",
        lambda: held().wald_test("y0:x1 = 0"),
        (lambda: held().wald_test("y0:x2 = 0"), lambda: fitted(1).wald_test("y0:x1 = 0")),
    ),
    Case(
        "holds by construction.* drop it, or test it of a fit without restrictions",
        lambda: held().wald_test("y0:x1 = 0.5"),
        (lambda: held().wald_test("y0:x2 = 0"), lambda: fitted(1).wald_test("y0:x1 = 0.5")),
    ),
]


@cache
def one_group() -> Fit:
    """Rows of positive weight in one group alone."""
    return fit(Y[:, :3], X[:, :2], 0, _weights=(GROUPS == 1) * 1.0)


@cache
def held() -> Fit:
    return LowRankGLS(1, **HELD).fit(SYSTEM).result_


RESULTS: list[Case] = [
    Case(
        "kind='robust' needs the rows.* Pass the fitted data: cov",
        lambda: opened().cov("robust"),
        (lambda: opened().cov("robust", system=SYSTEM),),
    ),
    Case(
        "kind='robust' needs the rows themselves.* Pass the System that was compressed",
        lambda: LowRankGLS(1).fit(SYSTEM.compress()).result_.cov("robust", system=SYSTEM.compress()),
        (lambda: LowRankGLS(1).fit(SYSTEM.compress()).result_.cov("robust", system=SYSTEM),),
    ),
    Case(
        "kind='cluster' needs groups: pass groups=",
        lambda: fitted(1).cov("cluster"),
        (lambda: fitted(1).cov("cluster", groups=GROUPS), lambda: fit(Y, X, 1, _groups=GROUPS).cov("cluster")),
    ),
    Case(
        "the label of row 0 is missing.* Give every row one, or drop the row",
        lambda: fitted(1).cov("cluster", groups=np.where(np.arange(N) == 0, np.nan, GROUPS)),
        (
            lambda: fitted(1).cov("cluster", groups=np.where(np.arange(N) == 0, 0.0, GROUPS)),
            lambda: fit(Y[1:], X[1:], 1).cov("cluster", groups=GROUPS[1:]),
        ),
    ),
    Case(
        "at least two groups with rows that were fitted.* Use other groups, or kind='robust'",
        lambda: one_group().cov("cluster", groups=GROUPS),
        (
            lambda: one_group().cov("cluster", groups=np.arange(N)),
            lambda: one_group().cov("robust"),
        ),
    ),
    Case(
        "takes no groups=.* Leave it out, or choose another kind",
        lambda: fitted(1).cov("classical", groups=GROUPS),
        (lambda: fitted(1).cov("classical"), lambda: fitted(1).cov("cluster", groups=GROUPS)),
    ),
    Case(
        "says it twice. Leave it out",
        lambda: fitted(1).cov(_cluster(), groups=GROUPS),
        (lambda: fitted(1).cov(_cluster()),),
    ),
    Case(
        "bandwidth 99 reaches back 99 rows.* Use at most 59",
        lambda: fitted(1).cov("hac", bandwidth=99),
        (lambda: fitted(1).cov("hac", bandwidth=59),),
    ),
    Case(
        "automatic bandwidth .* looks at .* lags.* Give bandwidth=",
        lambda: fit(Y[:4, :2], X[:4, :2], 0).cov("hac", kernel="qs"),
        (lambda: fit(Y[:4, :2], X[:4, :2], 0).cov("hac", kernel="qs", bandwidth=1),),
    ),
    Case(
        "takes rows in the order of their labels.* Sort all data by them",
        lambda: fit(*SHUFFLED, 1).cov("hac", bandwidth=2),
        (
            lambda: fit(*(frame.sort_index() for frame in SHUFFLED), 1).cov("hac", bandwidth=2),
            lambda: fit(*(frame.reset_index(drop=True) for frame in SHUFFLED), 1).cov("hac", bandwidth=2),
        ),
    ),
    Case(
        "which a streamed fit does not have. Use kind='robust', or fit with engine='compress'",
        lambda: fitted(1, **STREAMED).cov("observed"),
        (lambda: fitted(1, **STREAMED).cov("robust"), lambda: fitted(1, engine="compress").cov("observed")),
    ),
    Case(
        "which a streamed fit does not keep. Fit with engine='compress'",
        lambda: fitted(1, **STREAMED).mcelroy_r2(),
        (lambda: fitted(1, engine="compress").mcelroy_r2(),),
    ),
    Case(
        "debiased=True counts coefficients.* Use kind='classical' as it is, or fit with lam_B = 0",
        lambda: fitted(1, lam_B=2.0).cov("classical", debiased=True),
        (lambda: fitted(1, lam_B=2.0).cov("classical"), lambda: fitted(1, lam_B=0.0).cov("classical", debiased=True)),
    ),
    Case(
        "Use correction='HC1', or fit with covariance='diagonal'",
        lambda: with_holes().cov("robust", correction="HC2"),
        (
            lambda: with_holes().cov("robust", correction="HC1"),
            lambda: with_holes(rank="auto", covariance="diagonal").cov("robust", correction="HC2"),
        ),
    ),
    Case(
        "lam_F is 1. Fit with lam_F = 0, or use classical or robust standard errors",
        lambda: with_holes(lam_F=1.0).cov("kackar-harville"),
        (lambda: with_holes().cov("kackar-harville"), lambda: with_holes(lam_F=1.0).cov("robust")),
    ),
    Case(
        "more than were kept. Use kind='classical', which differs from it by",
        lambda: with_holes(engine="stream").cov("kackar-harville"),
        (lambda: with_holes(engine="stream").cov("classical"), lambda: with_holes(engine="stream").cov("observed")),
    ),
    Case(
        "is fitted exactly by its regressors. Fit the system without it",
        lambda: exact_and_holes().breusch_pagan(),
        (lambda: fit(HOLES[:, 1:], X, 1, missing="em").breusch_pagan(),),
    ),
    Case(
        "holds only where they were compressed by few patterns. Ask the fit that was made of",
        lambda: replace(with_holes(engine="stream"), system=None).mcelroy_r2(),
        (lambda: with_holes(engine="stream").mcelroy_r2(),),
    ),
    Case(
        "Use sigma='reported', the Sigma of the fit",
        lambda: with_holes().mcelroy_r2("residual"),
        (lambda: with_holes().mcelroy_r2("reported"),),
    ),
    Case(
        "Fit covariance='diagonal' with missing='em' too and compare",
        lambda: with_holes(engine="stream").lr_diagonal(),
        (lambda: with_holes().lr_test(with_holes(rank="auto", covariance="diagonal")),),
    ),
    Case(
        "Fit a larger rank with missing='em' too and compare",
        lambda: with_holes(engine="stream").rank_test(),
        (lambda: with_holes().lr_test(with_holes(rank=2)),),
    ),
    Case(
        "draws at the holes of the fitted rows.* Pass system=",
        lambda: replace(with_holes(engine="stream"), system=None).bootstrap(5),
        (lambda: replace(with_holes(engine="stream"), system=None).bootstrap(5, system=arrays(HOLES)),),
    ),
    Case(
        "does not ask for. Use information='observed'",
        lambda: with_holes().sigma_std_errors("expected"),
        (lambda: with_holes().sigma_std_errors("observed"),),
    ),
    Case(
        "algorithm='fgls' stops short of one. Fit with algorithm='als', or bootstrap",
        lambda: with_holes(algorithm="fgls").sigma_std_errors(),
        (lambda: with_holes(algorithm="als").sigma_std_errors(), lambda: with_holes(algorithm="fgls").bootstrap(2)),
    ),
    Case(
        "groups are for method='cluster'.* Leave one of the two out",
        lambda: fitted(1).bootstrap(5, groups=GROUPS),
        (lambda: fitted(1).bootstrap(5), lambda: fitted(1).bootstrap(5, "cluster", groups=GROUPS)),
    ),
    Case(
        "n_blocks=99 is more than the 60 rows",
        lambda: fitted(1).bootstrap(5, "blocks", n_blocks=99),
        (lambda: fitted(1).bootstrap(5, "blocks", n_blocks=20),),
    ),
    Case(
        "method='cluster' needs the group of every row. Pass groups=..., or give the System groups",
        lambda: fitted(1).bootstrap(5, "cluster"),
        (
            lambda: fitted(1).bootstrap(5, "cluster", groups=GROUPS),
            lambda: fit(Y, X, 1, _groups=GROUPS).bootstrap(5, "cluster"),
        ),
    ),
    Case(
        "groups: the label of row 0 is missing.* Give every row one",
        lambda: fitted(1).bootstrap(5, "cluster", groups=np.where(np.arange(N) == 0, np.nan, GROUPS)),
        (lambda: fitted(1).bootstrap(5, "cluster", groups=GROUPS),),
    ),
    Case(
        "method='blocks' resamples rows.* Pass system=",
        lambda: opened().bootstrap(5, "blocks"),
        (lambda: opened().bootstrap(5, "blocks", system=SYSTEM),),
    ),
    Case(
        "keeps no compressed rows to replicate. Pass system=.*, or fit with engine='compress'",
        lambda: fitted(1, **STREAMED).bootstrap(5),
        (lambda: fitted(1, **STREAMED).bootstrap(5, system=SYSTEM), lambda: fitted(1, engine="compress").bootstrap(5)),
    ),
    Case(
        "at least two groups with rows that were fitted.* Use other groups, or method='parametric'",
        lambda: one_group().bootstrap(5, "cluster", groups=GROUPS),
        (
            lambda: one_group().bootstrap(5, "cluster", groups=np.arange(N)),
            lambda: one_group().bootstrap(5, method="parametric"),
        ),
    ),
    Case(
        "Fit every model that is compared with algorithm='als', or test coefficients with wald_test",
        lambda: fitted(1, algorithm="fgls").lr_diagonal(),
        (lambda: fitted(1, algorithm="als").lr_diagonal(), lambda: fitted(1, algorithm="fgls").wald_test("y0:x1 = 0")),
    ),
    Case(
        "did not arrive at its own.* Fit again with a larger max_sweeps",
        lambda: fitted(1, max_sweeps=1).lr_diagonal(),
        (lambda: fitted(1, max_sweeps=200).lr_diagonal(),),
    ),
    Case(
        "loadings are penalised.* Compare aic or bic, or fit with l1=0",
        lambda: sparse(0.1).lr_diagonal(),
        (lambda: (sparse(0.1).aic, sparse(0.1).bic), lambda: sparse(0.0).lr_diagonal()),
    ),
    Case(
        "this fit is penalised.* Fit again with both 0",
        lambda: fitted(1, lam_B=2.0).lr_diagonal(),
        (lambda: fitted(1, lam_B=0.0, lam_F=0.0).lr_diagonal(),),
    ),
    Case(
        "lr_test compares fits of the same rows.* Fit both models to the same system",
        lambda: fitted(1).lr_test(fit(Y[1:], X[1:], 0)),
        (lambda: fitted(1).lr_test(fitted(0)),),
    ),
    Case(
        "lr_test compares nested models.* Compare their aic or bic",
        lambda: fitted(1).lr_test(fitted(1)),
        (lambda: (fitted(1).aic, fitted(1).bic),),
    ),
    Case(
        "lr_test compares fits of the same responses.* with the same missing=",
        lambda: with_holes().lr_test(fit(OTHER_HOLES, X[:, :2], 1, missing="em")),
        (lambda: with_holes().lr_test(fit(HOLES, X[:, :2], 1, missing="em")),),
    ),
    Case(
        "the mean of equation 'y0' is .* Fit both models to the same system",
        lambda: fitted(1).lr_test(LowRankGLS(0).fit(AGAIN).result_),
        (lambda: fitted(1).lr_test(fitted(0)),),
    ),
    Case(
        "Use LowRankGLS.*of both: large.lr_test",
        lambda: fitted(1).lr_test(SYSTEM),
        (lambda: fitted(2).lr_test(fitted(1)),),
    ),
    Case(
        "compares a fitted Sigma with a diagonal one, and this one is. Fit rank >= 1",
        lambda: fitted(0).lr_diagonal(),
        (lambda: fitted(1).lr_diagonal(),),
    ),
    Case(
        "covariance='full' has no loadings. Use sigma",
        lambda: fitted(covariance="full").loadings,
        (lambda: fitted(covariance="full").sigma(),),
    ),
    Case(
        "covariance='full' has no idiosyncratic variances. Use sigma",
        lambda: fitted(covariance="full").idio_var,
        (lambda: fitted(covariance="full").sigma(),),
    ),
    Case(
        "the fit has no factors, so there are no scores. Fit with rank >= 1",
        lambda: fitted(0).factor_scores(SYSTEM),
        (lambda: fitted(1).factor_scores(SYSTEM),),
    ),
    Case(
        "the information of Sigma's parameters is that of an unpenalised Sigma.* Fit with lam_F = 0, or use classical",
        lambda: fitted(1, lam_F=0.5).cov("observed"),
        (
            lambda: fitted(1, lam_F=0.0).cov("observed"),
            lambda: fitted(1, lam_F=0.5).cov("classical"),
            lambda: fitted(1, lam_F=0.5).cov("robust"),
            lambda: fitted(1, lam_F=0.5).bootstrap(5),
        ),
    ),
    Case(
        "that of an unpenalised estimate.* Fit with lam_B = 0, or use classical",
        lambda: fitted(1, lam_B=2.0).cov("kackar-harville"),
        (
            lambda: fitted(1, lam_B=0.0).cov("kackar-harville"),
            lambda: fitted(1, lam_B=2.0).cov("classical"),
            lambda: fitted(1, lam_B=2.0).cov("robust"),
            lambda: fitted(1, lam_B=2.0).bootstrap(5),
        ),
    ),
    Case(
        "defined at a maximum of the likelihood.* Fit with algorithm='als' and sigma_step='ml'",
        lambda: fitted(1, algorithm="fgls", debiased=True).cov("observed"),
        (
            lambda: fitted(1, algorithm="als", sigma_step="ml").cov("observed"),
            lambda: fitted(1, algorithm="fgls", debiased=True).cov("classical"),
        ),
    ),
    Case(
        "not converged after 1 sweep: raise max_sweeps, or rel_tol",
        lambda: fit(Y, X, 1, max_sweeps=1),
        (lambda: fit(Y, X, 1, max_sweeps=50), lambda: fit(Y, X, 1, max_sweeps=1, rel_tol=0.5)),
    ),
    Case(
        "segment.*one Sigma for each segment, and rows do not say|rows do not say which is theirs. Use sigma",
        lambda: varying().factor_scores(SYSTEM),
        (lambda: varying().sigma(1), lambda: varying().predict(SYSTEM, interval=0.9, kind="mean")),
    ),
    Case(
        "has no r2: it is defined for one Sigma of all rows. Fit a segment by itself",
        lambda: varying().r2,
        (
            lambda: fit(Y[YEARS == 1], X[YEARS == 1], 1, covariance="lowrank").r2,
            lambda: (
                varying().bic
                < LowRankGLS(covariance=TimeVarying(1, YEARS, bandwidth=float("inf"))).fit(SYSTEM).result_.bic
            ),
        ),
    ),
    Case(
        "not the rows that were fitted, so their segments are not known. Pass segments=",
        lambda: varying().score(AGAIN),
        (lambda: varying().score(AGAIN, YEARS),),
    ),
    Case(
        "segments: 7 was not fitted.* Leave its rows out, or fit again with them",
        lambda: varying().score(AGAIN, np.where(YEARS == 2, 7, YEARS)),
        (lambda: varying().score(arrays(Y[YEARS < 2], X[YEARS < 2], regressors=NAMES), YEARS[YEARS < 2]),),
    ),
    Case(
        "kind='observed' needs the information .*one for each segment. Use",
        lambda: varying().cov("observed"),
        (
            lambda: varying().cov("classical"),
            lambda: varying().cov("robust"),
            lambda: varying().cov("hac"),
            lambda: varying().cov("cluster", groups=GROUPS),
        ),
    ),
    Case(
        "covariance=TimeVarying.* keeps segments of rows apart.* Use the System itself",
        lambda: LowRankGLS(**VARYING).fit(SYSTEM.compress()),
        (lambda: LowRankGLS(**VARYING).fit(SYSTEM),),
    ),
    Case(
        "segments: the label of row 0 is missing.* Give every row one",
        lambda: segmented(np.where(np.arange(N) == 0, np.nan, YEARS)),
        (lambda: segmented(YEARS),),
    ),
    Case(
        "segments='time.year' is not known.* Pass the labels of the rows",
        lambda: segmented("time.year"),
        (lambda: LowRankGLS(covariance=TimeVarying(1, DS["time"].dt.month, bandwidth=0.0)).fit(of()),),
    ),
    Case(
        "segments must be sorted.* Sort the rows by segment, or use labels that sort",
        lambda: segmented(YEARS[::-1]),
        (
            lambda: LowRankGLS(covariance=TimeVarying(1, YEARS, bandwidth=0.0)).fit(arrays(Y[::-1], X[::-1])),
            lambda: segmented(YEARS),
        ),
    ),
    Case(
        "segments: 2 is empty, all its rows have weight 0. Drop it or join it",
        lambda: segmented(YEARS, weights=(YEARS < 2) * 1.0),
        (
            lambda: LowRankGLS(covariance=TimeVarying(1, YEARS[YEARS < 2], bandwidth=0.0)).fit(
                arrays(Y[YEARS < 2], X[YEARS < 2])
            ),
            lambda: segmented(np.minimum(YEARS, 1), weights=(YEARS < 2) * 1.0),
        ),
    ),
    Case(
        "segments: 2 is empty, its rows show no response. Drop it or join it",
        lambda: shown_by_segment(YEARS, np.where((YEARS == 2)[:, None], np.nan, HOLES)),
        (
            lambda: shown_by_segment(YEARS[YEARS < 2], HOLES[YEARS < 2], X[YEARS < 2]),
            lambda: shown_by_segment(np.minimum(YEARS, 1), np.where((YEARS == 2)[:, None], np.nan, HOLES)),
        ),
    ),
    Case(
        "not the rows that were fitted: segment 0 has .*Pass the System that was fitted",
        lambda: shown_by_segment(YEARS, HOLES).cov("robust", system=arrays(OTHER_HOLES)),
        (lambda: shown_by_segment(YEARS, HOLES).cov("robust", system=arrays(HOLES)),),
    ),
    Case(
        "a Sigma for each segment weights its rows. Use correction='HC1'",
        lambda: shown_by_segment(YEARS, HOLES).cov("robust", correction="HC3"),
        (lambda: shown_by_segment(YEARS, HOLES).cov("robust", correction="HC1"),),
    ),
]
SHUFFLED = [labelled(values, list("abcde")[: values.shape[1]], DATES).iloc[::-1] for values in (Y, X)]
SHUFFLED[1].columns = NAMES
OTHER_HOLES = np.where(np.arange(N)[:, None] == 5, np.nan, HOLES)
OTHER_HOLES[5, 0] = Y[5, 0]


def _cluster() -> Any:
    return Cluster(groups=GROUPS)


def sparse(l1: float) -> Fit:
    return fitted(covariance=SparseLowRank(1, l1=l1))


@cache
def varying() -> Any:
    return LowRankGLS(**VARYING).fit(SYSTEM).result_


def segmented(segments: Any, **options: Any) -> Any:
    return LowRankGLS(covariance=TimeVarying(1, segments, bandwidth=0.0)).fit(arrays(**options)).result_


def shown_by_segment(segments: Any, Y: Any, X: Any = X) -> Any:
    return LowRankGLS(covariance=TimeVarying(1, segments, bandwidth=2.0), missing="em").fit(arrays(Y, X)).result_


PREDICTION: list[Case] = [
    Case(
        "a compressed system holds none of the rows to predict. Pass the System",
        lambda: fitted(1).predict(SYSTEM.compress()),
        (lambda: fitted(1).predict(SYSTEM),),
    ),
    Case(
        "needs responses, but the data are regressors only. Pass y, or a System",
        lambda: fitted(1).factor_scores(FRAME),
        (lambda: fitted(1).factor_scores(FRAME, Y), lambda: fitted(1).factor_scores(SYSTEM)),
    ),
    Case(
        "columns but the fit 3 regressors: 1 extra.* Give the columns of fit.regressors",
        lambda: fitted(1).predict(X[:, [0, 1, 2, 1]]),
        (lambda: fitted(1).predict(X[:, [0, 1, 2]]),),
    ),
    Case(
        "columns but the fit 3 regressors: 'x2' missing.* Give the columns",
        lambda: fitted(1).predict(X[:, :2]),
        (lambda: fitted(1).predict(X),),
    ),
    Case(
        "they have 'more' besides. Select them with data.list.fit.regressors",
        lambda: fitted(1).predict(FRAME.assign(more=1.0)),
        (lambda: fitted(1).predict(FRAME.assign(more=1.0)[list(fitted(1).regressors)]),),
    ),
    Case(
        "they have 'more' besides. Select them with data.sel.p=list.fit.regressors",
        lambda: fitted(1).predict(
            xr.DataArray(FRAME.assign(more=1.0).to_numpy(), {"p": [*NAMES, "more"]}, ("obs", "p"))
        ),
        (
            lambda: fitted(1).predict(
                xr.DataArray(FRAME.assign(more=1.0).to_numpy(), {"p": [*NAMES, "more"]}, ("obs", "p")).sel(
                    p=list(fitted(1).regressors)
                )
            ),
        ),
    ),
    Case(
        "they lack 'x2'. Add what is missing, or rename",
        lambda: fitted(1).predict(FRAME[["const", "x1"]]),
        (lambda: fitted(1).predict(FRAME[["const", "x1"]].assign(x2=0.0)),),
    ),
    Case(
        "they lack 'x2' and have 'z' besides. Add what is missing, or rename",
        lambda: fitted(1).predict(FRAME.rename(columns={"x2": "z"})),
        (
            lambda: fitted(1).predict(FRAME.rename(columns={"x2": "z"}).rename(columns={"z": "x2"})),
            lambda: fitted(1).predict(FRAME.rename(columns={"x2": "z"}).assign(x2=0.0)[NAMES]),
        ),
    ),
    Case(
        "y was given although the data are a System.* Leave y out",
        lambda: fitted(1).factor_scores(SYSTEM, Y),
        (lambda: fitted(1).factor_scores(SYSTEM),),
    ),
    Case(
        "holds inf among the values to predict from.* Set what is not known to NaN",
        lambda: (
            fitted(1).predict_given(FRAME, np.where(np.arange(N)[:, None] == 1, np.inf, Y), observed=["y0"]).compute()
        ),
        (
            lambda: (
                fitted(1)
                .predict_given(FRAME, np.where(np.arange(N)[:, None] == 1, np.nan, Y), observed=["y0"])
                .compute()
            ),
        ),
    ),
    Case(
        "y has 2 columns and 60 rows but must have one column.* Label its columns",
        lambda: fitted(1).predict_given(FRAME, Y[:, :2]),
        (lambda: fitted(1).predict_given(FRAME, labelled(Y[:, :2], ["y0", "y1"])),),
    ),
    Case(
        "y has dims .* but must have .* Use .rename or .expand_dims",
        lambda: fitted(1).predict_given(FRAME, xr.DataArray(Y, {"eq": list(SYSTEM.equations)}, ("obs", "eq"))),
        (
            lambda: fitted(1).predict_given(
                FRAME, xr.DataArray(Y, {"eq": list(SYSTEM.equations)}, ("obs", "eq")).rename(eq="equation")
            ),
        ),
    ),
    Case(
        "the data have dims .* but must have 'time'.* Use .rename",
        lambda: xfit().predict(DS[["const", "mkt"]].rename(time="date")),
        (lambda: xfit().predict(DS[["const", "mkt"]].rename(time="date").rename(date="time")),),
    ),
    Case(
        "the data lack regressors 'mkt'.* Name variables as the fitted ones",
        lambda: xfit().predict(DS[["const"]]),
        (lambda: xfit().predict(DS[["const", "mkt"]]),),
    ),
]


@cache
def xfit() -> Fit:
    return LowRankGLS(1).fit(of()).result_


STORES: list[Case] = [
    Case(
        "append: the two systems differ.* Use the same ones",
        lambda: SYSTEM.append(arrays(Y, X[:, :2])),
        (lambda: SYSTEM.append(AGAIN),),
    ),
    Case(
        "exists. Choose another path, or pass overwrite=True",
        lambda: (SYSTEM.to_zarr(FOLDER / "a"), SYSTEM.to_zarr(FOLDER / "a")),
        (lambda: SYSTEM.to_zarr(FOLDER / "b"), lambda: SYSTEM.to_zarr(FOLDER / "a", overwrite=True)),
    ),
    Case(
        "exists and is no zarr store, so it is not replaced. Choose another path",
        lambda: (
            (FOLDER / "c").mkdir(),
            (FOLDER / "c" / "f").write_text(""),
            SYSTEM.to_zarr(FOLDER / "c", overwrite=True),
        ),
        (lambda: SYSTEM.to_zarr(FOLDER / "c2", overwrite=True),),
    ),
    Case(
        "which is read for what would be written there.* Choose another path",
        lambda: System.from_zarr(saved("d")).compress().to_zarr(FOLDER / "d", overwrite=True),
        (lambda: System.from_zarr(saved("d")).compress().to_zarr(FOLDER / "d2"),),
    ),
    Case(
        "storage_options are for URLs.* Leave them out",
        lambda: System.from_zarr(saved("d"), storage_options={"a": 1}),
        (lambda: System.from_zarr(saved("d")),),
    ),
    Case(
        "is a zarr array but must be a zarr group. Open the group",
        lambda: System.from_zarr(saved("d") / "Y"),
        (lambda: System.from_zarr(saved("d")),),
    ),
    Case(
        "no zarr store at .* or write one with System.to_zarr",
        lambda: System.from_zarr(FOLDER / "none"),
        (lambda: (SYSTEM.to_zarr(FOLDER / "none2"), System.from_zarr(FOLDER / "none2")),),
    ),
    Case(
        "path is a .* but must be a path, a URL or a zarr store. Use str",
        lambda: SYSTEM.to_zarr(7),
        (lambda: SYSTEM.to_zarr(str(FOLDER / "7")),),
    ),
    Case(
        "is a zarr group but no stored fit. Write one with its to_zarr",
        lambda: Fit.from_zarr(saved("d")),
        (lambda: Fit.from_zarr(saved("d-fit", fitted(1))),),
    ),
    Case(
        "row_chunk must be a positive whole number.* Leave it out",
        lambda: SYSTEM.to_zarr(FOLDER / "e", row_chunk=0),
        (lambda: SYSTEM.to_zarr(FOLDER / "e"),),
    ),
    Case(
        "must be strings, numbers, times or tuples .* Convert them, e.g. with .astype.str",
        lambda: arrays(equations=[frozenset([j]) for j in range(K)]).to_zarr(FOLDER / "g"),
        (lambda: arrays(equations=pd.Index([frozenset([j]) for j in range(K)]).astype(str)).to_zarr(FOLDER / "g"),),
    ),
    Case(
        "was not written to its end. Write it again with System.to_zarr",
        lambda: System.from_zarr(changed("h", lrgls_incomplete=True)),
        (lambda: (SYSTEM.to_zarr(FOLDER / "h", overwrite=True), System.from_zarr(FOLDER / "h")),),
    ),
    Case(
        "'--kind error'|goes with --given. Use mean or observation",
        lambda: command(
            "predict",
            saved("d-fit", fitted(1)),
            saved("d"),
            "--out",
            FOLDER / "p",
            "--interval",
            "0.9",
            "--kind",
            "error",
        ),
        (
            lambda: command(
                "predict",
                saved("d-fit", fitted(1)),
                saved("d"),
                "--out",
                FOLDER / "p",
                "--interval",
                "0.9",
                "--kind",
                "mean",
            ),
            lambda: command(
                "predict",
                saved("d-fit", fitted(1)),
                saved("d"),
                "--out",
                FOLDER / "p2",
                "--interval",
                "0.9",
                "--kind",
                "observation",
            ),
        ),
    ),
    Case(
        "exists. Choose another name, or pass --overwrite",
        lambda: command("fit", saved("d"), "--out", saved("d-fit", fitted(1))),
        (
            lambda: command("fit", saved("d"), "--rank", "1", "--out", FOLDER / "other"),
            lambda: command("fit", saved("d"), "--rank", "1", "--out", saved("d-fit", fitted(1)), "--overwrite"),
        ),
    ),
]


def changed(name: str, **attributes: Any) -> Path:
    zarr.open_group(saved(name), mode="a").attrs.update(attributes)
    return FOLDER / name


LOADINGS = np.ones((K, 1))
BAD_ROW = np.where(np.arange(K)[:, None] == 1, np.inf, LOADINGS)
SECTORS = dict(zip(SYSTEM.equations, "aabbb", strict=True))
MONTHS = np.tile([0, 1], N // 2)


def known(**values: Any) -> Any:
    return LowRankGLS(covariance=Known(**values)).fit(SYSTEM).result_


SIGMAS: list[Case] = [
    Case(
        "loadings of equation 'y1' is not finite. Drop the equation",
        lambda: known(loadings=BAD_ROW, idio_var=np.ones(K)),
        (
            lambda: LowRankGLS(covariance=Known(loadings=np.delete(BAD_ROW, 1, 0), idio_var=np.ones(K - 1))).fit(
                arrays(np.delete(Y, 1, 1))
            ),
        ),
    ),
    Case(
        "idio_var of equation 'y1' .* Give every equation a variance",
        lambda: known(loadings=LOADINGS, idio_var=[1, 0, 1, 1, 1]),
        (lambda: known(loadings=LOADINGS, idio_var=np.ones(K)),),
    ),
    Case(
        "sigma of equation 'y0' has no positive variance. Give a covariance",
        lambda: known(sigma=np.eye(K) * [0, 1, 1, 1, 1]),
        (lambda: known(sigma=np.eye(K)),),
    ),
    Case(
        "loadings must be .K, k. with k <= K.* Give sigma instead",
        lambda: known(loadings=np.ones((K, K + 1)), idio_var=np.ones(K)),
        (lambda: known(sigma=np.ones((K, K + 1)) @ np.ones((K + 1, K)) + np.eye(K)),),
    ),
    Case(
        "does not go with algorithm='em'.*leave algorithm out",
        lambda: LowRankGLS(covariance=Known(np.eye(K)), algorithm="em"),
        (lambda: known(sigma=np.eye(K)),),
    ),
    Case(
        "standard errors of its loadings, which are as given. Use cov",
        lambda: known(loadings=LOADINGS, idio_var=np.ones(K)).loadings_std_errors,
        (lambda: known(loadings=LOADINGS, idio_var=np.ones(K)).cov(),),
    ),
    Case(
        "whose axes are chosen by their zeros. Use bootstrap",
        lambda: sparse(0.0).loadings_std_errors,
        (lambda: sparse(0.0).bootstrap(5),),
    ),
    Case(
        "'y0' is there more than once. Give it once",
        lambda: known(sigma=labelled(np.eye(K), *2 * [["y0", "y0", "y1", "y2", "y3"]])),
        (lambda: known(sigma=labelled(np.eye(K), *2 * [list(SYSTEM.equations)])),),
    ),
    Case(
        "groups is empty. Give the group of every equation, or use covariance='lowrank'",
        lambda: LowRankGLS(covariance=GroupedLowRank(1, [])).fit(SYSTEM),
        (
            lambda: LowRankGLS(covariance=GroupedLowRank(1, SECTORS, 0)).fit(SYSTEM),
            lambda: LowRankGLS(1, covariance="lowrank").fit(SYSTEM),
        ),
    ),
    Case(
        "groupings but 2 group ranks. Give one rank for each",
        lambda: LowRankGLS(covariance=GroupedLowRank(1, [SECTORS], [1, 1])).fit(SYSTEM),
        (lambda: LowRankGLS(covariance=GroupedLowRank(1, [SECTORS], [0])).fit(SYSTEM),),
    ),
    Case(
        "'a' has 2 equations, which identify 0 factors.* Join it with another group or lower group_rank",
        lambda: LowRankGLS(covariance=GroupedLowRank(1, SECTORS, 1)).fit(SYSTEM),
        (
            lambda: LowRankGLS(covariance=GroupedLowRank(1, dict.fromkeys(SECTORS, "ab"), 1)).fit(SYSTEM),
            lambda: LowRankGLS(covariance=GroupedLowRank(1, SECTORS, 0)).fit(SYSTEM),
        ),
    ),
    Case(
        "BlockLowRank: .* Use rank <= 0, or more and smaller groups",
        lambda: LowRankGLS(covariance=BlockLowRank(1, SECTORS)).fit(SYSTEM),
        (
            lambda: LowRankGLS(covariance=BlockLowRank(0, SECTORS)).fit(SYSTEM),
            lambda: LowRankGLS(covariance=BlockLowRank(1, dict(zip(SECTORS, "abcde", strict=True)))).fit(SYSTEM),
        ),
    ),
    Case(
        "finds loadings equation by .* covariance='lowrank' or GroupedLowRank.* or algorithm='als'",
        lambda: SparseLowRank(1, 0.1).structure(SYSTEM.rows.design).by_rows(),
        (
            lambda: fit(HOLES, X, 1, covariance="lowrank", algorithm="em", missing="em"),
            lambda: fit(HOLES, X, covariance=SparseLowRank(1, 0.1), algorithm="als", missing="em"),
        ),
    ),
    Case(
        "rank 1 has .* ever observed.* Use a lower rank, or equations that are observed together",
        lambda: fit(ALONE, X, 1, missing="em"),
        (lambda: fit(ALONE, X, 0, missing="em"), lambda: fit(HOLES, X, 1, missing="em")),
    ),
    Case(
        "and missing='raise' takes complete ones. Use missing='em', or missing='drop'",
        lambda: LowRankGLS(1).fit(System.from_arrays(HOLES, X).compress()),
        (
            lambda: LowRankGLS(1, missing="em").fit(System.from_arrays(HOLES, X).compress()),
            lambda: LowRankGLS(1, missing="drop").fit(System.from_arrays(HOLES, X).compress()),
        ),
    ),
    Case(
        "every value must be observed that an observed response uses.* fit with missing='drop'",
        lambda: LowRankGLS(1, missing="em").fit(System.from_arrays(HOLES, LATE_X)),
        (
            lambda: LowRankGLS(1, missing="em").fit(System.from_arrays(HOLES[1:], LATE_X[1:])),
            lambda: LowRankGLS(1, missing="em").fit(System.from_arrays(FIRST_UNSEEN, LATE_X)),
            lambda: LowRankGLS(1, missing="drop").fit(System.from_arrays(HOLES, LATE_X)),
        ),
    ),
    Case(
        "observed in 2 rows and has 3 regressors.* leave it or some regressors out",
        lambda: fit(np.where((np.arange(N)[:, None] > 1) & (np.arange(K) == 4), np.nan, Y), X, 1, missing="em"),
        (
            lambda: fit(Y[:, :4], X, 1, missing="em"),
            lambda: fit(
                np.where((np.arange(N)[:, None] > 1) & (np.arange(K) == 4), np.nan, Y),
                [X] * 4 + [X[:, :1]],
                0,
                missing="em",
            ),
        ),
    ),
    Case(
        "weights: no row has a positive weight. Give at least one row",
        lambda: System.from_arrays(Y, X, weights=da.zeros(N)).compress(),
        (lambda: System.from_arrays(Y, X, weights=da.from_array(np.arange(N) > 40).astype(float)).compress(),),
    ),
    Case(
        "incidence has shape .* Transpose or mend it",
        lambda: arrays(Y, X, incidence=np.ones((K, 3), bool)),
        (lambda: arrays(Y, X, incidence=np.ones((K, 3), bool).T),),
    ),
    Case(
        "at position 0 of its second dim.* Use .sel.* or .reindex",
        lambda: arrays(DS["ret"], DS["two"][:, ::-1]),
        (
            lambda: arrays(DS["ret"], DS["two"][:, ::-1].sel(firm=DS["firm"])),
            lambda: arrays(DS["ret"], DS["two"][:, ::-1].reindex(firm=DS["firm"])),
        ),
    ),
    Case(
        "has no rows. Check the selection that made it",
        lambda: arrays(Y[Y[:, 0] > 1e9], X[Y[:, 0] > 1e9]),
        (lambda: arrays(Y[Y[:, 0] > 0], X[Y[:, 0] > 0]),),
    ),
    Case(
        "the data have no rows. Check the selection",
        lambda: fitted(1).predict(FRAME[FRAME.x1 > 1e9]),
        (lambda: fitted(1).predict(FRAME[FRAME.x1 > 0]),),
    ),
    Case(
        "has .* rows along 'time' but .* Label the rows and use xr.align",
        lambda: of(x=(DS["const"].drop_vars("time")[:-1], "mkt")),
        (lambda: of(None, *_aligned()),),
    ),
    Case(
        "must have 'time' and 'firm' only. Select along 'extra'",
        lambda: of(y="two"),
        (lambda: of(y=DS["two"].isel(extra=0)),),
    ),
    Case(
        "stands without an equation: write 'y0:x1', or",
        lambda: fitted(1).wald_test("x1 = 0"),
        (lambda: fitted(1).wald_test("y0:x1 = 0"), lambda: fitted(1).wald_test("*:x1 = 0")),
    ),
    Case(
        "parentheses are not understood: write the sum out, or put a label",
        lambda: fitted(1).wald_test("2*(y0:x1 + y1:x1) = 0"),
        (lambda: fitted(1).wald_test("2*y0:x1 + 2*y1:x1 = 0"),),
    ),
    Case(
        "needs residuals that vary; equation 'y0' .* Fit the system without it",
        lambda: exact().breusch_pagan(),
        (lambda: fit(Y[:, 1:], X, 0).breusch_pagan(),),
    ),
    Case(
        "drop the equation or the regressor that reproduces it",
        lambda: fit(EXACT, X, 0),
        (lambda: fit(EXACT[:, 1:], X, 0), lambda: fit(EXACT, X[:, [0, 2]], 0)),
    ),
    Case(
        "the rows of positive weight but the fit was made of|Pass the system that was fitted",
        lambda: opened().cov("robust", system=arrays(Y[1:], X[1:], regressors=NAMES)),
        (lambda: opened().cov("robust", system=SYSTEM),),
    ),
    Case(
        "these are not the rows that were fitted: .* Pass the System that was fitted",
        lambda: with_holes().cov("observed", system=arrays(HOLES[1:], X[1:])),
        (lambda: with_holes().cov("observed", system=arrays(HOLES)),),
    ),
    Case(
        "the system has 59 rows, and the segments of this fit cover 60|Pass the system that was fitted",
        lambda: varying().cov("robust", system=arrays(Y[1:], X[1:], regressors=NAMES)),
        (lambda: varying().cov("robust", system=SYSTEM),),
    ),
    Case(
        "rank is 9 but there are 2 equations: use at most",
        lambda: simulate_system(n_obs=20, n_equations=2, n_regressors=1, rank=9),
        (lambda: simulate_system(n_obs=20, n_equations=2, n_regressors=1, rank=2),),
    ),
    Case(
        "groups: .* segments but times|Give one time for each segment",
        lambda: segment_times(np.arange(2), 3),
        (lambda: segment_times(np.arange(3), 3),),
    ),
    Case(
        "engine 'compress' needs .* the limit is .*raise memory_limit to",
        lambda: LowRankGLS(1, engine="compress", memory_limit="1MB").plan(SYSTEM),
        (lambda: LowRankGLS(1, engine="compress", memory_limit=wanted("1MB")).fit(SYSTEM),),
    ),
    Case(
        "no scheme|Use System.from_arrays.Y, X., with one",
        lambda: System.from_arrays(Y),
        (
            lambda: System.from_arrays(Y, X),
            lambda: System.from_arrays(Y, [X] * K),
            lambda: System.from_arrays(labelled(Y, list("abcde"))[["a", "b"]], FRAME[["const", "x1"]]),
        ),
    ),
    Case(
        "Use System.from_xarray.ds, y='returns'",
        lambda: System.from_xarray(DS),
        (
            lambda: System.from_xarray(
                DS.rename(ret="returns", mkt="market"), y="returns", x=["const", "market"], obs="time", equation="firm"
            ),
        ),
    ),
    Case(
        "Make one with System.from_arrays",
        lambda: LowRankGLS(1).fit(Y),
        (
            lambda: LowRankGLS(1).fit(System.from_arrays(Y, X)),
            lambda: LowRankGLS(1).fit(of()),
            lambda: LowRankGLS(1).fit(System.from_zarr(saved("d"))),
        ),
    ),
    Case(
        "the dim 'X' has a name that the format keeps.* Rename it",
        lambda: of(DS.rename(time="X"), obs="X").to_zarr(FOLDER / "q1"),
        (lambda: of(DS.rename(time="X").rename(X="time")).to_zarr(FOLDER / "q2"),),
    ),
    Case(
        "exists but is no zarr group. Check the path; convert other formats",
        lambda: ((FOLDER / "txt").write_text("a"), System.from_zarr(FOLDER / "txt")),
        (lambda: (of().to_zarr(FOLDER / "q3"), System.from_zarr(FOLDER / "q3")),),
    ),
    Case(
        "--out|is a file. Choose another name with --out",
        lambda: ((FOLDER / "txt").write_text("a"), command("demo", "--out", FOLDER / "txt")),
        (lambda: command("demo", "--out", FOLDER / "demo"),),
    ),
    Case(
        "was not made by 'lrgls demo'.* Choose another name with --out, or pass --overwrite",
        lambda: (
            (FOLDER / "mine").mkdir(exist_ok=True),
            (FOLDER / "mine" / "f").write_text(""),
            command("demo", "--out", FOLDER / "mine"),
        ),
        (
            lambda: command("demo", "--out", FOLDER / "demo2"),
            lambda: command("demo", "--out", FOLDER / "mine", "--overwrite"),
        ),
    ),
]
EXACT = np.column_stack([X @ [1.0, 2.0, 0.0], Y[:, 1:]])
ALONE = np.where(np.arange(N)[:, None] % K == np.arange(K), Y, np.nan)


def _aligned() -> Any:
    one, ret, mkt = xr.align(DS["const"][:-1], DS["ret"], DS["mkt"])
    return ret, (one, mkt)


def exact() -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(EXACT, X, 0)


def wanted(limit: str) -> str:
    """What a refusal asks for."""
    found = re.search(
        r"raise memory_limit to (.*?)\.$",
        said_to(lambda: LowRankGLS(1, engine="compress", memory_limit=limit).plan(SYSTEM)),
    )
    assert found is not None
    return found[1]


CELLS = 1.0 + RNG.random((N, K))
OWN = [np.column_stack([X[:, 0], X[:, 1] + Y[:, (j + 1) % K]]) for j in range(K)]  # a design to each equation
TWO_LEVELS = pd.MultiIndex.from_arrays([np.repeat(DATES[:12], 5), list("abcde") * 12], names=["day", "unit"])
DEAD = np.where((YEARS == 1)[:, None] & (np.arange(K) == 2), 3.0, Y)
WEIGHTS: list[Case] = [
    Case(
        "as many rows as equations, so it does not say which are weighted. Give it the shape",
        lambda: arrays(Y[:K], X[:K, :1], weights=np.ones(K)),
        (
            lambda: arrays(Y[:K], X[:K, :1], weights=np.ones((K, 1))),
            lambda: arrays(Y[:K], X[:K, :1], weights=np.ones((1, K))),
        ),
    ),
    Case(
        "whose labels fit both. Give .to_numpy",
        lambda: arrays(pd.DataFrame(Y[:K]), X[:K, :1], weights=pd.Series(np.ones(K)), equations=range(K)),
        (
            lambda: arrays(
                pd.DataFrame(Y[:K]), X[:K, :1], weights=pd.Series(np.ones(K)).to_numpy()[None], equations=range(K)
            ),
        ),
    ),
    Case(
        "has 7 rows but Y has 60, and 5 equations.* Align them first",
        lambda: arrays(weights=np.ones(7)),
        (lambda: arrays(weights=np.ones(N)),),
    ),
    Case(
        "one entry for each equation but .* Name equations as Y does",
        lambda: arrays(weights={"y0": 1.0, "z": 2.0}),
        (lambda: arrays(weights=dict.fromkeys([f"y{j}" for j in range(K)], 2.0)),),
    ),
    Case(
        "all zero, which leaves no rows. Give at least some cells a positive weight",
        lambda: arrays(weights=np.zeros((N, K))),
        (lambda: arrays(weights=np.where(np.arange(N)[:, None] < 9, 0.0, CELLS)),),
    ),
    Case(
        "Give a response that is to count as missing the weight 0",
        lambda: arrays(weights=np.where(np.arange(N)[:, None] == 0, -1.0, CELLS)),
        (lambda: weighted(np.where(np.arange(N)[:, None] == 0, 0.0, CELLS), missing="drop"),),
    ),
    Case(
        "Leave an equation that is not to count out of the system",
        lambda: arrays(weights=np.array([[1.0, 2.0, 0.0, 1.0, 1.0]])),
        (lambda: arrays(Y[:, [0, 1, 3, 4]], weights=np.array([[1.0, 2.0, 1.0, 1.0]])),),
    ),
    Case(
        "Such a response counts as missing: fit with missing='em', which uses the row's others, or missing='drop'",
        lambda: weighted(np.where((np.arange(N)[:, None] == 0) & (np.arange(K) == 1), 0.0, CELLS)),
        (
            lambda: weighted(np.where((np.arange(N)[:, None] == 0) & (np.arange(K) == 1), 0.0, CELLS), missing="em"),
            lambda: weighted(np.where((np.arange(N)[:, None] == 0) & (np.arange(K) == 1), 0.0, CELLS), missing="drop"),
        ),
    ),
    Case(
        "lam_B penalises regressors .* Use weights of rows or of equations, or lam_B = 0",
        lambda: weighted(CELLS, lam_B=1.0),
        (
            lambda: weighted(CELLS[:, :1], lam_B=1.0),
            lambda: weighted(CELLS[:1], lam_B=1.0),
            lambda: weighted(CELLS, lam_B=0.0),
        ),
    ),
    Case(
        "not shared by the same equations. Give both weights of shape",
        lambda: (
            arrays(weights=np.array([[1.0, 1.0, 2.0, 2.0, 2.0]]))
            .compress()
            .append(arrays(weights=np.array([[1.0, 3.0, 2.0, 2.0, 2.0]])).compress())
        ),
        (lambda: arrays(weights=CELLS).compress().append(arrays(weights=2.0 * CELLS).compress()),),
    ),
]
STATISTICS: list[Case] = [
    Case(
        "algorithm='ols' is least squares, which does not go with lam_B.* Use algorithm='fgls' or 'als'",
        lambda: LowRankGLS(1, algorithm="ols", lam_B=1.0),
        (
            lambda: LowRankGLS(1, algorithm="fgls", lam_B=1.0).fit(SYSTEM),
            lambda: LowRankGLS(1, algorithm="als", lam_B=1.0).fit(SYSTEM),
        ),
    ),
    Case(
        "at a maximum of the likelihood.* Use kind='classical' or 'robust', or fit with algorithm='als'",
        lambda: fitted(1, algorithm="ols").cov("observed"),
        (
            lambda: fitted(1, algorithm="ols").cov("classical"),
            lambda: fitted(1, algorithm="ols").cov("robust"),
            lambda: fitted(1, algorithm="als").cov("observed"),
        ),
    ),
    Case(
        "which debiased=False does not take back. Leave debiased out, or fit with debiased=False",
        lambda: fitted(1, algorithm="fgls", debiased="max").cov("classical", debiased=False),
        (
            lambda: fitted(1, algorithm="fgls", debiased="max").cov("classical"),
            lambda: fitted(1, algorithm="fgls", debiased=False).cov("classical", debiased=False),
        ),
    ),
    Case(
        "needs leverages.* Use correction='HC1', or fit with algorithm='ols'",
        lambda: fit(Y, OWN, 1).cov("robust", correction="HC3"),
        (
            lambda: fit(Y, OWN, 1).cov("robust", correction="HC1"),
            lambda: fit(Y, OWN, 1, algorithm="ols").cov("robust", correction="HC3"),
        ),
    ),
    Case(
        "divides by 1 - h.* Use correction='HC1', or drop that regressor",
        lambda: fit(Y, np.column_stack([X, np.arange(N) == 3]), 1).cov("robust", correction="HC3"),
        (
            lambda: fit(Y, np.column_stack([X, np.arange(N) == 3]), 1).cov("robust", correction="HC1"),
            lambda: fit(Y, X, 1).cov("robust", correction="HC3"),
        ),
    ),
    Case(
        "say two things of the factor for degrees.* Leave one of them out",
        lambda: fitted(1).cov("robust", correction="HC1", debiased=False),
        (lambda: fitted(1).cov("robust", correction="HC1"), lambda: fitted(1).cov("robust", debiased=False)),
    ),
    Case(
        "at least two times with rows that were fitted.* Use kind='robust'",
        lambda: weighted(1.0 * (YEARS == 1)).cov("driscoll-kraay", times=YEARS),
        (lambda: weighted(1.0 * (YEARS == 1)).cov("robust"),),
    ),
    Case(
        "needs the time of each row: pass times=, one time a row, or the name of a level",
        lambda: fitted(1).cov("driscoll-kraay"),
        (
            lambda: fitted(1).cov("driscoll-kraay", times=GROUPS),
            lambda: fit(pd.DataFrame(Y, TWO_LEVELS), X, 1).cov("driscoll-kraay", times="day"),
        ),
    ),
    Case(
        "is no level of the rows' labels.* Pass one time a row, or name one",
        lambda: fit(pd.DataFrame(Y, TWO_LEVELS), X, 1).cov("driscoll-kraay", times="week"),
        (
            lambda: fit(pd.DataFrame(Y, TWO_LEVELS), X, 1).cov("driscoll-kraay", times=GROUPS),
            lambda: fit(pd.DataFrame(Y, TWO_LEVELS), X, 1).cov("driscoll-kraay", times="day"),
        ),
    ),
    Case(
        "Pass the System that was fitted, in",
        lambda: fitted(1).cov("robust", system=arrays(2.0 * Y, X, regressors=NAMES)),
        (lambda: fitted(1).cov("robust", system=SYSTEM),),
    ),
    Case(
        "Leave the equation out, join the segment",
        lambda: fit(DEAD, X, covariance=TimeVarying(1, YEARS, bandwidth=0.0)),
        (
            lambda: fit(np.delete(DEAD, 2, axis=1), X, covariance=TimeVarying(1, YEARS, bandwidth=0.0)),
            lambda: fit(DEAD, X, covariance=TimeVarying(1, np.minimum(YEARS, 1), bandwidth=0.0)),
        ),
    ),
    Case(
        "Join it to its neighbour, or use",
        lambda: fit(Y, X, covariance=TimeVarying(1, np.where(np.arange(N) < 3, 0, 1), bandwidth=0.0)),
        (lambda: fit(Y, X, covariance=TimeVarying(1, np.where(np.arange(N) < 3, 1, 1), bandwidth=0.0)),),
    ),
]


def told(way: Any) -> Any:
    """What it gives where the warning that remains is heeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnwrittenChunks)
        return way()


def gappy() -> Any:
    made = zarr.create_array(zarr.storage.MemoryStore(), shape=X.shape, chunks=(20, 3), dtype=float, fill_value=0.0)
    made[:40] = X[:40]
    return made


ROWS: list[Case] = [
    Case(
        "must have 'time', 'firm' or both. Select along the others",
        lambda: of(weights=np.abs(DS["two"])),
        (lambda: of(weights=np.abs(DS["two"])[:, :, 0]),),
    ),
    Case(
        "row labels .* must not be missing.* Drop these rows, or number all rows with .reset_index",
        lambda: arrays(pd.DataFrame(Y, [*range(N - 1), None])),
        (
            lambda: arrays(pd.DataFrame(Y, [*range(N - 1), None]).iloc[:-1], X[:-1]),
            lambda: arrays(pd.DataFrame(Y, [*range(N - 1), None]).reset_index(drop=True)),
        ),
    ),
    Case(
        "must not be missing; found None at position 1. Give it a name",
        lambda: arrays(equations=["a", None, "c", "d", "e"]),
        (lambda: arrays(equations=["a", "b", "c", "d", "e"]),),
    ),
    Case(
        "is a array but must be a NumPy.* Use np.asarray",
        lambda: arrays(array("d", Y[:, 0])),
        (lambda: arrays(np.asarray(array("d", Y[:, 0]))),),
    ),
    Case(
        "were never written.* Write the missing chunks, or leave out strict=True",
        lambda: arrays(Y, gappy(), strict=True),
        (lambda: told(lambda: arrays(Y, gappy())), lambda: arrays(Y, zarr.array(X, chunks=(20, 3)), strict=True)),
    ),
]

# ---------------------------------------------------------------------------------- equations on several dims

MAP = xr.Dataset(
    {
        "temp": (("time", "lat", "lon"), Y[:, :4].reshape(N, 2, 2)),
        "const": ("time", X[:, 0]),
        "zonal": (("time", "lat"), 1 + Y[:, :2] ** 2),
    },
    {"time": DATES, "lat": [1.0, 2.0], "lon": [3.0, 4.0]},
)


def mapped(x: Any = ("const", "zonal"), equation: Any = ("lat", "lon"), **options: Any) -> Fit:
    made = System.from_xarray(
        MAP, "temp", x if isinstance(x, dict) else list(x), obs="time", equation=equation, **options
    )
    return LowRankGLS(0).fit(made).result_


GRIDS = [
    Case("Name each once", lambda: mapped(equation=("lat", "lat")), (lambda: mapped(equation=("lat", "lon")),)),
    Case("Name the dims it has", lambda: mapped(equation=("lat", "lon", "z")), (lambda: mapped(),)),
    Case(
        "Use xr.broadcast",
        lambda: mapped(weights="zonal"),
        (lambda: mapped(weights=xr.broadcast(MAP["zonal"], MAP["temp"])[0]),),
    ),
]

# ---------------------------------------------------------------------------------- sums made elsewhere

SUMS = {"xx": X.T @ X, "xy": X.T @ Y, "yy": Y.T @ Y}
XX_FRAME = pd.DataFrame(SUMS["xx"], NAMES, NAMES)
MEANS = np.concatenate([X.mean(axis=0), Y.mean(axis=0)])
ABOUT = np.column_stack([X, Y]) - MEANS
CENTRED = {
    "xx": ABOUT[:, :3].T @ ABOUT[:, :3],
    "xy": ABOUT[:, :3].T @ ABOUT[:, 3:],
    "yy": ABOUT[:, 3:].T @ ABOUT[:, 3:],
}
SIZES = np.sqrt(SUMS["yy"].diagonal())
NO_ROWS_SUM = 0.99 * np.outer(SIZES, SIZES) * (1 - 2 * (np.add.outer(np.arange(K), np.arange(K)) % 2))
NO_ROWS_SUM[0, 2] *= -1
NO_ROWS_SUM[2, 0] *= -1
np.fill_diagonal(NO_ROWS_SUM, SIZES**2)


def sums(**change: Any) -> Fit:
    """A fit of sums of products."""
    given = {"regressors": NAMES, "n_obs": N} | SUMS | change
    return LowRankGLS(1).fit(CompressedSystem.from_moments(**given)).result_


MOMENTS = [
    Case("Give all sums of products", lambda: sums(xy=SUMS["xy"][:2]), (lambda: sums(),)),
    Case("Give one for each", lambda: sums(regressors=["a"]), (lambda: sums(regressors=NAMES),)),
    Case(
        "Bring all into one order",
        lambda: sums(xx=XX_FRAME, xy=pd.DataFrame(SUMS["xy"][::-1], NAMES[::-1])),
        (lambda: sums(xx=XX_FRAME, xy=pd.DataFrame(SUMS["xy"][::-1], NAMES[::-1]).loc[NAMES].to_numpy()),),
    ),
    Case("Convert it to float64", lambda: sums(xx=[["a"]]), (lambda: sums(xx=SUMS["xx"].astype("float64")),)),
    Case("Sum products of rows that miss nothing", lambda: sums(yy=HOLES.T @ HOLES), (lambda: sums(yy=Y.T @ Y),)),
    Case("Give both halves", lambda: sums(yy=np.triu(Y.T @ Y)), (lambda: sums(),)),
    Case(
        "not of the same rows. Sum over the rows that miss none",
        lambda: sums(yy=Y[:30].T @ Y[:30]),
        (lambda: sums(yy=Y.T @ Y),),
    ),
    Case("the same for every sum", lambda: sums(yy=NO_ROWS_SUM), (lambda: sums(),)),
    Case(
        "Give the mean of every regressor and response",
        lambda: sums(means={"u": 0.0}),
        (lambda: sums(**CENTRED, means=MEANS),),
    ),
    Case(
        "Give sums about zero, or the means of all columns",
        lambda: sums(constant="x1"),
        (lambda: sums(constant="const"), lambda: sums(**CENTRED, means=MEANS)),
    ),
    Case(
        "Give sums about the means",
        lambda: sums(yy=(Y + 3e6).T @ (Y + 3e6), xy=X.T @ (Y + 3e6)),
        (lambda: sums(**CENTRED, means=MEANS + np.r_[np.zeros(3), np.full(K, 3e6)]),),
    ),
]
CASES = [
    *OPTIONS,
    *INPUT,
    *HYPOTHESES,
    *RESULTS,
    *PREDICTION,
    *STORES,
    *SIGMAS,
    *WEIGHTS,
    *STATISTICS,
    *ROWS,
    *FRAMES,
    *PARQUET,
    *COMMANDS,
    *ABSORB,
    *stores(str(FOLDER / "appended")),
    *GRIDS,
    *MOMENTS,
    *REPORT,
    *TABLES,
    *PICTURES,
    *ACROSS,
    *damage(str(FOLDER / "damaged")),
    *WORDS,
    *FORMULAS,
    *CODECS,
    *SKIPPING,
]

# ---------------------------------------------------------------------------------- what has no case

HELP = "the help of a flag"
LARGE = "only where memory, or 20,000 coefficients, are not enough"
BY_HAND = "a store that was damaged, laid out by hand or written by another version"
GUARD = "a guard that the checks before it leave nothing to"
CHANCE = "data, or a run, that bring it about by chance or rounding"
OUTSIDE = "the disk, the network or the scheduler"
WHOLE = "part of a message that has a case as a whole"
ELSEWHERE = {
    "data/seal.py: write them there with config={'write_empty_chunks': True}, or": "in tests/data/test_seal.py",
    "data/numbers.py: convert it first, with .astype({!r})": WHOLE,
    "data/numbers.py: convert it with .astype({!r})": WHOLE,
    "data/numbers.py: turn categories into 0/1 columns, or convert": WHOLE,
    "data/unwritten.py: Leave it out.": "a store that lists no keys",
    "design/penalties.py: Give them the same.": "one column by two names, in tests/design/test_penalties.py",
    "results/parts.py: Fit again.": BY_HAND,
    "results/error_structure.py: Give fewer, or none: then they are": "in tests/results/test_pictures_of_errors.py",
    "results/residual_sums.py: Store the rows in shorter chunks": LARGE,
    "results/drawing.py: Install it: pip install 'lrgls_dask[plot]'.": "in tests/results/test_pictures.py",
    "results/like_statsmodels.py: Give some of them: with_frame(frame).": LARGE,
    "errors.py: Drop or fill these rows; every value": GUARD,
    "compression/either.py: Fit with missing='em', or with missing='drop', which": GUARD,
    "compression/by_pattern.py: Fit the System itself with missing='em', which": LARGE,
    "varying/shown.py: Use fewer, longer segments, or missing='drop', which": (
        "rows beyond memory, in tests/varying/test_shown.py"
    ),
    "missing/first_look.py: Use engine='auto', which streams them.": "rows beyond memory, in tests/missing/test_fit.py",
    "plan/plan.py: fit the System itself, with missing='em'": "a line of a plan, in tests/missing/test_append.py",
    "rows/cluster.py: give each worker more of it or": OUTSIDE,
    "cli/log.py: Install it: pip install bokeh.": "in tests/cli/test_log.py",
    "cli/log.py: Choose another name.": "in tests/cli/test_log.py",
    "cli/log.py: Use it with --scheduler or --workers.": "in tests/cli/test_log.py",
    "cli/log.py: write Dask's page of what its workers": "the help of an option",
    "rows/progress.py: pass {}: {}": "no message: what a bar says",
    "rows/cluster.py: Give each worker more memory or fewer": OUTSIDE,
    "rows/cluster.py: Start workers again; where they end as": OUTSIDE,
    "rows/memory.py: give every worker a memory limit of": OUTSIDE,
    "rows/ready.py: Give every worker a memory limit of": OUTSIDE,
    "rows/ready.py: Install {} {} on every worker and": OUTSIDE,
    "rows/seen.py: Give it the client's version and restart": OUTSIDE,
    "rows/seen.py: Open it by its absolute path,": "a path that workers do not see, in tests/rows/test_ready.py",
    "rows/ready.py: Start some: `dask worker SCHEDULER-ADDRESS`, cluster.scale(2) or": OUTSIDE,
    "rows/cluster.py: Start a cluster and a Client for": OUTSIDE,
    "varying/carried.py: use longer segments, a bandwidth that reaches": CHANCE,
    "missing/kackar_harville.py: Use a smaller rank, or classical standard": GUARD,
    "missing/kackar_harville.py: use classical standard errors, or a smaller": LARGE,
    "results/evidence.py: Fit complete rows only with missing='drop'": GUARD,
    "results/evidence.py: Fit all rows again.": LARGE,
    "results/cov/cluster.py: Pass one label a row, or a": GUARD,
    "cli/arguments.py: replace an output that exists": HELP,
    "cli/importing.py: make a store of CSV or Parquet": HELP,
    "cli/demo.py: write into a directory that this command": HELP,
    "data/arrays.py: Align them first.": GUARD,
    "data/labelled.py: Give one label for each column.": GUARD,
    "data/labels.py: Join or drop the rows that share": GUARD,
    "data/storage.py: Install the fsspec driver, or check the": OUTSIDE,
    "data/claims.py: Restore the store.": BY_HAND,
    "data/claims.py: Write the store again with other chunks,": BY_HAND,
    "data/store.py: Add {}.": BY_HAND,
    "data/store.py: Give one label for each.": BY_HAND,
    "data/store.py: Give one name for each.": BY_HAND,
    "data/store.py: Remove them or add them to Y.": BY_HAND,
    "data/store.py: Store one column.": BY_HAND,
    "data/store.py: Store the labels of Y as a": BY_HAND,
    "data/store.py: Transpose one, or use System.from_xarray(xr.open_zarr(...), ...).": BY_HAND,
    "data/store.py: Upgrade lrgls_dask.": BY_HAND,
    "data/store.py: Use System.from_xarray(xr.open_zarr(...), ...).": BY_HAND,
    "data/store.py: Write the store again.": BY_HAND,
    "data/storewriter.py: Check the store, and write it again.": OUTSIDE,
    "data/storewriter.py: Rename or drop it.": GUARD,
    "data/zarrio.py: Upgrade lrgls_dask.": BY_HAND,
    "design/hypotheses.py: use a matrix R, or a mapping": CHANCE,
    "design/hypotheses.py: Give fewer at a time.": LARGE,
    "inference/bread.py: Fit fewer equations.": LARGE,
    "inference/by_passes.py: Ask for one equation at a time:": LARGE,
    "inference/by_passes.py: Fit again with a larger memory_limit, or": LARGE,
    "inference/by_passes.py: Fit again with a larger memory_limit.": LARGE,
    "results/cov/kind.py: Ask for one equation at a time,": LARGE,
    "results/fit.py: Use with_cov('classical', system=...) with the fitted data.": (
        "followed in tests/inference/test_by_passes.py"
    ),
    "inference/classical.py: Ask for one equation at a time,": LARGE,
    "inference/fullml.py: Use fewer equations or more rows.": CHANCE,
    "inference/hac.py: Give bandwidth=.": CHANCE,
    "inference/huber_white.py: Use kind='robust', one equation at a time": LARGE,
    "inference/hypothesis_tests.py: Drop it.": GUARD,
    "results/across.py: Drop it.": GUARD,
    "results/assemble.py: use ranks={} to see": "more than twelve factors, in tests/solve/test_eigenvalues.py",
    "inference/hypothesis_tests.py: lower rel_tol.": CHANCE,
    "inference/information.py: Fit to convergence, use a smaller rank,": CHANCE,
    "inference/information.py: Use classical or robust standard errors, or": LARGE,
    "inference/kackar_harville.py: use classical standard errors, or the bootstrap,": LARGE,
    "inference/sandwich.py: Ask for one equation at a time,": LARGE,
    "inference/sandwich.py: Ask for one equation at a time:": LARGE,
    "inference/segmented.py: Fit fewer equations.": LARGE,
    "inference/sigma_errors.py: Use those of Sigma's entries, or bootstrap.": CHANCE,
    "inference/standardised.py: Use the classical standard errors of chosen": LARGE,
    "missing/covariance.py: Fit fewer equations at a time": LARGE,
    "missing/covariance.py: Fit fewer equations at a time.": LARGE,
    "missing/covariance.py: Use a smaller rank, or kind='classical'.": CHANCE,
    "plan/make.py: store the data in row chunks of": LARGE,
    "plan/make.py: use covariance='lowrank', algorithm='als', which can do without": LARGE,
    "plan/make.py: use engine={}": LARGE,
    "resampling/draws.py: Resample in fewer, larger blocks, or use": CHANCE,
    "resampling/std_errors.py: Fit fewer equations, or give all the": LARGE,
    "results/assemble.py: try sigma_step='ml'": CHANCE,
    "results/bootstrap.py: Fit fewer equations.": LARGE,
    "results/bootstrap.py: Resample larger blocks, or use method='parametric'.": CHANCE,
    "results/dataset.py: Take fit.tidy(), which has a row for": LARGE,
    "results/evidence.py: Fit again with a larger memory_limit.": LARGE,
    "results/evidence.py: Fit again.": BY_HAND,
    "results/evidence.py: fit again with a larger memory_limit, or": LARGE,
    "results/evidence.py: fit fewer equations": LARGE,
    "results/segment_source.py: Fit fewer equations": LARGE,
    "results/segment_source.py: Fit fewer equations.": LARGE,
    "results/segment_source.py: Pass the system that was fitted.": CHANCE,
    "results/time_varying.py: Use with_cov(..., system=...), or fit again.": LARGE,
    "rows/memory.py: use fewer threads or more memory.": LARGE,
    "rows/memory.py: use more memory.": LARGE,
    "sigma/algebra.py: Fit with a smaller rank, or use": CHANCE,
    "sigma/grouped_factors.py: use three or more groups, larger ones,": CHANCE,
    "sigma/grouped_structure.py: Start from a fit with the same": GUARD,
    "sigma/grouped_structure.py: Use the same.": GUARD,
    "sigma/interface.py: Use classical or robust standard errors, or": GUARD,
    "sigma/interface.py: Use those of sigma(), or bootstrap": GUARD,
    "sigma/registry.py: Upgrade lrgls_dask.": BY_HAND,
    "sigma/steps.py: start from at most {}.": GUARD,
    "simulate.py: Use fewer rows.": OUTSIDE,
    "errors.py: delete it, and the fit goes on": "followed in tests/solve/test_checkpoint_damage.py",
    "errors.py: Open it again, and write to another": "followed in tests/data/test_marks.py",
    "errors.py: write it again with System.to_zarr(..., overwrite=True)": "followed in tests/data/test_marks.py",
    "solve/constraint.py: Check their right-hand sides, and the units": CHANCE,
    "solve/checkpoint.py: Wait until that has ended, or give": "followed in tests/solve/test_checkpoint_alone.py",
    "solve/checkpoint.py: Delete it, or give this fit a": "followed in the tests of checkpoints",
    "solve/selection.py: Give rank as an integer": LARGE,
    "solve/selection.py: Use algorithm='als' and debiased=False": LARGE,
    "solve/selection.py: raise memory_limit.": LARGE,
    "solve/streamed.py: Use debiased=True or 'max', or raise memory_limit.": LARGE,
    "varying/bandwidth.py: Use a bandwidth above the distance between": GUARD,
    "varying/segments.py: Drop it or join it to the": GUARD,
    "varying/segments.py: Give at least one.": GUARD,
    "varying/segments.py: Give every row the label of its": GUARD,
    "varying/segments.py: Use the same.": GUARD,
}


@cache
def message(number: int) -> str:
    """What is said to the mistake of a case."""
    return said_to(CASES[number].mistake)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{number}-{CASES[number].says[:40]}")
def test_the_way_out_that_a_message_names_is_one(number: int) -> None:
    case = CASES[number]
    assert re.search(case.says, message(number), flags=re.DOTALL)
    for remedy in case.remedies:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            remedy()


def test_every_message_that_names_a_way_out_has_a_case() -> None:
    said = [message(number) for number in range(len(CASES))]
    left = {each.key for each in templates() if not any(each.pattern.search(text) for text in said)}
    assert sorted(left - set(ELSEWHERE)) == [], "new: give them a case, or a reason"
    assert sorted(set(ELSEWHERE) - left) == [], "no longer there, or with a case by now"
