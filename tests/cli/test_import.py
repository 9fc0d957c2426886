"""`lrgls import`: what lies in files, as a store, whatever they are; sentinels; going on after a kill."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dask.array as da
import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from lrgls_dask import System
from lrgls_dask.cli import main
from lrgls_dask.data import storepieces
from lrgls_dask.data.sentinels import suspicious_constants
from support.buckets import s3_bucket
from support.meaning import stack

pytestmark = pytest.mark.usefixtures("in_tmp_path")

N = 60
BUCKETS = itertools.count()
RNG = np.random.default_rng(4)
TABLE = pd.DataFrame(
    {
        "date": pd.date_range("2001-01-01", periods=N),
        "a": RNG.normal(size=N),
        "b": RNG.normal(size=N),
        "x": RNG.normal(size=N),
        "z": RNG.normal(size=N),
    }
)
FORMULA = ["--formula", "a + b ~ x + z", "--obs", "date"]


def expected() -> System:
    return System.from_frame(TABLE, "a + b ~ x + z", obs="date")


def assert_same(found: System, wanted: System) -> None:
    assert found.equations == wanted.equations and found.regressors == wanted.regressors
    assert_array_equal(stack(found.rows.y), stack(wanted.rows.y))
    assert_array_equal(stack(found.rows.x), stack(wanted.rows.x))
    assert found.obs.tolist() == wanted.obs.tolist()


def as_arrays(table: pd.DataFrame = TABLE) -> xr.Dataset:
    y = table[["a", "b"]].to_numpy()
    ds = xr.Dataset({"ret": (("date", "firm"), y), "x": ("date", table["x"]), "z": ("date", table["z"])})
    return ds.assign_coords(date=TABLE["date"].to_numpy(), firm=["a", "b"])


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "several csv", "folder of parquet"])
def test_tables_of_every_kind(kind, capsys):
    source = f"t.{kind}"
    if kind == "several csv":
        TABLE[:20].to_csv("t1.csv", index=False)
        TABLE[20:].to_csv("t2.csv", index=False)
        source = "t*.csv"
    elif kind == "folder of parquet":
        Path("folder").mkdir()
        TABLE[:20].to_parquet("folder/p1.parquet")
        TABLE[20:].to_parquet("folder/p2.parquet")
        source = "folder"
    elif kind == "parquet":
        TABLE.to_parquet(source, row_group_size=25)
    else:
        TABLE.to_csv(source, index=False)
    assert main(["import", source, "s.zarr", *FORMULA]) == 0, capsys.readouterr().err
    assert_same(System.from_zarr("s.zarr"), expected())
    assert System.from_zarr("s.zarr").formulas is not None
    assert "s.zarr: 60 rows, 2 equations, 3 regressors" in capsys.readouterr().out
    assert main(["import", source, "s.zarr", *FORMULA]) == 1
    assert "s.zarr exists" in capsys.readouterr().err
    assert main(["import", source, "s.zarr", "--overwrite", *FORMULA]) == 0


@pytest.mark.parametrize("kind", ["nc", "zarr", "group"])
def test_arrays_of_every_kind(kind, capsys):
    words = ["--y", "ret", "--x", "x,z", "--obs", "date"]
    if kind == "nc":
        as_arrays().to_netcdf("d.nc")
    elif kind == "zarr":
        as_arrays().chunk(date=7).to_zarr("d.zarr", zarr_format=2)
    else:
        words = []
        expected().to_zarr("d.zarr", row_chunk=7)
    assert main(["import", f"d.{'nc' if kind == 'nc' else 'zarr'}", "s.zarr", "--row-chunk", "20", *words]) == 0
    found = System.from_zarr("s.zarr")
    assert_array_equal(stack(found.rows.y), TABLE[["a", "b"]])
    assert_array_equal(stack(found.rows.x)[:, -2:], TABLE[["x", "z"]])
    assert found.obs.equals(pd.DatetimeIndex(TABLE["date"])) and found.rows.y[0].row_chunks == (20, 20, 20)


@contextmanager
def served(where: str) -> Iterator[str]:
    """The URL of a folder that has the files of this one: of a server on loopback, or in memory."""
    if where == "memory":
        memory = fsspec.filesystem("memory")
        for path in Path().rglob("*"):
            if path.is_file():
                memory.pipe(f"/import/{path}", path.read_bytes())
        yield "memory://import"
        memory.rm("/import", recursive=True)
        return
    handler = partial(Quiet, directory=str(Path.cwd()))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("where", ["memory", "http"])
@pytest.mark.parametrize("name", ["d.nc", "d.zarr", "t.csv", "t.csv.gz"])
def test_sources_at_urls(where, name, capsys):
    as_arrays().to_netcdf("d.nc")
    as_arrays().chunk(date=20).to_zarr("d.zarr", zarr_format=2, consolidated=True)
    TABLE.to_csv("t.csv", index=False)
    TABLE.to_csv("t.csv.gz", index=False)
    words = FORMULA if name.startswith("t") else ["--y", "ret", "--x", "x,z", "--obs", "date"]
    assert main(["import", name, "here.zarr", *words]) == 0
    with served(where) as url:
        assert main(["import", f"{url}/{name}", "s.zarr", *words]) == 0, capsys.readouterr().err
    assert_same(System.from_zarr("s.zarr"), System.from_zarr("here.zarr"))
    assert not [path.name for path in Path().iterdir() if path.name.startswith(".")]


def test_a_file_for_each_equation():
    Path("firms").mkdir()
    long = []
    for firm, rows in (("it", slice(0, 50)), ("oil", slice(10, N))):
        part = TABLE[["date", "a", "x"]][rows]
        part.to_csv(f"firms/{firm}.csv", index=False)
        long.append(part.assign(equation=firm))
    words = ["--formula", "a ~ x", "--obs", "date", "--one-file-an-equation"]
    assert main(["import", "firms", "s.zarr", *words]) == 0
    wanted = System.from_frame(pd.concat(long), "a ~ x", obs="date", equation="equation")
    assert_same(System.from_zarr("s.zarr"), wanted)
    assert System.from_zarr("s.zarr").equations == ("it", "oil") and np.isnan(stack(wanted.rows.y)).sum() == 20


def with_sentinels() -> pd.DataFrame:
    marked = TABLE.copy()
    marked.loc[[3, 9, 30], "a"] = -999.0
    marked.loc[[5, 6], "x"] = -999.0
    return marked


@pytest.mark.parametrize("kind", ["csv", "parquet", "nc"])
def test_sentinels_are_missing_values_and_others_are_reported(kind, capsys):
    marked, words = with_sentinels(), FORMULA
    if kind == "nc":
        as_arrays(marked).to_netcdf("t.nc")
        words = ["--y", "ret", "--x", "x,z"]
    elif kind == "csv":
        marked.to_csv("t.csv", index=False)
    else:
        marked.to_parquet("t.parquet")
    assert main(["import", f"t.{kind}", "s.zarr", *words]) == 0
    said = capsys.readouterr().err
    assert "regressor 'x' is -999 in 2 rows, far from the others (" in said
    assert "equation 'a' is -999 in 3 rows" in said and said.count("warning") == 2
    assert main(["import", f"t.{kind}", "s.zarr", "--missing-value", "-999", "--overwrite", *words]) == 0
    assert not capsys.readouterr().err
    found = System.from_zarr("s.zarr")
    seen = pd.Series(stack(found.rows.y)[:, 0], index=found.obs).reindex(TABLE["date"])
    gone = [3, 9, 30] if kind == "nc" else [3, 5, 6, 9, 30]  # a formula leaves out rows that miss their regressors
    assert np.flatnonzero(seen.isna()).tolist() == gone


def test_texts_may_stand_for_missing_values():
    text = TABLE.astype({"a": str})
    text.loc[[2, 8], "a"] = "."
    text.to_csv("t.csv", index=False)
    assert main(["import", "t.csv", "s.zarr", "--missing-value", ".", *FORMULA]) == 0
    assert np.flatnonzero(np.isnan(stack(System.from_zarr("s.zarr").rows.y)[:, 0])).tolist() == [2, 8]


@pytest.mark.parametrize("pieces_of", [7, N])
def test_zeros_before_the_first_value_are_missing(pieces_of):
    padded = TABLE.copy()
    padded.loc[:14, "a"] = 0.0
    padded.loc[20, "a"] = padded.loc[3, "b"] = 0.0  # later ones are values
    as_arrays(padded).chunk(date=pieces_of).to_zarr("d.zarr", zarr_format=2)
    words = ["--y", "ret", "--x", "x,z", "--obs", "date", "--zero-before-first"]
    assert main(["import", "d.zarr", "s.zarr", *words]) == 0
    wanted = padded[["a", "b"]].to_numpy().copy()
    wanted[:15, 0] = np.nan
    assert_array_equal(stack(System.from_zarr("s.zarr").rows.y), wanted)


COLUMNS = {
    "a sentinel": ([1.0, 2, 3, -999, 2.5, -999], [(-999.0, 2, 1.0, 3.0)]),
    "a large one": ([0.1, 0.2, 1e20, 0.3, 1e20, 0.15], [(1e20, 2, 0.1, 0.3)]),
    "one alone": ([1.0, 2, 3, -999, 2.5, 2], []),
    "zeros and ones": ([0.0, 1, 0, 1, 1, 0], []),
    "a few values": ([0.0, 1, 2, 0, 1, 2], []),
    "a customary one among wide ones": ([-99.0, 200, -99, -50, 0, 100], [(-99.0, 2, -50.0, 200.0)]),
    "a constant": ([1.0] * 6, []),
    "nothing": ([np.nan] * 6, []),
    "holes": ([np.nan, 5, 6, -9, -9, 5.5], [(-9.0, 2, 5.0, 6.0)]),
}


@pytest.mark.parametrize("what", COLUMNS)
@pytest.mark.parametrize("rows", [1, 2, 4, 6])
def test_suspicious_constants(what, rows):
    values, found = COLUMNS[what]
    y = da.from_array(np.column_stack([np.arange(6.0), values]), chunks=(rows, 1))
    system = System.from_arrays(y, np.ones((6, 1)))
    said = suspicious_constants(system)
    assert [(each.value, each.count, each.low, each.high) for each in said] == found
    assert all((each.array, each.column) == ("Y", 1) for each in said)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_import_that_was_killed_goes_on(after, monkeypatch, capsys):
    TABLE.to_csv("t.csv", index=False)
    monkeypatch.setattr(storepieces, "PIECE_BYTES", 8 * 5 * 20)
    written: list[int] = []
    append = storepieces.append_system

    def dies(piece: Any, *args: Any, **options: Any) -> None:
        written.append(piece.n_obs)
        if len(written) == after:
            raise Killed
        append(piece, *args, **options)

    words = ["import", "t.csv", "s.zarr", "--row-chunk", "10", *FORMULA]
    monkeypatch.setattr(storepieces, "append_system", dies)
    if after < 3:
        with pytest.raises(Killed):
            main(words)
        assert not Path("s.zarr").exists()
        capsys.readouterr()
        assert main([*words, "--plan"]) == 0
        assert f"resumed after {20 * after} rows" in capsys.readouterr().out
    written.clear()
    monkeypatch.setattr(
        storepieces, "append_system", lambda piece, *a, **o: (written.append(1), append(piece, *a, **o))
    )
    assert main(words) == 0
    assert len(written) == (3 - after if after < 3 else 2)
    assert_same(System.from_zarr("s.zarr"), expected())
    assert [path.name for path in Path().iterdir() if "zarr" in path.name] == ["s.zarr"]


def test_an_import_that_was_killed_when_all_was_written_leaves_nothing_unfinished(monkeypatch):
    TABLE.to_csv("t.csv", index=False)

    mark = storepieces._mark

    def dies(path: str, made_of: str | None) -> None:
        if made_of is None:
            raise Killed
        mark(path, made_of)

    words = ["import", "t.csv", "s.zarr", "--row-chunk", "10", *FORMULA]
    with monkeypatch.context() as patched:
        patched.setattr(storepieces, "_mark", dies)
        with pytest.raises(Killed):
            main(words)
    for name in ("zarr", "Y/zarr"):  # as zarr names what it was writing
        (Path(".s.zarr.importing") / f"{name}.{'0a' * 16}.partial").write_bytes(b"half")
    assert main(words) == 0
    assert_same(System.from_zarr("s.zarr"), expected())
    assert list(Path().rglob("*.partial")) == []


def test_another_import_to_the_same_place_begins_anew(monkeypatch):
    TABLE.to_csv("t.csv", index=False)
    monkeypatch.setattr(storepieces, "PIECE_BYTES", 8 * 5 * 20)

    def dies(*args: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(storepieces, "append_system", dies)
        with pytest.raises(Killed):
            main(["import", "t.csv", "s.zarr", "--row-chunk", "10", *FORMULA])
    words = ["--formula", "a ~ x", "--obs", "date"]
    assert main(["import", "t.csv", "s.zarr", "--row-chunk", "10", *words]) == 0
    assert System.from_zarr("s.zarr").equations == ("a",) and System.from_zarr("s.zarr").n_obs == N


def test_the_plan_writes_nothing(capsys):
    TABLE.to_csv("t.csv", index=False)
    assert main(["import", "t.csv", "s.zarr", "--plan", *FORMULA]) == 0
    said = capsys.readouterr().out
    assert "Plan: a store of 60 rows; 2 equations, 3 distinct regressors" in said and "memory  peak" in said
    assert not Path("s.zarr").exists()


REFUSED = {
    "nothing there": (["none.csv", "s.zarr", *FORMULA], "nothing is at none.csv"),
    "no formula": (["t.csv", "s.zarr"], "--formula must say"),
    "no variables": (["d.nc", "s.zarr"], "give --y and --x"),
    "names of some": (["t.csv", "s.zarr", "--formula", "a: a ~ x", "--formula", "b ~ x"], "either every --formula"),
    "no obs": (["t.csv", "s.zarr", "--formula", "a ~ x", "--one-file-an-equation"], "needs --obs"),
    "kinds": (["*.*", "s.zarr", *FORMULA], "are of several kinds"),
    "over the source": (["t.csv", "t.csv", "--overwrite", *FORMULA], "is read for what would be written"),
    "append by another formula": (["t.csv", "p.zarr", "--append", *FORMULA], "but --formula is of a new one"),
    "append and overwrite": (["t.csv", "p.zarr", "--append", "--overwrite"], "but --overwrite replaces the store"),
    "append to another": (["t.csv", "p.zarr", "--append"], "p.zarr was not made by formulas"),
    "append to nothing": (["t.csv", "none.zarr", "--append"], "no zarr store at none.zarr"),
    "a small limit": (["t.csv", "s.zarr", "--memory-limit", "1MB", *FORMULA], "the limit is"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_imported_is_said(what, capsys):
    words, message = REFUSED[what]
    TABLE.to_csv("t.csv", index=False)
    as_arrays().to_netcdf("d.nc")
    System.from_arrays(TABLE[["a", "b"]], TABLE[["x"]]).to_zarr("p.zarr")
    assert main(["import", *words]) == 1
    assert message in capsys.readouterr().err
    assert not Path("s.zarr").exists()


def test_a_bar_is_shown(capsys):
    TABLE.to_csv("t.csv", index=False)
    assert main(["import", "t.csv", "s.zarr", "--progress", *FORMULA]) == 0
    assert "import: 100%" in capsys.readouterr().err


def test_a_long_table_of_text_goes_on_in_the_order_of_rows():
    long = TABLE.melt(["date", "x"], ["a", "b"], "firm", "y").sample(frac=0.9, random_state=1)
    long.to_csv("l.csv", index=False)
    words = ["--formula", "y ~ x", "--obs", "date", "--equation", "firm"]
    assert main(["import", "l.csv", "s.zarr", *words]) == 0
    assert_same(System.from_zarr("s.zarr"), System.from_frame(long, "y ~ x", obs="date", equation="firm"))
    assert [path.name for path in Path().iterdir() if "zarr" in path.name] == ["s.zarr"]


def test_folders_that_name_a_column_are_one():
    for month, part in TABLE.groupby(TABLE["date"].dt.month):
        Path(f"t/month={month}").mkdir(parents=True)
        part.to_parquet(f"t/month={month}/p.parquet")
    for more in ([], ["--missing-value", "-999"]):
        words = ["--formula", "a ~ x + month", "--obs", "date", "--overwrite"]
        assert main(["import", "t", "s.zarr", *words, *more]) == 0
        assert System.from_zarr("s.zarr").regressors == ("Intercept", "x", "month[T.2]", "month[T.3]")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_of_equations_that_are_not_sorted(kind, capsys):
    Path("firms").mkdir()
    parts = {name: TABLE[["date", "a", "x"]].sample(frac=0.8, random_state=j) for j, name in enumerate("uvw")}
    for name, part in parts.items():
        part.to_csv(f"firms/{name}.csv", index=False) if kind == "csv" else part.to_parquet(f"firms/{name}.parquet")
    words = ["--formula", "a ~ x", "--obs", "date", "--one-file-an-equation"]
    assert main(["import", "firms", "s.zarr", *words]) == 0
    assert "is not sorted by 'date', so that cells of all files are sorted" in capsys.readouterr().err
    long = pd.concat([part.assign(equation=name) for name, part in parts.items()])
    assert_same(System.from_zarr("s.zarr"), System.from_frame(long, "a ~ x", obs="date", equation="equation"))


def test_tables_aside_are_gone_where_nothing_can_be_gone_on_with():
    TABLE.to_csv("t.csv", index=False)
    for words in (
        ["--formula", "a ~ nope", "--obs", "date"],
        [*FORMULA, "--plan"],
        [*FORMULA, "--memory-limit", "1MB"],
    ):
        main(["import", "t.csv", "s.zarr", *words])
        assert [path.name for path in Path().iterdir()] == ["t.csv"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "long csv", "nc"])
def test_rows_are_appended_by_the_formulas_of_the_store(kind, capsys):
    early, late = TABLE[:40], TABLE[40:]
    words = FORMULA
    if kind == "nc":
        as_arrays().isel(date=slice(0, 40)).to_netcdf("early.nc")
        as_arrays().isel(date=slice(40, None)).to_netcdf("late.nc")
        words = ["--y", "ret", "--x", "x,z"]
    elif kind == "parquet":
        early.to_parquet("early.parquet"), late.to_parquet("late.parquet")
    else:
        if kind == "long csv":
            early, late = (part.melt(["date", "x", "z"], ["a", "b"], "firm", "ret") for part in (early, late))
            words = ["--formula", "ret ~ center(x)", "--obs", "date", "--equation", "firm"]
        early.to_csv("early.csv", index=False)
        late.to_csv("late.csv", index=False)
    end = kind.split()[-1]
    assert main(["import", f"early.{end}", "s.zarr", *words]) == 0
    more = words if kind == "nc" else []
    assert main(["import", f"late.{end}", "s.zarr", "--append", "--plan", *more]) == 0
    assert System.from_zarr("s.zarr").n_obs == 40
    assert main(["import", f"late.{end}", "s.zarr", "--append", *more]) == 0, capsys.readouterr().err
    found = System.from_zarr("s.zarr")
    assert found.n_obs == N and found.obs.tolist() == TABLE["date"].tolist()
    assert_array_equal(stack(found.rows.y), TABLE[["a", "b"]])
    if kind == "long csv":  # centred by the mean of the early rows
        wanted = TABLE["x"] - TABLE["x"][:40].mean()
        assert_allclose(stack(found.rows.x)[:, 1], wanted, atol=1e-12)
    assert main(["import", f"late.{end}", "s.zarr", "--append", *more]) == 1
    assert "must be unique" in capsys.readouterr().err and System.from_zarr("s.zarr").n_obs == N
    assert [path.name for path in Path().iterdir() if "zarr" in path.name] == ["s.zarr"]


@pytest.fixture
def bucket(monkeypatch):
    name = f"lrgls-import-{next(BUCKETS)}"
    with s3_bucket(name) as options:
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        yield f"s3://{name}", options


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_buckets(kind, bucket, capsys):
    place, options = bucket
    for i, part in enumerate((TABLE[:25], TABLE[25:])):
        url = f"{place}/in/{i}.{kind}"
        if kind == "csv":
            part.to_csv(url, index=False, storage_options=options)
        else:
            part.to_parquet(url, index=False, storage_options=options)
    out = f"{place}/out/s.zarr"
    assert main(["import", f"{place}/in", out, *FORMULA]) == 0, capsys.readouterr().err
    assert_same(System.from_zarr(out), expected())
    assert main(["import", f"{place}/in", out, *FORMULA]) == 1
    assert "exists. Choose another path" in capsys.readouterr().err
    assert main(["import", f"{place}/in/1.{kind}", out, *FORMULA, "--overwrite"]) == 0
    assert System.from_zarr(out).n_obs == 35
    assert main(["import", f"{place}/in/*.{kind}", out, *FORMULA, "--plan"]) == 0
    keys = fsspec.filesystem("s3", **options).ls(f"{place}/out")
    assert [key.rsplit("/", 1)[-1] for key in keys] == ["s.zarr"]


@pytest.mark.parametrize("where", ["in the second piece", "in the copy", "after the copy"])
def test_an_import_into_a_bucket_goes_on(where, bucket, monkeypatch, capsys):
    TABLE.to_csv("t.csv", index=False)
    out = f"{bucket[0]}/s.zarr"
    monkeypatch.setattr(storepieces, "PIECE_BYTES", 8 * 5 * 30)
    words = ["import", "t.csv", out, "--row-chunk", "30", *FORMULA]

    def dies(*args: Any, **options: Any) -> None:
        raise Killed

    filesystem = fsspec.filesystem("s3")

    def half(sources: list[str], targets: list[str]) -> None:
        for one, another in sorted(zip(sources, targets, strict=True))[:-3]:
            filesystem.cp_file(one, another)
        raise Killed

    broken = {
        "in the second piece": (storepieces, "append_system", dies),
        "in the copy": (filesystem, "copy", half),
        "after the copy": (storepieces, "remove_store", dies),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*broken[where])
        with pytest.raises(Killed):
            main(words)
    if where != "after the copy":
        with pytest.raises((FileNotFoundError, ValueError), match=r"no zarr store|not written to its end"):
            System.from_zarr(out)
    else:
        assert_same(System.from_zarr(out), expected())
    written = storepieces.write_system
    begun: list[int] = []
    monkeypatch.setattr(storepieces, "write_system", lambda *a, **o: (begun.append(1), written(*a, **o)))
    assert main([*words, *(["--overwrite"] if where == "after the copy" else [])]) == 0, capsys.readouterr().err
    assert begun == []  # what was written is not written again
    assert_same(System.from_zarr(out), expected())
