"""What an installed package must bring along."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, entry_points
from importlib.resources import files
from pathlib import Path

import pytest

import lrgls_dask

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_data_files_are_found_through_the_package():
    found = {entry.name for entry in files("lrgls_dask.datasets").iterdir()}
    assert {"french.csv.gz", "README.md"} <= found
    found = {entry.name for entry in files("lrgls_dask.results.report").iterdir()}
    assert {"report.html", "report.css", "report.js"} <= found


def test_public_names_exist():
    for name in ("System", "LowRankGLS", "Fit"):
        assert name in lrgls_dask.__all__ and hasattr(lrgls_dask, name)


def test_command_is_declared_where_it_is_defined():
    module, _, name = PROJECT["scripts"]["lrgls"].partition(":")
    assert (module, name) == ("lrgls_dask.cli", "main")
    assert callable(getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name))


def test_changelog_tells_of_this_version():
    assert f"## {lrgls_dask.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_dependencies_have_lower_bounds_and_no_caps():
    extras = [name for group in PROJECT["optional-dependencies"].values() for name in group]
    for requirement in (*PROJECT["dependencies"], *extras):
        assert re.fullmatch(r"[\w.-]+(\[\w+\])?>=[\d.]+|lrgls_dask\[\w+\]", requirement), requirement


def test_installed_metadata_match():
    try:
        installed = distribution("lrgls_dask")
    except ModuleNotFoundError:
        pytest.skip("lrgls_dask is not installed in this environment")
    assert installed.version == lrgls_dask.__version__
    assert [point.value for point in entry_points(group="console_scripts", name="lrgls")] == ["lrgls_dask.cli:main"]


def test_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "lrgls_dask.cli", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for command in ("demo", "simulate", "plan", "fit", "summary", "report", "predict"):
        assert command in done.stdout


def test_importing_leaves_to_first_use_what_takes_long_to_import():
    asked = "import sys, lrgls_dask; print([name for name in ('scipy.stats', 'lrgls_dask.cli') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
