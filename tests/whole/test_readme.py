"""The README's Python runs as printed, and its commands are the ones that exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import Fit
from lrgls_dask.cli import main

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")  # the rank of least BIC has variances on their floor
def test_python_block_runs_as_printed(in_tmp_path, capsys):
    _, first, framed, structures, statistics = blocks("python")
    names: dict[str, object] = {}
    exec(compile(first, str(README), "exec"), names)
    fit, yhat = names["fit"], names["yhat"]
    assert fit.n_obs == 818
    assert capsys.readouterr().out.strip() == fit.summary().strip()
    exec(compile(framed, str(README), "exec"), names)
    assert names["long"].n_regressors == 3 + 30 and names["last_year"].sizes["portfolio"] == 30
    exec(compile(structures, str(README), "exec"), names)
    assert names["varying"].loadings.sizes == {"segment": 8, "equation": 30, "factor": 1}
    assert not names["sparse"].loadings.values.all() and names["grouped"].covariance_kind == "grouped"
    capsys.readouterr()
    exec(compile(statistics, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "Telcm:smb = 0" in printed and "Breusch-Pagan" in printed
    assert names["intervals"].shape == (120, 2)
    assert yhat.shape == (818, 30) and yhat.chunks is not None
    xr.testing.assert_identical(Fit.from_zarr("fit.zarr").params, fit.params)
    names["ds"].close()


@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")
def test_five_lines_go_from_a_frame_on_disk_to_a_table(in_tmp_path, capsys):
    first, *_ = blocks("python")
    assert len([line for line in first.splitlines() if line.strip()]) == 5
    exec(compile(first, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"Observations: +819 .*\nEquations: +9 ", printed)
    assert all(name in printed for name in ("S1V1", "S5V5", "MktRF", "RF"))


def test_python_block_is_as_short_as_it_says():
    _, first, *_ = blocks("python")
    assert len([line for line in first.splitlines() if line.strip()]) <= 12


def test_command_block_runs_as_printed_on_less_data(in_tmp_path):
    (block,) = [block for block in blocks("sh") if "lrgls simulate" in block]
    commands = [line.split()[1:] for line in block.splitlines()]
    assert [command[0] for command in commands] == [
        "simulate",
        "plan",
        "fit",
        "summary",
        "predict",
        *("simulate", "update"),
    ]
    for command in commands:
        less = [{"2": "0.004", "50": "6", "3": "1"}.get(word, word) for word in command]
        fresh = [sys.executable, "-c", "import sys; from lrgls_dask.cli import main; sys.exit(main(sys.argv[1:]))"]
        done = subprocess.run([*fresh, *less], capture_output=True, text=True, check=False)  # its memory is the plan's
        assert done.returncode == 0, done.stderr
    assert (in_tmp_path / "yhat.zarr").is_dir()


def test_command_block_of_parquet_files_runs_as_printed(in_tmp_path):
    (block,) = [block for block in blocks("sh") if ".parquet" in block]
    rng, n = np.random.default_rng(2), 60
    wide = pd.DataFrame(rng.normal(size=(n, 4)), columns=["ret_a", "ret_b", "mkt", "smb"])
    (in_tmp_path / "data").mkdir()
    wide.assign(date=range(n), month=np.arange(n) // 5).to_parquet("data/p.parquet")
    panel = pd.DataFrame(rng.normal(size=(n * 6, 3)), columns=["invest", "value", "capital"])
    panel.assign(year=np.arange(n * 6) // 6, firm=np.tile(list("abcdef"), n)).to_parquet("panel.parquet")
    for line in block.splitlines():
        assert main(shlex.split(line)[1:]) == 0
    assert Fit.from_zarr("panel-fit.zarr").equations == tuple("abcdef")


def test_set_up_commands_need_nothing_but_python():
    first, second = [block.strip() for block in blocks("sh") if "-m venv" in block]
    for command in (first, second):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert first.endswith("lrgls demo") and "pytest" in second


@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")
def test_command_block_of_options_runs_as_printed(in_tmp_path, capsys):
    (block,) = [block for block in blocks("sh") if "--restrict" in block]
    _, first, *_ = blocks("python")
    names: dict[str, object] = {}
    exec(compile(first, str(README), "exec"), names)
    names["system"].to_zarr("system.zarr")
    names["ds"].close()
    for line in block.splitlines():
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert {path.name for path in in_tmp_path.glob("*.zarr")} == {
        *("returns.zarr", "system.zarr", "fit.zarr", "restricted.zarr", "long.zarr", "grouped.zarr", "varying.zarr")
    }
    fit = Fit.from_zarr("restricted.zarr")
    assert fit.options["restrictions"] == ["Telcm:smb = Utils:smb"] and "hac" in fit.summary()
