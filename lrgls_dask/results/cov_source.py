"""What fits answer to the kinds of covariances of their coefficients: of complete rows, and of rows with holes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import penalises, said_of
from lrgls_dask.design.restrictions import free_coefficients
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.inference.bread import Bread
from lrgls_dask.inference.bread_of_rows import BreadOfRows
from lrgls_dask.inference.by_passes import CovByPasses, LeastSquaresByPasses
from lrgls_dask.inference.classical import CoefficientCovariance
from lrgls_dask.inference.huber_white import huber_white_cov
from lrgls_dask.inference.information import check_unpenalised, observed_cov
from lrgls_dask.inference.kackar_harville import kackar_harville_cov
from lrgls_dask.inference.sigma_errors import SigmaErrors
from lrgls_dask.inference.standardised import Estimate
from lrgls_dask.inference.structured import StructuredCov
from lrgls_dask.missing.covariance import (
    FittedCells,
    incomplete_covariance,
    shown_bread,
    shown_huber_white,
    shown_sigma_errors,
)
from lrgls_dask.missing.kackar_harville import shown_kackar_harville
from lrgls_dask.prediction.skipped import as_estimated
from lrgls_dask.results.by_passes import by_passes
from lrgls_dask.results.cov.kind import CovKind, cut
from lrgls_dask.results.parts import BehindErrors, Estimated, OneSigma, Settings
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.moments import Head
from lrgls_dask.rows.rows import Rows
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.system import CompressedSystem, System

__all__ = [
    "CellsSource",
    "ClassicalCov",
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
    def skipped(self) -> Skipped | None: ...

    @property
    def _classical(self) -> ClassicalCov: ...

    def _fitted_rows(self, kind: str, system: System | None) -> System: ...


ClassicalCov = CoefficientCovariance | CovByPasses | LeastSquaresByPasses
F = TypeVar("F", bound=Made)


class RowsOfX(Protocol):
    """What is asked of the evidence of complete rows."""

    @property
    def head(self) -> Head | None: ...

    @property
    def fingerprint(self) -> Fingerprint | None: ...

    @property
    def knows_products(self) -> bool: ...

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


def degrees(n_obs: int | np.ndarray, free: np.ndarray) -> np.ndarray:
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

    def check_likelihood(self, kind: CovKind) -> None:
        """Raise ValueError for estimates that are at no maximum of the likelihood."""
        if self.fit.settings.algorithm == "ols":
            raise ValueError(
                f"kind={kind.name!r} is of estimates at a maximum of the likelihood, and algorithm='ols' is least "
                "squares. Use kind='classical' or 'robust', or fit with algorithm='als'."
            )

    @property
    def debiased(self) -> bool:
        return bool(self.fit.settings.debiased)

    @property
    def shown(self) -> np.ndarray:
        return np.full(self.design.n_equations, self.n_obs)

    @property
    def free(self) -> np.ndarray:
        return free_coefficients(self.design, self.fit.settings.restrictions)


@dataclass(frozen=True, eq=False)
class CompleteSource(FitSource[OneSigmaFit]):
    """Of a fit to complete rows, compressed or streamed."""

    kept: RowsOfX

    def rows(self, kind: CovKind, system: System | None) -> System:
        return self.fit._fitted_rows(kind.name, system)

    def classical(
        self, kind: CovKind, equation: int | None, system: System | None, *, debiased: bool
    ) -> np.ndarray | StructuredCov:
        sigma = self.fit.one_sigma.value
        if self.kept.knows_products or system is None:
            formed = self.fit._classical
        else:
            formed = by_passes(self.fit, self.rows(kind, system), self.kept.fingerprint)
        if debiased != self.debiased:
            check_debiased(self.fit.settings)
            factors = degrees(self.n_obs, self.free)
            sigma = sigma.rescaled(factors if debiased else 1.0 / factors)
            formed = formed.at(sigma)
        if equation is None:
            return formed.whole
        return formed.block(equation)

    def bread(self, system: System) -> Bread:
        if self.fit.settings.algorithm != "ols":
            return self._bread(self.fit.one_sigma.value)
        return self._bread(squares_alike(self.fit))

    def _bread(self, sigma: Sigma) -> Bread:
        at, how = self.fit.estimated, self.fit.settings
        held = None if how.restrictions is None else how.restrictions.matrix
        scale, x_rows = self.fit.one_sigma.y_scale, self.kept.x_rows(at)
        known = at.coefficients, sigma, at.n_obs, scale, how.lam_B, held, self.kept.fingerprint
        return Bread(at.design, x_rows, self.kept.head, *known)

    def _estimate(self, kind: CovKind) -> Estimate:
        self.check_likelihood(kind)
        remedy = "which a streamed fit does not have. Use kind='robust', or fit with engine='compress'"
        rows = self.kept.rows_for(self.fit.estimated, f"kind={kind.name!r}", streamed=remedy)
        return estimate_of(self.fit, rows)

    def observed(self, kind: CovKind, system: System | None) -> np.ndarray:
        return observed_cov(self._estimate(kind))

    def huber_white(self, kind: CovKind, system: System | None) -> np.ndarray:
        estimate = self._estimate(kind)
        return huber_white_cov(estimate, self.rows(kind, system).rows, Meter())

    def kackar_harville(self, kind: CovKind, system: System | None) -> np.ndarray:
        return kackar_harville_cov(self._estimate(kind))


def squares_alike(fit: PartsOfEstimate) -> LowRank:
    """The Sigma of least squares: all squared residuals count alike; in any units, where nothing ties equations."""
    scale = fit.one_sigma.y_scale
    weights = scale**2 if fit.settings.restrictions is None else np.ones_like(scale)
    return LowRank(np.zeros((len(scale), 0)), weights)


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
    """Of a fit to rows with holes.

    cells : (K,) rows that show each equation.  streamed : whether the rows of each pattern were not compressed.
    fingerprint : by which the rows are told from others.  kept : those that stand for each pattern, where they are.
    """

    cells: np.ndarray
    streamed: bool
    fingerprint: Fingerprint | None
    kept: CompressedPatterns | None = None

    @property
    def shown(self) -> np.ndarray:
        return self.cells

    def rows(self, kind: CovKind, system: System | None) -> System:
        return self.fit._fitted_rows(kind.name, system)

    def classical(self, kind: CovKind, equation: int | None, system: System | None, *, debiased: bool) -> np.ndarray:
        behind = self.fit.behind_errors
        if debiased != self.debiased:
            check_debiased(self.fit.settings)
            factors = degrees(self.shown, self.free)
            sigma = self.fit.one_sigma.value.rescaled(factors if debiased else 1.0 / factors)
            rows = self._shown_rows(kind, system)
            return cut(self, equation, incomplete_covariance(replace(self.fitted, sigma=sigma), rows, "classical"))
        known = behind.values if behind.kind == kind.name else None
        return cut(self, equation, self._of_rows(kind, "classical", system) if known is None else known)

    def bread(self, system: System) -> BreadOfRows:
        sigma = self.fit.one_sigma.value
        if self.fit.settings.algorithm == "ols":
            sigma = squares_alike(self.fit)
        return shown_bread(self.fitted, system.rows, sigma)

    def observed(self, kind: CovKind, system: System | None) -> np.ndarray:
        behind = self.fit.behind_errors
        if behind.kind == kind.name and behind.values is not None:
            return cut(self, None, behind.values)
        self.check_likelihood(kind)
        return self._of_rows(kind, "observed", system)

    def huber_white(self, kind: CovKind, system: System | None) -> np.ndarray:
        self.check_likelihood(kind)
        return shown_huber_white(self.fitted, self.rows(kind, system).rows)

    def sigma_errors(self) -> SigmaErrors:
        """Standard errors of Sigma's parts; the rows are read as for "observed".

        Raises ValueError where Sigma is at no maximum of the likelihood, or its loadings were shrunk.
        """
        how = self.fit.settings
        check_unpenalised(how.lam_F, how.l1)
        if how.algorithm in ("ols", "fgls"):
            raise ValueError(
                "standard errors of Sigma with missing responses come from observed information, which is defined at a "
                f"maximum of the likelihood, and algorithm={how.algorithm!r} stops short of one. Fit with "
                "algorithm='als', or bootstrap."
            )
        return shown_sigma_errors(self.fitted, self.all_rows("standard errors of Sigma"))

    def all_rows(self, what: str) -> Rows | CompressedPatterns:
        """The rows that were fitted, those that stand for them if they are there.  Raises ValueError for none."""
        if self.kept is not None:
            return self.kept
        if self.fit.system is None:
            raise ValueError(
                f"{what} of a fit with missing responses reads the rows, which a fit opened from a file holds only "
                "where they were compressed by few patterns. Ask the fit that was made of them, before it is saved."
            )
        rows: Any = as_estimated(self.fit.system, self.fit.skipped).rows
        assert isinstance(rows, Rows | CompressedPatterns)  # others would have been a complete fit
        return rows

    def kackar_harville(self, kind: CovKind, system: System | None) -> np.ndarray:
        self.check_likelihood(kind)
        return shown_kackar_harville(self.fitted, self._shown_rows(kind, system))

    @property
    def fitted(self) -> FittedCells:
        """What is asked of the rows of the fit."""
        at, how = self.fit.estimated, self.fit.settings
        return FittedCells(
            at.design,
            at.coefficients,
            self.fit.one_sigma.value,
            at.n_obs,
            self.cells,
            self.fingerprint,
            streamed=self.streamed,
            lam_B=how.lam_B,
            lam_F=how.lam_F,
            d_floor=how.d_floor,
            restrictions=how.restrictions,
            is_ols=how.algorithm == "ols",
        )

    def _of_rows(self, kind: CovKind, which: Literal["classical", "observed"], system: System | None) -> np.ndarray:
        return incomplete_covariance(self.fitted, self._shown_rows(kind, system), which)

    def _shown_rows(self, kind: CovKind, system: System | None) -> Rows | CompressedPatterns:
        """The rows, or what stands for those of each pattern where the fit is of a compressed system."""
        if system is None and self.kept is not None:
            return self.kept
        found = self.fit.system if system is None else system
        if isinstance(found, CompressedSystem):
            found = as_estimated(found, self.fit.skipped)
        if isinstance(found, CompressedSystem) and isinstance(found.rows, CompressedPatterns):
            return found.rows
        return self.rows(kind, system).rows
