"""What every fit says of the parts it is made of."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal

import numpy as np

from lrgls_dask.data.framefit import FittedFormulas
from lrgls_dask.design.design import Design, Designed
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.options.stored import from_stored
from lrgls_dask.options.table import Use
from lrgls_dask.results.parts import BehindErrors, Estimated, Run, Settings
from lrgls_dask.solve.record import Termination
from lrgls_dask.system import CompressedSystem, System

__all__ = ["MadeOfParts"]


class MadeOfParts(Designed):
    """The parts that every fit has."""

    estimated: Estimated
    settings: Settings
    run: Run
    behind_errors: BehindErrors
    system: System | CompressedSystem | None
    skipped: Skipped | None

    @property
    def design(self) -> Design:
        """Which equation has which regressors, and their labels, of the equations that were estimated."""
        return self.estimated.design

    @property
    def _whole(self) -> Design:
        """The design of all equations, those that were skipped too."""
        return self.design if self.skipped is None else self.skipped.whole

    @property
    def _estimated_equations(self) -> np.ndarray:
        """Positions among all equations of those that were estimated."""
        return np.arange(self.design.n_equations) if self.skipped is None else self.skipped.equations

    @property
    def n_equations(self) -> int:
        """K, those that were skipped too."""
        return self._whole.n_equations

    @property
    def equations(self) -> tuple[Hashable, ...]:
        """K labels, those of equations that were skipped too."""
        return self._whole.equations

    @property
    def n_regressors(self) -> int:
        """q, the number of distinct regressor columns, of all equations."""
        return self._whole.given.n_regressors

    @property
    def n_coefficients(self) -> int:
        """P = sum p_j, of the equations that were estimated."""
        return self.design.n_coefficients

    @property
    def regressors(self) -> tuple[Hashable, ...]:
        """q labels of the distinct columns, of all equations."""
        return self._whole.given.regressors

    @property
    def coefficients(self) -> np.ndarray:
        """(P,) as plain numbers, by equation that was estimated; `params` has labels, and NaN for the others."""
        return self.estimated.coefficients

    @property
    def n_obs(self) -> int:
        """N, rows of positive weight that show a response."""
        return self.estimated.n_obs

    @property
    def loglik(self) -> float:
        """Log-likelihood of all rows, without penalties."""
        return self.estimated.loglik

    @property
    def options(self) -> dict[str, Any]:
        """The options it was fitted with, by the names of `LowRankGLS`; a text stands for one that cannot be stored.

        Nothing of a fit saved by a version that did not keep them.
        """
        return from_stored(self.settings.options) if self.settings.options else {}

    @property
    def obs_dim(self) -> str:
        """What the user calls the dim of rows."""
        return self.estimated.obs_dim

    @property
    def equation_dim(self) -> str:
        """What the user calls the dim of equations."""
        return self.estimated.equation_dim

    @property
    def formulas(self) -> FittedFormulas | None:
        """The formulas that regressors are made by of a frame; None where the system was not made by any."""
        return self.estimated.formulas

    @property
    def termination(self) -> Termination:
        """Why the iterations ended."""
        return self.run.termination

    @property
    def n_passes(self) -> int:
        """Passes over the data that the whole fit took."""
        return self.run.n_passes

    @property
    def bytes_read(self) -> int:
        """Decoded bytes that those passes read."""
        return self.run.bytes_read

    @property
    def n_sweeps(self) -> int:
        """Sweeps of the loop."""
        return self.run.n_sweeps

    @property
    def n_dropped(self) -> int:
        """Rows that missing="drop" left out: a response missing, or weight zero."""
        return self.run.n_dropped

    @property
    def missing(self) -> str:
        """What was done with missing responses: "raise", "em" or "drop"."""
        return self.settings.missing

    @property
    def algorithm(self) -> str:
        """How it was estimated: "als", "em", "fgls" or "ols"."""
        return self.settings.algorithm

    @property
    def use(self) -> Use | None:
        """What p-values, intervals and tests refer to: "t", "normal", "system-t", or None."""
        return self.settings.use

    @property
    def debiased(self) -> bool | Literal["Theil", "max"]:
        """Whether, and how, Sigma was found from mean products corrected for degrees of freedom."""
        return self.settings.debiased

    @property
    def lam_B(self) -> Ridge:
        """The ridge on the coefficients: one number, or values by regressor."""
        return self.settings.lam_B

    @property
    def restrictions(self) -> Restrictions | None:
        """Linear restrictions that the coefficients keep to."""
        return self.settings.restrictions

    @property
    def cov_kind(self) -> str:
        """The kind of covariance behind std_errors and all that follows."""
        return self.behind_errors.kind

    @property
    def _errors_as_fitted(self) -> bool:
        return self.behind_errors.values is None

    @property
    def cov_note(self) -> str:
        """How it was made, beyond the kind."""
        return self.behind_errors.note
