"""Every option of the estimator, of the structures of Sigma and of the kinds of covariances, as flags."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import Fit, GroupedLowRank, LowRankGLS, SparseLowRank, System, TimeVarying, TimeVaryingFit
from lrgls_dask.cli import main
from lrgls_dask.cli.flags import COVS, SIGMAS, add_cov, add_model, cov_of, model_of
from lrgls_dask.cli.objects import _value, argument_type
from lrgls_dask.options import DESCRIBED, OPTIONS
from lrgls_dask.results.cov.cluster import Cluster
from lrgls_dask.results.cov.hac import Hac

Run = Callable[..., tuple[int, str, str]]

# Words for every option, and what they mean.
WORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rank": ("--rank 3", {"rank": 3}),
    "ranks": ("--ranks 0,2,4 --rank bic", {"ranks": (0, 2, 4), "rank": "bic"}),
    "covariance": ("--covariance full", {"covariance": "full"}),
    "algorithm": ("--algorithm fgls", {"algorithm": "fgls"}),
    "debiased": ("--debiased", {"debiased": True}),
    "use": ("--use system-t", {"use": "system-t"}),
    "restrictions": ("--restrict a:x=1 --restrict b:x=a:x", {"restrictions": ["a:x=1", "b:x=a:x"]}),
    "engine": ("--engine stream", {"engine": "stream"}),
    "sigma_step": ("--sigma-step pca", {"sigma_step": "pca"}),
    "lam_F": ("--lam-f 0.25", {"lam_F": 0.25}),
    "lam_B": ("--lam-b a=b=2 --lam-b z=0.5", {"lam_B": {"a=b": 2.0, "z": 0.5}}),
    "d_floor": ("--d-floor 1e-4", {"d_floor": 1e-4}),
    "rel_tol": ("--rel-tol 1e-7", {"rel_tol": 1e-7}),
    "max_sweeps": ("--max-sweeps 9", {"max_sweeps": 9}),
    "cg_tol": ("--cg-tol 1e-9", {"cg_tol": 1e-9}),
    "cg_maxit": ("--cg-maxit 20", {"cg_maxit": 20}),
    "n_folds": ("--n-folds 3 --rank cv", {"n_folds": 3, "rank": "cv"}),
    "folds": ("--folds blocks --rank cv", {"folds": "blocks", "rank": "cv"}),
    "improper": ("--rank bic --improper avoid", {"rank": "bic", "improper": "avoid"}),
    "accelerate": ("--no-accelerate --algorithm em", {"accelerate": False, "algorithm": "em"}),
    "missing": ("--missing em", {"missing": "em"}),
    "unusable": ("--unusable skip", {"unusable": "skip"}),
    "checkpoint": ("--checkpoint p.zarr", {"checkpoint": "p.zarr"}),
    "progress": ("--progress", {"progress": True}),
    "memory_limit": ("--memory-limit 1GB", {"memory_limit": 10**9}),
}
OBJECTS: list[tuple[str, Any]] = [
    ("--covariance sparse --rank 2", SparseLowRank(2)),
    ("--covariance sparse --rank 2 --l1 bic", SparseLowRank(2, "bic")),
    ("--covariance sparse --rank 2 --l1 0.05", SparseLowRank(2, 0.05)),
    ("--covariance grouped --rank 1 --groups sector", GroupedLowRank(1, "sector")),
    (
        "--covariance grouped --rank 1 --groups region,sector --group-rank 1,2",
        GroupedLowRank(1, ["region", "sector"], [1, 2]),
    ),
    ("--covariance time-varying --rank 1 --segments time.year", TimeVarying(1, "time.year")),
    ("--covariance time-varying --rank 1 --segments groups --bandwidth inf", TimeVarying(1, "groups", np.inf)),
]


def parsed(words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model(parser)
    add_cov(parser)
    return parser.parse_args(words.split())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `lrgls` with these words, in a folder with a store; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    rng, n, firms = np.random.default_rng(3), 260, [f"f{j}" for j in range(8)]
    errors = rng.standard_normal((n, 2)) @ rng.standard_normal((2, 8)) + rng.standard_normal((n, 8))
    ds = xr.Dataset(
        {"y": (("time", "firm"), errors), "const": ("time", np.ones(n)), "x": ("time", rng.standard_normal(n))},
        {"time": pd.date_range("2001-01-07", periods=n, freq="W"), "firm": firms, "sector": ("firm", list("aaaabbbb"))},
    ).assign(month=("time", np.arange(n) // 10))
    system = System.from_xarray(ds, y="y", x=["const", "x"], obs="time", equation="firm", groups="month")
    system.to_zarr("s.zarr", row_chunk=50)

    def run(words: str, *more: str) -> tuple[int, str, str]:
        code = main([*words.split(), *more])
        return code, *capsys.readouterr()

    return run


# ---------------------------------------------------------------------------------- what the words mean


def test_the_words_cover_the_table() -> None:
    assert set(WORDS) == set(OPTIONS)


def test_every_field_of_a_registered_object_has_a_flag_that_says_what_it_is() -> None:
    parser = argparse.ArgumentParser()
    add_model(parser)
    add_cov(parser)
    shown = " ".join(parser.format_help().split())
    for choice, left_out in ((SIGMAS, {"rank"}), (COVS, {"groups"})):  # an option of the estimator; labels of rows
        for word, made in choice.objects.items():
            for each in {field.name for field in fields(made)} - left_out:
                flag = f"--{choice.prefix}{each}".replace("_", "-")
                found = re.search(rf"{flag}(?: VALUE)? with --{choice.flag} [a-z -]*\b{word}\b[a-z -]*: (.+?) ", shown)
                assert found and found[1] != each, flag


@pytest.mark.parametrize("name", list(WORDS))
def test_every_option_has_its_flag(name: str) -> None:
    words, expected = WORDS[name]
    assert name in expected
    assert model_of(parsed(words)).get_params() == LowRankGLS(**expected).get_params()


@pytest.mark.parametrize(("words", "debiased"), [("Theil", "Theil"), ("max", "max"), ("--rank 1", True)])
def test_a_flag_that_may_have_a_word(words: str, debiased: Any) -> None:
    assert model_of(parsed(f"--debiased {words}")).debiased == debiased


def test_without_words_the_defaults_are_those_of_the_library() -> None:
    assert model_of(parsed("")).get_params() == LowRankGLS().get_params()
    assert cov_of(parsed("")) is None


@pytest.mark.parametrize(("words", "expected"), OBJECTS)
def test_every_structure_has_its_flags(words: str, expected: Any) -> None:
    assert model_of(parsed(words)).get_params() == LowRankGLS(covariance=expected).get_params()


def test_every_kind_of_covariance_has_its_flags() -> None:
    made = cov_of(parsed("--cov hac --cov-kernel parzen --cov-bandwidth 4 --cov-correction HC1"))
    assert isinstance(made, Hac) and (made.kernel, made.bandwidth, made.correction) == ("parzen", 4, "HC1")
    made = cov_of(parsed("--cov cluster --cov-correction HC1"))
    assert isinstance(made, Cluster) and made.correction == "HC1"
    for word, kind in COVS.objects.items():
        assert type(cov_of(parsed(f"--cov {word}"))) is kind


def test_a_new_structure_has_flags_by_being_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Banded:
        """Sigma with a band.

        width : of the band, in equations.  taper : whether it fades out.
        shape : how.
        """

        rank: int
        width: int
        taper: bool = False
        shape: Any = "square"

    monkeypatch.setitem(DESCRIBED, "banded", Banded)
    made = SIGMAS.made(parsed("--covariance banded --width 3 --taper --shape round,2"), "banded", {"rank": 1})
    assert made == Banded(1, 3, True, ["round", 2])
    parser = argparse.ArgumentParser()
    SIGMAS.add_fields(parser)
    shown = " ".join(parser.format_help().split())
    assert "--width VALUE with --covariance banded: of the band, in equations." in shown
    assert "--taper with --covariance banded: whether it fades out." in shown


def test_values_of_fields_are_numbers_lists_arrays_of_files_or_texts(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(2))
    pd.DataFrame(np.eye(2), ["a", "b"], ["a", "b"]).to_csv(tmp_path / "a.csv")
    read = argument_type(_value)
    assert [read(text) for text in ("3", "0.5", "inf", "1,b", "time.year")] == [3, 0.5, np.inf, [1, "b"], "time.year"]
    np.testing.assert_array_equal(read(str(tmp_path / "a.npy")), np.eye(2))
    assert list(read(str(tmp_path / "a.csv")).index) == ["a", "b"]
    with pytest.raises(argparse.ArgumentTypeError, match=r"none\.npy"):
        read(str(tmp_path / "none.npy"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--l1 0.1", r"--l1 goes with --covariance sparse; got --covariance lowrank\."),
        (
            "--covariance sparse --rank 1 --groups sector",
            "--groups goes with --covariance block or grouped; got .* sparse",
        ),
        ("--covariance sparse", r"--covariance sparse needs --rank\."),
        ("--covariance grouped --rank 1", r"--covariance grouped needs --groups\."),
        ("--covariance time-varying --rank 1", r"--covariance time-varying needs --segments\."),
        ("--cov-bandwidth 3", r"--cov-bandwidth goes with --cov hac or driscoll-kraay; got none\."),
        ("--cov robust --cov-kernel qs", r"--cov-kernel goes with --cov hac or driscoll-kraay; got --cov robust\."),
        ("--cov hac --cov-kernel flat", "kernel must be 'bartlett' or 'parzen' or 'qs'; got 'flat'"),
        (
            "--cov robust --cov-correction HC9",
            "correction must be 'none' or .* or 'HC3'; got 'HC9'",
        ),
        ("--covariance sparse --rank 1 --l1 aic", "l1 must be a number or 'bic'; got 'aic'"),
        ("--covariance sparse --rank bic", "rank must be an integer; got 'bic'"),
        ("--covariance time-varying --rank 1 --segments time --checkpoint c", "takes no checkpoint; got 'c'"),
        ("--d-floor 1", "d_floor is a fraction"),
        ("--lam-b x=1 --lam-b 2", "--lam-b takes one number, or NAME=NUMBER as often as there are names"),
        ("--lam-b x=-1", r"lam_B\['x'\] must be at least 0"),
    ],
)
def test_words_that_do_not_go_together(words: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        args = parsed(words)
        cov_of(args)
        model_of(args)


# ---------------------------------------------------------------------------------- fits


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--rank 1 --restrict f0:x=f1:x --restrict f2:x=0", LowRankGLS(1, restrictions=["f0:x=f1:x", "f2:x=0"])),
        ("--rank 1 --debiased --algorithm fgls", LowRankGLS(1, debiased=True, algorithm="fgls")),
        ("--covariance sparse --rank 1 --l1 0.05", LowRankGLS(covariance=SparseLowRank(1, 0.05))),
        ("--covariance grouped --rank 1 --groups sector", LowRankGLS(covariance=GroupedLowRank(1, "sector"))),
        ("--rank 1 --lam-b x=5 --lam-b const=1", LowRankGLS(1, lam_B={"x": 5.0, "const": 1.0})),
        ("--rank 1 --checkpoint progress.zarr --engine stream", LowRankGLS(1, engine="stream")),
    ],
)
@pytest.mark.filterwarnings("ignore::lrgls_dask.FitWarning")
def test_fits_are_those_of_the_library(run: Run, words: str, expected: LowRankGLS) -> None:
    code, out, err = run(f"fit s.zarr --out f.zarr {words}")
    assert code == 0, err
    found, same = Fit.from_zarr("f.zarr"), expected.fit(System.from_zarr("s.zarr")).result_
    np.testing.assert_array_equal(found.params, same.params)
    assert found.summary() in out
    assert found.options == expected.get_params() | {"checkpoint": found.options["checkpoint"]}
    assert not Path("progress.zarr").exists()


def test_arrays_of_a_structure_are_read_from_files(run: Run) -> None:
    sigma = LowRankGLS(1).fit(System.from_zarr("s.zarr")).result_.sigma()
    np.save("sigma.npy", sigma.values)
    sigma[::-1, ::-1].to_pandas().to_csv("sigma.csv")
    for name in ("sigma.npy", "sigma.csv"):
        code, _, err = run(f"fit s.zarr --out f.zarr --overwrite --covariance known --sigma {name}")
        assert code == 0, err
        np.testing.assert_allclose(Fit.from_zarr("f.zarr").sigma(), sigma, rtol=1e-12)
    assert run("fit s.zarr --out g.zarr --covariance known")[2].startswith("lrgls: error: Known takes either sigma, or")


def test_restrictions_are_texts_with_spaces(run: Run) -> None:
    code, out, err = run("fit s.zarr --out f.zarr --rank 1", "--restrict", "f0:x + f1:x = 1")
    assert code == 0, err
    assert "f0:x + f1:x = 1" in out
    assert float(Fit.from_zarr("f.zarr").params.values[[1, 3]].sum()) == pytest.approx(1.0, abs=1e-12)
    code, _, err = run("fit s.zarr --out g.zarr --rank 1 --restrict f0:z=1")
    assert code == 1 and "no regressor 'z' in equation 'f0'" in err and err.count("\n") == 1


def test_a_plan_takes_the_same_words(run: Run) -> None:
    code, out, err = run("plan s.zarr --covariance time-varying --rank 1 --segments time.year --memory-limit 10GB")
    assert code == 0, err
    assert "engine 'compress'" in out
    code, out, _ = run("plan s.zarr --rank cv --n-folds 3 --missing raise --progress --checkpoint none.zarr")
    assert code == 0 and not Path("none.zarr").exists()


def test_the_saved_fit_carries_the_covariance_that_was_asked_for(run: Run) -> None:
    code, out, err = run("fit s.zarr --out f.zarr --rank 1 --cov cluster --cov-correction HC1")
    assert code == 0, err
    found = Fit.from_zarr("f.zarr")
    same = LowRankGLS(1).fit(System.from_zarr("s.zarr")).result_.with_cov("cluster", correction="HC1")
    np.testing.assert_allclose(found.std_errors, same.std_errors, rtol=1e-12)
    assert "cluster (HC1, 26 groups)" in out and "cluster (HC1, 26 groups)" in run("summary f.zarr")[1]


def test_a_covariance_that_cannot_be_had_does_not_lose_the_fit(run: Run) -> None:
    code, out, err = run("fit s.zarr --out f.zarr --rank 1 --engine stream --cov observed")
    assert code == 1 and "kind='observed' needs the compressed rows" in err
    assert "Saved: f.zarr" in out
    assert "classical" in run("summary f.zarr")[1]


@pytest.mark.parametrize("segments", ["time.year", "groups"])
def test_fits_that_vary_in_time_are_printed_saved_and_opened(run: Run, segments: str) -> None:
    words = f"--covariance time-varying --rank 1 --segments {segments} --bandwidth 2 --cov robust"
    code, out, err = run(f"fit s.zarr --out f.zarr {words}")
    assert code == 0, err
    found = TimeVaryingFit.from_zarr("f.zarr")
    assert found.summary() in out and "Passes 1, read" in out
    assert found.options["covariance"] == TimeVarying(1, segments, 2)
    code, shown, err = run("summary f.zarr --test f0:x=0")
    assert code == 0 and shown == f"{found.summary()}\n{found.wald_test('f0:x=0')}\n", err
    assert run("predict f.zarr s.zarr --out p.zarr --interval 0.9")[0] == 0
    with xr.open_zarr("p.zarr") as ds:
        np.testing.assert_array_equal(ds["yhat"], found.predict(System.from_zarr("s.zarr")))
        assert list(ds["time"].values[:1]) == [np.datetime64("2001-01-07")]
    for more in ("--given f0", "--scores bartlett", "--interval 0.9 --kind observation"):
        code, _, err = run(f"predict f.zarr s.zarr --out q.zarr {more}")
        assert code == 1 and "one Sigma for each segment" in err
    assert not Path("q.zarr").exists()


# ---------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("fit s.zarr --out f.zarr --rank 1", 0),
        ("fit s.zarr --out f.zarr --rank 3 --algorithm em --no-accelerate --max-sweeps 1 --rel-tol 1e-15", 3),
        ("fit s.zarr --out f.zarr --rank 40", 1),
        ("fit nowhere.zarr --out f.zarr", 1),
        ("fit s.zarr --out f.zarr --rank many", 2),
        ("fit s.zarr --out f.zarr --rank 1 --memory-limit 1kB", 1),
    ],
)
def test_exit_codes_tell_shells_how_it_ended(run: Run, words: str, code: int) -> None:
    program = "import sys; from lrgls_dask.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, *words.split()], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert Path("f.zarr").exists() == (code in (0, 3))
    if code == 3:
        assert done.stderr.startswith("lrgls: warning: LowRankGLS: not converged")
    if code == 1:
        assert done.stderr.startswith("lrgls: error: ") and done.stderr.count("\n") == 1
