"""Covariances of the coefficients as objects that hold their options, and a kind that the package does not have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, TimeVarying
from lrgls_dask.results.cov import registry
from lrgls_dask.results.cov.classical import Classical
from lrgls_dask.results.cov.cluster import Cluster
from lrgls_dask.results.cov.hac import Hac
from lrgls_dask.results.cov.kind import CovKind, CovSource, CovValues, cut
from lrgls_dask.results.cov.sandwich import Robust
from lrgls_dask.system import System
from support.fits import fit
from support.incomplete import with_holes
from support.systems import simulate

DATA = simulate("own", n=120, K=4, k=1)
GROUPS = np.arange(120) // 6
SEGMENTS = np.arange(120) // 40


@dataclass(frozen=True)
class Inflated(CovKind):
    """The classical covariance times a factor."""

    factor: float = 2.0
    name: ClassVar[str] = "inflated"

    def compute(self, source: CovSource, equation: int | None, system: System | None) -> CovValues:
        classical = source.classical(Classical(), None, system, debiased=False)
        return CovValues(self.factor * cut(source, equation, classical), f"times {self.factor:g}")


@pytest.fixture(scope="module")
def found() -> Fit:
    return fit(DATA.system(), 1)


@pytest.mark.parametrize(
    ("made", "name", "options"),
    [
        (Classical(debiased=True), "classical", {"debiased": True}),
        (Robust("HC1"), "robust", {"correction": "HC1"}),
        (Cluster(groups=GROUPS), "cluster", {"groups": GROUPS}),
        (Hac(kernel="qs", bandwidth=3.0), "hac", {"kernel": "qs", "bandwidth": 3.0}),
    ],
)
def test_an_object_is_its_name_with_options(found: Fit, made: Any, name: str, options: dict[str, Any]) -> None:
    one, other = found.with_cov(made), found.with_cov(name, **options)
    np.testing.assert_array_equal(one.std_errors.values, other.std_errors.values)
    assert (one.cov_kind, one.cov_note) == (other.cov_kind, other.cov_note)
    np.testing.assert_array_equal(
        found.cov(made, equation="y1").values, found.cov(name, equation="y1", **options).values
    )


def test_a_kind_of_ones_own(found: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = found.with_cov(Inflated(4.0))
    np.testing.assert_allclose(wide.std_errors.values, 2.0 * found.std_errors.values, rtol=1e-14)
    assert "inflated (times 4)" in wide.summary()
    wide.to_zarr(tmp_path / "fit.zarr")
    assert Fit.from_zarr(tmp_path / "fit.zarr").cov_kind == "inflated"
    monkeypatch.setitem(registry.KINDS, "inflated", Inflated)
    np.testing.assert_array_equal(found.cov("inflated").values, found.cov(Inflated()).values)
    with pytest.raises(ValueError, match="kind='inflated' takes no bandwidth=; 'hac' and 'driscoll-kraay' do"):
        found.cov("inflated", bandwidth=2.0)


def test_it_asks_every_kind_of_fit() -> None:
    varying: Any = LowRankGLS(covariance=TimeVarying(1, SEGMENTS, 0.0)).fit(DATA.system()).result_
    holes = fit(with_holes(DATA, 0.05).system(), 1, missing="em")
    for made in (varying, holes):
        np.testing.assert_allclose(made.cov(Inflated()).values, 2.0 * made.cov("classical").values, rtol=1e-14)


def test_options_are_said_once(found: Fit) -> None:
    with pytest.raises(ValueError, match=r"Robust\(...\) has its own options, so correction= says it twice"):
        found.cov(Robust(), correction="HC1")
    with pytest.raises(ValueError, match=r"correction must be 'none' or .* or 'HC3'; got 'HC9'"):
        Robust("HC9")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernel must be 'bartlett' or 'parzen' or 'qs'; got 'box'"):
        Hac(kernel="box")  # type: ignore[arg-type]
