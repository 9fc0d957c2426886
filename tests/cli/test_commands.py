"""The command line: what it prints, what it writes, what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from lrgls_dask import Fit, LowRankGLS, System, Termination, __version__
from lrgls_dask.cli import main

pytestmark = pytest.mark.usefixtures("in_tmp_path")

ROOT = Path(__file__).parents[2]
SIMULATE = "simulate s.zarr --n-obs 900 --n-equations 5 --p 2 --n-shared 1 --rank 1 --row-chunk 200"


@pytest.fixture
def run(capsys):
    """Run `lrgls` with these words; returns exit code, stdout and stderr."""

    def run(words: str) -> tuple[int, str, str]:
        code = main(words.split())
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def store(run):
    code, _, err = run(SIMULATE)
    assert code == 0, err
    return "s.zarr"


def good(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 0, err
    return out


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    lines = [line for line in err.splitlines() if not line.startswith("lrgls: warning: ")]
    assert code == 1
    assert len(lines) == 1 and lines[0].startswith("lrgls: error: ")
    for word in words:
        assert word in lines[0]


# ---------------------------------------------------------------------------------------------------------- demo


def test_demo_fits_the_real_data_and_runs_again_in_its_own_directory(run):
    code, out, err = run("demo")
    assert code == 0, err
    fit = Fit.from_zarr("lrgls-demo/fit.zarr")
    assert fit.summary() in out
    assert (fit.n_obs, fit.n_passes, fit.rank > 0) == (819, 1, True)
    assert not fit.on_floor and err == ""  # every portfolio keeps some variance of its own: no warning
    tests = fit.across("*:mom = 0", "sup-t")
    words = " ".join(out[out.index(fit.summary()) + len(fit.summary()) :].split())
    assert words.count(". ") == 3 and f"{fit.rank} factors" in words and f"of these {tests.n_rejected} " in words
    assert all(str(name) in words for name in tests.rejected)
    assert "momentum.png" in words and Path("lrgls-demo/momentum.png").read_bytes()[:4] == b"\x89PNG"
    with xr.open_zarr("lrgls-demo/returns.zarr") as ds:
        assert dict(ds.sizes) == {"time": 819, "portfolio": 30} and len(ds.chunks["time"]) > 1
        x = np.column_stack([ds[name] for name in ("const", "mktrf", "smb", "hml", "mom")])
        least_squares = np.linalg.lstsq(x, ds["excess_return"].values, rcond=None)[0]
    # all regressors are shared, so the joint estimate is least squares
    np.testing.assert_allclose(fit.params.values.reshape(30, 5), least_squares.T, rtol=0, atol=1e-8)
    assert run("demo") == (code, out, err)


def test_demo_says_so_where_it_cannot_draw(run, monkeypatch):
    monkeypatch.setattr("lrgls_dask.cli.demo.importlib.util.find_spec", lambda name: None)
    out = good(run("demo"))
    assert out.rstrip().endswith("matplotlib is not installed. With it, lrgls demo draws one.")
    assert not Path("lrgls-demo/momentum.png").exists()


def test_demo_leaves_other_peoples_directories_alone(run, in_tmp_path):
    (in_tmp_path / "lrgls-demo").mkdir()
    (in_tmp_path / "lrgls-demo" / "thesis.txt").write_text("all of it")
    assert_refused(run("demo"), "lrgls-demo exists and was not made by", "--out", "--overwrite")
    assert [path.name for path in (in_tmp_path / "lrgls-demo").iterdir()] == ["thesis.txt"]
    good(run("demo --overwrite"))
    assert (in_tmp_path / "lrgls-demo" / "thesis.txt").read_text() == "all of it"


def test_demo_refuses_a_file_in_its_place(run, in_tmp_path):
    (in_tmp_path / "d").write_text("a file")
    assert_refused(run("demo --out d"), "d is a file")


def test_demo_simulates_and_fits_a_store_of_the_size_asked_for(run, capsys):
    code, out, err = run("demo --gb 0.02 --memory-limit 2GB")
    assert code == 0, err
    system = System.from_zarr("lrgls-demo/simulated.zarr")
    n_bytes = 8 * system.n_obs * (system.n_regressors + system.n_equations)
    assert 0.019e9 < n_bytes <= 0.02e9
    assert "Passes 1, read" in out and "peak memory" in out and "Plan, under a limit of" in out
    assert "100%" in err
    assert Fit.from_zarr("lrgls-demo/simulated-fit.zarr").rank == 3


def test_demo_refuses_a_limit_that_is_too_small(run):
    assert_refused(run("demo --gb 0.01 --memory-limit 1kB"), "the limit is", "memory_limit")


# ------------------------------------------------------------------------------------- simulate, plan, fit, summary


def test_simulate_says_what_it_wrote(run):
    out = good(run(SIMULATE))
    assert "s.zarr: 900 rows, 5 equations, 11 distinct columns" in out
    assert_refused(run(SIMULATE), "s.zarr")
    good(run(f"{SIMULATE} --overwrite"))


def test_simulate_by_size(run):
    good(run("simulate s.zarr --gb 0.001 --n-equations 5 --p 4 --rank 1"))
    assert System.from_zarr("s.zarr").n_obs == 5000


def test_fit_is_the_fit_of_the_library(run, store):
    out = good(run("fit s.zarr --out f.zarr --rank 1 --lam-b 0.5 --lam-f 0.25 --engine compress"))
    fit = Fit.from_zarr("f.zarr")
    expected = LowRankGLS(rank=1, lam_B=0.5, lam_F=0.25, engine="compress").fit(System.from_zarr("s.zarr")).result_
    np.testing.assert_array_equal(fit.params, expected.params)
    assert fit.summary() in out and "peak memory" in out
    assert fit.summary() in good(run("summary f.zarr"))


def test_summary_tests_hypotheses(run, store, capsys):
    good(run("fit s.zarr --out f.zarr --rank 1"))
    fit = Fit.from_zarr("f.zarr")
    (first, second), regressor = fit.equations[:2], fit.design.terms[0][0]
    texts = [f"{first}:{regressor} = 0", f"*:{fit.design.terms[1][1]}"]
    assert main(["summary", "f.zarr", "--test", texts[0], "--test", texts[1]]) == 0
    out = capsys.readouterr().out
    assert out == "\n".join([fit.summary(), *(str(fit.wald_test(text)) for text in texts)]) + "\n"
    assert_refused(run(f"summary f.zarr --test {second}:nothing"), f"no regressor 'nothing' in equation '{second}'")
    assert_refused(run(f"summary f.zarr --test {first}:{regressor}="), "the text ends", f" {first}:{regressor}=")


def test_the_structure_of_sigma_and_the_algorithm(run, store):
    out = good(run("fit s.zarr --out f.zarr --covariance full --algorithm fgls"))
    expected = LowRankGLS(covariance="full", algorithm="fgls").fit(System.from_zarr("s.zarr")).result_
    np.testing.assert_array_equal(Fit.from_zarr("f.zarr").params, expected.params)
    assert "Sigma unrestricted; one-step feasible GLS" in out
    assert_refused(run("fit s.zarr --out g.zarr --covariance full --rank 2"), "has no factors, so rank")


def test_rank_by_name_and_every_option(run, store):
    options = "--rank bic --engine stream --sigma-step pca --max-sweeps 30 --rel-tol 1e-6 --memory-limit 1GB --progress"
    code, _, err = run(f"fit s.zarr --out f.zarr {options}".replace("bic", "1"))
    assert code == (0 if Fit.from_zarr("f.zarr").termination is Termination.CONVERGED else 3) and "%" in err
    good(run("fit s.zarr --out g.zarr --rank bic"))
    assert Fit.from_zarr("g.zarr").rank == 1


def test_plan_reads_nothing(run, store, in_tmp_path):
    for chunk in (in_tmp_path / "s.zarr" / "X").rglob("c/*/*"):
        chunk.unlink()
    out = good(run("plan s.zarr --rank 1 --memory-limit 1GB"))
    expected = str(LowRankGLS(rank=1, memory_limit=10**9).plan(System.from_zarr("s.zarr")))
    assert out.splitlines()[:4] == expected.splitlines()[:4]  # the line after them depends on the memory in use now
    assert "limit 0.93 GiB" in out


def test_predict_writes_the_fitted_values(run, store):
    good(run("fit s.zarr --out f.zarr --rank 1"))
    good(run("predict f.zarr s.zarr --out yhat.zarr"))
    expected = Fit.from_zarr("f.zarr").predict(System.from_zarr("s.zarr"))
    with xr.open_zarr("yhat.zarr") as ds:
        np.testing.assert_array_equal(ds["yhat"], expected)
    assert_refused(run("predict f.zarr s.zarr --out yhat.zarr"), "yhat.zarr exists", "--overwrite")
    good(run("predict f.zarr s.zarr --out yhat.zarr --overwrite"))


def test_predict_writes_intervals_conditional_predictions_and_scores(run, store):
    good(run("fit s.zarr --out f.zarr --rank 1"))
    fit, system = Fit.from_zarr("f.zarr"), System.from_zarr("s.zarr")
    first, second = fit.equations[:2]
    cases = {
        "--interval 0.9": fit.predict(system, interval=0.9),
        "--interval 0.8 --kind observation": fit.predict(system, interval=0.8, kind="observation"),
        f"--given {first},{second}": fit.predict_given(system, observed=[first, second]).to_dataset(),
        f"--given {second} --interval 0.9": fit.predict_given(system, observed=[second], interval=0.9),
        "--given all --interval 0.9 --kind error": fit.predict_given(system, interval=0.9, kind="error"),
    }
    for options, expected in cases.items():
        good(run(f"predict f.zarr s.zarr --out p.zarr --overwrite {options} --scores bartlett"))
        with xr.open_zarr("p.zarr") as ds:
            assert set(ds.data_vars) == {"yhat", "factor_scores", *expected.data_vars} - {"predicted"}
            for name in expected.data_vars:
                found = ds["yhat" if name == "predicted" else name]
                np.testing.assert_allclose(found, expected[name], rtol=1e-12, err_msg=f"{name} {options}")
            np.testing.assert_allclose(ds["factor_scores"], fit.factor_scores(system, method="bartlett"), rtol=1e-12)


def test_predict_refuses_what_it_cannot_do(run, store, in_tmp_path):
    good(run("fit s.zarr --out f.zarr --rank 1"))
    assert_refused(run("predict f.zarr s.zarr --out p.zarr --interval 95"), "coverage", "95.0")
    assert_refused(run("predict f.zarr s.zarr --out p.zarr --given oil"), "observed names 'oil'")
    assert_refused(run("predict f.zarr s.zarr --out p.zarr --kind error"), "--kind error goes with --given")
    assert not (in_tmp_path / "p.zarr").exists()


def test_workers_give_the_same_fit(in_tmp_path):
    """In a process of its own: the workers of a cluster are processes that import the main module."""
    words = [
        SIMULATE.split(),
        ["fit", "s.zarr", "--out", "threads.zarr", "--rank", "1"],
        ["fit", "s.zarr", "--out", "workers.zarr", "--rank", "1", "--workers", "2"],
    ]
    for command in words:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from lrgls_dask.cli import main; sys.exit(main(sys.argv[1:]))",
                *command,
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
    threads, workers = Fit.from_zarr("threads.zarr"), Fit.from_zarr("workers.zarr")
    np.testing.assert_array_equal(threads.params, workers.params)
    np.testing.assert_array_equal(threads.loadings, workers.loadings)


# -------------------------------------------------------------------------------------------------------- refusals


def test_existing_fit_is_refused_before_any_work(run, store, in_tmp_path):
    (in_tmp_path / "f.zarr").mkdir()
    (in_tmp_path / "f.zarr" / "precious").write_text("kept")
    assert_refused(run("fit s.zarr --out f.zarr"), "f.zarr exists", "--overwrite")
    assert (in_tmp_path / "f.zarr" / "precious").read_text() == "kept"


def test_a_store_that_is_none(run, in_tmp_path):
    assert_refused(run("plan nowhere.zarr"), "nowhere.zarr")
    assert_refused(run("fit nowhere.zarr --out f.zarr"), "nowhere.zarr")
    assert_refused(run("summary nowhere.zarr"), "nowhere.zarr")
    assert not (in_tmp_path / "f.zarr").exists()


def test_errors_of_the_model_are_one_line(run, store):
    assert_refused(run("fit s.zarr --out f.zarr --rank 40"), "rank")
    assert_refused(run("fit s.zarr --out f.zarr --lam-b=-1"), "lam_B")


def test_debug_shows_where_it_came_from(store):
    with pytest.raises(ValueError, match="lam_B"):
        main(["--debug", "fit", "s.zarr", "--out", "f.zarr", "--lam-b=-1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("simulate s.zarr", "one of the arguments --n-obs --gb is required"),
        ("simulate s.zarr --gb -1", "-1 is not a positive number"),
        ("fit s.zarr", "the following arguments are required: --out"),
        (
            "fit s.zarr --out f.zarr --rank some",
            "'some' is not a whole number, auto, bic, cv, parallel or eigenvalue-ratio",
        ),
        ("fit s.zarr --out f.zarr --memory-limit lots", "'lots' is not a size"),
        ("fit s.zarr --out f.zarr --engine diesel", "invalid choice: 'diesel'"),
        ("fit s.zarr --out f.zarr --workers 2 --scheduler tcp://127.0.0.1:1", "not allowed with argument"),
    ],
)
def test_words_that_make_no_command(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"lrgls {__version__}\n"
