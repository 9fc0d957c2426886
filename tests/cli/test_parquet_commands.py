"""Parquet files and absorbed effects on the command line: the fits of the library, and what is refused."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from lrgls_dask import CompressedSystem, Fit, LowRankGLS, System
from lrgls_dask.cli import main
from support.buckets import s3_bucket
from support.parquet import counted_groups, written

pytestmark = pytest.mark.usefixtures("in_tmp_path")

N = 120
RNG = np.random.default_rng(6)
FRAME = pd.DataFrame(
    {
        "date": pd.date_range("2001-01-01", periods=N, freq="W"),
        "x": RNG.normal(size=N),
        "s": RNG.choice(list("pqr"), N),
        "g": np.arange(N) // 10,
        "w": RNG.uniform(1, 2, N),
    }
).assign(a=lambda f: f["x"] + RNG.normal(size=N), b=RNG.normal(size=N), c=RNG.normal(size=N))
LONG = FRAME.melt(["date", "x", "g"], ["a", "b", "c"], "firm", "y").sample(frac=1, random_state=0)[20:]
WIDE = "a + b + c ~ x + s"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `lrgls` with the words of a text, and more; returns exit code, stdout and stderr."""
    written(Path("data"), FRAME)
    LONG.to_parquet("long.parquet", row_group_size=50)

    def run(words: str, *more: str) -> tuple[int, str, str]:
        code = main([*words.split(), *more])
        return code, *capsys.readouterr()

    return run


def assert_fitted(result: tuple[int, str, str], system: System, path: str = "f.zarr", **options: Any) -> Fit:
    """That the saved fit is that of the system."""
    code, out, err = result
    wanted, found = LowRankGLS(0, **options).fit(system).result_, Fit.from_zarr(path)
    assert code in (0, 3), err
    assert_array_equal(found.params, wanted.params)
    assert_array_equal(found.std_errors, wanted.std_errors)
    assert found.summary() in out and found.loglik == wanted.loglik
    return found


SOURCES = {
    "a folder": ["data"],
    "a pattern": ["data/*.parquet"],
    "files": ["data/part-1.parquet", "data/part-10.parquet", "data/part-19.parquet"],
}


@pytest.mark.parametrize(("source", "workers"), [*((each, []) for each in SOURCES), ("a folder", ["--workers", "1"])])
def test_wide_files(source, workers, run):
    words = ["--formula", WIDE, "--obs", "date", "--out", "f.zarr", "--rank", "0", *workers]
    fit = assert_fitted(run("fit", *SOURCES[source], *words), System.from_parquet("data", WIDE, obs="date"))
    assert_allclose(
        fit.params, LowRankGLS(0).fit(System.from_frame(FRAME, WIDE, obs="date")).result_.params, rtol=1e-12
    )
    assert fit.formulas is not None


def test_every_flag_says_what_the_argument_says(run):
    words = ["--formula", "a + b ~ x", "--weights", "w", "--obs-groups", "g", "--cov", "cluster", "--out", "f.zarr"]
    system = System.from_parquet("data", "a + b ~ x", weights="w", groups="g")
    assert run("fit data --rank 0", *words)[0] == 0
    wanted = LowRankGLS(0).fit(system).result_.with_cov("cluster")
    assert_array_equal(Fit.from_zarr("f.zarr").std_errors, wanted.std_errors)
    named = ["--formula", "up: a ~ x", "--formula", "down: b ~ s"]
    system = System.from_parquet("data", {"up": "a ~ x", "down": "b ~ s"})
    assert assert_fitted(run("fit data --rank 0 --out g.zarr", *named), system, "g.zarr").equations == ("up", "down")


@pytest.mark.parametrize("absorb", [["g"], ["g", "s"]])
def test_effects_of_files_are_absorbed(absorb, run):
    system = System.from_parquet("data", "a + b ~ x", absorb=absorb)
    words = ["--formula", "a + b ~ x", "--absorb", *absorb, "--out", "f.zarr"]
    fit = assert_fitted(run("fit data --rank 0", *words), system)
    dummies = " + ".join(["x", *(f"C({name})" for name in absorb)])
    whole = LowRankGLS(0).fit(System.from_frame(FRAME, f"a + b ~ {dummies}")).result_
    assert_allclose(fit.params.values, slopes(whole), rtol=1e-9)


def slopes(fit: Fit) -> np.ndarray:
    """Coefficients of x."""
    return np.asarray(fit.params.values[fit.params["regressor"].values == "x"])


def test_long_files_and_their_effects(run):
    how = {"obs": "date", "equation": "firm"}
    words = ["--formula", "y ~ x", "--obs", "date", "--equation", "firm", "--missing", "em", "--out", "f.zarr"]
    assert_fitted(run("fit long.parquet --rank 0", *words), System.from_parquet("long.parquet", "y ~ x", **how),
                  missing="em")  # fmt: skip
    words = [*words[:-4], "--missing", "drop", "--absorb", "g", "--out", "g.zarr"]
    system = System.from_parquet("long.parquet", "y ~ x", absorb="g", **how)
    assert_fitted(run("fit long.parquet --rank 0", *words), system, "g.zarr", missing="drop")


def test_effects_of_a_store_go_by_the_name_of_its_labels(run):
    stored = System.from_frame(FRAME, "a + b ~ x", obs="date", groups="g")
    stored.to_zarr("s.zarr")
    for names in (["groups"], ["date.year"], ["groups", "date.quarter"]):
        labels = {"groups": FRAME["g"], "date.year": FRAME["date"].dt.year, "date.quarter": FRAME["date"].dt.quarter}
        system = System.from_frame(FRAME, "a + b ~ x").absorb({name: labels[name].to_numpy() for name in names})
        code, out, err = run("fit s.zarr --rank 0 --overwrite --out f.zarr", "--absorb", *names)
        assert code == 0, err
        assert_allclose(Fit.from_zarr("f.zarr").params, LowRankGLS(0).fit(system).result_.params, rtol=1e-10)
        assert all(f"Effects absorbed: {name}" in out for name in names)


def test_a_plan_reads_footers(run):
    with counted_groups() as reads:
        code, out, err = run("plan data --rank 0 --obs date", "--formula", "a + b ~ x")
    assert code == 0 and len(reads) <= 1, err  # two rows of the first, for the kinds of columns
    wanted = str(LowRankGLS(0).plan(System.from_parquet("data", "a + b ~ x", missing="raise")))
    assert out.splitlines()[:3] == wanted.splitlines()[:3] and "120 rows" in out
    with counted_groups() as reads:
        assert run("plan data --rank 0 --obs date", "--formula", "a + b ~ x + s")[0] == 0
    assert [names for _, _, names in reads].count(("s",)) == 18  # how many columns its levels make
    with counted_groups() as reads:
        assert run("plan data --rank 0 --obs date", "--formula", "{[ab]} ~ .")[0] == 1  # of all columns, some are dates
    assert run("plan long.parquet --rank 0 --obs date --equation firm", "--formula", "y ~ x")[0] == 0


@pytest.mark.parametrize("kind", ["wide", "long"])
def test_predictions_for_new_files(kind, run):
    if kind == "wide":
        run("fit data --rank 1 --obs date --out f.zarr", "--formula", WIDE)
        new = FRAME[30:90]
        written(Path("new"), new)
    else:
        run("fit long.parquet --rank 1 --obs date --equation firm --missing em --out f.zarr", "--formula", "y ~ x")
        new = LONG[LONG["date"] > "2002"]
        written(Path("new"), new)
    fit = Fit.from_zarr("f.zarr")
    assert run("predict f.zarr new --out yhat.zarr --interval 0.9")[0] == 0
    wanted = fit.predict(new.reset_index(drop=True), interval=0.9)
    with xr.open_zarr("yhat.zarr") as ds:
        for mine, theirs in (("yhat", "predicted"), ("lower", "lower")):
            assert_allclose(ds[mine], wanted[theirs], rtol=1e-12)
        assert ds.indexes["date"].equals(wanted.indexes["date"])
    assert run("predict f.zarr new --out given.zarr", "--given", "a")[0] == 0
    with xr.open_zarr("given.zarr") as ds:
        assert_allclose(ds["yhat"], fit.predict_given(new.reset_index(drop=True), observed=["a"]), rtol=1e-12)


def test_predictions_need_no_responses(run):
    run("fit data --rank 1 --obs date --out f.zarr", "--formula", WIDE)
    new = FRAME[["date", "x", "s"]][30:90]
    written(Path("new"), new)
    assert run("predict f.zarr new --out yhat.zarr")[0] == 0
    with xr.open_zarr("yhat.zarr") as ds:
        assert_allclose(ds["yhat"], Fit.from_zarr("f.zarr").predict(new.reset_index(drop=True)), rtol=1e-12)


def test_new_rows_update_a_fit(run):
    written(Path("old"), FRAME[:80])
    written(Path("new"), FRAME[80:])
    assert run("fit old --rank 0 --obs date --out f.zarr", "--formula", WIDE)[0] == 0
    code, out, err = run("update f.zarr new --out g.zarr")
    assert code == 0 and "Rows 80 of before, 40 new" in out, err
    whole = LowRankGLS(0).fit(System.from_frame(FRAME, WIDE, obs="date")).result_
    assert_allclose(Fit.from_zarr("g.zarr").params, whole.params, rtol=1e-9)
    System.from_frame(FRAME, WIDE, obs="date").compress().to_zarr("c.zarr")
    assert run("update c.zarr new --rank 0 --out h.zarr")[0] == 0
    assert CompressedSystem.from_zarr("c.zarr").formulas is not None


def test_files_in_a_bucket(run, monkeypatch):
    with s3_bucket("lrgls-command") as options:
        FRAME.to_parquet("s3://lrgls-command/data/p.parquet", storage_options=options, row_group_size=30)
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        result = run("fit s3://lrgls-command/data --rank 0 --out f.zarr", "--formula", "a + b ~ x")
        assert_fitted(result, System.from_frame(FRAME, "a + b ~ x"))


REFUSED: dict[str, tuple[list[str], str]] = {
    "no formula": (["fit", "data"], "data is Parquet: --formula must say which columns are what"),
    "csv": (["fit", "t.csv", "--formula", "a ~ x", "--obs", "date"],
            "t.csv is CSV, which fits do not read. Make a store of it, lrgls "
            "import t.csv t.zarr --formula 'a ~ x' --obs date"),
    "netcdf": (["plan", "d.nc"], "d.nc is NetCDF, which fits do not read. Make a store of it, lrgls import d.nc"),
    "neither": (["fit", "notes.bin"], "notes.bin is neither a store nor Parquet by its name"),
    "said to be Parquet": (["fit", "notes.bin", "--formula", "a ~ x"], "notes.bin is no Parquet file"),
    "nothing there": (["fit", "none/*.parquet", "--formula", "a ~ x"], "no Parquet file at none/*.parquet"),
    "several kinds": (["fit", "data", "s.zarr", "--formula", "a ~ x"], "the data are of several kinds: parquet, zarr"),
    "two stores": (["fit", "s.zarr", "s.zarr"], "2 stores were given. Give one"),
    "a flag of files": (["plan", "s.zarr", "--obs", "date"], "--obs is for Parquet files; s.zarr is a store"),
    "a column": (["fit", "data", "--formula", "a ~ q"], "the frame has no column 'q'"),
    "a label": (["fit", "data", "--formula", "a ~ x", "--absorb", "q"], "the frame has no column 'q'"),
    "a label of a store": (["fit", "s.zarr", "--absorb", "q"], "absorb='q' is not known to this system"),
    "no obs": (["fit", "long.parquet", "--formula", "y ~ x", "--equation", "firm"], "obs must then name the column"),
    "lags": (["fit", "data", "--formula", "a ~ z", "--obs", "date"], "no column 'z'"),
    "csv to predict": (["predict", "g.zarr", "t.csv"], "t.csv is CSV, which is not read here"),
    "no formulas": (["predict", "g.zarr", "data"], "g.zarr was not made by formulas"),
    "csv to update": (["update", "g.zarr", "t.csv"], "t.csv is CSV, which is not read here"),
    "update without formulas": (["update", "g.zarr", "data"], "g.zarr was not made by formulas"),
    "over the files": (["fit", "data", "--formula", "a ~ x", "--overwrite"], "f.zarr"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_said(what, run):
    words, message = REFUSED[what]
    out = "f.zarr"
    if what == "over the files":
        out = "data/part-1.parquet"
        message = "is read for what would be written"
        words = [*words[:1], "data/*.parquet", *words[2:]]
    FRAME.to_csv("t.csv")
    FRAME.to_xarray().to_netcdf("d.nc")
    Path("notes.bin").write_text("a note")
    plain = System.from_arrays(FRAME[["a", "b"]], FRAME[["x"]])
    plain.to_zarr("s.zarr")
    LowRankGLS(0).fit(plain).result_.to_zarr("g.zarr")
    more = [] if words[0] == "plan" else ["--out", out]
    code, _, err = run("", *words, *more)
    assert code == 1 and err.startswith("lrgls: error: ") and message in " ".join(err.split())
    assert not Path("f.zarr").exists()


def test_the_import_that_is_named_is_one(run):
    FRAME.to_csv("t.csv", index=False)
    err = run("fit t.csv --rank 0 --obs date --out f.zarr", "--formula", "a + b ~ x")[2]
    words = shlex.split(err[err.index("lrgls import") : err.index(", and fit")])
    assert main(words[1:]) == 0
    assert_fitted(run("fit t.zarr --rank 0 --out f.zarr"), System.from_frame(FRAME, "a + b ~ x", obs="date"))
