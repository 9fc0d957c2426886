"""Error covariances across equations, on the client, in NumPy: no Dask, no labels.

Notation: K equations, k factors, S (K, K) residual moments, Sigma = F F' + Psi with loadings F (K, k) and an own part
Psi, D = diag(d) of idiosyncratic variances unless said otherwise, C = I + F' Psi^-1 F (k, k) the capacitance. Units are
standardised, diag S near 1.

Three objects make a kind of Sigma, all described in `interface`; a file has all three:

- the *value*, a `Sigma`: `LowRank` (F F' + diag(d), rank 0 is diagonal), `SparseFactors` (the same with zeros in F that
  no rotation may touch), `GroupedFactors` (factors of all equations and of groups), `FullSigma` (any matrix).
  The loop, inference, prediction and results use nothing but its methods: solve, likelihood, conditional distribution,
  parameters to take derivatives in (`tangents`), what a summary says of it, what it warns of, what is saved.
- the *structure*, a `Structure`, which finds the value from S: a first Sigma (`candidates`), a better one (`update`),
  the penalty it adds, and facts that the loop reads. Where the loadings are found equation by equation given the
  factors it is a `FactorStructure`, and EM works with it. One that says `takes_rows` also finds it from the rows that S
  is made of, `of_rows.OfRows`, where these are fewer than equations.
- the *option*, a `SigmaOption`, by which users ask for it: frozen, checked on construction, made a structure once the
  equations are known.

To add one, write a file here with the three and a `Kind` that names them, and enter it in `registry`: that makes it
importable from `lrgls_dask`, accepted by `LowRankGLS(covariance=...)`, saved, opened, bootstrapped and resumed. What
follows from other answers is inherited: `Sigma` has `solve`, `nll`, `precision` from `solve_rows` and `logdet`;
`algebra.FactorsAndOwn`, for factors plus an `own.Own` part, also refinement, diag(Sigma^-1), the floor, scores and
tangents; `woodbury.Woodbury`, for factors of all equations, everything but names. What a value does not answer raises
ValueError with its name.

What tests hold it to, once it is entered and `tests/` is given an example of its option: `solve` inverts `matmul`,
`logdet` and `nll` agree with `dense()`, `rescaled` commutes with all of them, `conditional` and `tangents` are those of
the matrix, what is stored makes the same value, and `update` never returns a Sigma whose nll + penalty is above the
start's. Factors that vary in time are no structure of one S but a loop of their own, in `lrgls_dask.varying.als`.
"""
