"""The bootstrap of fits that absorbed effects is that of fits with a column of 0 and 1 for every group."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client

from lrgls_dask import Fit, System
from support.absorbed import Grouped, fitted, grouped, of_regressors

DATA = grouped(n_firms=4)
LABELS = (("firm",), ("firm", "year"), ("year", "firm", "kind"))
GROUPS = np.arange(240) % 24
KEPT = ~np.isin(DATA.firm, ["f004", "f005"])  # firms of one row, whose dummies many a replicate would lack
SOME = Grouped(*(values[KEPT] for values in vars(DATA).values()))


def systems(names: tuple[str, ...], **options: Any) -> tuple[System, System]:
    """One that absorbs, and one with dummies."""
    return SOME.system(*names, **options), SOME.with_dummies(*names, **options)


def check_same_draws(fit: Fit, dummies: Fit, rtol: float, **how: Any) -> None:
    found, wanted = fit.bootstrap(8, seed=3, **how), dummies.bootstrap(8, seed=3, **how)
    assert (found.n_failed, wanted.n_failed) == (0, 0)
    of_x = np.array([of_regressors(dummies, each) for each in wanted.draws.params])
    np.testing.assert_allclose(found.draws.params, of_x, rtol=rtol, atol=rtol)
    of_x = np.array([of_regressors(dummies, each) for each in wanted.draws.std_errors])
    np.testing.assert_allclose(found.draws.std_errors, of_x, rtol=rtol)
    np.testing.assert_allclose(found.draws.variances, wanted.draws.variances, rtol=rtol)


@pytest.mark.parametrize("names", LABELS)
@pytest.mark.parametrize("method", ["cluster", "blocks"])
@pytest.mark.parametrize("weighted", [False, True])
def test_groups_of_rows_are_resampled_as_with_dummies(names: tuple[str, ...], method: str, weighted: bool) -> None:
    how: dict[str, Any] = {"method": method}
    how |= {"groups": GROUPS[KEPT]} if method == "cluster" else {"n_blocks": 20}
    options = {"weights": SOME.weights} if weighted else {}
    fit, dummies = (fitted(system, rank=0) for system in systems(names, **options))
    check_same_draws(fit, dummies, 1e-8, **how)


@pytest.mark.parametrize(
    "options", [{"rank": 1}, {"rank": "auto", "covariance": "full"}, {"rank": 0, "algorithm": "fgls", "debiased": True}]
)
def test_whatever_the_sigma(options: dict[str, Any]) -> None:
    fit, dummies = (fitted(system, **options) for system in systems(("firm", "year")))
    check_same_draws(fit, dummies, 2e-5, method="cluster", groups=GROUPS[KEPT])


def test_a_group_that_no_replicate_draws_whole_is_absorbed_in_part() -> None:
    """Of firms of one row a replicate has dummies that are zero, which is singular with dummies and nothing here."""
    fit = fitted(DATA.system("firm"), rank=0)
    found = fit.bootstrap(20, "cluster", groups=np.arange(240), seed=1)
    assert found.n_failed == 0
    rows = np.random.default_rng(np.random.SeedSequence(1).spawn(20)[0]).integers(240, size=240)
    again = fitted(System.from_arrays(DATA.Y[rows], DATA.X[rows], absorb=DATA.firm[rows]), rank=0)
    np.testing.assert_allclose(found.draws.params[0], again.params, rtol=1e-9)
    np.testing.assert_allclose(found.draws.std_errors[0], again.std_errors, rtol=1e-9)


@pytest.mark.parametrize("names", LABELS[:2])
def test_errors_drawn_from_the_fit_lose_what_the_effects_take(names: tuple[str, ...]) -> None:
    data = grouped(120, 4, n_firms=30)
    system = System.from_arrays(data.Y, data.X, absorb=data.labels(*names))
    fit = fitted(system, rank=0)
    assert fit.design.absorbed is not None
    found = fit.bootstrap(1000, seed=2)
    lost = fit.design.absorbed.n_parameters + 3
    share = (found.draws.variances / fit.idio_var.values).mean()
    np.testing.assert_allclose(share, 1 - lost / 120, rtol=0.02)
    np.testing.assert_allclose(found.std_errors, fit.std_errors, rtol=0.09)
    low, high = found.conf_int(0.05).values.T
    assert np.all((low < fit.params) & (fit.params < high))


@pytest.mark.parametrize("names", LABELS[:2])
def test_rows_in_chunks_on_a_cluster_and_a_saved_fit_give_the_same_draws(
    names: tuple[str, ...], client: Client, tmp_path: Any
) -> None:
    fit = fitted(DATA.system(*names), rank=0)
    cut = System.from_arrays(
        *(da.from_array(values, chunks=(67, -1)) for values in (DATA.Y, DATA.X)), absorb=DATA.labels(*names)
    )
    chunked = fitted(cut, rank=0, engine="stream")
    wanted = fit.bootstrap(5, "cluster", groups=GROUPS, seed=4)
    np.testing.assert_allclose(
        chunked.bootstrap(5, "cluster", groups=GROUPS, seed=4).draws.params, wanted.draws.params, rtol=1e-9
    )
    fit.to_zarr(tmp_path / "fit.zarr")
    opened = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_allclose(
        opened.bootstrap(5, "cluster", groups=GROUPS, seed=4, system=cut).draws.params, wanted.draws.params, rtol=1e-9
    )
    np.testing.assert_allclose(opened.bootstrap(5, seed=4).draws.params, fit.bootstrap(5, seed=4).draws.params)
    other = System.from_arrays(DATA.Y + DATA.X[:, :1] ** 2, DATA.X, absorb=DATA.labels(*names))
    with pytest.raises(ValueError, match="not the rows that were fitted"):
        fit.bootstrap(5, "cluster", groups=GROUPS, seed=4, system=other)
