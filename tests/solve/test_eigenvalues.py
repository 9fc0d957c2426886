"""Numbers of factors by the eigenvalues of residuals, and ranks none of whose own variances is zero."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy

from lrgls_dask import FitWarning, LowRankGLS, System, TimeVarying
from lrgls_dask.datasets import load_french
from support.counted import counted_rows
from support.systems import Data, dask_rows, simulate

STREAM = {"engine": "stream"}
WAYS = pytest.mark.parametrize("way", ["parallel", "eigenvalue-ratio"])


def with_factors(K: int, N: int, k: int, seed: int = 0) -> Data:
    """Factors of strengths 1, 1.2, ..., well above the noise; own variances that differ."""
    rng = np.random.default_rng([seed, K, N, k])
    X = np.column_stack([np.ones(N), rng.normal(size=(N, 2))])
    basis = np.linalg.qr(rng.normal(size=(K, max(k, 1))))[0][:, :k]
    F = basis * np.sqrt(K) * (1.0 + 0.2 * np.arange(k)) / 2
    E = rng.normal(size=(N, k)) @ F.T + rng.normal(size=(N, K)) * rng.uniform(0.7, 1.0, K)
    return Data("shared", X @ rng.normal(size=(3, K)) + E, X, (np.arange(3),) * K)


@WAYS
@pytest.mark.parametrize(("K", "N", "k"), [(20, 300, 3), (60, 90, 4), (12, 1_000, 2), (30, 500, 0), (150, 60, 2)])
def test_well_separated_factors_are_counted(K: int, N: int, k: int, way: Any) -> None:
    for seed in range(3):
        found = LowRankGLS(way, algorithm="fgls").fit(with_factors(K, N, k, seed).system())
        assert found.rank_ == k, seed


def correlations(data: Data) -> tuple[np.ndarray, int]:
    R = data.Y - data.X @ np.linalg.lstsq(data.X, data.Y, rcond=None)[0]
    R = R / np.sqrt(np.mean(R**2, axis=0))
    return R.T @ R / len(R), len(R) - data.X.shape[1]


def edge_by_search(t: np.ndarray, gamma: float) -> tuple[float, float]:
    """The least of z over a fine grid, polished, and z'' there by differences."""

    def z(x: float) -> float:
        return 1 / x + gamma * float(np.mean(t / (1 - t * x)))

    best = scipy.optimize.minimize_scalar(
        z, bounds=(1e-6, 1 / t.max() - 1e-9), method="bounded", options={"xatol": 1e-12}
    )
    h = 1e-4 * best.x
    return best.fun, (z(best.x + h) - 2 * z(best.x) + z(best.x - h)) / h**2


@pytest.mark.parametrize(("K", "N"), [(20, 300), (60, 90), (150, 60)])
def test_thresholds_are_those_of_a_direct_computation(K: int, N: int) -> None:
    data = with_factors(K, N, 2)
    S, n = correlations(data)
    table = LowRankGLS("parallel", algorithm="fgls").fit(data.system()).result_.selection
    assert table is not None and table.attrs["criterion"] == "parallel" and table.index[0] == 0
    values, vectors = np.linalg.eigh(S)
    values, vectors = values[::-1], vectors[:, ::-1]
    for k in range(1, 5):
        taken = vectors[:, : k - 1]
        left = np.diagonal(S - taken * values[: k - 1] @ taken.T) / (1 - np.sum(taken**2, axis=1))
        edge, bend = edge_by_search(left, (K - k + 1) / (n - k + 1))
        expected = edge + 0.9793 * (bend / 2) ** (1 / 3) * (n - k + 1) ** (-2 / 3)
        assert table.loc[k, "threshold"] == pytest.approx(expected, rel=1e-5)
        assert table.loc[k, "eigenvalue"] == pytest.approx(values[k - 1], rel=1e-8)


def test_noise_alone_stays_below_its_threshold_in_95_of_100_at_least() -> None:
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(60):
        Y = rng.normal(size=(90, 40))
        above += (
            LowRankGLS("parallel", ranks=[0, 1], algorithm="ols").fit(System.from_arrays(Y, np.ones((90, 1)))).rank_
        )
    assert above <= 9


@pytest.mark.parametrize(("K", "N"), [(20, 300), (150, 60)])
def test_ratios_are_those_of_the_paper(K: int, N: int) -> None:
    data = with_factors(K, N, 2)
    S, n = correlations(data)
    table = LowRankGLS("eigenvalue-ratio", algorithm="fgls").fit(data.system()).result_.selection
    assert table is not None and table.attrs["criterion"] == "eigenvalue_ratio"
    values = np.linalg.eigvalsh(S)[::-1]
    V = np.array([values[k:].sum() for k in range(8)])
    m = min(K, n)
    extended = np.concatenate([[V[0] / np.log(m)], values])
    for k in range(6):
        assert table.loc[k, "eigenvalue_ratio"] == pytest.approx(extended[k] / extended[k + 1], rel=1e-8)
        growth = np.log(1 + extended[k] / V[k]) / np.log(1 + extended[k + 1] / V[k + 1])
        assert table.loc[k, "growth_ratio"] == pytest.approx(growth, rel=1e-8)


@pytest.mark.parametrize("N", [4, 6, 10])
def test_eigenvalues_beyond_the_number_of_rows_have_no_ratio(N: int) -> None:
    rng = np.random.default_rng(N)
    Y = 3 * rng.normal(size=(N, 1)) @ rng.normal(size=(1, 40)) + rng.normal(size=(N, 40))
    system = System.from_arrays(Y, np.ones((N, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # of rows so few that a Heywood case is at hand
        fit = LowRankGLS("eigenvalue-ratio", algorithm="fgls").fit(system).result_
        assert LowRankGLS("parallel", algorithm="fgls").fit(system).rank_ <= N - 1
    table = fit.selection
    assert fit.rank == 1 and table is not None
    values = np.linalg.eigvalsh(correlations(Data("shared", Y, np.ones((N, 1)), ((0,),) * 40))[0])[::-1]
    few = N - 2  # l_(N - 1) is the last that is not zero
    expected = values[:few] / values[1 : few + 1]
    np.testing.assert_allclose(table.loc[1:few, "eigenvalue_ratio"], expected, rtol=1e-7)
    np.testing.assert_array_equal(np.isnan(table["eigenvalue_ratio"]), table.index > few)
    np.testing.assert_array_equal(np.isnan(table["growth_ratio"]), table.index >= few)


@pytest.mark.filterwarnings("ignore:LowRankGLS. stalled")
@WAYS
@pytest.mark.parametrize(
    "options", [{}, {"algorithm": "em"}, {"lam_B": 1.0}, {"debiased": True}, {"sigma_step": "pca"}]
)
def test_the_choice_is_that_of_the_residuals_by_every_road(way: Any, options: dict[str, Any]) -> None:
    data = simulate("mixed", n=230, K=9)
    chosen = LowRankGLS(way, **options).fit(data.system())
    streamed = LowRankGLS(way, engine="stream", **options).fit(data.system(dask_rows(60)))
    compressed = LowRankGLS(way, **options).fit(data.system().compress())
    assert chosen.rank_ == streamed.rank_ == compressed.rank_ == 2
    first, second = chosen.result_.selection, streamed.result_.selection
    assert first is not None and second is not None
    if "lam_B" not in options:
        np.testing.assert_allclose(first, second, rtol=1e-6)
    alone = LowRankGLS(chosen.rank_, **options).fit(data.system()).result_
    np.testing.assert_allclose(chosen.result_.params, alone.params, rtol=1e-9)


@WAYS
def test_it_takes_no_read_more_and_the_plan_knows(way: Any) -> None:
    data = simulate("mixed", n=230, K=9)
    for engine in ("compress", "stream"):
        counts = []
        for rank in (2, way):
            system, count = counted_rows(data, 100)
            model = LowRankGLS(rank, engine=engine).fit(system)
            counts.append(sum(count.values()))
            assert model.plan_.engine == engine
        assert counts[0] == counts[1] > 0


@WAYS
def test_candidates_holes_and_more_factors_than_were_tried(way: Any) -> None:
    data = with_factors(20, 300, 3)
    assert LowRankGLS(way, ranks=[0, 2]).fit(data.system()).rank_ in (0, 2)
    assert LowRankGLS(way).fit(System.from_arrays(data.Y[:, :1], data.X)).rank_ == 0
    assert LowRankGLS(way, missing="em").fit(data.system()).rank_ == 3
    Y = data.Y.copy()
    Y[::9, 2] = np.nan
    holes = System.from_arrays(Y, data.X)
    with pytest.raises(ValueError, match=r"complete rows, and these miss responses. Use rank='bic', or missing='drop'"):
        LowRankGLS(way, missing="em").fit(holes)
    assert LowRankGLS(way, missing="drop").fit(holes).rank_ == 3


# ---------------------------------------------------------------------------------- edges, improper solutions


def test_the_most_factors_that_were_tried_are_said_to_be_that() -> None:
    data = with_factors(40, 400, 14)
    with pytest.warns(FitWarning, match=r"rank 12 is the most that was tried.*use ranks=range\(12, 25\)"):
        assert LowRankGLS("bic").fit(data.system()).rank_ == 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LowRankGLS("bic", ranks=range(12, 25)).fit(data.system()).rank_ == 14


def improper() -> Data:
    """Returns of eight portfolios, whose best number of factors leaves some of them no variance of their own."""
    found = load_french()
    X = np.column_stack([found[name] for name in ("const", "mktrf", "smb", "hml", "mom")])
    return Data("shared", found["excess_return"].values[:, :8].astype(float), X, (np.arange(5),) * 8)


@pytest.mark.parametrize(
    ("rank", "options"),
    [("cv", {}), *((way, given) for way in ("bic", "parallel") for given in ({}, STREAM, {"algorithm": "fgls"}))],
)
def test_ranks_without_variances_of_their_own_are_avoided(rank: Any, options: dict[str, Any]) -> None:
    system = improper().system()
    with pytest.warns(FitWarning, match="Heywood"):
        plain = LowRankGLS(rank, **options).fit(system).result_
    assert plain.on_floor
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = LowRankGLS(rank, improper="avoid", **options).fit(system).result_
    assert not found.on_floor and 0 < found.rank < plain.rank
    table = found.selection
    assert table is not None
    if rank == "bic":
        proper = table[table["on_floor"] == 0]
        assert found.rank == proper["bic"].idxmin() and table.loc[plain.rank, "on_floor"] > 0
        assert (table["tied"] == (table.index == found.rank)).all()


def test_they_are_avoided_with_holes_and_kept_where_there_is_no_other() -> None:
    data = improper()
    Y = data.Y.copy()
    Y[::7, 6] = np.nan
    holes = System.from_arrays(Y, data.X)
    with pytest.warns(FitWarning, match="Heywood"):
        plain = LowRankGLS("bic", missing="em").fit(holes).result_
    found = LowRankGLS("bic", improper="avoid", missing="em").fit(holes).result_
    assert plain.on_floor and not found.on_floor and found.rank < plain.rank
    with pytest.warns(FitWarning, match="Heywood"):
        assert LowRankGLS("bic", ranks=[3, 4], improper="avoid").fit(data.system()).result_.on_floor


def test_a_given_rank_is_no_choice() -> None:
    for rank in (2, "auto"):
        with pytest.raises(ValueError, match=rf"rank={rank!r} is no choice. Use rank='bic'"):
            LowRankGLS(rank, improper="avoid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"covariance='full' there is no choice\. Drop improper"):
        LowRankGLS(covariance="full", improper="avoid")
    with pytest.raises(ValueError, match=r"covariance=TimeVarying\(\.\.\.\) there is no choice. Drop improper"):
        LowRankGLS(covariance=TimeVarying(1, "time.year"), improper="avoid")
    found = LowRankGLS("auto", ranks=[0, 1, 2, 3], improper="avoid").fit(improper().system()).result_
    assert not found.on_floor and found.selection is not None and "on_floor" in found.selection
    with pytest.raises(ValueError, match="improper must be 'warn' or 'avoid'"):
        LowRankGLS("bic", improper="ignore")  # type: ignore[arg-type]
