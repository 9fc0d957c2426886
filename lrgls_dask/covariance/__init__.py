"""Error covariances across equations, on the client, in NumPy: no Dask, no labels.

Notation: K equations, k factors, S (K, K) residual moments, Sigma = F F' + D with loadings F (K, k) and
D = diag(d) idiosyncratic variances, C = I + F' D^-1 F (k, k) the capacitance.  Units are standardised, diag S near 1.

A structure offers what `LowRank` does: `solve`, `solve_rows`, `matmul`, `logdet`, `precision_diagonal`, `trace_solve`,
`nll`, `variances`, `dense`, `precision`, `rescaled`, `n_parameters`.  An update offers
`update(S, rank, floor, *, lam_F, start) -> SigmaStep`, as `ml_step` and `pca_step` do, and never returns a Sigma whose
objective is above the start's.
"""

from lrgls_dask.covariance.em import Anderson, em_products, em_update, flattened, nll_from_products, unflattened
from lrgls_dask.covariance.lowrank import LowRank, max_rank
from lrgls_dask.covariance.ml import LOOSE, ml_candidates, ml_step
from lrgls_dask.covariance.pca import pca_step
from lrgls_dask.covariance.steps import SigmaStep, penalised

__all__ = [
    "LOOSE",
    "Anderson",
    "LowRank",
    "SigmaStep",
    "em_products",
    "em_update",
    "flattened",
    "max_rank",
    "ml_candidates",
    "ml_step",
    "nll_from_products",
    "pca_step",
    "penalised",
    "unflattened",
]
