"""A kind of Sigma that only this test knows: registered, it is fitted, saved, opened, summarised, or says its name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from lrgls_dask import Fit, LowRankGLS
from lrgls_dask.sigma import registry
from lrgls_dask.sigma.interface import (
    TIGHT,
    Array,
    Description,
    Equations,
    Kind,
    Sigma,
    SigmaOption,
    SigmaStep,
    Stored,
    Structure,
)
from support.fits import fit
from support.systems import Data, dask_rows, simulate


@dataclass(frozen=True, eq=False)
class EquiSigma(Sigma):
    """diag(s) [(1 - r) I + r 11'] diag(s): one correlation between all errors."""

    s: Array
    r: Array
    kinds: ClassVar[tuple[str, ...]] = ("equicorrelated",)
    saved: ClassVar[tuple[str, ...]] = ("sd", "correlation")

    kind = "equicorrelated"
    rank = 0

    @property
    def n_equations(self) -> int:
        return len(self.s)

    @property
    def n_parameters(self) -> int:
        return len(self.s) + 1

    @property
    def variances(self) -> Array:
        return self.s**2

    @cached_property
    def _inverse(self) -> Array:
        return np.linalg.inv(self.dense())

    @property
    def logdet(self) -> float:
        return float(np.linalg.slogdet(self.dense())[1])

    @property
    def precision_diagonal(self) -> Array:
        return self._inverse.diagonal()

    def matmul(self, B: Array) -> Array:
        return self.dense() @ B

    def solve_rows(self, E: Array) -> Array:
        return E @ self._inverse

    def dense(self) -> Array:
        K, r = len(self.s), float(self.r[0])
        return ((1 - r) * np.eye(K) + r) * np.outer(self.s, self.s)

    def rescaled(self, scale: Array) -> EquiSigma:
        return EquiSigma(self.s * scale, self.r)

    def normalised(self) -> EquiSigma:
        return self

    def on_floor(self, floor: Array | float) -> NDArray[np.bool_]:
        return np.zeros(len(self.s), dtype=bool)

    def describe(self) -> Description:
        return Description("Sigma of equal correlations", "0", "correlations are equal")

    def warnings(self) -> list[str]:
        return ["correlations were taken to be equal"]

    def stored(self) -> Stored:
        return {"sd": (self.s, ("equation",)), "correlation": (self.r, ("one",))}


@dataclass(frozen=True)
class EquiStructure(Structure):
    rank = 0

    def start(self, S: Array, floor: Array) -> EquiSigma:
        return EquiSigma(np.sqrt(S.diagonal()), np.zeros(1))

    def candidates(self, S: Array, floor: Array, *, tol: float = TIGHT) -> list[SigmaStep[EquiSigma]]:
        return [self.update(S, floor, self.start(S, floor))]

    def update(self, S: Array, floor: Array, start: EquiSigma, *, tol: float = TIGHT) -> SigmaStep[EquiSigma]:
        def at(z: np.ndarray) -> EquiSigma:
            return EquiSigma(np.exp(z[:-1]), np.tanh(z[-1:]))

        z = np.append(np.log(start.s), np.arctanh(start.r))
        found = at(minimize(lambda z: at(z).nll(S), z, method="BFGS", options={"gtol": 1e-10}).x)
        return SigmaStep(found, 1.0) if found.nll(S) <= start.nll(S) else SigmaStep(start, 0.0)

    def n_parameters(self, n_equations: int) -> int:
        return n_equations + 1


@dataclass(frozen=True)
class Equicorrelated(SigmaOption):
    takes: ClassVar[Any] = {"debiased": ((False,), "Leave debiased out")}

    def structure(self, design: Equations) -> EquiStructure:
        return EquiStructure()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind((EquiSigma,), lambda sigma, how: EquiStructure())
    monkeypatch.setattr(registry, "KINDS", [*registry.KINDS, kind])


DATA = simulate("mixed", n=120, K=4, k=1)
OPTIONS: dict[str, Any] = {"covariance": Equicorrelated(), "rel_tol": 1e-12, "max_sweeps": 200}


def made(data: Data = DATA, **options: Any) -> Fit:
    with pytest.warns(match="correlations were taken to be equal"):
        return fit(data.system(dask_rows(50)), "auto", **(OPTIONS | options))


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_it_is_fitted_by_either_engine(engine: str) -> None:
    found, dense = made(engine=engine), DATA.dense()
    np.testing.assert_allclose(found.params.values, dense.gls(found.sigma().values), rtol=1e-6)
    correlation = found.sigma().values / np.sqrt(np.outer(found.sigma_diagonal, found.sigma_diagonal))
    assert np.ptp(correlation[np.triu_indices(4, 1)]) < 1e-12
    assert (found.covariance_kind, found.rank, found.n_parameters) == ("equicorrelated", 0, found.n_coefficients + 5)


@pytest.mark.filterwarnings("ignore:The line search algorithm")  # of the structure that this test makes up
def test_it_is_saved_opened_summarised_and_bootstrapped(tmp_path: Any) -> None:
    found = made()
    found.to_zarr(tmp_path / "fit.zarr")
    again = Fit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(again.sigma().values, found.sigma().values)
    assert "Sigma of equal correlations" in again.summary() and again.summary() == found.summary()
    assert "own sd" not in found.summary()
    draws = found.bootstrap(n=20, seed=1)
    assert np.all(draws.std_errors > 0)


def test_what_needs_no_more_of_it_works() -> None:
    found, dense = made(), DATA.dense()
    np.testing.assert_allclose(found.cov("classical").values, dense.cov(found.sigma().values), rtol=1e-8)
    assert np.all(found.with_cov("robust").std_errors > 0)
    new = simulate("mixed", n=30, K=4, k=1, seed=5)
    hidden = np.where(np.arange(4) == 1, np.nan, new.Y)
    from dataclasses import replace

    given = found.predict_given(replace(new, Y=hidden).system()).values[:, 1]
    S, fitted = found.sigma().values, new.Y - new.dense().residuals(found.params.values)
    o = np.arange(4) != 1
    np.testing.assert_allclose(given, fitted[:, 1] + (new.Y - fitted)[:, o] @ np.linalg.solve(S[np.ix_(o, o)], S[o, 1]))


@pytest.mark.parametrize("kind", ["observed", "huber-white", "kackar-harville"])
def test_information_it_does_not_state_is_refused_by_name(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"covariance='equicorrelated' has no stated parameters .* Use classical"):
        made().cov(kind)


def test_what_it_has_not_is_refused_by_name() -> None:
    found = made()
    for name in ("loadings", "idio_var"):
        with pytest.raises(ValueError, match=r"covariance='equicorrelated' has no \w+.* Use sigma\(\)"):
            getattr(found, name)
    with pytest.raises(ValueError, match="covariance='equicorrelated' has no part of the equations' own"):
        found.own_cov()
    with pytest.raises(ValueError, match="the fit has no factors"):
        found.factor_scores(DATA.system())


def test_em_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"='em' does not go with covariance=Equicorrelated\(\)"):
        LowRankGLS(covariance=Equicorrelated(), algorithm="em")


def test_an_option_says_what_it_takes() -> None:
    with pytest.raises(ValueError, match=r"covariance=Equicorrelated\(...\) does not go with debiased=True. Leave"):
        LowRankGLS(covariance=Equicorrelated(), debiased=True)


def test_a_killed_fit_goes_on(tmp_path: Any) -> None:
    from lrgls_dask.solve.checkpoint import Checkpoint, SavedPoint
    from lrgls_dask.solve.record import Point

    kept = Checkpoint.at(tmp_path / "kept.zarr", DATA.system().rows).loop("settings")
    sigma = EquiSigma(np.ones(4), np.full(1, 0.3))
    kept.checkpoint.save_point(kept.name, SavedPoint(3, Point(np.zeros(5), np.eye(4), sigma)))
    saved = kept.saved()
    assert saved is not None and isinstance(saved.sigma, EquiSigma)
    np.testing.assert_array_equal(saved.sigma.dense(), sigma.dense())
