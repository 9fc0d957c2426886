"""What a fit with one Sigma reports of it: loadings, own variances, the matrix."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from lrgls_dask.checks import one_of
from lrgls_dask.design.skipped import CONSTANT, OK, ON_FLOOR
from lrgls_dask.inference.information import Information
from lrgls_dask.inference.sigma_errors import SigmaErrors
from lrgls_dask.results.cov_source import estimate_of
from lrgls_dask.results.evidence import Evidence
from lrgls_dask.results.parts import OneSigma
from lrgls_dask.results.reported import Reported
from lrgls_dask.sigma.interface import Sigma

__all__ = ["SigmaReported"]

FLAT = 1e-20  # of the sum of squares of a response about its mean: rounding of none


class SigmaReported(Reported):
    """The error covariance of all rows, and the evidence of what was fitted."""

    one_sigma: OneSigma
    evidence: Evidence

    @property
    def covariance(self) -> Sigma:
        """The error covariance that weighted the coefficients, in the user's units."""
        return self.one_sigma.value

    @property
    def lam_F(self) -> float:
        """The ridge on the loadings."""
        return self.settings.lam_F

    @property
    def l1(self) -> float:
        """The penalty of sparse loadings, as chosen."""
        return self.settings.l1

    @property
    def n_parameters(self) -> int:
        """P - m, absorbed effects of every equation, and of Sigma K k + K - k (k - 1) / 2, K (K + 1) / 2 if
        unrestricted; zeros do not count."""
        return self.df_model + self.covariance.n_parameters

    @property
    def rank(self) -> int:
        """k, the number of all factors; 0 for a diagonal Sigma and for an unrestricted one, which have none."""
        return self.covariance.rank

    @property
    def covariance_kind(self) -> str:
        """The kind of Sigma: "lowrank", "diagonal" (also of a fit with rank 0), "full", "sparse", "grouped", ..."""
        return self.covariance.kind

    @property
    def on_floor(self) -> tuple[Hashable, ...]:
        """Equations whose own variance ended on its floor: Heywood cases."""
        return self.one_sigma.on_floor

    @property
    def cells(self) -> np.ndarray | None:
        """(K,) rows that show each equation, of a fit to missing responses; None of complete rows, which show all.

        0 of equations that were skipped.
        """
        if self.evidence.complete or self.skipped is None:
            return None if self.evidence.complete else self._shown
        return np.nan_to_num(self.skipped.placed(self._shown, "equation", 0)).astype(np.int64)

    @property
    def _shown(self) -> np.ndarray:
        return self.evidence.cells(self.estimated)

    @property
    def n_patterns(self) -> int:
        """Patterns of missing responses, 0 of complete rows; a lower bound where rows were streamed."""
        return self.evidence.n_patterns

    # ------------------------------------------------------------------------------------------ estimates

    @cached_property
    def loadings(self) -> xr.DataArray:
        """(equation, factor) F, in units of Y, with Sigma = F F' + diag(d).  Raises ValueError for covariance='full'.

        With GroupedLowRank general factors come first, then those of each group, named by it and zero outside it.
        """
        sigma = self.covariance
        return self._labelled(sigma.loadings(), ("equation", "factor"), "loadings", {"factor": sigma.factor_labels})

    @cached_property
    def idio_var(self) -> xr.DataArray:
        """(equation,) d, in units of Y squared.  Raises ValueError for covariance='full'."""
        own = self.covariance.own_variances()
        if not len(own):
            raise ValueError(
                f"covariance={self.covariance_kind!r} has no idiosyncratic variances. Use sigma() for the error "
                "covariance."
            )
        return self._labelled(own, ("equation",), "idio_var")

    @cached_property
    def loadings_std_errors(self) -> xr.DataArray:
        """(equation, factor) standard errors of `loadings` in their stated normalisation, from expected information.

        Zero where a loading is zero by the structure. No read; O(m^3) for m parameters of Sigma.
        With missing responses from observed information, which holds where they are missing at random; the rows are
        read as for cov("observed").
        Raises ValueError for a streamed fit of complete rows, a penalised one, and a Sigma that states no
        normalisation; LinAlgError where its parameters are not identified.
        """
        found, coords = self._sigma_errors("loadings_std_errors"), {"factor": self.covariance.factor_labels}
        return self._labelled(found.loadings, ("equation", "factor"), "loadings_std_errors", coords)

    @cached_property
    def idio_var_std_errors(self) -> xr.DataArray:
        """(equation,) standard errors of `idio_var`, zero where it is held on its floor; as `loadings_std_errors`."""
        _ = self.idio_var  # which says so where there are none
        errors = self._sigma_errors("idio_var_std_errors").own_variances
        return self._labelled(errors, ("equation",), "idio_var_std_errors")

    def sigma_std_errors(self, information: Information | None = None) -> xr.Dataset:
        """Standard errors `sigma` (equation, equation_other) of `sigma()`, and `communality` (equation,) of the shares
        of variances that the factors explain, where there are factors; costs and errors of `loadings_std_errors`.

        information : "expected", by default of complete rows, or "observed", the only one with missing responses.
        """
        if information is not None:
            one_of("information", information, ("expected", "observed"))
        errors = self._sigma_errors("sigma_std_errors", information)
        found = {"sigma": self._labelled(errors.entries, ("equation", "equation_other"), "sigma")}
        if self.rank:
            found["communality"] = self._labelled(errors.communality, ("equation",), "communality")
        return xr.Dataset(found)

    def _sigma_errors(self, what: str, information: Information | None = None) -> SigmaErrors:
        if self.evidence.complete:
            rows = self.evidence.rows_for(self.estimated, what)
            return SigmaErrors.of(estimate_of(self, rows), information or "expected")
        if information == "expected":
            raise ValueError(
                f"{what}(information='expected') is that of rows whose holes do not depend on what they show, which "
                "missing='em' does not ask for. Use information='observed'."
            )
        return self._errors_of_cells

    @cached_property
    def _errors_of_cells(self) -> SigmaErrors:
        """Found once for all that is asked."""
        source: Any = self._source
        found: SigmaErrors = source.sigma_errors()
        return found

    def own_cov(self) -> xr.DataArray:
        """(equation, equation_other) Sigma - F F', what factors leave to the equations; raises as `loadings` does."""
        return self._labelled(self.covariance.own_part(), ("equation", "equation_other"), "own_cov")

    def sigma(self) -> xr.DataArray:
        """(equation, equation_other) error covariance; a dense K x K array."""
        return self._labelled(self.covariance.dense(), ("equation", "equation_other"), "sigma")

    @property
    def sigma_diagonal(self) -> np.ndarray:
        """(K,) error variances, without forming Sigma."""
        found = self.covariance.variances
        return found if self.skipped is None else self.skipped.placed(found, "equation", 0)

    def _conditions(self) -> list[str]:
        held, flat = self.one_sigma.held(self.design), np.zeros(self.design.n_equations, dtype=bool)
        if held.any() and self.evidence.has_sums():
            # nothing of a response that varies is as small in its own unit
            total = self.evidence.sums(self.estimated, self.restrictions).total
            flat = total <= FLAT * self._shown * self.one_sigma.y_scale**2
        return [(CONSTANT if still else ON_FLOOR) if at else OK for at, still in zip(held, flat, strict=True)]
