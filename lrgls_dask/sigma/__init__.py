"""Error covariances across equations, on the client, in NumPy: no Dask, no labels.

Notation: K equations, k factors, S (K, K) residual moments, Sigma = F F' + D with loadings F (K, k) and
D = diag(d) idiosyncratic variances, C = I + F' D^-1 F (k, k) the capacitance.  Units are standardised, diag S near 1.

Two objects make a structure, both described in `interface`:

- the *value*, a `Sigma`: `LowRank` (F F' + diag(d), rank 0 is diagonal), `SparseFactors` (the same with zeros in F that
  no rotation may touch), `GroupedFactors` (factors of all equations and of groups) or `FullSigma` (any matrix).
  Kernels, the loop and inference use nothing but its methods. What follows from others is inherited: `Sigma` has
  `solve`, `nll`, `precision` from `solve_rows` and `logdet`; `algebra.OwnVariances`, for factors plus diag(d), also
  refinement, diag(Sigma^-1) and the floor of d.
- the *structure*: `LowRankStructure`, `SparseStructure`, `GroupedStructure` or `Full`, which finds a Sigma from S. The
  one loop in `als` asks it for a first Sigma (`candidates`), for a better one (`update`) and for the penalty it adds,
  and reads four facts: `closed_form`, `bounded`, `line_search` and `needs_matrix`.

To add one: write a file here with the two classes, the value a `Sigma` or an `OwnVariances` (Python says what it
lacks), its arrays named in `saved`; enter it in `structures.KINDS`, the one line by which fits and checkpoints are
opened and refitted; give users a frozen option object in `lrgls_dask.factorstructures`, whose `structure()` makes it.
What tests will hold it to: `solve` inverts `matmul`, `logdet` and `nll` agree with `dense()`, `update` never returns a
Sigma whose nll + penalty is above the start's, and `rescaled` commutes with all of them. One whose loadings are found
equation by equation given the factors says with `loadings` which may differ from zero and makes its `value` of them:
then it is a `structures.FactorStructure`, and EM and missing responses work with it. Factors that vary in time are no
structure of one S but a loop of their own, in `lrgls_dask.varying.loop`.
"""

from lrgls_dask.sigma.blocks import Blocks, blocks_of
from lrgls_dask.sigma.em import Anderson, em_products, em_update, flattened, nll_from_products, on_factors, unflattened
from lrgls_dask.sigma.full import Full, FullSigma, SingularCovariance
from lrgls_dask.sigma.grouped_factors import GroupedFactors
from lrgls_dask.sigma.grouped_structure import GroupedStructure
from lrgls_dask.sigma.interface import LOOSE, TIGHT, Sigma, SigmaStep, Structure
from lrgls_dask.sigma.lowrank import LowRank, max_rank
from lrgls_dask.sigma.ml import ml_candidates, ml_step
from lrgls_dask.sigma.pca import pca_step
from lrgls_dask.sigma.sparse import SparseFactors, SparseStructure, sparse_path
from lrgls_dask.sigma.steps import penalised
from lrgls_dask.sigma.structures import (
    Factored,
    FactorStructure,
    LowRankStructure,
    diagonal,
    loadings_in,
    sigma_of,
    structure_of,
    widened,
)

__all__ = [
    "LOOSE",
    "TIGHT",
    "Anderson",
    "Blocks",
    "FactorStructure",
    "Factored",
    "Full",
    "FullSigma",
    "GroupedFactors",
    "GroupedStructure",
    "LowRank",
    "LowRankStructure",
    "Sigma",
    "SigmaStep",
    "SingularCovariance",
    "SparseFactors",
    "SparseStructure",
    "Structure",
    "blocks_of",
    "diagonal",
    "em_products",
    "em_update",
    "flattened",
    "loadings_in",
    "max_rank",
    "ml_candidates",
    "ml_step",
    "nll_from_products",
    "on_factors",
    "pca_step",
    "penalised",
    "sigma_of",
    "sparse_path",
    "structure_of",
    "unflattened",
    "widened",
]
