"""Every kind of covariance through the fit: other programs' digits, restrictions, files, and what follows from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from linearmodels.system import SUR
from scipy.linalg import null_space

from lrgls_dask import Fit, LowRankGLS
from support.fits import TIGHT, fit
from support.reference import EXACT, joint, load, system_of, table
from support.sandwiches import OPTIONS, meat, off_by, scores
from support.systems import simulate

CASE = "case05c_sim_k2_K7_N250_scales"
DATA = simulate("own", n=240)
READ_FREE = ["classical", "observed", "kackar-harville"]


@pytest.mark.parametrize("structure", ["factor_k2", "full"])
@pytest.mark.parametrize(("kind", "name"), [("observed", "observed"), ("huber-white", "robust_huber_white")])
def test_standard_errors_as_in_lavaan(structure: str, kind: Any, name: str) -> None:
    if structure == "full":
        reference, data = load(CASE)
        expected = reference["fits"]["full"]
        found = LowRankGLS(covariance="full", **EXACT).fit(system_of(reference["equations"], data)).result_
    else:
        expected, found = joint(CASE, structure)
    reported = table(expected["se"][name], found)
    np.testing.assert_allclose(found.with_cov(kind).std_errors, reported, rtol=1e-6)
    one = found.cov(kind, equation=found.equations[2]).values
    mine = slice(*found.design.offsets[2:4])
    np.testing.assert_allclose(np.sqrt(one.diagonal()), reported[mine], rtol=1e-6)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("kind", "options", "theirs"), [
    ("robust", {}, {"cov_type": "robust"}),
    ("hac", {"kernel": "parzen", "bandwidth": 6.0}, {"cov_type": "kernel", "kernel": "parzen", "bandwidth": 6.0}),
])  # fmt: skip
def test_one_step_as_in_linearmodels(
    kind: Any, options: dict[str, Any], theirs: dict[str, Any], debiased: bool
) -> None:
    found = LowRankGLS(covariance="full", algorithm="fgls", debiased=debiased).fit(DATA.system()).result_
    equations = {f"y{j}": {"dependent": DATA.Y[:, j], "exog": X} for j, X in enumerate(DATA.Xs)}
    result = SUR(equations).fit(method="gls", iterate=False, debiased=debiased, **theirs)
    made = found.with_cov(kind, correction="HC1" if debiased else "HC0", **options)
    np.testing.assert_allclose(made.params, result.params, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(made.std_errors, result.std_errors, rtol=1e-8)


@pytest.mark.parametrize("covariance", ["lowrank", "full"])
def test_a_sandwich_keeps_to_restrictions(covariance: Any) -> None:
    R = np.zeros((2, DATA.system().n_coefficients))
    R[0, [0, 5]], R[1, 3] = (1.0, -1.0), 1.0
    model = LowRankGLS(2 if covariance == "lowrank" else "auto", covariance=covariance, restrictions=(R, [0.0, 0.7]))
    made = model.set_params(**TIGHT).fit(DATA.system()).result_
    free, A = null_space(R), DATA.dense().normal_matrix(made.sigma().values)
    bread = free @ np.linalg.inv(free.T @ A @ free) @ free.T
    for kind, options in OPTIONS.items():
        how = {
            "robust": {},
            "cluster": {"groups": OPTIONS["cluster"]["groups"]},
            "hac": {"weights": 1 - np.arange(8) / 8},
        }
        wanted = bread @ meat(scores(made, DATA), **how[kind]) @ bread
        found = made.cov(kind, **options).values
        assert np.abs(R @ found).max() < 1e-12
        kept = np.flatnonzero(wanted.diagonal() > 1e-20)
        assert off_by(found[np.ix_(kept, kept)], wanted[np.ix_(kept, kept)]) < 1e-9


@pytest.mark.parametrize("kind", [*OPTIONS, "observed", "huber-white", "kackar-harville"])
def test_what_follows_uses_it_and_files_keep_it(kind: Any, tmp_path: Any) -> None:
    plain = fit(DATA.system())
    made = plain.with_cov(kind, **OPTIONS.get(kind, {}))
    V = plain.cov(kind, **OPTIONS.get(kind, {})).values
    assert np.abs(V / plain.cov().values - 1).max() > 1e-3
    np.testing.assert_allclose(made.std_errors, np.sqrt(np.diag(V)), rtol=1e-12)
    test = made.wald_test("y0:x0 = y1:x0")
    row = np.zeros(len(V))
    row[0], row[made.design.offsets[1]] = 1.0, -1.0
    assert test.statistic == pytest.approx(float(row @ made.coefficients) ** 2 / float(row @ V @ row), rel=1e-9)
    spread = made.predict(DATA.system(), interval=0.9)["std_error"].values[:3, 0]
    x = DATA.Xs[0][:3]
    np.testing.assert_allclose(spread**2, np.einsum("ip,pq,iq->i", x, V[: x.shape[1], : x.shape[1]], x), rtol=1e-9)
    assert kind in made.summary() and kind in made._repr_html_()
    made.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(again.cov().values, made.cov().values)
    assert again.cov_kind == kind and again.summary() == made.summary()


@pytest.mark.parametrize("kind", READ_FREE)
def test_a_fit_from_disk_reads_nothing_for_these(kind: Any, tmp_path: Any) -> None:
    made = fit(DATA.system())
    made.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_allclose(again.cov(kind).values, made.cov(kind).values, rtol=1e-12)
    with pytest.raises(ValueError, match="kind='huber-white' needs the rows, which this fit does not hold"):
        again.cov("huber-white")


@pytest.mark.parametrize("kind", ["observed", "kackar-harville", "huber-white"])
def test_a_streamed_fit_says_what_to_do(kind: Any) -> None:
    streamed = fit(DATA.system(), engine="stream")
    with pytest.raises(ValueError, match=f"kind='{kind}' needs the compressed rows.*engine='compress'"):
        streamed.cov(kind)


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_debiased_once(engine: Any) -> None:
    """Whether Sigma is debiased before it weights or in the covariance only, it is not done twice."""
    data = simulate("shared", n=60)  # equal regressors: the weights do not matter
    plain = fit(data.system(), engine=engine, covariance="full", rank="auto", algorithm="fgls")
    before = fit(data.system(), engine=engine, covariance="full", rank="auto", algorithm="fgls", debiased=True)
    np.testing.assert_allclose(plain.cov("classical", debiased=True), before.cov(), rtol=1e-9)
    np.testing.assert_allclose(before.cov("classical", debiased=True), before.cov(), rtol=1e-12)
