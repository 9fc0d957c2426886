"""How to cite a fit: the software, and the sources of what it used."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import Reported

__all__ = ["software", "sources", "versions"]

SOFTWARE = (
    "lrgls_dask developers. lrgls_dask, version {}: seemingly unrelated regressions with a low-rank error covariance, "
    "on data larger than memory, with Dask."
)
MADE_WITH = ("numpy", "scipy", "pandas", "xarray", "dask", "zarr", "matplotlib")

ZELLNER = (
    "Zellner, A. (1962). An efficient method of estimating seemingly unrelated regressions and tests for aggregation "
    "bias. Journal of the American Statistical Association 57, 348-368."
)
FACTORS = (
    "Lawley, D. N. (1940). The estimation of factor loadings by the method of maximum likelihood. Proceedings of the "
    "Royal Society of Edinburgh 60, 64-82.",
    "Jöreskog, K. G. (1967). Some contributions to maximum likelihood factor analysis. Psychometrika 32, 443-482.",
)
SPARSE = (
    "Hirose, K. and Yamamoto, M. (2015). Sparse estimation via nonconcave penalized likelihood in factor analysis "
    "model. Statistics and Computing 25, 863-875."
)
VARYING = (
    "Su, L. and Wang, X. (2017). On time-varying factor models: estimation and testing. Journal of Econometrics 198, "
    "84-101."
)
HOLES = (
    "Little, R. J. A. and Rubin, D. B. (2020). Statistical Analysis with Missing Data, 3rd edition. Wiley.",
    "Rubin, D. B. and Thayer, D. T. (1982). EM algorithms for ML factor analysis. Psychometrika 47, 69-76.",
)
SCHWARZ = "Schwarz, G. (1978). Estimating the dimension of a model. Annals of Statistics 6, 461-464."
OF_RANK = {
    "bic": (SCHWARZ,),
    "parallel": (
        "Horn, J. L. (1965). A rationale and test for the number of factors in factor analysis. Psychometrika 30, "
        "179-185.",
        "Dobriban, E. and Owen, A. B. (2019). Deterministic parallel analysis: an improved method for selecting "
        "factors and principal components. Journal of the Royal Statistical Society, Series B 81, 163-183.",
    ),
    "eigenvalue_ratio": (
        "Ahn, S. C. and Horenstein, A. R. (2013). Eigenvalue ratio test for the number of factors. Econometrica 81, "
        "1203-1227.",
    ),
}
WHITE = (
    "White, H. (1980). A heteroskedasticity-consistent covariance matrix estimator and a direct test for "
    "heteroskedasticity. Econometrica 48, 817-838."
)
OF_ERRORS = {
    "robust": WHITE,
    "cluster": (
        "Liang, K.-Y. and Zeger, S. L. (1986). Longitudinal data analysis using generalized linear models. Biometrika "
        "73, 13-22."
    ),
    "driscoll-kraay": (
        "Driscoll, J. C. and Kraay, A. C. (1998). Consistent covariance matrix estimation with spatially dependent "
        "panel data. Review of Economics and Statistics 80, 549-560."
    ),
    "hac": (
        "Newey, W. K. and West, K. D. (1987). A simple, positive semi-definite, heteroskedasticity and autocorrelation "
        "consistent covariance matrix. Econometrica 55, 703-708."
    ),
    "observed": (
        "Efron, B. and Hinkley, D. V. (1978). Assessing the accuracy of the maximum likelihood estimator: observed "
        "versus expected Fisher information. Biometrika 65, 457-482."
    ),
    "huber-white": ("White, H. (1982). Maximum likelihood estimation of misspecified models. Econometrica 50, 1-25."),
    "kackar-harville": (
        "Kackar, R. N. and Harville, D. A. (1984). Approximations for standard errors of estimators of fixed and "
        "random effects in mixed linear models. Journal of the American Statistical Association 79, 853-862."
    ),
}


def software() -> str:
    """How to name the library."""
    return SOFTWARE.format(_version())


def _version() -> str:
    return str(sys.modules["lrgls_dask"].__version__)  # which is above this room


def sources(fit: Reported) -> list[str]:
    """Where the methods come from that the fit used."""
    return list(_sources(fit))


def _sources(fit: Reported) -> Iterator[str]:
    yield ZELLNER
    if fit.rank:
        yield from FACTORS
    if not isinstance(fit, Measures):
        yield VARYING
    elif fit.covariance.kind == "sparse":
        yield SPARSE
    if fit.missing == "em":
        yield from HOLES
    table = fit.selection  # type: ignore[attr-defined]
    if table is not None:
        yield from OF_RANK.get(table.attrs["criterion"], ())
    if fit.cov_kind in OF_ERRORS:
        yield OF_ERRORS[fit.cov_kind]


def versions() -> list[tuple[str, str]]:
    """What the page was made with."""
    found = [("lrgls_dask", _version()), ("python", platform.python_version())]
    for name in MADE_WITH:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
