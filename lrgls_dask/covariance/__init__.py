"""Error covariances across equations, on the client, in NumPy: no Dask, no labels.

Notation: K equations, k factors, S (K, K) residual moments, Sigma = F F' + D with loadings F (K, k) and
D = diag(d) idiosyncratic variances, C = I + F' D^-1 F (k, k) the capacitance.  Units are standardised, diag S near 1.

Two objects make a structure, both described in `interface`:

- the *value*, a `Sigma`: `LowRank` (F F' + diag(d), rank 0 is diagonal) or `FullSigma` (any matrix). Kernels, the loop
  and inference use nothing but its methods.
- the *structure*: `LowRankStructure` or `Full`, which finds a Sigma from S. The one loop in `als` asks it for a first
  Sigma (`candidates`), for a better one (`update`) and for the penalty it adds, and reads four facts: `closed_form`,
  `bounded`, `line_search` and `needs_matrix`.

To add one (sparse, grouped, time-varying): write a file here with the two classes; give the value a `kind`, the names
of its arrays in `saved` and the arrays in `stored()`, and enter it in `structures.KINDS` so that fits and checkpoints
can be opened; name it in `LowRankGLS(covariance=...)`. What tests will hold it to: `solve` inverts `matmul`, `logdet`
and `nll` agree with `dense()`, `update` never returns a Sigma whose nll + penalty is above the start's, and `rescaled`
commutes with all of them.
"""

from lrgls_dask.covariance.em import Anderson, em_products, em_update, flattened, nll_from_products, unflattened
from lrgls_dask.covariance.full import Full, FullSigma, SingularCovariance
from lrgls_dask.covariance.interface import LOOSE, TIGHT, Sigma, SigmaStep, Structure
from lrgls_dask.covariance.lowrank import LowRank, max_rank
from lrgls_dask.covariance.ml import ml_candidates, ml_step
from lrgls_dask.covariance.pca import pca_step
from lrgls_dask.covariance.steps import penalised
from lrgls_dask.covariance.structures import LowRankStructure, diagonal, sigma_of, structure_of

__all__ = [
    "LOOSE",
    "TIGHT",
    "Anderson",
    "Full",
    "FullSigma",
    "LowRank",
    "LowRankStructure",
    "Sigma",
    "SigmaStep",
    "SingularCovariance",
    "Structure",
    "diagonal",
    "em_products",
    "em_update",
    "flattened",
    "max_rank",
    "ml_candidates",
    "ml_step",
    "nll_from_products",
    "pca_step",
    "penalised",
    "sigma_of",
    "structure_of",
    "unflattened",
]
