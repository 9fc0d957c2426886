"""Wide frames of every kind become the same rows; missing values, weights, groups, labels, lags; Dask partitions."""

from __future__ import annotations

from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client

from lrgls_dask import LowRankGLS, System
from support.frames import containers, mixed, x_of, y_of

pytest.importorskip("polars")
FRAME = mixed().assign(date=pd.date_range("2000", periods=101), w=np.linspace(1, 2, 101), v=np.linspace(2, 1, 101))
HOLES = FRAME.copy()
HOLES.loc[2, "y"] = np.nan
HOLES.loc[3, "x"] = np.nan
HOLES.loc[4, ["y", "y2"]] = np.nan
HOLES.loc[5, "s"] = None
FORMULAS = {"y": "~ x * s + C(i)", "y2": "~ center(z) + b"}


@pytest.mark.parametrize("kind", containers(FRAME))
@pytest.mark.parametrize("frame", [FRAME, HOLES], ids=["whole", "holes"])
def test_every_kind_of_frame_gives_the_same_rows(kind: str, frame: pd.DataFrame) -> None:
    expected = System.from_frame(frame, FORMULAS, obs="date")
    system = System.from_frame(containers(frame)[kind], FORMULAS, obs="date")
    assert system.regressors == expected.regressors
    np.testing.assert_array_equal(x_of(system), x_of(expected))
    np.testing.assert_array_equal(y_of(system), y_of(expected))
    assert system.obs is not None
    assert system.obs.equals(expected.obs)
    assert system.dims == ("date", "equation")


def test_streams_of_batches_and_relations_are_frames() -> None:
    expected = x_of(System.from_frame(FRAME, FORMULAS, obs="date"))
    table = containers(FRAME)["arrow"]
    reader = table.to_reader(max_chunksize=10)
    np.testing.assert_array_equal(x_of(System.from_frame(reader, FORMULAS, obs="date")), expected)
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.from_arrow(table)
    np.testing.assert_array_equal(x_of(System.from_frame(relation, FORMULAS, obs="date")), expected)


def test_a_frame_gives_the_fit_of_its_arrays_to_the_last_bit() -> None:
    by_hand = System.from_arrays(
        FRAME[["y", "y2"]], FRAME[["x", "z"]].assign(one=1.0)[["one", "x", "z"]].to_numpy(), regressors=["1", "x", "z"]
    )
    ours = LowRankGLS(0).fit(System.from_frame(FRAME, "y + y2 ~ x + z")).result_
    np.testing.assert_array_equal(ours.coefficients, LowRankGLS(0).fit(by_hand).result_.coefficients)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cell_that_lacks_its_response_or_a_regressor_is_not_observed(chunked: bool) -> None:
    system = System.from_frame(dd.from_pandas(HOLES, npartitions=5) if chunked else HOLES, FORMULAS)
    assert system.obs is not None
    assert sorted(set(range(101)) - set(system.obs)) == [4]
    lost = np.isnan(y_of(system))
    assert system.obs[lost[:, 0]].tolist() == [2, 3, 5]
    assert not lost[:, 1].any()
    fit = LowRankGLS(0, missing="em").fit(system).result_
    kept = HOLES.drop(index=4)
    alone = LowRankGLS(0).fit(System.from_frame(kept.assign(m=kept["z"] - HOLES["z"].mean()), "y2 ~ m + b")).result_
    np.testing.assert_allclose(fit.params.to_series()[-3:], alone.params.to_series(), rtol=1e-9)


@pytest.mark.parametrize("chunked", [False, True])
def test_missing_values_are_refused_by_column_and_row(chunked: bool) -> None:
    frame = dd.from_pandas(HOLES, npartitions=5) if chunked else HOLES
    with pytest.raises(ValueError, match="'y' has no value in row 2, labelled 2"):
        x_of(System.from_frame(frame, FORMULAS, missing="raise"))
    with pytest.raises(ValueError, match="'x' has no value in row 3, labelled 3"):
        x_of(System.from_frame(frame, "z ~ x", missing="raise"))


def test_partitions_are_read_in_the_tasks_of_a_pass() -> None:
    """To make the system: once for levels and labels, once for the rows that are there; then once a pass."""
    reads = []

    def read(part: int) -> pd.DataFrame:
        reads.append(part)
        return FRAME.iloc[part * 20 : part * 20 + 20]

    frame = dd.from_map(read, range(5), meta=FRAME.iloc[:0])
    with dask.config.set(scheduler="synchronous"):
        system = System.from_frame(frame, "y + y2 ~ x * s")
        assert sorted(reads) == sorted([*range(5)] * 2)
        reads.clear()
        LowRankGLS(0).fit(system)
    assert sorted(reads) == list(range(5))


def test_a_partition_may_have_no_rows_at_all() -> None:
    holes = FRAME.assign(y=np.where(FRAME.index < 40, np.nan, FRAME["y"]))
    parts = [FRAME.iloc[:0], holes.iloc[:40], holes.iloc[40:]]
    frame = dd.from_map(lambda i: parts[i], range(3), meta=FRAME.iloc[:0])
    system = System.from_frame(frame, "y ~ x + s")
    np.testing.assert_array_equal(x_of(system), x_of(System.from_frame(holes, "y ~ x + s")))
    assert system.n_obs == 61


@pytest.mark.parametrize("chunked", [False, True])
def test_weights_and_groups_are_columns(chunked: bool) -> None:
    frame = dd.from_pandas(HOLES, npartitions=5) if chunked else HOLES
    kept = HOLES.dropna(subset=["y", "x"])
    X, Y = kept[["x"]].assign(one=1.0)[["one", "x"]].to_numpy(), kept[["y", "z"]].to_numpy()
    rows = System.from_frame(frame, "y + z ~ x", weights="w", groups="k")
    expected = LowRankGLS(0).fit(System.from_arrays(Y, X, weights=kept["w"].to_numpy()[:, None])).result_
    ours = LowRankGLS(0, missing="drop").fit(rows).result_
    np.testing.assert_allclose(ours.coefficients, expected.coefficients, rtol=1e-12)
    assert rows.groups is not None
    assert np.asarray(rows.groups).tolist() == HOLES["k"].drop(index=3).astype(str).tolist()
    cells = System.from_frame(frame, "y + z ~ x", weights={"y": "w", "z": "v"})
    expected = LowRankGLS(0).fit(System.from_arrays(Y, X, weights=kept[["w", "v"]].to_numpy())).result_
    ours = LowRankGLS(0, missing="drop").fit(cells).result_
    np.testing.assert_allclose(ours.coefficients, expected.coefficients, rtol=1e-12)


@pytest.mark.parametrize("chunked", [False, True])
def test_rows_are_appended_with_the_levels_and_states_of_the_first(chunked: bool) -> None:
    """Halves of a frame, the second without a level of the first, are the frame."""
    formulas = "y + y2 ~ s * x"
    one, two = FRAME[:60], FRAME[60:][FRAME["s"][60:] != "u"]
    first = System.from_frame(one, formulas)
    again = dd.from_pandas(two, npartitions=2) if chunked else two
    both = first.append(System.from_frame(again, first.formulas))
    whole = System.from_frame(pd.concat([one, two]), formulas)
    fits = [LowRankGLS(0).fit(each).result_ for each in (both, whole)]
    np.testing.assert_allclose(fits[0].coefficients, fits[1].coefficients, rtol=1e-11)
    moved = System.from_frame(one, "y ~ center(x)")
    with pytest.raises(ValueError, match=r"differ in what 'center\(x\)' keeps"):
        moved.append(System.from_frame(two, "y ~ center(x)"))
    same = System.from_frame(two, moved.formulas)
    np.testing.assert_array_equal(x_of(same)[:, 1], two["x"] - one["x"].to_numpy().mean())


def test_a_long_frame_takes_fitted_formulas_too() -> None:
    long = FRAME.melt(["date", "x", "s"], ["y", "y2"], "of", "value")
    first = System.from_frame(long, "value ~ center(x) * s", equation="of", obs="date")
    again = System.from_frame(long[long["date"] > "2000-02"], first.formulas)
    np.testing.assert_array_equal(x_of(again), x_of(first)[-len(x_of(again)) :])
    assert again.dims == ("date", "of")


def test_a_cluster_reads_partitions_in_its_workers(client: Client) -> None:
    frame = dd.from_pandas(HOLES, npartitions=5)
    formulas = "y + y2 ~ center(x) * s + C(i)"
    found = LowRankGLS(0, missing="em").fit(System.from_frame(frame, formulas)).result_
    predicted = found.predict(frame).compute()
    assert client.scheduler_info()["workers"]
    with dask.config.set(scheduler="threads"):
        expected = LowRankGLS(0, missing="em").fit(System.from_frame(frame, formulas)).result_
        np.testing.assert_array_equal(predicted.values, expected.predict(HOLES).values)
    np.testing.assert_array_equal(found.coefficients, expected.coefficients)


def test_rows_are_labelled_by_obs_or_by_the_index() -> None:
    indexed = FRAME.set_index("date")
    assert System.from_frame(indexed, "y ~ x").obs_dim == "date"
    assert System.from_frame(indexed, "y ~ x", obs="date").obs_dim == "date"  # a name of the index will do
    assert System.from_frame(dd.from_pandas(indexed, npartitions=2), "y ~ x").obs_dim == "date"
    assert System.from_frame(containers(FRAME)["polars"], "y ~ x").obs is None


def test_lags_go_along_the_labels_of_rows() -> None:
    """A label that is not there is a gap, over which nothing is carried."""
    frame = FRAME.set_index("date").drop(columns=["s", "k"]).loc[:, ["y", "x"]]
    gaps = frame.assign(year=np.r_[0:50, 52:103]).set_index("year")
    system = System.from_frame(gaps, "y ~ lag(x, 1)")
    assert system.obs is not None
    assert sorted(set(gaps.index) - set(system.obs)) == [0, 52]
    np.testing.assert_array_equal(x_of(system)[:, 1], gaps["x"].shift(1).drop([0, 52]))
    days = System.from_frame(frame, "y ~ lag(x, 2) + lag(np.exp(x), -1)")
    np.testing.assert_array_equal(x_of(days)[:, 1], frame["x"].shift(2).iloc[2:-1])
    np.testing.assert_array_equal(x_of(days)[:, 2], np.exp(frame["x"]).shift(-1).iloc[2:-1])


def test_a_partition_of_mixed_values_is_refused_by_the_first_of_them() -> None:
    with dask.config.set({"dataframe.convert-string": False}):
        frame = dd.from_map(lambda i: OBJECTS[i], range(2), meta=OBJECTS[0][:0])
        with pytest.raises(TypeError, match="'x' has dtype object and holds int such as 7, at row 1"):
            System.from_frame(frame, "y ~ x")


OBJECTS = [pd.DataFrame({"y": [1.0, 2.0], "x": pd.Series(x, dtype=object)}) for x in (["p", "q"], ["p", 7])]
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"frame": np.ones((3, 3))}, TypeError, "got a ndarray"),
    ({"frame": FRAME.iloc[:0]}, ValueError, "no rows"),
    ({"frame": pd.concat([FRAME, FRAME[["x"]]], axis=1)}, ValueError, "2 columns called 'x'"),
    ({"frame": FRAME.assign(y=np.nan)}, ValueError, "no row shows a response of 'y'"),
    (
        {"frame": FRAME.assign(x=[1, "q"] * 50 + [3])},
        TypeError,
        "'x' has dtype object and holds int such as 1, at row 0",
    ),
    ({"frame": FRAME.assign(x=FRAME["x"] * 1j)}, TypeError, "complex"),
    ({"frame": FRAME.assign(x=[[1]] * 101)}, TypeError, "holds list"),
    ({"weights": "q"}, ValueError, "no column 'q'"),
    ({"weights": np.ones(101)}, TypeError, "weights has a ndarray"),
    ({"weights": "y2"}, ValueError, "must be zero or positive"),
    ({"weights": "s"}, TypeError, "'s' has dtype"),
    ({"groups": "hole", "frame": FRAME.assign(hole=[None, *"ab" * 50])}, ValueError, "label of row 0 is missing"),
    ({"obs": "s"}, ValueError, "must be unique"),
    ({"obs": 3}, TypeError, "obs is a int"),
    ({"missing": "em"}, ValueError, "missing must be 'drop' or 'raise'"),
    ({"equation": "s"}, ValueError, "obs must then name"),
    ({"formulas": "y ~ lag(x, 1)", "frame": FRAME.iloc[::-1]}, ValueError, "in the order of their labels"),
]


@pytest.mark.parametrize(("given", "kind", "says"), BAD)
def test_bad_frames_are_refused_by_name(given: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        System.from_frame(**{"frame": FRAME, "formulas": "y ~ x", **given})


@pytest.mark.parametrize("name", ["*", "^y.*$"])
def test_names_that_polars_takes_for_patterns_are_names(name: str) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({name: [1.0, 5.0, 2.0], "y0": [2.0, 3.0, 7.0], "y1": [0.0, 0.0, 0.0]})
    for given in (frame, frame.lazy()):
        system = System.from_frame(given, f"y0 ~ `{name}`")
        assert x_of(system)[:, -1].tolist() == [1.0, 5.0, 2.0]
