"""What fits answer to the kinds of covariances of their coefficients: of complete rows, and of rows with holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import penalises, said_of
from lrgls_dask.design.restrictions import free_coefficients
from lrgls_dask.inference.bread import Bread
from lrgls_dask.inference.classical import CoefficientCovariance
from lrgls_dask.inference.information import observed_cov
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.missing.covariance import FittedCells, incomplete_covariance
from lrgls_dask.results.cov.kind import CovKind, cut
from lrgls_dask.results.parts import BehindErrors, Estimated, OneSigma, Settings
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.rows.moments import Head
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.system import CompressedSystem, System

__all__ = [
    "CellsSource",
    "CompleteSource",
    "FitSource",
    "Made",
    "OneSigmaFit",
    "check_debiased",
    "degrees",
    "estimate_of",
]


class Made(Protocol):
    """What was estimated, and how."""

    @property
    def estimated(self) -> Estimated: ...

    @property
    def settings(self) -> Settings: ...


class PartsOfEstimate(Made, Protocol):
    """With one Sigma."""

    @property
    def one_sigma(self) -> OneSigma: ...


class OneSigmaFit(PartsOfEstimate, Protocol):
    """What is asked of a fit with one Sigma."""

    @property
    def behind_errors(self) -> BehindErrors: ...

    @property
    def system(self) -> System | CompressedSystem | None: ...

    @property
    def _classical(self) -> CoefficientCovariance: ...

    def _fitted_rows(self, kind: str, system: System | None) -> System: ...


F = TypeVar("F", bound=Made)


class RowsOfX(Protocol):
    """What is asked of the evidence of complete rows."""

    @property
    def head(self) -> Head | None: ...

    @property
    def fingerprint(self) -> Fingerprint | None: ...

    def x_rows(self, estimated: Estimated) -> np.ndarray: ...

    def rows_for(self, estimated: Estimated, what: str, *, streamed: str) -> Compressed: ...


def check_debiased(settings: Settings) -> None:
    """Raise ValueError where there is no count of coefficients to correct for, or another was corrected for."""
    if isinstance(settings.debiased, str):
        raise ValueError(
            f"the fit was made with debiased={settings.debiased!r}, which debiased=False does not take back. Leave "
            "debiased out, or fit with debiased=False."
        )
    if penalises(settings.lam_B):
        raise ValueError(
            f"debiased=True counts coefficients, which lam_B = {said_of(settings.lam_B)} has shrunk. Use "
            "kind='classical' as it is, or fit with lam_B = 0."
        )


def degrees(n_obs: int, free: np.ndarray) -> np.ndarray:
    """(K,) sqrt(N / (N - p_j)), p_j the free coefficients."""
    return np.asarray(np.sqrt(n_obs / (n_obs - free)))


@dataclass(frozen=True, eq=False)
class FitSource(Generic[F]):
    """What every fit answers alike."""

    fit: F

    @property
    def design(self) -> Design:
        return self.fit.estimated.design

    @property
    def n_obs(self) -> int:
        return self.fit.estimated.n_obs

    @property
    def debiased(self) -> bool:
        return bool(self.fit.settings.debiased)

    @property
    def free(self) -> np.ndarray:
        return free_coefficients(self.design, self.fit.settings.restrictions)


@dataclass(frozen=True, eq=False)
class CompleteSource(FitSource[OneSigmaFit]):
    """Of a fit to complete rows, compressed or streamed."""

    kept: RowsOfX

    def rows(self, kind: CovKind, system: System | None) -> System:
        return self.fit._fitted_rows(kind.name, system)

    def classical(self, kind: CovKind, equation: int | None, system: System | None, *, debiased: bool) -> np.ndarray:
        sigma, formed = self.fit.one_sigma.value, self.fit._classical
        if debiased != self.debiased:
            check_debiased(self.fit.settings)
            factors = degrees(self.n_obs, self.free)
            sigma = sigma.rescaled(factors if debiased else 1.0 / factors)
            formed = formed.at(sigma)
        if equation is None:
            return formed.full
        if self.design.n_coefficients > MAX_COEFFICIENTS and not formed.has_blocks_alone:
            return self._bread(sigma).classical_block(equation)
        return formed.block(equation)

    def bread(self, system: System) -> Bread:
        if self.fit.settings.algorithm != "ols":
            return self._bread(self.fit.one_sigma.value)
        # all squared residuals count alike; where nothing ties equations together, in any units
        scale = self.fit.one_sigma.y_scale
        weights = scale**2 if self.fit.settings.restrictions is None else np.ones_like(scale)
        return self._bread(LowRank(np.zeros((len(scale), 0)), weights))

    def _bread(self, sigma: Sigma) -> Bread:
        at, how = self.fit.estimated, self.fit.settings
        held = None if how.restrictions is None else how.restrictions.matrix
        scale, x_rows = self.fit.one_sigma.y_scale, self.kept.x_rows(at)
        known = at.coefficients, sigma, at.n_obs, scale, how.lam_B, held, self.kept.fingerprint
        return Bread(at.design, x_rows, self.kept.head, *known)

    def estimate(self, kind: CovKind) -> Estimate:
        if self.fit.settings.algorithm == "ols":
            raise ValueError(
                f"kind={kind.name!r} is of estimates at a maximum of the likelihood, and algorithm='ols' is least "
                "squares. Use kind='classical' or 'robust', or fit with algorithm='als'."
            )
        remedy = "which a streamed fit does not have. Use kind='robust', or fit with engine='compress'"
        rows = self.kept.rows_for(self.fit.estimated, f"kind={kind.name!r}", streamed=remedy)
        return estimate_of(self.fit, rows)

    def observed(self, kind: CovKind, system: System | None) -> np.ndarray:
        return observed_cov(self.estimate(kind))


def estimate_of(fit: PartsOfEstimate, rows: Compressed) -> Estimate:
    """What the information of all parameters is computed from."""
    at, how, sigma = fit.estimated, fit.settings, fit.one_sigma
    return Estimate(
        rows,
        at.coefficients,
        sigma.value,
        lam_B=how.lam_B,
        lam_F=how.lam_F,
        l1=how.l1,
        on_floor=sigma.held(at.design),
        restrictions=how.restrictions,
    )


@dataclass(frozen=True, eq=False)
class CellsSource(FitSource[OneSigmaFit]):
    """Of a fit to rows with holes, which has two kinds; both read the rows unless the fit came with them.

    shown : (K,) rows that show each equation.  streamed : whether the rows of each pattern were not compressed.
    fingerprint : by which the rows are told from others.  refusal : the error for what needs complete rows.
    """

    shown: np.ndarray
    streamed: bool
    fingerprint: Fingerprint | None
    refusal: Refusal

    def rows(self, kind: CovKind, system: System | None) -> System:
        raise self._refused(f"kind={kind.name!r}")

    def classical(self, kind: CovKind, equation: int | None, system: System | None, *, debiased: bool) -> np.ndarray:
        if debiased:
            raise self._refused("debiased=True")
        behind = self.fit.behind_errors
        known = behind.values if behind.kind == kind.name else None
        return cut(self, equation, self._of_rows("classical", system) if known is None else known)

    def bread(self, system: System) -> Bread:
        raise self._refused("a sandwich covariance")

    def estimate(self, kind: CovKind) -> Estimate:
        raise self._refused(f"kind={kind.name!r}")

    def observed(self, kind: CovKind, system: System | None) -> np.ndarray:
        behind = self.fit.behind_errors
        known = behind.values if behind.kind == kind.name else None
        return self._of_rows("observed", system) if known is None else known

    def _refused(self, what: str) -> ValueError:
        remedy = "Use kind='classical' or 'observed', or fit complete rows with missing='drop'"
        return self.refusal(self.fit.estimated, what, remedy)

    def _of_rows(self, kind: Literal["classical", "observed"], system: System | None) -> np.ndarray:
        at, how = self.fit.estimated, self.fit.settings
        fitted = FittedCells(
            at.design,
            at.coefficients,
            self.fit.one_sigma.value,
            at.n_obs,
            self.shown,
            self.fingerprint,
            streamed=self.streamed,
            lam_B=how.lam_B,
            lam_F=how.lam_F,
            d_floor=how.d_floor,
            restrictions=how.restrictions,
        )
        found = self.fit.system if system is None else system
        if isinstance(found, CompressedSystem) and isinstance(found.rows, CompressedPatterns):
            return incomplete_covariance(fitted, found.rows, kind)
        return incomplete_covariance(fitted, self.fit._fitted_rows(kind, system).rows, kind)


class Refusal(Protocol):
    def __call__(self, estimated: Estimated, what: str, remedy: str) -> ValueError: ...
