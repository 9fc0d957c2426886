"""Long Parquet files that do not go into memory are streamed in the order of their rows, and are sorted on disk first
where they have another: the rows are those of the frame to the last bit."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import pandas as pd
import pytest
from distributed import Client

pa = pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
import pyarrow.parquet as pq  # noqa: E402

from lrgls_dask import LowRankGLS, System  # noqa: E402
from lrgls_dask.data import longkeys, longrows, sortedcells  # noqa: E402
from lrgls_dask.solve.checkpoint import rows_token  # noqa: E402
from support.frames import check_same, grunfeld, munnell, x_of, y_of  # noqa: E402
from support.parquet import counted_groups, written  # noqa: E402

GRUNFELD = grunfeld()
GRUNFELD["war"] = np.where((GRUNFELD["year"] > 1940) & (GRUNFELD["year"] < 1946), "war", "peace")
GRUNFELD["rate"] = np.sin(GRUNFELD["year"])
HOLES = GRUNFELD.copy().drop(index=[3, 25, 26, *range(60, 75)])
HOLES.loc[7, "invest"] = np.nan
HOLES.loc[30, "value"] = np.nan
HOLES.loc[HOLES["year"] == 1950, "capital"] = np.nan
FORMULA = "invest ~ value + np.log(capital) * war + rate"
KEYS: dict[str, Any] = {"equation": "firm", "obs": "year"}
SMALL_PIECES = 900


@pytest.fixture(autouse=True)
def _always_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the cells are."""
    monkeypatch.setattr(longrows, "AT_ONCE_BYTES", 0)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups are cut into pieces of a few rows, as large ones are."""
    monkeypatch.setattr(longkeys, "PIECE_BYTES", SMALL_PIECES)
    monkeypatch.setattr(sortedcells, "PIECE_BYTES", 20 * SMALL_PIECES)


def ordered(frame: pd.DataFrame, how: str, obs: str = "year") -> pd.DataFrame:
    """The cells of each row in any order, and the rows ascending or not."""
    mixed = frame.sample(frac=1, random_state=1)
    return mixed.sort_values(obs, kind="stable") if how == "ascending" else mixed


ORDERS = ["ascending", "shuffled"]


@pytest.mark.parametrize("how", ORDERS)
@pytest.mark.parametrize("frame", [GRUNFELD, HOLES], ids=["whole", "holes"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_rows_are_those_of_the_frame_to_the_last_bit(
    tmp_path: Path, frame: pd.DataFrame, rows: int, how: str
) -> None:
    cells = ordered(frame, how)
    ours = System.from_parquet(written(tmp_path / "data", cells, rows=rows), FORMULA, **KEYS)
    assert ours.rows.x[0].row_chunks is not None
    check_same(ours, System.from_frame(cells, FORMULA, **KEYS))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("how", ORDERS)
@pytest.mark.parametrize("rows", [3, 40, 1000])
def test_pieces_of_any_size_give_the_same_rows(tmp_path: Path, rows: int, how: str) -> None:
    cells = ordered(HOLES, how)
    formulas = {"*": FORMULA, "IBM": "np.log(invest) ~ value + center(rate)"}
    ours = System.from_parquet(written(tmp_path / "data", cells, rows=rows), formulas, **KEYS)
    assert len(ours.rows.x[0].row_chunks or ()) > 5
    check_same(ours, System.from_frame(cells, formulas, **KEYS))


@pytest.mark.parametrize("how", ORDERS)
def test_munnell_in_files_is_munnell(tmp_path: Path, how: str) -> None:
    frame = ordered(munnell(), how, "YR")
    keys: dict[str, Any] = {"equation": "region", "obs": "YR"}
    formula = "np.log(GSP) ~ np.log(PC) + np.log(HWY) + np.log(EMP) + UNEMP"
    model = LowRankGLS(covariance="full", algorithm="fgls")
    systems = System.from_parquet(written(tmp_path / "data", frame), formula, **keys)
    ours, expected = (model.fit(each).result_ for each in (systems, System.from_frame(frame, formula, **keys)))
    np.testing.assert_array_equal(ours.coefficients, expected.coefficients)
    np.testing.assert_array_equal(ours.sigma(), expected.sigma())


@pytest.mark.parametrize("how", ORDERS)
@pytest.mark.parametrize(("missing", "engine"), [("em", "compress"), ("drop", "stream"), ("em", "stream")])
def test_a_fit_is_that_of_the_frame(tmp_path: Path, missing: str, engine: str, how: str) -> None:
    some = HOLES[HOLES["firm"].isin(["IBM", "General Motors", "Chrysler"])]
    cells = ordered(some, how)
    system = System.from_parquet(written(tmp_path / "data", cells), "invest ~ value + rate", **KEYS)
    expected = System.from_frame(cells, "invest ~ value + rate", **KEYS)
    model = LowRankGLS(0, missing=missing, engine=engine)
    fits = [model.fit(each).result_ for each in (system, expected)]
    np.testing.assert_allclose(fits[0].coefficients, fits[1].coefficients, rtol=1e-11)
    np.testing.assert_allclose(fits[0].sigma(), fits[1].sigma(), rtol=1e-11)
    again = System.from_parquet(str(tmp_path / "data"), system.formulas, **KEYS)
    check_same(again, expected)
    np.testing.assert_array_equal(fits[0].predict(system), fits[0].predict(expected))


@pytest.mark.parametrize("how", ORDERS)
def test_weights_groups_and_effects_that_are_absorbed(tmp_path: Path, how: str) -> None:
    frame = HOLES.assign(of_year=HOLES["year"] - 1930.0, of_cell=1 + HOLES["value"] / 100, decade=HOLES["year"] // 10)
    cells = ordered(frame.dropna(), how)
    path = written(tmp_path / "data", cells)
    model = LowRankGLS(0, missing="em")
    for weights in ("of_year", "of_cell"):
        given: dict[str, Any] = {"formulas": "invest ~ value + rate", "weights": weights, "groups": "decade", **KEYS}
        ours, expected = System.from_parquet(path, **given), System.from_frame(cells, **given)
        assert ours.rows.weighted == {"of_year": "rows", "of_cell": "cells"}[weights]
        assert np.asarray(ours.groups).tolist() == np.asarray(expected.groups).tolist()
        fits = [model.fit(each).result_ for each in (ours, expected)]
        np.testing.assert_array_equal(fits[0].coefficients, fits[1].coefficients)
    firms = frame[frame["firm"].isin(["IBM", "Union Oil", "Westinghouse"])].dropna()
    whole = firms[firms.groupby("year")["firm"].transform("size") == 3]
    path = written(tmp_path / "whole", ordered(whole, how))
    systems = (
        System.from_parquet(path, "invest ~ value + capital", absorb="decade", **KEYS),
        System.from_frame(whole, "invest ~ value + capital", absorb="decade", **KEYS),
    )
    ours, expected = (LowRankGLS(0).fit(each).result_ for each in systems)  # type: ignore[assignment]
    np.testing.assert_array_equal(ours.coefficients, expected.coefficients)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("small_pieces")
def test_weights_that_differ_within_some_rows_are_of_cells(tmp_path: Path) -> None:
    cells = ordered(GRUNFELD, "ascending")
    late = cells["year"] > 1948
    given: dict[str, Any] = {"formulas": "invest ~ value", "weights": "w", **KEYS}
    cells = cells.assign(w=np.where(late, 1 + cells["value"] / 1000, cells["year"] - 1930.0))
    ours, expected = System.from_parquet(written(tmp_path / "data", cells), **given), System.from_frame(cells, **given)
    assert ours.rows.weighted == expected.rows.weighted == "cells"
    fits = [LowRankGLS(0).fit(each).result_ for each in (ours, expected)]
    np.testing.assert_allclose(fits[0].coefficients, fits[1].coefficients, rtol=1e-10)


# ---------------------------------------------------------------------------------------------- reads


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize(("rows", "large"), [(7, False), (55, True), (1000, True)])
def test_a_pass_reads_each_row_group_once_and_beginnings_of_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, large: bool, scheduler: str
) -> None:
    monkeypatch.setattr(longkeys, "PIECE_BYTES", 6_000 if large else 12 * 2**20)
    cells = ordered(GRUNFELD, "ascending")
    path = written(tmp_path / "data", cells, rows=rows)
    n_groups = sum(pq.read_metadata(each).num_row_groups for each in Path(path).glob("*"))
    with dask.config.set(scheduler=scheduler), counted_groups() as reads:
        system = System.from_parquet(path, "invest ~ value + capital", **KEYS)
        keys = Counter((name, group) for name, group, columns in reads if set(columns) == {"year", "firm"})
        assert (len(keys), set(keys.values())) == (n_groups, {1})
        reads.clear()
        fit = LowRankGLS(0).fit(system).result_
    assert fit.trace["passes"].iloc[-1] == 1
    assert {frozenset(columns) for _, _, columns in reads} == {frozenset(("firm", "invest", "value", "capital"))}
    groups = Counter((name, group) for name, group, _ in reads)
    assert len(groups) == n_groups
    assert set(groups.values()) <= {1, 2}
    straddled = n_groups - 1 if large else 0  # each but the first begins within a year; small ones are one piece
    assert sum(groups.values()) <= n_groups + straddled


def test_rows_of_one_obs_may_lie_in_many_row_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"t": np.repeat([0, 1, 2, 3], 40), "k": np.tile(np.arange(40), 4)})
    frame["x"], frame["y"] = rng.normal(size=(2, 160))
    path = written(tmp_path / "data", frame, files=7, rows=11)
    check_same(
        System.from_parquet(path, "y ~ x", equation="k", obs="t"),
        System.from_frame(frame, "y ~ x", equation="k", obs="t"),
    )


def test_files_in_another_order_than_their_rows_are_sorted(tmp_path: Path) -> None:
    """Each of them is in order."""
    cells = GRUNFELD.sort_values("year")
    for name, part in (("1", cells[100:]), ("2", cells[:100])):
        written(tmp_path / name, part, files=1)
    check_same(System.from_parquet(tmp_path, FORMULA, **KEYS), System.from_frame(cells, FORMULA, **KEYS))


@pytest.mark.parametrize("by", ["year", "firm", "decade"])
def test_folders_may_be_named_by_rows_or_equations(tmp_path: Path, by: str) -> None:
    frame = GRUNFELD.assign(decade=GRUNFELD["year"] // 10)
    for name, part in frame.sort_values("year").groupby(by):
        written(tmp_path / f"{by}={name}", part.drop(columns=by), files=1)
    ours = System.from_parquet(tmp_path, FORMULA, **KEYS)
    check_same(ours, System.from_frame(frame, FORMULA, **KEYS))


def test_workers_read_the_files(tmp_path: Path, client: Client) -> None:
    for how in ORDERS:
        cells = ordered(HOLES, how)
        system = System.from_parquet(written(tmp_path / how, cells), "invest ~ value + rate", **KEYS)
        expected = LowRankGLS(0, missing="em").fit(System.from_frame(cells, "invest ~ value + rate", **KEYS)).result_
        fit = LowRankGLS(0, missing="em").fit(system).result_
        np.testing.assert_array_equal(fit.coefficients, expected.coefficients)


# ---------------------------------------------------------------------------------------------- sorting


def test_what_is_sorted_lies_beside_the_files_until_the_system_goes(tmp_path: Path) -> None:
    path = written(tmp_path / "data", ordered(GRUNFELD, "shuffled"), files=1)
    seen: list[tuple[str, int, int]] = []
    system = System.from_parquet(path, FORMULA, progress=lambda *each: seen.append(each), **KEYS)
    (folder,) = Path(path).glob(".lrgls-sorted-*")
    assert [each.name for each in folder.iterdir()] == ["sorted.parquet"]
    label, done, total = seen[-1]
    assert (label, done) == ("sort", total)
    again = System.from_parquet(path, FORMULA, temporary_directory=tmp_path, **KEYS)  # which does not read the first
    check_same(again, system)
    assert rows_token(again.rows) == rows_token(system.rows)
    assert len(list(tmp_path.glob(".lrgls-sorted-*"))) == 1
    fit = LowRankGLS(0).fit(system).result_  # which knows its system
    del system
    gc.collect()
    assert folder.exists()
    del fit
    gc.collect()
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        System.from_parquet(path, FORMULA, temporary_directory=tmp_path / "none", **KEYS)


def test_a_folder_that_may_not_be_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "data", ordered(GRUNFELD, "shuffled"))
    monkeypatch.setattr(os, "access", lambda *given: False)
    check_same(System.from_parquet(path, FORMULA, **KEYS), System.from_frame(GRUNFELD, FORMULA, **KEYS))
    assert not list(Path(path).glob(".*"))


def test_files_elsewhere_are_sorted_here_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cells, memory = ordered(HOLES, "shuffled"), fsspec.filesystem("memory")
    expected = System.from_frame(cells, FORMULA, **KEYS)
    try:
        for name, part in (("a", cells[:50]), ("b", cells[50:])):
            with memory.open(f"/lrgls-long/{name}.parquet", "wb") as file:
                part.to_parquet(file)
        system = System.from_parquet("memory://lrgls-long", FORMULA, **KEYS)
        check_same(system, expected)
        assert len(list(tmp_path.glob(".lrgls-sorted-*"))) == 1
    finally:
        memory.rm("/lrgls-long", recursive=True)
    system.to_zarr(tmp_path / "system.zarr")  # of what was sorted: the files are gone
    stored = System.from_zarr(tmp_path / "system.zarr")
    np.testing.assert_array_equal(stored.rows.x[0].array[:], x_of(expected))
    np.testing.assert_array_equal(stored.rows.y[0].array[:], y_of(expected))


def test_a_process_that_ends_leaves_no_folder(tmp_path: Path) -> None:
    path = written(tmp_path / "data", ordered(GRUNFELD, "shuffled"))
    code = f"""
from pathlib import Path
from lrgls_dask import System
from lrgls_dask.data import longrows
longrows.AT_ONCE_BYTES = 0
system = System.from_parquet({path!r}, "invest ~ value", obs="year", equation="firm")
assert len(list(Path({path!r}).glob(".lrgls-sorted-*"))) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not list(Path(path).glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ORDERS)
def test_peaks_stay_below_the_plan_and_the_limit(tmp_path: Path, how: str) -> None:
    """600 MB of cells, in a process of its own."""
    rng = np.random.default_rng(0)
    n_obs, n_equations = 250_000, 40
    frame = pd.DataFrame({"t": np.repeat(np.arange(n_obs), n_equations), "k": np.tile(np.arange(n_equations), n_obs)})
    frame["x"], frame["y"] = rng.normal(size=(2, len(frame)))
    frame = frame if how == "ascending" else frame.sample(frac=1, random_state=0)
    frame.to_parquet(tmp_path / "long.parquet", row_group_size=1_000_000)
    del frame
    code = f"""
import threading, time, dask, psutil
from lrgls_dask import LowRankGLS, System
process, peak = psutil.Process(), [0]

def watch():
    while True:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
with dask.config.set(num_workers=2):
    system = System.from_parquet({str(tmp_path)!r}, "y ~ x", equation="k", obs="t", memory_limit="1GB")
    made, peak[0] = peak[0], 0
    model = LowRankGLS(0).fit(system)
print(made, peak[0], model.plan_.client_peak, system.n_obs)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    made, fitted, planned, n_found = map(int, said.split())
    assert n_found == n_obs
    assert made < 1e9
    assert fitted < planned < 1e9


def test_columns_of_every_type_are_sorted_as_they_are(tmp_path: Path) -> None:
    """A column of equal name but for its case is another one; dates in a zone keep it."""
    rng = np.random.default_rng(4)
    days = pd.date_range("2020-01-01", periods=30, tz="Europe/Paris").as_unit("ns") + pd.Timedelta(1, "ns")
    cells = pd.DataFrame({"day": np.repeat(days, 3), "who": np.tile(["b", "a", "c"], 30)})
    for name in ("x", "X", "y"):
        cells[name] = rng.normal(size=90)
    cells["f"] = rng.normal(size=90).astype("f4")
    cells["n"] = rng.integers(0, 9, 90).astype("i2")
    cells["gaps"] = pd.array([None if i == 4 else i % 5 for i in range(90)], "Int64")
    cells["b"] = rng.normal(size=90) > 0
    cells["s"] = pd.Categorical(rng.choice(["v", "u"], 90), categories=["v", "u"])
    cells["k"] = pd.Categorical(rng.choice([2, 1], 90), categories=[2, 1])
    cells["when"] = pd.to_datetime("2020-03-01") + pd.to_timedelta(rng.integers(0, 3, 90), "h")
    formula = "y ~ x + X + np.log(f ** 2) + n + gaps + b + s + C(when)"
    given: dict[str, Any] = {"equation": "who", "obs": "day"}
    mixed = ordered(cells, "shuffled").reset_index(drop=True)
    table = pa.Table.from_pandas(mixed).append_column("m", pa.array(mixed["x"]).cast(pa.decimal128(20, 12)))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=17)
    exact = mixed.astype({"k": int}).assign(m=table["m"].cast(pa.float64(), safe=False).to_numpy())
    for each in (formula, "y ~ m + C(k)"):
        check_same(System.from_parquet(tmp_path, each, **given), System.from_frame(exact, each, **given))


def test_types_that_duckdb_would_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half floats, large whole numbers, days, and dictionaries of text that miss some."""
    rng = np.random.default_rng(0)
    days, n = pd.date_range("2020", periods=40), 120
    cells = pd.DataFrame({"d": np.repeat(days, 3), "k": pd.Categorical(np.tile(["b", "a", "c"], 40), list("cbaz"))})
    cells["h"], cells["y"] = rng.normal(size=n).astype("f2"), rng.normal(size=n)
    cells["u"], cells["e"] = rng.integers(0, 2**63, n).astype("u8"), rng.choice(days[:2], n)
    cells["s"] = pd.Categorical([None if i == 5 else "uv"[i % 2] for i in range(n)])
    table = pa.Table.from_pandas(ordered(cells, "shuffled", "d"), preserve_index=False)
    for name, kind in (("d", pa.date32()), ("e", pa.date32()), ("s", pa.large_string())):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=33)
    given: dict[str, Any] = {"formulas": "y ~ h + u + C(e) + s", "obs": "d", "equation": "k"}
    streamed = System.from_parquet(tmp_path, **given)
    assert streamed.equations == ("c", "b", "a")
    monkeypatch.setattr(longrows, "AT_ONCE_BYTES", 2**30)
    check_same(streamed, System.from_parquet(tmp_path, **given))


def test_labels_that_are_categories_or_have_no_order(tmp_path: Path) -> None:
    quarters = pd.Categorical(np.repeat(["q3", "q1", "q2", "q4"], 3), categories=["q3", "q1", "q2", "q4"])
    frame = pd.DataFrame({"t": quarters, "k": np.tile(["c", "a", "b"], 4), "y": np.sin(np.arange(12.0) ** 2), "x": 1.0})
    path = written(tmp_path / "data", frame, files=1, rows=5)
    check_same(
        System.from_parquet(path, "y ~ 1", equation="k", obs="t"),
        System.from_frame(frame, "y ~ 1", equation="k", obs="t"),
    )
    with pytest.raises(ValueError, match=r"'k' has no value in row 3 of row group 0 of .*parquet"):
        bad = frame.assign(k=[*frame["k"][:3], None, *frame["k"][4:]])
        System.from_parquet(written(tmp_path / "bad", bad, files=1), "y ~ 1", equation="k", obs="t")


# ---------------------------------------------------------------------------------------------- refused


TWICE = pd.concat([GRUNFELD, GRUNFELD.iloc[[5]]])


@pytest.mark.parametrize("how", ORDERS)
def test_what_frames_are_refused_for_is_refused(tmp_path: Path, how: str) -> None:
    where = r"row \d+ of row group \d+ of .*parquet" if how == "ascending" else r"row \d+ of the cells in the order of"
    bad: list[tuple[pd.DataFrame, dict[str, Any], str]] = [
        (TWICE, {}, f"firm 'General Motors' at year 1940 more than once, first in {where}"),
        (HOLES, {"missing": "raise"}, f"has no value in {where}"),
        (GRUNFELD.assign(year=GRUNFELD["year"].where(GRUNFELD.index != 9)), {}, "'year' has no value in row"),
        (GRUNFELD, {"groups": "value"}, "groups 'value' must be the same for all equations of a row"),
        (GRUNFELD.assign(invest=GRUNFELD["invest"].where(GRUNFELD["firm"] != "IBM")), {}, "no row shows a response of"),
        (GRUNFELD.assign(invest=np.nan), {}, "no row shows a response of"),
    ]
    for i, (frame, options, message) in enumerate(bad):
        path = written(tmp_path / str(i), ordered(frame, how))
        with pytest.raises(ValueError, match=message):
            System.from_parquet(path, FORMULA, **KEYS, **options)
        gc.collect()
        assert not list(Path(path).glob(".*"))


def test_zones_that_differ_are_named(tmp_path: Path) -> None:
    days = pd.date_range("2020-01-01", periods=20)
    for i, zone in enumerate(("UTC", "Europe/Paris")):
        part = pd.DataFrame({"t": days.tz_localize(zone), "k": "a", "y": 1.0, "x": 2.0})
        written(tmp_path / str(i), part, files=1)
    with pytest.raises(TypeError, match=r"column 't' is timestamp\[.*Europe/Paris\] in .* but timestamp\[.*UTC"):
        System.from_parquet(tmp_path, "y ~ x", equation="k", obs="t")


def test_too_little_memory_is_said_before_a_row_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "data", GRUNFELD.sort_values("year"))
    with counted_groups() as reads:
        with pytest.raises(MemoryError, match=r"220 cells of 4 columns by each of .*limit is 9\.54 MiB"):
            System.from_parquet(path, "invest ~ value", memory_limit="10MB", **KEYS)
        with pytest.raises(MemoryError, match=r"'lag\(value, 1\)' reads other rows.*limit is 9\.54 MiB"):
            System.from_parquet(path, "invest ~ lag(value, 1)", memory_limit="10MB", **KEYS)
    assert reads == []


def test_lags_are_of_files_that_are_read_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "data", ordered(GRUNFELD, "shuffled"))
    formula = "invest ~ value + lag(value, 1)"
    system = System.from_parquet(path, formula, **KEYS)
    assert system.rows.x[0].row_chunks is None
    check_same(system, System.from_frame(GRUNFELD, formula, **KEYS))


def test_without_duckdb_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sortedcells, "duckdb", None)
    path = written(tmp_path / "data", ordered(GRUNFELD, "shuffled"))
    with pytest.raises(ImportError, match=r"order of 'year'.*pip install 'lrgls_dask\[duckdb\]'"):
        System.from_parquet(path, FORMULA, **KEYS)
    assert not list(Path(path).glob(".*"))
    cells = ordered(GRUNFELD, "ascending")
    path = written(tmp_path / "sorted", cells)
    check_same(System.from_parquet(path, FORMULA, **KEYS), System.from_frame(cells, FORMULA, **KEYS))
