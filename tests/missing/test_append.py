"""Compressed systems with holes: fits as of the rows themselves, rows appended one by one, files, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.errors import BadValues
from support.cells import weighted_cells
from support.counted import counted_rows
from support.fits import assert_same_bits
from support.incomplete import dense_loglik, with_holes
from support.systems import Data, dask_rows, simulate, zarr_rows


def fit(system: System | CompressedSystem, **options: Any) -> Fit:
    """As users fit: the same sums take the same steps."""
    return LowRankGLS(1, **options).fit(system).result_


def made(kind: str, n: int, *, seed: int = 0, weighted: bool = False) -> Data:
    """Rows with one strong factor."""
    return simulate(kind, n=n, k=1, seed=seed, weighted=weighted)


def late(data: Data, share: float = 0.01, seed: int = 3) -> Data:
    """Late starts and stretches without some equations, a row without any, and scattered holes."""
    Y, n = data.Y.copy(), len(data.Y)
    Y[: n // 4, 0] = np.nan
    Y[n // 2 : n // 2 + 20, 1:3] = np.nan
    Y[np.random.default_rng(seed).random(Y.shape) < share] = np.nan
    Y[7] = np.nan
    return replace(data, Y=Y)


def grown(data: Data, first: int) -> CompressedSystem:
    """The first rows, and all others appended one by one."""
    systems = [data.take(slice(i, i + 1)).system() for i in range(first, len(data.Y))]
    return reduce(CompressedSystem.append, systems, data.take(slice(0, first)).system().compress())


def assert_same_fit(found: Fit, expected: Fit, tol: float = 1e-9) -> None:
    """Likelihood, coefficients by their standard errors, standard errors and Sigma."""
    assert (found.n_obs, found.rank) == (expected.n_obs, expected.rank)
    assert abs(found.loglik - expected.loglik) <= tol * max(1.0, abs(expected.loglik))
    errors = expected.std_errors.values
    np.testing.assert_allclose(found.params.values / errors, expected.params.values / errors, rtol=tol, atol=tol)
    np.testing.assert_allclose(found.std_errors.values, errors, rtol=tol)
    scale = np.sqrt(np.diag(expected.sigma().values))
    np.testing.assert_allclose(
        found.sigma().values / np.outer(scale, scale), expected.sigma().values / np.outer(scale, scale), atol=tol
    )


# ------------------------------------------------------------------------------------------- compressed


@pytest.mark.parametrize("by_gram", [False, True], ids=["qr", "gram"])
@pytest.mark.parametrize(
    ("kind", "weighted", "wrap"),
    [("own", False, np.asarray), ("shared", True, dask_rows(70)), ("mixed", True, zarr_rows(50))],
)
def test_a_fit_of_compressed_patterns_is_that_of_the_rows(
    kind: str, weighted: bool, wrap: Any, by_gram: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = late(made(kind, 240, weighted=weighted))
    if by_gram:
        for module in ("compressed", "by_pattern"):
            monkeypatch.setattr(f"lrgls_dask.compression.{module}.SMALL_FLOPS", 0.0)
    compressed = data.system(wrap).compress()
    found, expected = fit(compressed, missing="em"), fit(data.system(), missing="em")
    assert compressed.rows.route == ("gram" if by_gram else "qr")
    assert compressed.n_obs == 240 and found.n_obs == 239
    assert_same_fit(found, expected)
    assert abs(found.loglik - dense_loglik(data, found.params.values, found.sigma().values)) < 1e-7
    assert found.n_passes == 0 and found.n_patterns == compressed.n_patterns == expected.n_patterns
    assert abs(found.score(compressed) - expected.score(data.system())) < 1e-10


def test_compressing_reads_every_chunk_once() -> None:
    system, gets = counted_rows(late(made("mixed", 200)), rows=20)
    assert system.compress().n_patterns > 1
    assert set(gets.values()) == {1}


def test_cells_with_weights_and_rows_without_are_appended() -> None:
    data = weighted_cells(n=160).with_holes()
    parts = [data.take(np.arange(a, a + 40)) for a in range(0, 160, 40)]
    parts[1] = replace(parts[1], W=np.ones_like(parts[1].W))
    whole = System.from_arrays(data.Y, data.X, weights=np.concatenate([part.W for part in parts]))
    systems = [System.from_arrays(part.Y, part.X, weights=None if i == 1 else part.W) for i, part in enumerate(parts)]
    for order in ([0, 1, 2, 3], [1, 3, 2, 0]):
        together = reduce(CompressedSystem.append, [systems[i] for i in order[1:]], systems[order[0]].compress())
        assert_same_fit(fit(together, missing="em"), fit(whole, missing="em"))
    with pytest.raises(ValueError, match="lam_B penalises regressors about their means"):
        fit(together, missing="em", lam_B=1.0)


def test_a_ridge_goes_with_weights_of_equations() -> None:
    data = late(made("shared", 120))
    system = System.from_arrays(data.Y, data.X, weights=np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0]))
    assert_same_fit(fit(system.compress(), missing="em", lam_B=5.0), fit(system, missing="em", lam_B=5.0))


def test_parts_with_holes_sum_to_the_whole() -> None:
    data = late(made("own", 200))
    by = data.system(dask_rows(30)).compress(by=np.arange(200) % 3)
    assert list(by) == [0, 1, 2] and [part.n_obs for part in by.values()] == [67, 67, 66]
    together = reduce(CompressedSystem.append, by.values())
    assert_same_fit(fit(together, missing="em"), fit(data.system(), missing="em"))
    whole = made("own", 200)
    whole.Y[:100, 0] = np.nan
    halves = whole.system().compress(by=np.repeat(["a", "b"], 100))
    assert [part.n_patterns for part in halves.values()] == [1, 0]  # the second misses nothing
    whole.X[150, 3] = np.inf
    with pytest.raises(BadValues, match=r"infinite .*row 150"):
        whole.system().compress(by=np.repeat(["a", "b"], 100))


# ------------------------------------------------------------------------------------------- appended


@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])
@pytest.mark.parametrize("level", [0.0, 1e6])
def test_a_year_of_days_is_fitted_as_if_it_had_been_there(holes: bool, level: float) -> None:
    data = made("mixed", 370)
    data = late(data) if holes else data
    data.X[:, 1] += level
    data.Y[:] += level
    options = {"missing": "em" if holes else "raise"}
    system = grown(data, 120)
    assert system.n_obs == 370
    assert_same_fit(fit(system, **options), fit(data.system(), **options))
    assert (system.n_patterns > data.take(slice(0, 120)).system().compress().n_patterns) == holes  # new ones


def test_rows_stored_in_single_precision_are_appended() -> None:
    data = late(made("shared", 150))
    data = replace(data, Y=data.Y.astype(np.float32), X=data.X.astype(np.float32))
    whole = fit(data.system(), missing="em")
    # where the likelihood is flat to its last digit, steps that differ by rounding end 3e-9 apart
    assert_same_fit(fit(grown(data, 60), missing="em"), whole, tol=1e-8)


def test_a_system_may_start_with_one_row_or_none_complete() -> None:
    data = late(made("own", 90))
    assert_same_fit(fit(grown(data, 1), missing="em"), fit(data.system(), missing="em"))
    complete = made("own", 90)
    assert_same_fit(fit(grown(complete, 1)), fit(complete.system()))
    both = data.take(slice(0, 20)).system().compress().append(complete.take(slice(20, 90)).system())
    back = complete.take(slice(20, 90)).system().append(data.take(slice(0, 20)).system())
    assert_same_fit(fit(both, missing="em"), fit(back, missing="em"))


CONTAINERS: dict[str, Callable[[np.ndarray, np.ndarray, Path], System]] = {
    "numpy": lambda Y, X, path: System.from_arrays(Y, X),
    "dask": lambda Y, X, path: System.from_arrays(dask_rows(1)(Y), dask_rows(1)(X)),
    "zarr": lambda Y, X, path: System.from_arrays(zarr_rows(1)(Y), zarr_rows(1)(X)),
    "pandas": lambda Y, X, path: System.from_arrays(
        pd.DataFrame(Y, columns=[f"y{j}" for j in range(Y.shape[1])]),
        pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])]),
    ),
    "xarray": lambda Y, X, path: System.from_xarray(
        xr.Dataset(
            {"y": (("obs", "equation"), Y), "x": (("obs", "regressor"), X)},
            {"equation": [f"y{j}" for j in range(Y.shape[1])], "regressor": [f"x{j}" for j in range(X.shape[1])]},
        ),
        "y",
        ["x"],
    ),
    "store": lambda Y, X, path: stored(System.from_arrays(Y, X), path),
}


def stored(system: System, path: Path) -> System:
    system.to_zarr(path, overwrite=True)
    return System.from_zarr(path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_one_row_is_appended_from_every_container(container: str, tmp_path: Path) -> None:
    data = made("shared", 60)
    data.Y[-2, [1, 4]] = np.nan
    system = CONTAINERS["numpy"](data.Y[:57], data.X[:57], tmp_path).compress()
    if container == "xarray":
        system = CONTAINERS["xarray"](data.Y[:57], data.X[:57], tmp_path).compress()
    for i in (57, 58, 59):
        one = CONTAINERS[container](data.Y[i : i + 1], data.X[i : i + 1], tmp_path / f"{i}.zarr")
        system = system.append(one)
    assert system.n_patterns == 2
    assert_same_fit(fit(system, missing="em"), fit(data.system(), missing="em"))


def test_rows_that_show_nothing_change_nothing_but_their_number() -> None:
    data = late(made("own", 100))
    system = data.system().compress()
    nothing = data.take(slice(0, 2))
    nothing.Y[:] = np.nan
    more = system.append(nothing.system())
    assert more.n_obs == system.n_obs + 2
    assert_same_fit(fit(more, missing="em"), fit(system, missing="em"))


def test_another_schema_is_named() -> None:
    whole = late(made("shared", 80)).system().compress()
    Y, X, names = np.zeros((1, 6)), np.ones((1, 4)), [f"y{j}" for j in range(6)]
    for wrong, message in (
        (lambda: System.from_arrays(Y[:, :5], X), "lacks equation 'y5'"),
        (lambda: System.from_arrays(Y, X, equations=[*names[:5], "gas"]), "lacks equation 'y5' and has equation 'gas'"),
        (lambda: System.from_arrays(Y, X, equations=names[::-1]), "has equation 'y5' at position 0, where 'y0' was"),
        (lambda: System.from_arrays(Y, np.ones((1, 5))), "has regressor 'x4' besides"),
        (lambda: System.from_arrays(Y, X, regressors=["x0", "x1", "x2", "oil"]), "lacks regressor 'x3'"),
        (
            lambda: System.from_arrays(Y, X, incidence=np.arange(6) + np.arange(4)[:, None] > 0),
            "has regressors 'x1', 'x2', 'x3' in equation 'y0', where 'x0', 'x1', 'x2', 'x3' were",
        ),
    ):
        with pytest.raises(ValueError, match=f"append: the two systems differ in .*: the appended one {message}"):
            whole.append(wrong())


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("weights", ["none", "rows", "cells"])
def test_files_keep_every_bit(weights: str, tmp_path: Path) -> None:
    if weights == "cells":
        cells = weighted_cells(n=120).with_holes()
        system = System.from_arrays(cells.Y, cells.X, weights=cells.W)
    else:
        system = late(made("mixed", 120, weighted=weights == "rows")).system()
    compressed = system.compress()
    compressed.to_zarr(tmp_path / "c.zarr")
    opened = CompressedSystem.from_zarr(tmp_path / "c.zarr")
    assert_same_bits(fit(opened, missing="em"), fit(compressed, missing="em"))
    assert (opened.n_patterns, opened.n_obs, repr(opened)) == (compressed.n_patterns, 120, repr(compressed))
    assert zarr.open_group(tmp_path / "c.zarr").attrs["lrgls_compressed_format"] == 2
    shown = xr.open_zarr(tmp_path / "c.zarr", consolidated=False)["shown"]
    assert shown.dims == ("pattern", "equation") and len(shown) == compressed.n_patterns
    again = opened.append(system)
    assert_same_fit(fit(again, missing="em"), fit(compressed.append(system), missing="em"))


def test_files_of_complete_systems_are_as_they_were(tmp_path: Path) -> None:
    made("own", 80).system().compress().to_zarr(tmp_path / "c.zarr")
    group = zarr.open_group(tmp_path / "c.zarr")
    assert group.attrs["lrgls_compressed_format"] == 1 and "root" in group and "shown" not in group
    group.attrs["lrgls_compressed_format"] = 3
    with pytest.raises(ValueError, match=r"lrgls_compressed_format 3 but this lrgls_dask reads 1 and 2\. Upgrade"):
        CompressedSystem.from_zarr(tmp_path / "c.zarr")


# ------------------------------------------------------------------------------------------- what is said


def test_drop_takes_the_complete_pattern() -> None:
    data = late(made("mixed", 200))
    found, expected = fit(data.system().compress(), missing="drop"), fit(data.system(), missing="drop")
    assert_same_fit(found, expected)
    assert found.n_dropped == expected.n_dropped > 0
    assert abs(found.score(data.system().compress()) - expected.score(data.system())) < 1e-10
    data.Y[::2, 0] = data.Y[1::2, 1] = np.nan
    with pytest.raises(ValueError, match="no row of positive weight shows every equation"):
        fit(data.system().compress(), missing="drop")


def test_raise_names_the_equation_that_misses_most() -> None:
    compressed = late(made("mixed", 200), share=0.0).system().compress()
    message = "equation 'y0' is observed in 150 of 200 rows, and missing='raise' takes complete ones"
    for refused in (LowRankGLS(2).plan, LowRankGLS(2).fit):
        with pytest.raises(ValueError, match=message):
            refused(compressed)
    complete = fit(made("mixed", 200).system())
    with pytest.raises(ValueError, match="is observed in 150 of 200 rows, and complete ones are needed"):
        complete.score(compressed)


def test_what_follows_a_fit_comes_from_the_patterns_or_asks_for_rows(tmp_path: Path) -> None:
    data = late(made("own", 200))
    system, other = data.system(), with_holes(made("own", 200, seed=5)).system().compress()
    found, expected = fit(system.compress(), missing="em"), fit(system, missing="em")
    np.testing.assert_allclose(found.cov("observed").values, expected.cov("observed").values, rtol=1e-8)
    found.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    for given in (system, system.compress()):
        np.testing.assert_allclose(opened.cov("observed", system=given), expected.cov("observed"), rtol=1e-8)
    with pytest.raises(ValueError, match="these are not the rows that were fitted"):
        opened.cov("observed", system=other)
    with pytest.raises(ValueError, match="these are not the rows that were fitted: the mean of"):
        changed = replace(data, Y=data.Y + 0.5)
        opened.cov("observed", system=changed.system().compress())


def test_the_plan_says_what_patterns_cost() -> None:
    plan = LowRankGLS(1, missing="em").plan(late(made("own", 400), share=0.0).system().compress())
    assert (plan.n_patterns, plan.passes, plan.holds_cov) == (4, 0, True)
    assert f"4 patterns of missing responses: {plan.pattern_rows} rows, " in str(plan)
    assert plan.pattern_rows < 100 and "does not pay" not in str(plan)
    scattered = with_holes(made("own", 100), 0.4).system().compress()
    plan = LowRankGLS(1, missing="em").plan(scattered)
    assert plan.pattern_rows > 50 and plan.n_patterns == scattered.n_patterns > 20
    assert "compressing does not pay: fit the System itself, with missing='em'" in str(plan)
    assert f"{plan.n_patterns} patterns of missing responses in {plan.pattern_rows} rows" in repr(scattered)
    complete = LowRankGLS(1).plan(made("own", 100).system().compress())
    assert complete.n_patterns == 0 and "holes" not in str(complete)


def test_more_patterns_than_are_kept_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrgls_dask.compression.by_pattern.PATTERNS_OF_FEW_ROWS", 5)
    system = with_holes(made("own", 100), 0.4).system()
    with pytest.raises(ValueError, match=r"more than 5 patterns of missing responses.* Fit the System itself with"):
        system.compress()
    with pytest.raises(ValueError, match="the rows of 'a' have more than 5 patterns"):
        system.compress(by=np.repeat("a", 100))
    assert fit(system, missing="em").n_obs == 99


def test_a_day_of_a_long_frame_need_not_show_every_firm() -> None:
    """A row without a response says that the firm is there: late starters, and one that has no price today."""
    rng, firms, days = np.random.default_rng(5), list("abcd"), np.arange(60)
    long = pd.DataFrame(
        {"day": np.repeat(days, 4), "firm": np.tile(firms, 60), "mkt": np.repeat(rng.normal(size=60), 4)}
    )
    long["size"], long["ret"] = rng.normal(size=(2, 240))
    long = long[(long.firm != "d") | (long.day >= 20)]
    long.loc[(long.firm == "b") & (long.day == 59), "ret"] = np.nan
    how: Any = {"equation": "firm", "obs": "day"}
    before, today = long[long.day < 59], long[long.day == 59]
    known = System.from_frame(before, "ret ~ mkt + size", **how)
    with pytest.raises(ValueError, match="no row shows a response of 'b'"):
        System.from_frame(today, "ret ~ mkt + size", **how)
    both = known.compress().append(System.from_frame(today, known.formulas, **how))
    got, expected = (
        LowRankGLS(1, missing="em").fit(each).result_
        for each in (both, System.from_frame(long, "ret ~ mkt + size", **how))
    )
    np.testing.assert_allclose(got.params, expected.params, rtol=1e-9)
    with pytest.raises(ValueError, match=r"lacks equation 'b'.* a row without a response"):
        known.append(System.from_frame(today[today.firm != "b"], known.formulas, **how))
