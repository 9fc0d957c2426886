"""Tables of text, and files of one equation each, made Parquet aside: what columns become, order, pieces, going on."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from lrgls_dask.data import tablefiles, tablesaside
from lrgls_dask.data.tablefiles import TableFiles
from lrgls_dask.data.tablesaside import Aside, NotSorted, as_parquet, merged_by_obs

RNG = np.random.default_rng(2)
SOME = 1_500  # rows, of which the first thousand say what columns are
LABELS: dict[str, Any] = {
    "dates": pd.date_range("1990-03-01", periods=SOME).to_numpy(),
    "whole numbers": np.arange(7, 7 + SOME),
    "words": np.array([f"w{i:05d}" for i in range(SOME)], dtype=object),
}


def text(*paths: Path, keys: tuple[str, ...] = ("obs",), missing: tuple[str, ...] = ()) -> TableFiles:
    return TableFiles(tuple(map(str, paths)), "csv", keys, missing)


def read(files: TableFiles, folder: Path, **more: Any) -> pd.DataFrame:
    """What was made of the files, in one frame."""
    made = Path(as_parquet(files, folder, **more))
    return pd.concat([pd.read_parquet(path) for path in sorted(made.rglob("*.parquet"))], ignore_index=True)


def table(labels: str, n_rows: int = SOME) -> pd.DataFrame:
    rng = np.random.default_rng(n_rows)
    made = pd.DataFrame({"obs": LABELS[labels][:n_rows], "x": rng.normal(size=n_rows), "n": rng.integers(0, 9, n_rows)})
    return made.assign(s=rng.choice(["u", "v, w", "two\nlines"], n_rows), t=rng.random(n_rows) < 0.5)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv"])
@pytest.mark.parametrize("block", [1_000, 4 * 2**20])
def test_text_is_what_pandas_reads(labels, ending, block, tmp_path, monkeypatch):
    monkeypatch.setattr(tablefiles.TableFiles.pieces, "__defaults__", (None, block))
    whole = table(labels)
    for i in range(2):
        whole[i * 750 : (i + 1) * 750].to_csv(
            tmp_path / f"{i}.{ending}", index=False, sep="\t" if ending == "tsv" else ","
        )
    found = read(text(tmp_path / f"0.{ending}", tmp_path / f"1.{ending}"), tmp_path / "made")
    wanted = whole.astype({"n": "float64"})  # where one of them misses something later
    assert_frame_equal(found.astype(wanted.dtypes), wanted)
    assert found["n"].dtype == "float64" and found["t"].dtype == "bool"
    assert found["obs"].dtype.kind == wanted["obs"].dtype.kind or labels == "words"


def test_what_stands_for_missing_values(tmp_path):
    frame = pd.DataFrame({"obs": [1, 2, 3, 4], "x": [1, -9, 3, 4], "z": [".", "2.5", "-9.0", ""], "s": list("a.b.")})
    frame.to_csv(tmp_path / "t.csv", index=False)
    wanted = frame.assign(x=[1, np.nan, 3, 4], z=[np.nan, 2.5, np.nan, np.nan], s=["a", np.nan, "b", np.nan])
    found = read(text(tmp_path / "t.csv", missing=("-9", ".")), tmp_path / "made")
    assert_frame_equal(found.astype({"s": object}), wanted.astype({"s": object}), check_dtype=False)
    stored = frame.assign(z=[1, 2, -9, 4], s=pd.Categorical(list("a.b."), categories=["b", ".", "a"]))
    stored.index = pd.date_range("2001", periods=4).to_numpy()
    stored.to_parquet(tmp_path / "t.parquet")
    files = TableFiles((str(tmp_path / "t.parquet"),), "parquet", ("obs",), ("-9", "."))
    as_parquet(files, tmp_path / "again")
    found = pd.read_parquet(next((tmp_path / "again").rglob("*.parquet")))
    assert found.index.equals(stored.index) and found["obs"].tolist() == [1, 2, 3, 4]
    assert_frame_equal(found[["x", "z"]], stored[["x", "z"]].replace(-9, np.nan).astype("float64"), check_dtype=False)
    assert found["s"].cat.categories.tolist() == ["b", ".", "a"] and found["s"].isna().tolist() == [0, 1, 0, 1]


REFUSED = {
    "a word among numbers": ({"x": "n/k"}, r"column 'x' of .*t.csv holds 'n/k' where its first rows hold numbers"),
    "a word among labels": ({"obs": "q9"}, r"column 'obs' of .*t.csv holds 'q9' where its first rows hold whole"),
    "a date that is none": ({"day": "31.12.01"}, r"column 'day' holds dates in the first rows of .*t.csv, but not"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_first_rows_did_not_announce(what, tmp_path):
    frame = table("whole numbers").assign(day=LABELS["dates"].astype("datetime64[D]").astype(str)).astype({"obs": str})
    change, says = REFUSED[what]
    ((name, value),) = change.items()
    frame = frame.astype({name: str})
    frame.loc[1_200, name] = value
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match=says):
        read(text(tmp_path / "t.csv", keys=("obs", "day")), tmp_path / "made")
    if name == "x":
        found = read(text(tmp_path / "t.csv", keys=("obs", "day"), missing=("n/k",)), tmp_path / "again")
        assert np.flatnonzero(found["x"].isna()).tolist() == [1_200]


def test_lines_that_are_too_long(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(ValueError, match=r"t.csv cannot be read: .*Expected 2 fields in line 3, saw 3"):
        list(text(tmp_path / "t.csv").pieces(str(tmp_path / "t.csv")))
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 1_200 + "1,2,3\n")
    with pytest.raises(ValueError, match=r"t.csv cannot be read: .*Expected 2 columns, got 3"):
        list(text(tmp_path / "t.csv").pieces(str(tmp_path / "t.csv")))


def test_a_file_of_names_alone(tmp_path):
    (tmp_path / "a.csv").write_text("obs,b\n2001-01-01,2\n")
    (tmp_path / "bare.csv").write_text("obs,b\n")
    files = text(tmp_path / "a.csv", tmp_path / "bare.csv")
    some, none = (list(files.pieces(path)) for path in files.paths)
    assert [*map(len, some), *map(len, none)] == [1, 0] and some[0].schema == none[0].schema


def test_row_groups_are_small_and_files_that_are_made_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tablesaside, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(tablefiles.TableFiles.pieces, "__defaults__", (None, 2_000))
    for i in range(3):
        table("dates").to_csv(tmp_path / f"{i}.csv", index=False)
    files = text(*(tmp_path / f"{i}.csv" for i in range(3)))
    pieces = TableFiles.pieces
    begun: list[str] = []

    def dies(self: TableFiles, path: str, *args: Any) -> Iterator[Any]:
        begun.append(path)
        for i, piece in enumerate(pieces(self, path, *args)):
            if len(begun) == 2 and i == 3:
                raise KeyboardInterrupt
            yield piece

    monkeypatch.setattr(TableFiles, "pieces", dies)
    with pytest.raises(KeyboardInterrupt):
        as_parquet(files, tmp_path / "made")
    assert len(list((tmp_path / "made").rglob("*.parquet"))) == 1
    as_parquet(files, tmp_path / "made")
    assert [Path(path).name for path in begun] == ["0.csv", "1.csv", "1.csv", "2.csv"]
    footer = pq.read_metadata(next((tmp_path / "made").rglob("*.parquet")))
    lengths = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    assert sum(lengths) == SOME and len(lengths) > 3 and max(lengths) < SOME // 2


# ---------------------------------------------------------------------------------------------- one file an equation


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("at_once", [2, 3, 64])
def test_files_are_merged_in_the_order_of_rows(labels, kind, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(tablesaside, "MERGED_AT_ONCE", at_once)
    monkeypatch.setattr(tablesaside, "LEAST_BLOCK", 500)
    monkeypatch.setattr(tablesaside, "TEXT_BYTES", 500)
    names, parts, paths = [f"e{j}" for j in range(7)], [], []
    for j, name in enumerate(names):
        part = table(labels, 40 + 9 * j).drop(columns=["s", "t"])
        part = part.sample(frac=0.7, random_state=j).sort_index() if j % 2 else part[5 * j :]
        if j == 3:
            part = part[:0] if kind == "parquet" else part[:1]
        paths.append(str(tmp_path / f"{name}.{kind}"))
        part.to_csv(paths[-1], index=False) if kind == "csv" else part.to_parquet(paths[-1], row_group_size=11)
        parts.append(part.assign(firm=name))
    open_now, most = set(), [0]
    source_load = tablesaside._Source.load

    def load(self: Any) -> bool:
        more = source_load(self)
        (open_now.add if more else open_now.discard)(id(self))
        most[0] = max(most[0], len(open_now))
        return more

    monkeypatch.setattr(tablesaside._Source, "load", load)
    files = TableFiles(tuple(paths), kind, ("obs",), ())
    made = merged_by_obs(files, tmp_path / "made", "obs", ("firm", names))
    wanted = pd.concat(parts).sort_values(["obs", "firm"], kind="stable", ignore_index=True)
    found = pd.read_parquet(made)
    assert found["obs"].is_monotonic_increasing and most[0] <= min(at_once, 7)
    found = found.sort_values(["obs", "firm"], kind="stable", ignore_index=True)[wanted.columns]
    assert_frame_equal(found, wanted, check_dtype=False)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["merged.parquet"]


@pytest.mark.parametrize("fault", ["order within a piece", "order between pieces", "no label"])
def test_files_that_are_not_sorted_are_told(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(tablesaside, "LEAST_BLOCK", 700)
    monkeypatch.setattr(tablesaside, "TEXT_BYTES", 100)
    part = table("whole numbers", 200)[["obs", "x"]].astype({"obs": "float64"})
    part.loc[60, "obs"] = {"order within a piece": 2.0, "order between pieces": 5_000.0, "no label": np.nan}[fault]
    part.to_parquet(tmp_path / "a.parquet")
    part[:50].to_parquet(tmp_path / "b.parquet")
    files = TableFiles(tuple(str(tmp_path / f"{name}.parquet") for name in "ba"), "parquet", ("obs",), ())
    with pytest.raises(NotSorted, match=r"a.parquet has rows without" if fault == "no label" else r"a.parquet is not"):
        merged_by_obs(files, tmp_path / "made", "obs", ("firm", ["b", "a"]))


def test_a_file_without_the_column_is_named(tmp_path):
    pa_table = pa.table({"obs": [1, 2], "x": [1.0, 2.0]})
    pq.write_table(pa_table, tmp_path / "a.parquet")
    pq.write_table(pa_table.rename_columns(["ob", "x"]), tmp_path / "b.parquet")
    files = TableFiles(tuple(str(tmp_path / f"{name}.parquet") for name in "ab"), "parquet", ("obs",), ())
    with pytest.raises(ValueError, match=r"b.parquet has no column 'obs'; did you mean 'ob'\?"):
        merged_by_obs(files, tmp_path / "made", "obs", ("firm", ["a", "b"]))


def test_a_folder_aside_is_of_one_import(tmp_path):
    one = Aside(str(tmp_path / "s.zarr"), "this")
    (one.folder() / "kept").write_text("rows")
    assert (one.folder() / "kept").exists() and not (Aside(one.path, "another").folder() / "kept").exists()
    one.remove()
    assert not list(tmp_path.iterdir())
    remote = Aside("s3://bucket/s.zarr", f"test-{RNG.integers(10**12)}")
    assert remote.folder().is_dir() and not Path("s3:").exists()
    remote.remove()


def test_packed_text_is_unpacked_as_it_is_read(tmp_path):
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("obs,x\n" + "".join(f"{i},{i / 3}\n" for i in range(50_000)))
    pieces = list(text(tmp_path / "t.csv.gz").pieces(str(tmp_path / "t.csv.gz"), None, 2**16))
    assert sum(map(len, pieces)) == 50_000 and max(map(len, pieces)) < 10_000
