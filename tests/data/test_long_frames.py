"""Long frames: the system of the frame pivoted by hand, whatever the order of rows, the kind of frame, the gaps."""

from __future__ import annotations

import warnings
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from lrgls_dask import FitWarning, LowRankGLS, System
from support.frames import containers, grunfeld, x_of, y_of

pytest.importorskip("polars")
LONG = grunfeld()
FIRMS = sorted(LONG["firm"].unique())
SOME = LONG[LONG["firm"].isin(FIRMS[:4])].reset_index(drop=True)
SOME["war"] = np.where((SOME["year"] > 1940) & (SOME["year"] < 1946), "war", "peace")
SOME["rate"] = np.sin(SOME["year"])
HOLES = SOME.copy().drop(index=[3, 25, 26])
HOLES.loc[7, "invest"] = np.nan
HOLES.loc[30, "value"] = np.nan
KEYS: dict[str, Any] = {"equation": "firm", "obs": "year"}
FORMULA = "invest ~ value + capital * war + rate"


def pivoted(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame.pivot(index="year", columns="firm", values=name)


def by_hand(frame: pd.DataFrame) -> System:
    """`FORMULA` with what firms share first, then the columns of each."""
    seen = frame.dropna()
    Y, value, capital = (pivoted(seen, name) for name in ("invest", "value", "capital"))
    years = Y.index.to_numpy()
    war = 1.0 * ((years > 1940) & (years < 1946))
    K = Y.shape[1]
    # in the order in which formulaic has the terms
    X = np.column_stack([np.ones(len(Y)), value, capital, war, np.sin(years), capital.to_numpy() * war[:, None]])
    used = [[0, 1 + j, 1 + K + j, 1 + 2 * K, 2 + 2 * K, 3 + 2 * K + j] for j in range(K)]
    incidence = np.zeros((X.shape[1], K), dtype=bool)
    for j, own in enumerate(used):
        incidence[own, j] = True
    return System.from_arrays(Y, X, incidence=incidence)


@pytest.mark.parametrize("frame", [SOME, HOLES], ids=["whole", "holes"])
def test_a_long_frame_is_the_frame_pivoted_by_hand_to_the_last_bit(frame: pd.DataFrame) -> None:
    """The constant, the dummy of years and the rate are found to be shared."""
    system = System.from_frame(frame, FORMULA, **KEYS)
    expected = by_hand(frame)
    np.testing.assert_array_equal(x_of(system), x_of(expected))
    np.testing.assert_array_equal(y_of(system), y_of(expected))
    assert system.equations == tuple(FIRMS[:4])
    assert system.obs is not None
    assert system.obs.tolist() == list(range(1935, 1955))
    model: dict[str, Any] = {"covariance": "full", "algorithm": "fgls", "missing": "em"}
    ours, theirs = (LowRankGLS(**model).fit(each).result_ for each in (system, expected))
    np.testing.assert_array_equal(ours.coefficients, theirs.coefficients)
    assert ours.equation_dim == "firm"


@pytest.mark.parametrize("kind", containers(SOME))
@pytest.mark.parametrize("frame", [SOME, HOLES], ids=["whole", "holes"])
def test_every_kind_of_frame_in_any_order_gives_the_same_rows(kind: str, frame: pd.DataFrame) -> None:
    formula = f"{FORMULA} + lag(value, 1)"
    expected = System.from_frame(frame, formula, **KEYS)
    shuffled = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    system = System.from_frame(containers(shuffled)[kind], formula, **KEYS)
    assert system.regressors == expected.regressors
    np.testing.assert_array_equal(x_of(system), x_of(expected))
    np.testing.assert_array_equal(y_of(system), y_of(expected))
    assert system.obs is not None
    assert system.obs.tolist() == expected.obs.tolist()  # type: ignore[union-attr]


def test_cells_that_are_absent_or_lack_a_regressor_are_not_observed() -> None:
    system = System.from_frame(HOLES, FORMULA, **KEYS)
    lost = pd.DataFrame(np.isnan(y_of(system)), index=system.obs, columns=system.equations).stack()
    gone = SOME.loc[[3, 7, 25, 26, 30]]
    assert set(lost[lost].index) == set(zip(gone["year"], gone["firm"], strict=True))
    X = x_of(system)
    for j, columns in enumerate(system.design.columns):
        assert np.isfinite(X[np.ix_(~np.isnan(y_of(system)[:, j]), columns)]).all()
    alone = HOLES[HOLES["firm"] == FIRMS[1]].dropna()
    ols = LowRankGLS(0, missing="em").fit(system).result_.params.to_series()[6:12]
    values = alone.assign(war=alone["war"] == "war", one=1.0, both=alone["capital"] * (alone["war"] == "war"))
    names = ["one", "value", "capital", "war", "rate", "both"]
    expected, *_ = np.linalg.lstsq(values[names].to_numpy(float), alone["invest"].to_numpy(), rcond=None)
    np.testing.assert_allclose(ols, expected, rtol=1e-7)


def test_dates_that_show_nothing_are_left_out() -> None:
    gone = SOME.assign(invest=np.where(SOME["year"] == 1940, np.nan, SOME["invest"]))
    system = System.from_frame(gone, FORMULA, **KEYS)
    assert system.n_obs == 19
    assert not np.isnan(y_of(system)).any()


def test_lags_stay_within_the_equation_and_never_cross_a_gap() -> None:
    frame = SOME.drop(index=SOME.index[(SOME["firm"] == FIRMS[0]) & (SOME["year"] == 1940)])
    frame = frame[frame["year"] != 1950].sample(frac=1, random_state=0)
    system = System.from_frame(frame, "invest ~ lag(value, 1) + lag(invest, 2)", **KEYS)
    cells = frame.set_index(["year", "firm"])
    checked = 0
    for j, firm in enumerate(system.equations):
        columns = dict(zip(system.design.terms[j], system.design.columns[j], strict=True))
        for i, year in enumerate(system.obs):  # type: ignore[arg-type]
            value = cells["value"].get((year - 1, firm), np.nan)
            invest = cells["invest"].get((year - 2, firm), np.nan)
            there = (year, firm) in cells.index and np.isfinite([value, invest]).all()
            assert np.isfinite(y_of(system)[i, j]) == there
            if there:
                assert x_of(system)[i, columns["lag(value, 1)"]] == value
                assert x_of(system)[i, columns["lag(invest, 2)"]] == invest
                checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    ("labels", "gaps"),
    [
        (pd.to_datetime(["2020-01-31", "2020-02-29", "2020-04-30", "2020-05-31"]), [0, 2]),  # months
        (pd.to_datetime(["2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08"]), [0]),  # the days that there are
        (pd.PeriodIndex(["2020Q1", "2020Q2", "2020Q4", "2021Q1"], freq="Q"), [0, 2]),
        ([2.0, 4.0, 8.0, 10.0], [0, 2]),
        (["a", "b", "c", "d"], [0]),
    ],
)
def test_what_a_step_is_depends_on_the_labels(labels: Any, gaps: list[int]) -> None:
    frame = pd.DataFrame({"t": labels, "x": [1.0, 2, 3, 4], "y": [1.0, 2, 4, 3], "k": "a"})
    system = System.from_frame(frame, "y ~ lag(x)", equation="k", obs="t")
    assert [i for i in range(4) if frame["t"][i] not in set(system.obs)] == gaps  # type: ignore[arg-type]


def test_some_equations_have_formulas_of_their_own() -> None:
    for others in ("*", None):
        system = System.from_frame(SOME, {others: "invest ~ value", FIRMS[2]: "np.log(invest) ~ capital"}, **KEYS)
        assert [terms[1] for terms in system.design.terms] == ["value", "value", "capital", "value"]
        np.testing.assert_array_equal(y_of(system)[:, 2], np.log(pivoted(SOME, "invest")[FIRMS[2]]))
        np.testing.assert_array_equal(y_of(system)[:, 1], pivoted(SOME, "invest")[FIRMS[1]])


def test_keys_may_be_levels_of_the_index() -> None:
    system = System.from_frame(SOME.set_index(["firm", "year"]), FORMULA, **KEYS)
    np.testing.assert_array_equal(x_of(system), x_of(System.from_frame(SOME, FORMULA, **KEYS)))


def test_equations_that_are_categories_keep_their_order() -> None:
    order = FIRMS[:4][::-1]
    frame = SOME.assign(firm=pd.Categorical(SOME["firm"], categories=[*order, "none"]))
    assert System.from_frame(frame, FORMULA, **KEYS).equations == tuple(order)
    mixed_up = SOME.assign(firm=SOME["firm"].map(dict(zip(FIRMS, [3, "x", 1, "y"], strict=False))))
    assert System.from_frame(mixed_up, FORMULA, **KEYS).equations == tuple(pd.unique(mixed_up["firm"]))


def test_weights_are_of_rows_or_of_cells() -> None:
    frame = HOLES.assign(of_year=HOLES["year"] - 1930.0, of_cell=1 + HOLES["capital"] / 100)
    rows = System.from_frame(frame, "invest ~ value", weights="of_year", **KEYS)
    assert rows.rows.weighted == "rows"
    np.testing.assert_array_equal(np.asarray(rows.rows.weights.array), rows.obs - 1930.0)  # type: ignore
    cells = System.from_frame(frame, "invest ~ value", weights="of_cell", **KEYS)
    assert cells.rows.weighted == "cells"
    fit = LowRankGLS(0, missing="em").fit(cells).result_.params.to_series()
    for j, firm in enumerate(FIRMS[:4]):
        alone = frame[frame["firm"] == firm].dropna()
        root = np.sqrt(alone["of_cell"].to_numpy())
        X = np.column_stack([np.ones(len(alone)), alone["value"]])
        expected, *_ = np.linalg.lstsq(X * root[:, None], alone["invest"] * root, rcond=None)
        np.testing.assert_allclose(fit[2 * j : 2 * j + 2], expected, rtol=1e-8)


def test_groups_are_of_whole_rows() -> None:
    frame = HOLES.assign(decade=HOLES["year"] // 10)
    system = System.from_frame(frame, "invest ~ value", groups="decade", **KEYS)
    assert np.asarray(system.groups).tolist() == (system.obs // 10).tolist()  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"groups 'firm' must be the same .* 1935 has"):
        System.from_frame(frame.assign(group=frame["firm"]), "invest ~ value", groups="firm", **KEYS)


@pytest.mark.parametrize("kind", [float, str, "category", "Int64"])
@pytest.mark.parametrize("role", ["groups", "absorb"])
def test_labels_may_be_missing_in_rows_without_a_say(kind: Any, role: str) -> None:
    frame = SOME.assign(w=np.where(SOME["year"].isin([1937, 1950]), 0.0, 1.0), decade=SOME["year"] // 10)
    silent, labels = frame["w"] == 0, frame["decade"].astype(kind)
    some = frame.assign(
        decade=labels.where(~silent & (frame.index != frame.index[0]))
    )  # one cell of a row is no matter
    given: dict[str, Any] = {role: "decade", "weights": "w", **KEYS}
    kept = frame.assign(decade=labels)[~silent]
    found, wanted = (
        LowRankGLS(0).fit(System.from_frame(each, "invest ~ value", **given)).result_ for each in (some, kept)
    )
    np.testing.assert_allclose(found.params, wanted.params, rtol=1e-12)
    if role == "groups":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            np.testing.assert_allclose(found.cov("cluster"), wanted.cov("cluster"), rtol=1e-12)
    with pytest.raises(ValueError, match=r"'decade': the label of row 1937 is missing, 2 such labels in all"):
        System.from_frame(some.assign(w=1.0), "invest ~ value", **given)


TWICE = pd.concat([SOME, SOME.iloc[[5]]])
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"frame": TWICE}, ValueError, r"'.*' at year \d+ more than once, first in its rows 5 and 80"),
    ({"frame": SOME.assign(year=[np.nan, *SOME["year"][1:]])}, ValueError, "'year' has no value in row 0"),
    ({"frame": SOME.assign(firm=[*SOME["firm"][:-1], None])}, ValueError, "'firm' has no value in row 79"),
    ({"frame": SOME.assign(year=[*SOME["year"][:-1], "x"])}, TypeError, "mixes int, str|mixes"),
    ({"obs": "firm"}, ValueError, "obs and equation both name 'firm'"),
    ({"frame": SOME.drop(columns="year")}, ValueError, "no column 'year'"),
    ({"formulas": "invest + value ~ capital"}, ValueError, "has 2 responses"),
    ({"formulas": ["invest ~ value", "value ~ capital"]}, ValueError, "has 2 formulas for a long frame"),
    ({"formulas": {"IBMM": "invest ~ value", "*": "invest ~ 1"}}, ValueError, "'IBMM', which the frame does not have"),
    ({"formulas": {FIRMS[0]: "invest ~ value"}}, ValueError, "has none for equations"),
    ({"formulas": {None: "invest ~ value", "*": "invest ~ 1"}}, ValueError, "both None and"),
    ({"formulas": {}}, ValueError, "formulas is empty"),
    ({"weights": {"a": "value"}}, TypeError, "one column, with the weight of each cell"),
    ({"frame": HOLES, "missing": "raise"}, ValueError, "'value' has no value in row 27, 'Atlantic Refining' at"),
    (
        {"frame": SOME.assign(invest=np.where(SOME["firm"] == FIRMS[1], np.nan, SOME["invest"]))},
        ValueError,
        f"no row shows a response of '{FIRMS[1]}'",
    ),
]


@pytest.mark.parametrize(("given", "kind", "says"), BAD)
def test_bad_long_frames_are_refused_by_name(given: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        System.from_frame(**{"frame": SOME, "formulas": "invest ~ value", **KEYS, **given})


def test_a_long_dask_frame_is_read_for_its_named_columns_alone() -> None:
    seen: list[tuple[str, ...]] = []

    def noted(part: pd.DataFrame) -> pd.DataFrame:
        seen.append(tuple(part.columns))
        return part

    frame = dd.from_pandas(SOME, npartitions=2)[["firm", "year", "invest", "value", "rate"]]
    system = System.from_frame(frame.map_partitions(noted, meta=frame._meta), "invest ~ value", **KEYS)
    assert system.n_obs == 20
    assert seen
