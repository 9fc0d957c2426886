"""The benchmarks run, in their small mode, and find what does not depend on the clock."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = (
    "across",
    "bootstrap",
    "checkpoint",
    "cluster",
    "coverage",
    "coverage_missing",
    "coverage_robust",
    "cross_validate",
    "compress_patterns",
    "em_versus_als",
    "engines",
    "from_parquet",
    "graph",
    "long_parquet",
    "memory",
    "missing",
    "missing_at_random",
    "missing_stored",
    "narrow_parquet",
    "peers",
    "penalised_factors",
    "pinned",
    "rank_recovery",
    "read_limit",
    "recovery",
    "robust",
    "routes",
    "select_rank",
    "standard_errors",
    "stream_passes",
    "structures",
    "time_varying",
    "versus_alsgls",
    "versus_linearmodels",
    "wide",
)


# What compares two checkouts of the library has a command line of its own.
COMPARISONS = ("same_results", "same_results_cases", "same_results_recording", "side_by_side")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Runs one script as its command line would and returns what it wrote."""

    def run(name: str) -> dict:
        monkeypatch.syspath_prepend(str(FOLDER))
        monkeypatch.chdir(tmp_path)
        importlib.import_module(f"benchmarks.{name}").cli(["--small", "--repeat", "1", "--json", "found.json"])
        found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
        assert set(found) == {"benchmark", "small", "machine", "settings", "runs", "summary", "table"}
        assert (found["benchmark"], found["small"]) == (name, True)
        assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
        assert all(run["seconds"] > 0 and run["peak_sum"] >= run["peak_max"] > 10**7 for run in found["runs"])
        return found

    return run


def command(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=FOLDER, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_checkout_beside_itself():
    root = str(FOLDER.parents[1])
    assert "BIC over 12 ranks" in command("side_by_side.py", root, root, "--small", "--repeat", "1", "--only", "BIC")


@pytest.mark.slow
def test_one_command_for_some_of_them(tmp_path):
    words = [sys.executable, "-m", "tests.benchmarks", "--small", "--repeat", "1", "--out", str(tmp_path), "routes"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=FOLDER.parents[1], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "raw, xr.open_zarr over sum" in done.stdout
    assert set(json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))) == {"routes"}
    wrong = subprocess.run([*words[:-1], "route"], capture_output=True, text=True, cwd=FOLDER.parents[1], check=False)
    assert wrong.returncode == 2
    assert "no benchmark is called 'route'" in wrong.stderr


@pytest.mark.slow
def test_results_recorded_twice_are_the_same(tmp_path):
    for name in ("one", "two"):
        command("same_results.py", "record", str(tmp_path / name), "--only", "weights")
    said = command("same_results.py", "compare", str(tmp_path / "one"), str(tmp_path / "two"), "--only", "weights")
    assert "equal to the last bit" in said
    command("same_results.py", "open", str(tmp_path / "one"), "--only", "weights")


def cases(found: dict) -> list[str]:
    return [run["case"] for run in found["runs"]]


def test_every_script_is_tested_and_described():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"harness", "__init__", "__main__", *COMPARISONS}
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert scripts == set(SCRIPTS)
    described = (*SCRIPTS, "same_results", "side_by_side")
    assert [name for name in described if f"`{name}.py`" not in readme] == []


def test_read_limit(small, capsys):
    found = small("read_limit")
    assert cases(found) == ["fit", "sum", "cat"]
    fit, added, cat = found["runs"]
    assert fit["passes"] == 1 and fit["bytes_read"] == 20_000 * 60 * 8 < cat["bytes"]
    assert len(added["sums"]) == 2 and added["sums"][0] != added["sums"][1]
    assert fit["peak_sum"] <= fit["planned_peak"] == found["summary"]["planned_peak"]
    assert found["summary"]["fit_over_sum"] == fit["seconds"] / added["seconds"]
    assert "fit_over_sum" in capsys.readouterr().out


def test_from_parquet(small):
    found = small("from_parquet")
    assert len(found["runs"]) == 4
    fit, read, *_ = found["runs"]
    assert fit["passes"] == 1
    assert fit["n_obs"] == read["n_obs"] == 6_000
    assert fit["bytes_read"] == 6_000 * 12 * 8
    assert fit["peak_sum"] <= fit["planned_peak"]


def test_narrow_parquet(small):
    found = small("narrow_parquet")
    by_task = {each["case"]: each for each in found["runs"]}
    fit = by_task["fit"]
    assert fit["passes"] == 1 and fit["n_obs"] == by_task["sums"]["n_obs"] == by_task["read"]["n_obs"] == 6_000
    assert fit["bytes_read"] == 6_000 * 8 * 8 and fit["peak_sum"] <= fit["planned_peak"]


def test_missing_stored(small):
    found = small("missing_stored")
    added, fit = found["runs"]
    assert fit["termination"] == "converged" and fit["passes"] == found["summary"]["passes"] <= 12
    assert fit["peak_sum"] <= fit["planned_peak"]
    assert found["summary"]["pass_over_sum"] == fit["seconds_a_pass"] / added["seconds"]


@pytest.mark.slow
def test_pinned(small):
    found = small("pinned")
    assert cases(found) == ["none", "half", "all"]
    none, half, every = found["runs"]
    assert none["passes"] == half["passes"] == every["passes"] > 2
    assert none["pinned_rows"] == 0 < half["pinned_rows"] < every["pinned_rows"]
    assert none["bytes_read"] > half["bytes_read"] > every["bytes_read"]
    assert all(each["peak_sum"] <= each["planned_peak"] for each in found["runs"])
    assert found["summary"]["same_digits"]


def test_long_parquet(small):
    found = small("long_parquet")
    assert cases(found) == ["fit, ascending", "read, ascending", "fit, shuffled", "read, shuffled"]
    ascending, read, shuffled, _ = found["runs"]
    assert ascending["passes"] == shuffled["passes"] == 1
    assert (ascending["n_obs"], shuffled["n_obs"], read["n_obs"]) == (400, 400, 2_000)


@pytest.mark.slow
def test_checkpoint(small):
    found = small("checkpoint")
    assert found["summary"]["nll_apart"] == 0  # the same bits
    assert [run["passes"] for run in found["runs"][:2]] == [found["runs"][0]["passes"]] * 2


def test_memory(small):
    found = small("memory")
    one, two = found["runs"]
    assert two["bytes_read"] == 2 * one["bytes_read"]
    assert found["summary"]["most_peak_over_plan"] <= 1
    assert found["summary"]["peak_2N_over_N"] < 1.1


@pytest.mark.slow
def test_time_varying(small):
    found = small("time_varying")
    assert cases(found) == ["K10-q5-3.0", "K10-q5-cv", "K20-q10-3.0"]
    assert all(run["passes"] == 1 for run in found["runs"])
    planned = [value for key, value in found["summary"].items() if key.startswith("planned_over_peak")]
    assert len(planned) == 3 and min(planned) >= 1


@pytest.mark.slow
def test_versus_alsgls(small):
    found = small("versus_alsgls")
    assert cases(found) == ["alsgls N=1000", "lrgls_dask N=1000"]
    assert all(run["converged"] for run in found["runs"])
    assert found["summary"]["nll_excess_N1000"] <= 1e-9
    assert found["summary"]["times_faster_N1000"] > 0


@pytest.mark.slow
def test_versus_linearmodels(small):
    found = small("versus_linearmodels")
    assert found["settings"]["n_obs"] == found["settings"]["n_obs_wanted"]
    assert 0 < found["summary"]["most_apart_in_std_errors"] < 0.5
    assert min(found["summary"]["peak_linearmodels"], found["summary"]["peak_lrgls_dask"]) > 10**7


def test_linearmodels_gets_no_more_rows_than_memory_holds(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("benchmarks.versus_linearmodels")
    enough = script.rows_that_fit({"n_obs": 10, "n_equations": 50, "n_regressors": 5})
    less = script.rows_that_fit({"n_obs": 10**9, "n_equations": 50, "n_regressors": 5})
    assert enough == 10
    assert less % 1_000 == 0 and less < 10**9


def test_stream_passes(small):
    found = small("stream_passes")
    (run,) = found["runs"]
    for fit in run["fits"]:
        assert fit["counted_passes"] == fit["fit_passes"]
        assert fit["fit_passes"] - fit["passes"][-1] in (0, 1)  # standard errors come after the loop
        assert fit["passes"] == sorted(fit["passes"]) and fit["gaps"][-1] > -1e-10
    tightest = run["fits"][-1]
    assert tightest["termination"] == "converged" and tightest["gaps"][-1] < 1e-9
    assert found["summary"]["most_passes_to_1e-09_at_rel_tol_1e-10"] <= tightest["fit_passes"]


@pytest.mark.slow
def test_cluster(small):
    found = small("cluster")
    assert cases(found) == ["2 workers", "1 worker", "small chunks"]
    two, one, overhead = found["runs"]
    assert two["bytes_read"] == one["bytes_read"] == 8_000 * 120 * 8
    assert found["summary"]["nll_apart"] == 0  # equal chunks, equal digits
    assert two["bytes_moved"] > 8 * 120**2 / 2  # at least one sum, or its triangle, came to the client
    assert two["peak_sum"] > two["peak_max"]
    assert {"zarr_ms", "dask_ms"} <= set(overhead)


@pytest.mark.slow
def test_select_rank(small):
    found = small("select_rank")
    theirs, ours = found["runs"]
    assert list(ours["bic"]) == list(theirs["bic"]) == ["1", "2", "3", "4"]
    assert ours["rank"] == theirs["rank"] == 3
    assert ours["passes"] == 1
    assert found["summary"]["most_nll_excess"] <= 1e-9


@pytest.mark.slow
def test_robust(small):
    found = small("robust")
    assert cases(found) == ["robust", "cluster", "scattered", "sum"]
    robust, cluster, scattered, added = found["runs"]
    for run in (robust, cluster, scattered):  # the simulated rows are independent and alike
        assert 0.5 < run["over_classical"][0] < run["over_classical"][1] < 2
    assert len(added["sums"]) == 2
    assert found["summary"]["robust_over_sum"] == robust["seconds"] / added["seconds"]


@pytest.mark.slow
def test_coverage_robust(small):
    found = small("coverage_robust")
    assert cases(found) == ["heteroskedastic", "clustered", "autocorrelated"]
    for run, kind in zip(found["runs"], ("robust", "cluster", "hac"), strict=True):
        assert run["z_sd"][kind] < run["z_sd"]["classical"]  # classical errors are too small in all three
        assert 0.75 < run["coverage"][kind] <= 1


@pytest.mark.slow
def test_coverage_missing(small):
    found = small("coverage_missing")
    assert cases(found) == ["heteroskedastic", "clustered"]
    for run in found["runs"]:
        assert 0.17 < run["missing"] < 0.23
        assert all(0.7 < run["coverage"][kind] <= 1 for kind in run["kinds"])


@pytest.mark.slow
def test_bootstrap(small):
    found = small("bootstrap")
    assert cases(found) == ["alsgls", "lrgls_dask N=500", "lrgls_dask N=500000"]
    assert [run["failed"] for run in found["runs"][1:]] == [0, 0]
    assert 0.7 < found["summary"]["over_classical_many"] < 1.3  # classical errors are right on many rows


@pytest.mark.slow
def test_coverage(small):
    found = small("coverage")
    assert cases(found) == ["classical", "bootstrap"]
    assert found["summary"]["coverage_classical"] > 0.85
    assert found["summary"]["coverage_bootstrap"] > 0.7


@pytest.mark.slow
def test_rank_recovery(small):
    found = small("rank_recovery")
    assert cases(found) == ["bic", "cv"]
    assert found["summary"] == {"share_right_bic": 1, "share_right_cv": 1}


@pytest.mark.slow
def test_recovery(small):
    found = small("recovery")
    assert cases(found) == ["sparse", "hierarchical", "time_varying"]
    summary = found["summary"]
    assert summary["mean_f1"] >= 0.95
    assert summary["share_better_than_best_rank"] == 1
    assert summary["error_over_static"] < 1 and summary["error_over_segmentwise"] < 1


def test_across(small):
    found = small("across")
    run = found["runs"][0]
    assert found["summary"]["holm_fwer"] <= found["summary"]["bh_fwer"] <= 1
    assert run["factor-adjusted"]["power"] > run["bh"]["power"] >= run["by"]["power"]
    assert [row["method"] for row in found["table"]] == ["holm", "sup-t", "bh", "by", "factor-adjusted"]


@pytest.mark.slow
def test_structures(small):
    found = small("structures")
    assert cases(found) == ["unstructured", "grouped", "unstructured_absent", "grouped_absent", "sparse"]
    plain, grouped, plain_absent, absent, sparse = found["runs"]
    assert found["summary"]["most_gap"] <= 1e-8
    assert grouped["nll"] < plain["nll"] and absent["nll"] < plain_absent["nll"]  # more factors
    assert 0 < sparse["loadings"] < 80


def test_standard_errors(small):
    found = small("standard_errors")
    assert cases(found) == ["wide_60x80", "subsets", "own"]
    wide, subsets, own = found["runs"]
    assert wide["df"] == 80 and wide["statistic_over_df"] > 0
    assert subsets["usable"] and subsets["coefficients"] == 1_200
    assert found["summary"]["most_off"] < 1e-8 and own["one_passes"] <= 8


@pytest.mark.slow
def test_missing(small):
    found = small("missing")
    assert cases(found) == ["passes", "few", "complete", "rounds"]
    _, few, _, rounds = found["runs"]
    assert few["passes"] == 1 < few["patterns"] <= 50
    assert rounds["passes_to_gap"] == found["summary"]["passes_to_gap"] <= rounds["passes"]
    assert abs(rounds["last_gap"]) < 1e-6


def test_compress_patterns(small):
    (found,) = small("compress_patterns")["runs"]
    assert 1 < found["patterns"] <= 50 <= found["rows_kept"] < 2_000 and found["over_complete"] > 0


@pytest.mark.slow
def test_missing_at_random(small):
    found = small("missing_at_random")
    assert cases(found) == ["em", "drop"]
    summary = found["summary"]
    assert summary["largest_z_em"] < 3 and 0.9 < summary["coverage_em"] <= 1
    assert summary["largest_z_drop"] > 6 and summary["coverage_drop"] < 0.8
    assert max(found["runs"][1]["bias"][::3]) < -0.1  # complete rows have small first responses: constants too low


@pytest.mark.slow
def test_em_versus_als(small):
    found = small("em_versus_als")
    assert len(found["runs"]) == 9 and [row["K"] for row in found["table"]] == [100, 400]
    summary = found["summary"]
    assert summary["exponent_algebra_bytes_dense"] > 1.6 and summary["exponent_algebra_bytes_ours"] < 1.1
    assert summary["most_nll_apart"] < 1e-8
    assert summary["most_params_apart"] < 1e-3 and summary["most_sigma_apart"] < 1e-4
    reached = {name: summary[f"rounds_to_gap_{name}"][0] for name in ("als", "em", "em_plain", "dense")}
    assert 0 < reached["als"] < reached["em"] < reached["em_plain"] and reached["em"] < reached["dense"]


@pytest.mark.slow
def test_cross_validate(small):
    found = small("cross_validate")
    assert cases(found) == ["plain", "cv"]
    assert found["summary"]["passes_cv"] == 1 and found["summary"]["rank_cv"] == 3


@pytest.mark.slow
def test_engines(small):
    found = small("engines")
    by_shape = {}
    for run in found["runs"]:
        by_shape.setdefault(run["case"].partition(" ")[2], []).append(run["nll"])
    assert all(abs(one - two) < 1e-6 * abs(one) for one, two in by_shape.values())
    assert found["summary"]["auto_over_faster_at_most"] >= 1.0


@pytest.mark.slow
def test_routes(small):
    found = small("routes")
    for codec in ("raw", "float32", "zstd"):
        values = {run["nll"] for run in found["runs"] if run["case"].startswith(codec) and "nll" in run}
        assert len(values) == 1  # the same blocks by every route, to the last bit


@pytest.mark.slow
def test_wide(small):
    found = small("wide")
    assert cases(found) == ["read own", "fit own", "read shared", "fit shared"]
    read_own, own, read_shared, shared = found["runs"]
    assert read_own["bytes"] > 2_000 * 60 * 6 * 8 and read_shared["bytes"] > 2_000 * 205 * 8
    assert own["termination"] == shared["termination"] == "converged"
    assert shared["passes_to_last_1e-6"] <= shared["passes"] <= 14
    assert own["peak_sum"] <= own["planned_peak"] and shared["peak_sum"] <= shared["planned_peak"]
    assert found["summary"]["pass_over_read_own"] == own["seconds_a_pass"] / read_own["seconds"]


def test_graph(small):
    found = small("graph")
    assert cases(found) == ["stored", "dask", "scheduler"]
    stored, lazy, scheduled = found["runs"]
    assert stored["tasks"] == scheduled["tasks"]  # each of which the scheduler has run
    assert stored["tasks"] < 3_000 / 6
    assert lazy["tasks"] < 3 * 300
    assert stored["graph_bytes"] < 10_000 * stored["tasks"]
    assert found["summary"]["stored_chunks_a_task"] == 3_000 / stored["tasks"]


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["heteroskedastic", "clustered"])
def test_intervals_with_a_fifth_missing_cover_what_they_say(errors, monkeypatch):
    """At random given X: robust and clustered intervals of 95 % hold 93.5 to 96.5 % of the slopes."""
    monkeypatch.syspath_prepend(str(FOLDER))
    found = importlib.import_module("benchmarks.coverage_missing").simulate(errors, 2_000, 400)
    assert 0.18 < found["missing"] < 0.22
    for kind in found["kinds"]:
        assert 0.935 <= found["coverage"][kind] <= 0.965
    assert found["coverage"]["classical"] < 0.93  # so that it is the kind that covers


@pytest.mark.slow
def test_peers(small):
    found = small("peers")
    summary, missing = found["summary"], found["settings"]["not_installed"]
    assert {run["case"] for run in found["runs"]} >= {"wide, lrgls", "narrow, lrgls", "small, lrgls"}
    assert len(found["runs"]) == 3 + 4 - len(missing)
    assert [key for key in summary if key.endswith("_coefficients_apart") and summary[key] > 1e-3] == []
    if "sklearn" not in missing:
        assert summary["wide_sklearn_nll_excess"] < 1e-3
