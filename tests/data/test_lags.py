"""Lags of wide rows that are read in pieces are those of the frame in memory, whatever the pieces."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client

from lrgls_dask import Fit, LowRankGLS, System
from lrgls_dask.data import parquetrows
from support.frames import check_same, mixed, x_of
from support.parquet import counted_groups, written

FRAME = mixed().drop(columns=["day", "my col"])
HOLES = FRAME.assign(
    x=FRAME["x"].where(FRAME.index % 17 != 3), y=FRAME["y"].where(FRAME.index % 11 != 5), y2=FRAME["y2"]
)
FORMULAS = {
    "one": "y ~ lag(x)",
    "of several columns": "y + y2 ~ lag(x, 2) + lag(i, 1) + z",
    "ahead": "y + y2 ~ lag(x, -2) + lag(z, 3)",
    "of each other": "y ~ lag(lag(x, 1), 3) + lag(lag(z, 2), -1)",
    "of what is made of columns": "y ~ lag(np.log(z), 1) + I(x * lag(z, 2)) + x:lag(z, 1)",
    "of categories": "y ~ lag(k, 1) + C(s) + lag(s, 2)",
    "of states": "y ~ lag(center(x), 1) + lag(scale(z), 2)",
    "of responses": "y ~ lag(y, 1) + lag(y2, 2)",
    "of a response itself": "I(y - lag(y, 1)) ~ x",
    "far": "y ~ lag(x, 60)",
    "per equation": {"y": "lag(x, 1) + z", "y2": "lag(x, 2)"},
}
GAPS = {
    "no label": None,
    "whole numbers": np.r_[0:50, 52:103],
    "with gaps": np.r_[0:20, 25:60, 62:108],
    "every other": 2 * np.r_[0:30, 31:102],
    "months": pd.date_range("1990-01-01", periods=103, freq="MS").delete([40, 41]),
    "days": pd.date_range("1990-01-01", periods=101, freq="B"),
}


TURNS = [(named, ("no label", "with gaps")[i % 2]) for i, named in enumerate(FORMULAS)]


def labelled(gaps: str, frame: pd.DataFrame = HOLES) -> pd.DataFrame:
    labels = GAPS[gaps]
    return frame if labels is None else frame.assign(t=labels).set_index("t")


@pytest.mark.parametrize(("named", "gaps"), TURNS)
def test_of_dask_frames(named: str, gaps: str) -> None:
    frame = labelled(gaps)
    wanted = System.from_frame(frame, FORMULAS[named])
    check_same(System.from_frame(dd.from_pandas(frame, npartitions=7), FORMULAS[named]), wanted)


def test_of_partitions_of_one_row() -> None:
    pieces = dd.from_pandas(FRAME[:30], npartitions=30)
    check_same(System.from_frame(pieces, "y ~ lag(x, 3)"), System.from_frame(FRAME[:30], "y ~ lag(x, 3)"))


@pytest.mark.parametrize(("named", "gaps"), TURNS)
def test_of_files(named: str, gaps: str, tmp_path: Path) -> None:
    frame = labelled(gaps)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=17)
    check_same(System.from_parquet(tmp_path / "a.parquet", FORMULAS[named]), System.from_frame(frame, FORMULAS[named]))


@pytest.mark.parametrize("missing", ["drop", "raise"])
def test_of_row_groups_that_are_read_in_stretches(
    missing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquetrows, "WHOLE_BYTES", 900)
    monkeypatch.setattr(parquetrows, "STRETCH_BYTES", 500)
    formula = "y + y2 ~ lag(x, 3) + lag(k, -1)"
    frame = labelled("no label", HOLES if missing == "drop" else FRAME)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=40)
    found = System.from_parquet(tmp_path / "a.parquet", formula, missing=missing)
    part = found.rows.x[0]
    assert len(part.runs or ()) == 3
    assert len(part.row_chunks or ()) > 8
    if missing == "drop":
        check_same(found, System.from_frame(frame, formula))
    else:
        with pytest.raises(ValueError, match=r"has no value in row (0 of row group 0|20 of row group 2) of"):
            x_of(found)


@pytest.mark.parametrize("gaps", GAPS)
def test_nothing_is_carried_over_a_gap(gaps: str, tmp_path: Path) -> None:
    frame = labelled(gaps)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=14)
    wanted = System.from_frame(frame, "y + y2 ~ lag(x, 1) + lag(z, -2)")
    pieces = dd.from_pandas(frame, npartitions=5)
    check_same(System.from_frame(pieces, "y + y2 ~ lag(x, 1) + lag(z, -2)"), wanted)
    check_same(System.from_parquet(tmp_path / "a.parquet", "y + y2 ~ lag(x, 1) + lag(z, -2)"), wanted)


def test_by_hand(tmp_path: Path) -> None:
    path = written(tmp_path / "rows", FRAME[["y", "x"]], files=3, rows=7)
    found = x_of(System.from_parquet(path, "y ~ lag(x, 3)"))
    np.testing.assert_array_equal(found[:, 1], FRAME["x"].shift(3).iloc[3:])
    with_holes = written(tmp_path / "holes", FRAME.assign(x=FRAME["x"].where(FRAME.index != 50)), files=2)
    kept = FRAME["x"].where(FRAME.index != 50).shift(1).dropna()
    np.testing.assert_array_equal(x_of(System.from_parquet(with_holes, "y ~ lag(x)"))[:, 1], kept)


def test_of_relations_readers_and_folders(tmp_path: Path) -> None:
    plain = HOLES[["y", "y2", "x", "z", "i"]]
    wanted = System.from_frame(plain, FORMULAS["of several columns"])
    table = pa.Table.from_pandas(plain, preserve_index=False)
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=7))
    connection = duckdb.connect()
    connection.register("t", table)
    for given in (reader, connection.sql("from t")):
        made = System.from_frame(given, FORMULAS["of several columns"])
        np.testing.assert_array_equal(x_of(made), x_of(wanted))
    for year, part in plain.groupby(np.arange(101) // 40):
        (tmp_path / f"year={year}").mkdir()
        part.to_parquet(tmp_path / f"year={year}" / "a.parquet", index=False)
    made = System.from_parquet(tmp_path, f"{FORMULAS['of several columns']} + year")
    np.testing.assert_array_equal(x_of(made)[:, :4], x_of(wanted))


def test_an_empty_partition_is_no_gap() -> None:
    pieces = [HOLES[:40], HOLES[:0], HOLES[40:41], HOLES[:0], HOLES[41:]]
    frame = dd.from_map(lambda i: pieces[i], range(5), meta=HOLES[:0])
    check_same(System.from_frame(frame, "y ~ lag(x, 3)"), System.from_frame(HOLES, "y ~ lag(x, 3)"))


def test_a_pass_reads_each_row_group_once(tmp_path: Path) -> None:
    """The look before reads the columns of lags for the ends of row groups."""
    path = written(tmp_path / "rows", FRAME, files=2, rows=17)
    with counted_groups() as reads:
        system = System.from_parquet(path, "y + y2 ~ lag(x, 1) + z + C(k)", missing="raise", obs=None)
        ends = Counter((name, group) for name, group, columns in reads if columns == ("x",))
        assert set(ends.values()) == {1}
        assert len(ends) == 6
        reads.clear()
    with counted_groups() as reads:
        system = System.from_parquet(path, "y + y2 ~ lag(x, 1) + z + C(k)")
        reads.clear()
        LowRankGLS(0, missing="drop").fit(system)
    assert set(Counter((name, group) for name, group, _ in reads).values()) == {1}
    assert len(reads) == 6


def test_what_is_missing_is_named_where_it_is(tmp_path: Path) -> None:
    frame = FRAME.assign(z=FRAME["z"].where(FRAME.index != 60))
    path = written(tmp_path / "rows", frame, files=2, rows=17)
    system = System.from_parquet(path, "y ~ I(np.where(lag(x, 1) > 9, 1, 2)) + z", missing="raise")
    with pytest.raises(ValueError, match=r"'z' has no value in row 9 of row group 0 of .*part-10"):
        x_of(system)


def test_rows_out_of_order_are_refused() -> None:
    backwards = FRAME.iloc[::-1]
    pieces = dd.concat([dd.from_pandas(backwards[:50], 2, sort=False), dd.from_pandas(backwards[50:], 2, sort=False)])
    with pytest.raises(ValueError, match="in the order of their labels"):
        System.from_frame(pieces, "y ~ lag(x, 1)")


def test_predictions_of_pieces(tmp_path: Path) -> None:
    frame = labelled("with gaps", FRAME)
    fit = LowRankGLS(0).fit(System.from_frame(frame, FORMULAS["of states"])).result_
    fit.to_zarr(tmp_path / "fit.zarr")
    wanted = fit.predict(frame)
    assert int(np.isnan(wanted).sum()) > 2  # rows whose neighbour is not there
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(opened.predict(dd.from_pandas(frame, npartitions=6)), wanted)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_a_cluster_gives_the_same_bits(engine: Any, client: Client, tmp_path: Path) -> None:
    path = written(tmp_path / "rows", HOLES, files=4, rows=9)
    given = [System.from_parquet(path, "y2 ~ lag(x, 2) + lag(z, -1)")]
    given.append(System.from_frame(dd.from_pandas(HOLES, npartitions=12), "y2 ~ lag(x, 2) + lag(z, -1)"))
    found = [LowRankGLS(0, engine=engine, missing="drop").fit(each).result_.params.values for each in given]
    assert len(client.scheduler_info()["workers"]) == 2
    wanted = LowRankGLS(0, missing="drop").fit(System.from_frame(HOLES, "y2 ~ lag(x, 2) + lag(z, -1)")).result_
    for each in found:
        np.testing.assert_allclose(each, wanted.params, rtol=1e-10)
