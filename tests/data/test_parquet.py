"""Parquet files are read as the frame that they hold, row group by row group, once a pass, only the columns named."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pytest
from distributed import Client

pa = pytest.importorskip("pyarrow")
import pyarrow.fs as pafs  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from lrgls_dask import Fit, LowRankGLS, System  # noqa: E402
from lrgls_dask.data import parquet, parquetrows  # noqa: E402
from lrgls_dask.solve.checkpoint import rows_token  # noqa: E402
from support.buckets import s3_bucket  # noqa: E402
from support.frames import check_same, mixed, x_of, y_of  # noqa: E402
from support.parquet import counted_groups, written  # noqa: E402

FRAME = mixed().assign(date=pd.date_range("2000", periods=101), w=np.linspace(1, 2, 101), v=np.linspace(2, 1, 101))
HOLES = FRAME.copy()
HOLES.loc[2, "y"] = np.nan
HOLES.loc[3, "x"] = np.nan
HOLES.loc[4:60, ["y", "y2"]] = np.nan
HOLES.loc[70, "s"] = None
FORMULAS = {"y": "~ x * s + C(i) + k", "y2": "~ center(z) + b + bs(x, df=4)", "log": "np.log(z) ~ f + C(day)"}


@pytest.fixture
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups are read in stretches of some hundred bytes, as large ones are."""
    monkeypatch.setattr(parquetrows, "WHOLE_BYTES", 900)
    monkeypatch.setattr(parquetrows, "STRETCH_BYTES", 500)


@pytest.mark.parametrize("missing", ["drop", "raise"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("obs", [None, "date"])
def test_files_are_the_frame_that_they_hold(tmp_path: Path, missing: Any, rows: int, obs: str | None) -> None:
    frame = HOLES if missing == "drop" else FRAME
    path = written(tmp_path / "data", frame, rows=rows)
    ours = System.from_parquet(path, FORMULAS, obs=obs, missing=missing)
    check_same(ours, System.from_frame(frame, FORMULAS, obs=obs, missing=missing))


@pytest.mark.usefixtures("small_stretches")
def test_row_groups_in_stretches_give_the_same_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "data", HOLES, rows=30)
    check_same(System.from_parquet(path, FORMULAS), System.from_frame(HOLES, FORMULAS))


@pytest.mark.parametrize("missing", ["em", "drop"])
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_a_fit_is_that_of_the_frame_to_the_last_bit(tmp_path: Path, missing: str, engine: str) -> None:
    path = written(tmp_path / "data", HOLES)
    model = LowRankGLS(0, missing=missing, engine=engine)
    systems = System.from_parquet(path, "y + y2 ~ x * s"), System.from_frame(HOLES, "y + y2 ~ x * s")
    ours, expected = (model.fit(each).result_ for each in systems)
    np.testing.assert_array_equal(ours.coefficients, expected.coefficients)
    np.testing.assert_array_equal(ours.sigma(), expected.sigma())


def test_weights_and_groups_are_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "data", HOLES)
    model = LowRankGLS(0, missing="drop")
    for weights in ("w", {"y": "w", "y2": "v"}):
        given: dict[str, Any] = {"formulas": "y + y2 ~ x", "weights": weights, "groups": "k"}
        ours, expected = System.from_parquet(path, **given), System.from_frame(HOLES, **given)
        fits = [model.fit(each).result_ for each in (ours, expected)]
        np.testing.assert_array_equal(fits[0].coefficients, fits[1].coefficients)
        assert np.asarray(ours.groups).tolist() == np.asarray(expected.groups).tolist()


# ---------------------------------------------------------------------------------------------- reads


def test_a_pass_reads_each_row_group_once_and_only_its_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "data", FRAME)
    with counted_groups() as reads:
        system = System.from_parquet(path, "y + y2 ~ x * s", levels={"s": ["u", "v", "w"]}, missing="raise")
        assert len(reads) <= 1  # two rows, for the names of columns
        reads.clear()
        LowRankGLS(0).fit(system)
    groups = Counter((name, group) for name, group, _ in reads)
    assert len(groups) == 15
    assert set(groups.values()) == {1}
    assert {frozenset(columns) for _, _, columns in reads} == {frozenset(("x", "s", "y", "y2"))}


@pytest.mark.usefixtures("small_stretches")
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_a_large_row_group_is_decoded_once_a_pass_by_one_task(tmp_path: Path, scheduler: str) -> None:
    path = written(tmp_path / "data", pd.concat([FRAME] * 4), rows=30)
    system = System.from_parquet(path, "y + y2 ~ x + z", missing="raise")
    assert len(system.rows.x[0].row_chunks or ()) > 15
    with dask.config.set(scheduler=scheduler), counted_groups() as reads:
        fit = LowRankGLS(0).fit(system).result_
    groups = Counter((name, group) for name, group, _ in reads)
    assert len(groups) == 15
    assert set(groups.values()) == {1}
    assert fit.trace["passes"].iloc[-1] == 1


def test_levels_are_looked_for_in_the_columns_of_categories_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "data", FRAME)
    with counted_groups() as reads:
        System.from_parquet(path, "y + y2 ~ x * s + k", missing="raise")
    whole = Counter(columns for _, _, columns in reads if set(columns) <= {"s", "k"})
    assert sum(whole.values()) == 15
    assert len(reads) == 16


def test_which_rows_are_there_is_told_by_few_responses(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(60, 21)), columns=["x", *(f"y{j}" for j in range(20))])
    frame.loc[5, "y0"] = frame.loc[25, "x"] = np.nan
    frame.loc[50, "y0":] = np.nan  # type: ignore[misc]
    path = written(tmp_path / "data", frame, files=1, rows=20)
    with counted_groups() as reads:
        system = System.from_parquet(path, "{y*} ~ x")
    assert system.n_obs == 58
    read = [sum(len(columns) for _, g, columns in reads if g == group) for group in range(3)]
    assert read[0] == 1 + 1 + 1 + 2  # the regressor, two rows of it for names, the first response, two more
    assert read[1] == 1 + 1  # a row without a regressor shows none
    assert read[2] == 1 + 20


# ---------------------------------------------------------------------------------------------- long


@pytest.mark.parametrize("shuffled", [False, True])
def test_long_files_are_the_long_frame(tmp_path: Path, shuffled: bool) -> None:
    long = HOLES.melt(["date", "x", "s", "w"], ["y", "y2"], "of", "value")
    long = long.sample(frac=1, random_state=1) if shuffled else long.sort_values(["date", "of"])
    given: dict[str, Any] = {"equation": "of", "obs": "date", "weights": "w", "groups": "s"}
    path = written(tmp_path / "data", long[long["s"].notna()])
    with counted_groups() as reads:
        ours = System.from_parquet(path, "value ~ x + lag(value, 1)", **given)
    check_same(ours, System.from_frame(long[long["s"].notna()], "value ~ x + lag(value, 1)", **given))
    assert set(Counter((name, group) for name, group, _ in reads).values()) == {1}
    folders = tmp_path / "by"
    for name, part in long.groupby("of"):
        written(folders / f"of={name}", part.drop(columns="of"))
    again = System.from_parquet(folders, "value ~ x", equation="of", obs="date")
    check_same(again, System.from_frame(long, "value ~ x", equation="of", obs="date"))


# ---------------------------------------------------------------------------------------------- files


def test_files_come_in_natural_order_and_folders_are_columns(tmp_path: Path) -> None:
    frame = FRAME.assign(month=np.repeat([1, 2, 10], 40)[:101], site="a b")
    for month, part in frame.groupby("month"):
        written(tmp_path / "d" / f"month={month}" / "site=a%20b", part.drop(columns=["month", "site"]), files=2)
    (tmp_path / "d" / "_SUCCESS").write_text("")
    (tmp_path / "d" / "notes.txt").write_text("none")
    expected = System.from_frame(frame.astype({"month": "category"}), "y ~ x + month")
    for path in (
        tmp_path / "d",
        f"{tmp_path}/d/month=*/*/*.parquet",
        f"{tmp_path}/d/mon*",
        [tmp_path / "d" / f"month={i}" for i in (1, 2, 10)],
    ):
        check_same(System.from_parquet(path, "y ~ x + month"), expected)
    with counted_groups() as reads:
        labelled = System.from_parquet(tmp_path / "d", "y ~ x", groups="month", missing="raise")
        assert np.asarray(labelled.groups).tolist() == frame["month"].tolist()
    assert all("month" not in columns for _, _, columns in reads)


def test_a_folder_without_a_value_is_missing(tmp_path: Path) -> None:
    for value, rows in (("u", FRAME[:30]), ("v", FRAME[30:50]), ("__HIVE_DEFAULT_PARTITION__", FRAME[50:])):
        written(tmp_path / f"of={value}", rows, files=1)
    assert System.from_parquet(tmp_path, "y ~ x + of").n_obs == 50


def test_the_index_that_pandas_wrote_labels_the_rows(tmp_path: Path) -> None:
    FRAME.set_index("date").to_parquet(tmp_path / "a.parquet")
    check_same(System.from_parquet(tmp_path, "y ~ x"), System.from_frame(FRAME.set_index("date"), "y ~ x"))
    odd = FRAME.set_index(pd.Index(range(7, 1017, 10)[:101]))
    odd[::-1].to_parquet(tmp_path / "a.parquet")
    check_same(System.from_parquet(tmp_path, "y ~ x"), System.from_frame(odd[::-1], "y ~ x"))
    FRAME[:40].to_parquet(tmp_path / "a.parquet")
    FRAME[50:].to_parquet(tmp_path / "b.parquet")
    check_same(System.from_parquet(tmp_path, "y ~ x"), System.from_frame(FRAME.drop(range(40, 50)), "y ~ x"))


def test_numbers_of_every_kind_are_numbers(tmp_path: Path) -> None:
    """Of whole numbers and booleans that miss values anywhere, all are floats, as in one frame."""
    whole = FRAME["i"].astype("Int64").where(FRAME.index != 90)
    yes = FRAME["b"].astype("boolean").where(FRAME.index != 91)
    frame = FRAME.assign(j=whole, c=yes, n=FRAME["x"].map(lambda v: None if v > 9 else round(v, 3)))
    path = written(tmp_path / "data", frame)
    plain = frame.assign(j=whole.astype("float64"), c=yes.astype("float64"))
    check_same(System.from_parquet(path, "y ~ C(j) + c + f + n"), System.from_frame(plain, "y ~ C(j) + c + f + n"))


def test_whole_numbers_and_floats_of_several_files_go_together(tmp_path: Path) -> None:
    FRAME[:50].to_parquet(tmp_path / "1.parquet")
    FRAME[50:].astype({"i": "float32"}).assign(s=FRAME["s"][50:].astype("category")).to_parquet(tmp_path / "2.parquet")
    for files in ([1, 2], [2, 1]):
        system = System.from_parquet([tmp_path / f"{i}.parquet" for i in files], "y ~ i + s")
        expected = System.from_frame(FRAME.loc[system.obs], "y ~ i + s")
        assert sorted(system.regressors) == sorted(expected.regressors)
        check_same(system, expected)


def test_dictionaries_keep_their_order(tmp_path: Path) -> None:
    FRAME.assign(k=FRAME["k"].cat.add_categories("c")).to_parquet(tmp_path / "a.parquet", row_group_size=9)
    table = pd.read_parquet(tmp_path / "a.parquet")
    check_same(System.from_parquet(tmp_path, "y ~ x + C(k)"), System.from_frame(table, "y ~ x + C(k)"))
    assert System.from_parquet(tmp_path, "y ~ k").formulas.encoding.levels["k"] == ("b", "a", "c")  # type: ignore[union-attr]


def test_files_in_memory_and_file_systems_of_arrow(tmp_path: Path) -> None:
    expected = System.from_frame(FRAME, "y ~ x + s")
    memory = fsspec.filesystem("memory")
    FRAME.to_parquet("memory://lrgls/data/a.parquet", row_group_size=20)
    try:
        check_same(System.from_parquet("memory://lrgls/data", "y ~ x + s"), expected)
        check_same(System.from_parquet("/lrgls/data/*.parquet", "y ~ x + s", filesystem=memory), expected)
    finally:
        memory.rm("/lrgls", recursive=True)
    path = written(tmp_path / "data", FRAME)
    check_same(System.from_parquet(path, "y ~ x + s", filesystem=pafs.LocalFileSystem()), expected)


# ---------------------------------------------------------------------------------------------- what follows


def test_a_fit_predicts_from_files_and_frames_also_after_reload(tmp_path: Path) -> None:
    path = written(tmp_path / "data", HOLES)
    system = System.from_parquet(path, "y + y2 ~ center(x) * s")
    fit = LowRankGLS(0, missing="em").fit(system).result_
    fit.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    shown = HOLES.loc[system.obs]
    for each in (fit, again):
        expected = each.predict(shown)
        np.testing.assert_array_equal(each.predict(system).values, expected.values)
    more = System.from_parquet(path, system.formulas)
    np.testing.assert_array_equal(x_of(more), x_of(system))
    np.testing.assert_array_equal(fit.predict(more).values, fit.predict(shown).values)
    robust = LowRankGLS(0, missing="drop").fit(system).result_
    other = System.from_parquet(path, "y + y2 ~ center(x) * s").rows
    assert rows_token(other) == rows_token(system.rows)
    assert np.isfinite(robust.with_cov("robust", system=more).std_errors).all()  # these are the rows that were fitted
    with pytest.raises(ValueError, match="2 rows of positive weight but the fit was made of 41"):
        robust.with_cov("robust", system=System.from_parquet(f"{path}/part-1.parquet", system.formulas))


@pytest.mark.usefixtures("small_stretches")
def test_predictions_may_take_stretches_in_any_order(tmp_path: Path) -> None:
    path = written(tmp_path / "data", HOLES, rows=40)
    system = System.from_parquet(path, "y + y2 ~ center(x) * s")
    fit = LowRankGLS(0, missing="em").fit(system).result_
    expected = fit.predict(HOLES.loc[system.obs])
    predicted = fit.predict(system)
    np.testing.assert_allclose(predicted.compute().values, expected.values, rtol=1e-12)
    np.testing.assert_allclose(predicted[50:].compute().values, expected[50:].values, rtol=1e-12)
    np.testing.assert_allclose(predicted[:9].compute().values, expected[:9].values, rtol=1e-12)


def test_an_object_store_holds_files() -> None:
    parts = {month: FRAME[month::2].assign(month=month) for month in (1, 2)}
    with s3_bucket("lrgls-parquet") as options:
        for month, part in parts.items():
            name = f"s3://lrgls-parquet/data/month={month}/a.parquet"
            part.drop(columns="month").to_parquet(name, storage_options=options, row_group_size=20)
        system = System.from_parquet("s3://lrgls-parquet/data", "y ~ x * s + month", storage_options=options)
        expected = System.from_frame(pd.concat(parts.values()).astype({"month": "category"}), "y ~ x * s + month")
        np.testing.assert_array_equal(x_of(system), x_of(expected))
        np.testing.assert_array_equal(y_of(system), y_of(expected))


def test_a_plan_knows_the_bytes_and_a_checkpoint_the_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "data", FRAME)
    system = System.from_parquet(path, "y + y2 ~ x + z")
    assert LowRankGLS(0).plan(system).bytes_per_pass == 101 * 5 * 8
    assert rows_token(system.rows) == rows_token(System.from_parquet(path, "y + y2 ~ x + z").rows)
    assert rows_token(system.rows) != rows_token(System.from_parquet(path, "y + y2 ~ z + x").rows)


def test_a_cluster_opens_files_in_its_workers(tmp_path: Path, client: Client) -> None:
    path = written(tmp_path / "data", HOLES)
    formulas = "y + y2 ~ center(x) * s + C(i)"
    system = System.from_parquet(path, formulas)
    found = LowRankGLS(0, missing="em").fit(system).result_
    predicted = found.predict(system).compute()
    assert client.scheduler_info()["workers"]
    with dask.config.set(scheduler="threads"):
        expected = LowRankGLS(0, missing="em").fit(System.from_parquet(path, formulas)).result_
        np.testing.assert_array_equal(predicted.values, expected.predict(HOLES.loc[system.obs]).values)
    np.testing.assert_array_equal(found.coefficients, expected.coefficients)


def test_a_dask_frame_of_the_files_gives_the_same_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "data", HOLES)
    check_same(System.from_parquet(path, "y ~ x + s"), System.from_frame(dd.read_parquet(path), "y ~ x + s"))


# ---------------------------------------------------------------------------------------------- bad input


def drifting(folder: Path, other: pd.DataFrame) -> str:
    FRAME.to_parquet(folder / "a.parquet")
    other.to_parquet(folder / "b.parquet")
    return str(folder)


TIMES = pd.date_range("2000", periods=101, tz="UTC")
DRIFTS: list[tuple[pd.DataFrame, str, type[Exception], str]] = [
    (FRAME.drop(columns="x"), "y ~ x", ValueError, r"b\.parquet has no column 'x'"),
    (
        FRAME.assign(x=FRAME["x"].astype(str)),
        "y ~ x",
        TypeError,
        r"'x' is (large_)?string in .*b\.parquet but double in .*a",
    ),
    (FRAME.assign(b=FRAME["x"]), "y ~ b", TypeError, r"'b' is double in .*b\.parquet but bool"),
    (FRAME.assign(day=TIMES), "y ~ C(day)", TypeError, r"'day' is timestamp\[.*tz=UTC\] in .*b\.parquet but timestamp"),
]


@pytest.mark.parametrize(("other", "formula", "kind", "says"), DRIFTS)
def test_files_that_differ_are_named_with_the_column(
    tmp_path: Path, other: pd.DataFrame, formula: str, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        System.from_parquet(drifting(tmp_path, other), formula)


def test_columns_that_are_not_named_may_differ(tmp_path: Path) -> None:
    path = drifting(tmp_path, FRAME.drop(columns="z"))
    assert System.from_parquet(path, "y ~ x", missing="raise").n_obs == 202


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no Parquet file at .*none"):
        System.from_parquet(tmp_path / "none", "y ~ x")
    (tmp_path / "a.parquet").write_text("nothing of the kind")
    with pytest.raises(ValueError, match=r"a\.parquet is no Parquet file"):
        System.from_parquet(tmp_path, "y ~ x")
    with pytest.raises(TypeError, match="path is a DataFrame"):
        System.from_parquet(FRAME, "y ~ x")
    with pytest.raises(ValueError, match="storage_options are for URLs"):
        System.from_parquet(tmp_path, "y ~ x", storage_options={"anon": True})
    FRAME[:0].to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="have no rows"):
        System.from_parquet(tmp_path, "y ~ x")
    pq.write_table(pa.table({"y": [1.0], "x": [[1.0]]}), tmp_path / "a.parquet")
    with pytest.raises(TypeError, match=r"'x' has type list.* in .*a\.parquet"):
        System.from_parquet(tmp_path, "y ~ x")
    FRAME.to_parquet(tmp_path / "a.parquet")
    written(tmp_path / "year=2000", FRAME)
    with pytest.raises(ValueError, match="lies in folders that name"):
        System.from_parquet(tmp_path, "y ~ x")


def test_missing_values_are_refused_by_file_and_row(tmp_path: Path) -> None:
    path = written(tmp_path / "data", HOLES)
    with pytest.raises(Exception, match=r"'y' has no value in row \d of row group \d of .*part-\d+\.parquet"):
        LowRankGLS(0).fit(System.from_parquet(path, "y ~ x", missing="raise"))


def test_a_file_that_was_written_anew_is_not_read_as_the_old_one(tmp_path: Path) -> None:
    path = written(tmp_path / "data", FRAME, files=1)
    system = System.from_parquet(path, "y ~ x")
    written(tmp_path / "data", FRAME[:50].drop(columns="x"), files=1, rows=20)
    with pytest.raises(Exception, match="was written anew: it has"):
        LowRankGLS(0).fit(system)


def test_pyarrow_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parquet, "pq", None)
    with pytest.raises(ImportError, match=r"pip install 'lrgls_dask\[parquet\]'"):
        System.from_parquet(tmp_path, "y ~ x")


def test_dates_are_categories_where_formulas_say_so(tmp_path: Path) -> None:
    days = [datetime.date(2000, 1, 1 + i % 3) for i in range(101)]
    written(tmp_path / "data", FRAME.assign(on=days))
    ours = System.from_parquet(tmp_path / "data", "y ~ C(on)")
    check_same(ours, System.from_frame(FRAME.assign(on=pd.to_datetime(pd.Series(days))), "y ~ C(on)"))


def test_what_was_read_to_make_the_system_is_in_the_plan(tmp_path: Path) -> None:
    """States of transforms, levels, ends for lags, and the look for rows that show a response; none of it again."""
    frame = mixed(101)[["y", "y2", "x", "z", "s"]]
    path = written(tmp_path / "data", frame)
    n = 8 * 101
    for formula, missing, columns in (
        ("y + y2 ~ x + z", "raise", 0),
        ("y + y2 ~ center(x) + bs(z, df=4)", "raise", 2),
        ("y + y2 ~ center(x) + s", "raise", 2),
        ("y + y2 ~ lag(x, 1) + s", "raise", 2),
        ("y + y2 ~ scale(x) + z", "drop", 1 + 3),
    ):
        with counted_groups() as reads:
            system = System.from_parquet(path, formula, missing=missing)
            whole = sum(len(names) for _, _, names in reads) - len(system.formulas.encoding.formulas.regressor_columns)
        plan = LowRankGLS(0).plan(system)
        assert plan.made_bytes == n * columns
        assert whole == columns * 15  # row groups, the sample apart
        assert ("of columns to make the system" in str(plan)) == (columns > 0)
    frames = System.from_frame(frame, "y ~ center(x)"), System.from_frame(dd.from_pandas(frame, 3), "y ~ center(x)")
    assert [LowRankGLS(0).plan(each).made_bytes for each in frames] == [0, n * (2 + 2)]
