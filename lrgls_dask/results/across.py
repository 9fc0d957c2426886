"""One hypothesis in each of many equations at once: what every fit answers, and what one with a single Sigma adds."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy  # scipy.stats loads when first asked: it takes as long as all of this package
import scipy.sparse as sp

from lrgls_dask.checks import check_level, one_of
from lrgls_dask.design.design import Design
from lrgls_dask.design.hypotheses import check_open, read_hypotheses
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.design.skipped import hypotheses_about
from lrgls_dask.errors import NoAnswer
from lrgls_dask.inference.factor_adjusted import FactorsOfStatistics, realised
from lrgls_dask.inference.joint_deviations import JointDeviations, quadratic_forms
from lrgls_dask.inference.moderated import VariancePrior
from lrgls_dask.inference.multiple_testing import adjusted, share_of_true
from lrgls_dask.inference.structured import Combinations, CovOfCombinations, block_diagonal
from lrgls_dask.results.cov_source import degrees
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.multiple_tests import Adjustment, Bands, MultipleTests
from lrgls_dask.results.reported import Reported

__all__ = ["TestingAcross", "TestingAcrossOneSigma"]

ADJUSTMENTS = ("holm", "bh", "by", "sup-t", "factor-adjusted")
BANDS = ("sup-t", "bonferroni", "pointwise")
JOINTLY = ("sup-t", "factor-adjusted")  # what takes covariances between equations
SHOWN = 3  # hypotheses that are named where they were given one by one


class TestingAcross(Reported):
    """Tests of many equations at once."""

    @abstractmethod
    def _cov_block(self, equation: int) -> np.ndarray:
        """(p_j, p_j) covariance of the coefficients of the equation at this position, that std_errors come from."""

    def across(
        self,
        hypothesis: Any,
        method: Adjustment | None = "holm",
        *,
        level: float = 0.95,
        bands: Bands | None = "sup-t",
        seed: int = 0,
        moderated: bool = False,
    ) -> MultipleTests:
        """One hypothesis in each equation, tested together: p-values adjusted for their number, simultaneous bands.

        hypothesis : "*:trend = 0", "*:trend - *:other = 1", several such for a joint test in each equation, or any that
            `wald_test` takes; each about one equation. At the covariance that std_errors come from, of any kind.
        method : "holm", family-wise error under any dependence; "bh" and "by", false discovery rate, of Benjamini and
            Hochberg (1995) and, under any dependence, Benjamini and Yekutieli (2001); "sup-t", family-wise error by
            draws from the joint distribution (Westfall and Young 1993); "factor-adjusted", false discovery rate once
            what the fit's factors happened to put into all estimates is taken out of them, as FarmTest (Fan, Ke, Sun
            and Zhou 2019; `inference.factor_adjusted` has the mathematics): more power, and errors that no longer come
            in swarms; None for none.
        level : 1 - level is the error that is kept, and level the coverage of the bands.
        bands : "sup-t" covers all estimates together, by draws from their joint distribution, 10,000 or of very many
            equations 4,000 at least (Montiel Olea and Plagborg-Moller 2019); "bonferroni" the same whatever that is;
            "pointwise" each by itself; None for none.
        seed : of the draws.  moderated : with limma's variances (Smyth 2004): residual variances, each moved towards
            what they have in common as far as they are uncertain, behind classical standard errors, and t with d0 more
            degrees of freedom; with "factor-adjusted" the equations' own variances likewise.

        No read, but for classical errors of a streamed fit that had no room for X'X. Of regressors that equations share
        O(K k) a draw and nothing K x K; else what the joint covariance of one number per equation takes.
        Equations that were skipped have NaN and are not counted.
        Raises ValueError for hypotheses that tie equations together, that the restrictions of the fit decide, and for
        what does not go together; LinAlgError for estimates without variance.
        """
        _check(method, bands, seed)
        check_level(level)
        hypotheses = hypotheses_about(self.design, self.skipped, hypothesis)
        asked = _Asked.of(self.design, hypotheses)
        self._check_undecided(asked)
        joint = method in JOINTLY or bands == "sup-t"
        among = self._between(asked) if joint else self._apart(asked)
        found = _tested(asked, among, asked.gap(self.coefficients), self, moderated)
        least = np.zeros(0)
        if "sup-t" in (method, bands):
            deviations = JointDeviations.of(among, asked.edges)
            _check_draws(deviations.n_draws, float(level), method, bands if asked.single else None)
            least = deviations.least_pvalues(deviations.n_draws, seed)
        if method == "factor-adjusted":
            prior = self._without_factors(asked, among, found.columns, moderated)
            found = replace(found, prior=prior or found.prior)
        told = _together(found, method, bands, float(level), least)
        return MultipleTests(
            _null(hypothesis, hypotheses),
            method,
            float(level),
            bands,
            bool(moderated),
            int(seed),
            self.cov_kind,
            {name: self._placed(values, asked.equations) for name, values in found.columns.items()},
            self._about(hypothesis, asked.equations),
            *told,
            self._whole,
            self.equation_dim,
        )

    # ------------------------------------------------------------------------------------------ which equations

    def _placed(self, values: np.ndarray, equations: np.ndarray) -> np.ndarray:
        """(K,) values of some equations that were estimated among NaN for all others."""
        out = np.full(self.design.n_equations, np.nan)
        out[equations] = values
        return out if self.skipped is None else self.skipped.placed(out, "equation", 0)

    def _about(self, hypothesis: Any, equations: np.ndarray) -> np.ndarray:
        """Positions of the equations that the hypotheses are about, skipped ones too."""
        if self.skipped is None:
            return equations.copy()
        rows = read_hypotheses(self.skipped.whole, hypothesis).rows
        return np.unique(self.skipped.whole.equation_of[rows.indices])

    def _check_undecided(self, asked: _Asked) -> None:
        """Raise ValueError for an equation whose hypothesis the restrictions of the fit decide."""
        if self.restrictions is None:
            return
        about = np.isin(asked.rows.indices, self.restrictions.about)
        entries = np.repeat(np.arange(len(asked.values)), np.diff(asked.rows.indptr))
        rows = np.unique(entries[about])
        touched = np.unique(np.searchsorted(asked.edges, rows, side="right") - 1)
        looked_at = touched[~self.restrictions.surely_open(asked.rows, asked.edges)[touched]]
        for e in looked_at.tolist():
            check_open(self.restrictions, asked.alone(e))

    # ------------------------------------------------------------------------------------------ covariances

    def _between(self, asked: _Asked) -> CovOfCombinations:
        """R V R', also between equations."""
        try:
            return self._behind.of_combinations(asked.rows)
        except np.linalg.LinAlgError:
            raise
        except ValueError as error:
            raise ValueError(
                f"{error} Or use bands='bonferroni' with method='holm', 'bh' or 'by': one equation at a time."
            ) from error

    def _apart(self, asked: _Asked) -> Combinations:
        """R V R' within equations."""
        blocks = []
        for e, j in enumerate(asked.equations.tolist()):
            of_rows = asked.within(e, int(self.design.offsets[j]), int(self.design.sizes[j]))
            blocks.append(of_rows @ self._cov_block(j) @ of_rows.T)
        own = block_diagonal(asked.edges, blocks)
        return Combinations(own, np.zeros((own.shape[0], 0)), np.zeros((0, 0)))

    def _moderating(self, equations: np.ndarray, n_factors: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(E,) variances without bias, their degrees of freedom, and the same variances as behind the standard errors.

        Of residuals, or where there are factors of what is the equations' own.
        """
        raise NoAnswer(
            "moderated=True is of residual variances that hold for all rows, and a fit with "
            "covariance=TimeVarying(...) has one for each segment. Use moderated=False."
        )

    # ------------------------------------------------------------------------------------------ factors

    def _without_factors(
        self, asked: _Asked, among: CovOfCombinations, columns: dict[str, np.ndarray], moderated: bool
    ) -> VariancePrior | None:
        """Add to the columns what is left of statistics without what common factors put into them.

        The prior of the equations' own variances, where these are moderated.
        """
        if not asked.single:
            raise ValueError(
                "method='factor-adjusted' takes one restriction per equation, and these hypotheses have several. Use "
                "method='bh', or test them one at a time."
            )
        if self.rank == 0:
            raise ValueError(
                "method='factor-adjusted' takes out what common factors put into the estimates, and this fit has none. "
                "Use method='bh', or fit with rank >= 1."
            )
        m, by_rows = len(asked.equations), self.reference.by_equation[asked.equations]
        if m <= 2 * self.rank or np.any(by_rows <= self.rank):
            raise ValueError(
                f"method='factor-adjusted' sees {self.rank} factors by the estimates of many equations, more than "
                f"twice as many, with more rows than coefficients and factors; there are {m}. Use method='holm'."
            )
        factors = FactorsOfStatistics.of(among, self.rank)
        if factors.bare.any():
            named = self.design.equations[int(asked.equations[int(np.argmax(factors.bare))])]
            raise ValueError(
                f"the factors explain the errors of equation {named!r} all but entirely, so that nothing of its own is "
                "left to test. Use method='bh', leave the equation out, or fit with fewer factors or improper='avoid'."
            )
        k, prior = factors.n_factors, None
        own_scale = by_rows / (by_rows - k)
        freedom = self.reference.freedom[asked.equations]
        freedom = freedom if self.reference.n_groups is not None else np.maximum(freedom - k, 1.0)
        if moderated:
            variances, df, behind = self._moderating(asked.equations, k)
            prior = VariancePrior.of(variances, df)
            own_scale, freedom = prior.moderates(variances, df) / behind, prior.df + df
        scale = np.sqrt(among.variances)
        statistics = asked.gap(self.coefficients) / scale
        common, left = realised(statistics, factors, np.sqrt(factors.own * own_scale))
        columns["common_part"] = common * scale
        columns["own_statistic"] = left
        columns["own_p_value"] = _two_sided(left, freedom)
        return prior


class TestingAcrossOneSigma(Measures, TestingAcross):
    """With one Sigma for all rows, whose variances can be moderated."""

    def _moderating(self, equations: np.ndarray, n_factors: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        freedom = np.asarray(self._shown - self._free - n_factors, dtype=float)
        if n_factors == 0:
            variances = self.evidence.sums(self.estimated, self.restrictions).residual / freedom
            behind = self._behind_errors(self.covariance.variances)
        else:
            own = self.covariance.own_variances()
            behind, counted = self._behind_errors(own), self._shown - self._free
            variances = own * (counted if self.debiased else self._shown) / freedom
        return variances[equations], freedom[equations], behind[equations]

    def _behind_errors(self, variances: np.ndarray) -> np.ndarray:
        """(K,) variances of Sigma as those behind the classical standard errors.  Raises ValueError for others."""
        if self.cov_kind != "classical":
            raise ValueError(
                f"moderated=True moderates the residual variances behind classical standard errors, and this fit uses "
                f"{self.cov_kind!r}. Use with_cov('classical').across(...), or moderated=False."
            )
        if self._errors_as_fitted or (self.cov_note == "debiased") == bool(self.debiased):
            return variances
        factors = degrees(self._shown, self._free) ** 2
        return variances * factors if self.cov_note == "debiased" else variances / factors


# ---------------------------------------------------------------------------------------------- what is asked


@dataclass(frozen=True, eq=False)
class _Asked:
    """Hypotheses by equation.  rows, values, texts : R, r and how they are written, those of an equation together.
    equations : (E,) their positions.  edges : (E + 1,) where each one's begin."""

    rows: sp.csr_array
    values: np.ndarray
    texts: tuple[str, ...]
    equations: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, design: Design, hypotheses: Restrictions) -> _Asked:
        """Raises ValueError for a hypothesis about several equations."""
        rows = hypotheses.rows
        owner = design.equation_of[rows.indices]
        first = np.minimum.reduceat(owner, rows.indptr[:-1])
        tied = np.maximum.reduceat(owner, rows.indptr[:-1]) > first
        if tied.any():
            raise ValueError(
                f"{hypotheses.texts[int(np.argmax(tied))]!r} is about several equations, and across tests one "
                "hypothesis in each. Use wald_test for those that tie equations together."
            )
        order = np.argsort(first, kind="stable")
        equations, counts = np.unique(first, return_counts=True)
        texts = tuple(hypotheses.texts[i] for i in order)
        edges = np.concatenate([[0], np.cumsum(counts)])
        return cls(sp.csr_array(rows[order]), hypotheses.values[order], texts, equations, edges)

    @property
    def single(self) -> bool:
        """Whether each equation has one."""
        return len(self.values) == len(self.equations)

    def gap(self, coefficients: np.ndarray) -> np.ndarray:
        """(m,) R b - r."""
        return np.asarray(self.rows @ coefficients - self.values)

    def within(self, e: int, first: int, size: int) -> np.ndarray:
        """(n, p_j) weights of one equation, whose coefficients are `size` from `first` on."""
        edges, pointers = self.edges, self.rows.indptr
        mine = slice(pointers[edges[e]], pointers[edges[e + 1]])
        counts = np.diff(pointers[edges[e] : edges[e + 1] + 1])
        out = np.zeros((len(counts), size))
        np.add.at(
            out, (np.repeat(np.arange(len(counts)), counts), self.rows.indices[mine] - first), self.rows.data[mine]
        )
        return out

    def alone(self, e: int) -> Restrictions:
        """Those of one equation."""
        mine = slice(int(self.edges[e]), int(self.edges[e + 1]))
        return Restrictions(self.rows[mine], self.values[mine], self.texts[mine])


def _check(method: Any, bands: Any, seed: Any) -> None:
    """Raise ValueError or TypeError for what an argument may not be."""
    if method is not None:
        one_of("method", method, ADJUSTMENTS)
    if bands is not None:
        one_of("bands", bands, BANDS)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or int(seed) < 0:
        raise ValueError(f"seed must be a whole number of 0 or more; got {seed!r}.")


def _null(given: Any, hypotheses: Restrictions) -> str:
    """The hypothesis as a table names it."""
    if isinstance(given, str):
        return " ".join(given.split())
    if isinstance(given, list | tuple) and len(given) <= SHOWN and all(isinstance(each, str) for each in given):
        return ", ".join(given)
    more = hypotheses.n_restrictions - SHOWN
    return ", ".join(hypotheses.texts[:SHOWN]) + (f", ... ({more:,} more)" if more > 0 else "")


# ---------------------------------------------------------------------------------------------- tests and bands


@dataclass(frozen=True, eq=False)
class _Tested:
    """columns : of the table, (E,) each.  freedom : (E,) of the t distribution, where each equation has one.
    prior : of moderated variances."""

    columns: dict[str, np.ndarray]
    freedom: np.ndarray
    prior: VariancePrior | None


def _tested(asked: _Asked, among: CovOfCombinations, gap: np.ndarray, fit: TestingAcross, moderated: bool) -> _Tested:
    """Each equation's own test."""
    variances = among.variances
    if not np.all(variances > 0):
        which = asked.texts[int(np.argmin(variances > 0))]
        raise np.linalg.LinAlgError(f"the estimate of {which!r} has no variance, so it cannot be tested. Drop it.")
    freedom, shrunk, prior = fit.reference.freedom[asked.equations], np.ones(len(asked.equations)), None
    if moderated:
        residual, df, behind = fit._moderating(asked.equations)
        prior = VariancePrior.of(residual, df)
        shrunk, freedom = prior.moderates(residual, df) / behind, prior.df + df
    if asked.single:
        errors = np.sqrt(variances * shrunk)
        statistic = gap / errors
        columns = {"estimate": gap + asked.values, "std_error": errors, "statistic": statistic, "df": freedom}
        return _Tested(columns | {"p_value": _two_sided(statistic, freedom)}, freedom, prior)
    size = np.diff(asked.edges).astype(float)
    labels = [fit.design.equations[j] for j in asked.equations.tolist()]
    statistic = quadratic_forms(among, asked.edges, gap, labels) / shrunk
    below = [fit.reference.of_test(np.array([j]), None) for j in asked.equations.tolist()]
    denominator = freedom if moderated else np.array([np.inf if each is None else each for each in below], dtype=float)
    is_f = np.isfinite(denominator)
    statistic = np.where(is_f, statistic / size, statistic)
    with np.errstate(invalid="ignore"):
        of_f = scipy.stats.f.sf(statistic, size, np.where(is_f, denominator, 1.0))
        pvalues = np.where(is_f, of_f, scipy.stats.chi2.sf(statistic, size))
    columns = {"statistic": statistic, "df": size, "df_denominator": denominator, "p_value": pvalues}
    return _Tested(columns, freedom, prior)


def _together(
    found: _Tested, method: Adjustment | None, bands: Bands | None, level: float, least: np.ndarray
) -> tuple[float, float, float, float, float]:
    """Add to the columns what follows from all of them: adjusted p-values, bands.

    The p-value of all together, the share of true hypotheses, the coverage of each interval, d0 and s0^2.
    """
    columns, prior = found.columns, found.prior
    own = columns["own_p_value" if method == "factor-adjusted" else "p_value"]
    columns["p_adjusted"] = _adjusted(own, method, least)
    pointwise = _with_bands(columns, bands, 1.0 - level, least, found.freedom)
    if bands == "sup-t":
        overall = float(_by_draws(np.array([np.min(columns["p_value"])]), least)[0])
    else:
        overall = float(np.min(columns["p_adjusted"] if method else adjusted(own, "holm")))
    priors = (np.nan, np.nan) if prior is None else (prior.df, prior.variance)
    return overall, share_of_true(own), 1.0 - pointwise, *priors


def _two_sided(statistics: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """(E,) by Student's t, or the normal distribution where degrees of freedom are infinite."""
    return np.asarray(2.0 * scipy.stats.t.sf(np.abs(statistics), freedom))


def _by_draws(pvalues: np.ndarray, least: np.ndarray) -> np.ndarray:
    """How often the least p-value is as small by chance; least : ascending draws of it."""
    return np.asarray((1 + np.searchsorted(least, pvalues, side="right")) / (len(least) + 1))


def _place(alpha: float, n_draws: int) -> int:
    """Which of the least p-values drawn, from 1 on, is exceeded in all but alpha of cases; 0 where none is so small."""
    return int(np.floor(alpha * (n_draws + 1)))


def _check_draws(n_draws: int, level: float, method: Adjustment | None, bands: Bands | None) -> None:
    """Raise ValueError for a level at which draws have no quantile, nor a p-value that is small enough."""
    if _place(1.0 - level, n_draws) > 0:
        return
    others = {"method='holm'": method == "sup-t", "bands='bonferroni'": bands == "sup-t"}
    if any(others.values()):
        remedy = " with ".join(other for other, is_needed in others.items() if is_needed)
        raise ValueError(f"level={level!r} is more than {n_draws:,} draws can tell. Use {remedy}.")


def _adjusted(pvalues: np.ndarray, method: Adjustment | None, least: np.ndarray) -> np.ndarray:
    if method is None:
        return pvalues.copy()
    if method == "sup-t":
        return _by_draws(pvalues, least)
    return adjusted(pvalues, "bh" if method == "factor-adjusted" else method)


def _with_bands(
    columns: dict[str, np.ndarray], bands: Bands | None, alpha: float, least: np.ndarray, freedom: np.ndarray
) -> float:
    """Add bands to the columns; the chance of each interval to miss, NaN where there are none."""
    if bands is None or "std_error" not in columns:
        return float("nan")
    pointwise = alpha
    if bands == "bonferroni":
        pointwise = alpha / len(freedom)
    if bands == "sup-t":
        pointwise = float(least[_place(alpha, len(least)) - 1])
    half = scipy.stats.t.isf(0.5 * pointwise, freedom) * columns["std_error"]
    columns["conf_low"], columns["conf_high"] = columns["estimate"] - half, columns["estimate"] + half
    return pointwise
