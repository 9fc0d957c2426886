"""What a fit says while it runs: events of `logging`, lines of JSON, a bar that knows pass, rank and nll."""

from __future__ import annotations

import contextlib
import json
import logging
import re

import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.cli import main
from lrgls_dask.rows.run_pass import _Pass
from support.browser import browser_or_skip
from support.systems import simulate

DATA = simulate("shared", n=240, K=4, k=1)


def test_lines_of_json_hold_passes_steps_and_the_end(in_tmp_path, capsys) -> None:
    DATA.system().to_zarr("rows.zarr", row_chunk=60)
    assert main(["fit", "rows.zarr", "--rank", "1", "--engine", "stream", "--out", "f.zarr", "--log", "l.jsonl"]) == 0
    lines = [json.loads(line) for line in (in_tmp_path / "l.jsonl").read_text().splitlines()]
    fit = System.from_zarr("rows.zarr")
    again = LowRankGLS(1, engine="stream").fit(fit).result_
    assert (lines[0]["event"], lines[0]["rows"], lines[-1]["event"]) == ("fit", 240, "fitted")
    assert len({line["fit"] for line in lines}) == 1
    passes = [line for line in lines if line["event"] == "pass"]
    assert [line["number"] for line in passes] == list(range(1, again.n_passes + 1))
    assert sum(line["bytes"] for line in passes) == again.bytes_read == lines[-1]["bytes"]
    steps = [line["nll"] for line in lines if line["event"] == "step"]
    assert steps == [row["nll"] for _, row in again.trace.iterrows()]
    assert lines[-1]["nll"] == again.nll


def test_what_fails_is_logged(in_tmp_path, capsys) -> None:
    assert main(["fit", "nowhere.zarr", "--out", "f.zarr", "--log", "l.jsonl"]) == 1
    line = json.loads((in_tmp_path / "l.jsonl").read_text())
    assert (line["event"], line["level"]) == ("failed", "ERROR")
    assert "nowhere.zarr" in line["message"]
    assert main(["fit", "nowhere.zarr", "--out", "f.zarr", "--performance-report", "r.html"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_nothing_is_shown_unless_somebody_listens(capsys, caplog) -> None:
    LowRankGLS(1).fit(DATA.system())
    assert capsys.readouterr().err == ""
    with caplog.at_level(logging.INFO, logger="lrgls_dask"):
        LowRankGLS(1).fit(DATA.system())
    assert {record.lrgls["event"] for record in caplog.records} >= {"fit", "pass", "step", "fitted"}
    assert "purpose compress" in caplog.text


def test_a_bar_says_pass_rank_and_nll(capsys) -> None:
    LowRankGLS(1, engine="stream", algorithm="em", rel_tol=1e-3, progress=True).fit(DATA.system())
    shown = capsys.readouterr().err
    assert "pass 1: OLS" in shown
    assert "rank=1" in shown
    assert "nll=" in shown


@pytest.mark.parametrize(
    ("purpose", "short"), [("OLS", "lrgls-rows-OLS"), ("standard errors", "lrgls-rows-standard-errors")]
)
def test_tasks_are_named_for_a_dashboard(purpose, short) -> None:
    from dask.utils import key_split

    named = _Pass(None, None, None, None, 0, purpose, "a1b2c3.4")  # type: ignore[arg-type]
    assert key_split((named.key("rows", "0f" * 16), 7)) == short


def test_no_file_of_another_kind_is_written_to(in_tmp_path, capsys) -> None:
    DATA.system().to_zarr("s.zarr")
    (in_tmp_path / "notes.txt").write_text("mine")
    assert main(["fit", "s.zarr", "--out", "f.zarr", "--log", "notes.txt"]) == 1
    assert "notes.txt: the file that is there is no log" in capsys.readouterr().err
    assert (in_tmp_path / "notes.txt").read_text() == "mine"
    page = ["--workers", "1", "--performance-report", "notes.txt"]
    assert main(["fit", "s.zarr", "--out", "f.zarr", *page]) == 1
    assert re.search("notes.txt exists|pip install bokeh", capsys.readouterr().err)
    assert not (in_tmp_path / "f.zarr").exists()


def test_a_page_that_cannot_be_drawn_is_refused_before_the_fit(in_tmp_path, capsys, monkeypatch) -> None:
    DATA.system().to_zarr("s.zarr")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("lrgls_dask.cli.fit.system_of", lambda args: pytest.fail("rows were looked at"))
    monkeypatch.setattr("lrgls_dask.cli.fit._cluster", lambda *args: contextlib.nullcontext())
    assert main(["fit", "s.zarr", "--out", "f.zarr", "--workers", "1", "--performance-report", "r.html"]) == 1
    assert "pip install bokeh" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_of_what_workers_did_opens_without_a_network(in_tmp_path) -> None:
    """Its figures are drawn by what is inside."""
    pytest.importorskip("bokeh")
    DATA.system().to_zarr("s.zarr", row_chunk=60)
    page = ["--workers", "1", "--performance-report", "r.html"]
    assert main(["fit", "s.zarr", "--rank", "1", "--out", "f.zarr", *page]) == 0
    with browser_or_skip() as browser:
        browser.open(in_tmp_path / "r.html")
        assert browser.value("Bokeh.documents.length") > 0
        assert browser.complaints == []
        assert [each for each in browser.requests if not each.startswith(("file:", "data:"))] == []
