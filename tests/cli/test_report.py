"""`lrgls report`: the page that `Fit.report` writes, of a saved fit of whichever kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lrgls_dask import Fit, LowRankGLS
from lrgls_dask.cli import main
from support.systems import simulate


def test_the_page_of_a_saved_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lrgls_dask.results.report.contents.pictures", lambda fit: ([], []))
    LowRankGLS(0).fit(simulate("shared", n=60, K=3).system()).result_.to_zarr("sub/fit.zarr")
    assert main(["report", "sub/fit.zarr/"]) == 0
    assert capsys.readouterr().out == "Report: fit.html\n"
    Fit.from_zarr("sub/fit.zarr").report("direct.html")
    assert Path("fit.html").read_bytes() == Path("direct.html").read_bytes()
    assert main(["report", "sub/fit.zarr"]) == 1
    assert "fit.html exists. Choose another name, or pass --overwrite" in capsys.readouterr().err
    assert main(["report", "sub/fit.zarr", "--overwrite", "--level", "0.8"]) == 0
    assert "80% low" in Path("fit.html").read_text()
    assert main(["report", "sub/fit.zarr", "--out", "sub/fit.zarr/f.html"]) == 1
    assert "lies in" in capsys.readouterr().err
    assert main(["report", "."]) == 1
    assert ". exists but is no zarr group. Check the path" in capsys.readouterr().err
    monkeypatch.chdir("sub/fit.zarr")
    assert main(["report", ".", "--out", str(tmp_path / "here.html")]) == 0
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("a,b\n")
    assert main(["report", "sub/fit.zarr", "--out", "mine.csv", "--overwrite"]) == 1
    assert Path("mine.csv").read_text() == "a,b\n"
