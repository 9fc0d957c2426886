"""linearmodels' SUR with this package behind it, for linearmodels' own tests; a plugin of pytest.

    python -m pytest -p peers.as_linearmodels --pyargs linearmodels.tests.system.test_sur

Reading of input (formulas, labels, missing rows, constraints) and texts are linearmodels' own, since its tests ask for
its words. Every number is ours: coefficients, covariances, p-values, intervals, R2s, sums of squares, tests.
With LRGLS_PEERS_REPORT=path in the environment, one JSON line a test says its outcome and whether we fitted in it.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import linearmodels
import linearmodels.system
import linearmodels.system.model
import numpy as np
import pandas as pd
import pytest
from linearmodels.shared.hypotheses import InvalidTestStatistic, WaldTestStatistic
from linearmodels.shared.utility import AttrDict
from linearmodels.system._utility import inv_matrix_sqrt
from linearmodels.system.results import SystemEquationResult, SystemResults

from lrgls_dask import Fit, FitWarning, Known, LowRankGLS, System
from lrgls_dask.options.table import OPTIONS

KINDS = {"unadjusted": "classical", "homoskedastic": "classical", "heteroskedastic": "robust", "clustered": "cluster"}
KERNELS = {"newey-west": "bartlett", "gallant": "parzen", "andrews": "qs", "quadratic-spectral": "qs"}
COUNT = {"fits": 0}  # ours, in the test that runs
TITLES = {
    "classical": "Homoskedastic (Unadjusted) Covariance",
    "robust": "Heteroskedastic (Robust) Covariance",
    "cluster": "Clustered Covariance",
    "hac": "Kernel (HAC) Covariance",
}


def option(name: str, value: Any) -> dict[str, Any]:
    """An option of LowRankGLS, where this version has it."""
    return {name: value} if name in OPTIONS else {}


class Us(linearmodels.system.model.SUR):
    """linearmodels' model, fitted by `LowRankGLS`."""

    @property
    def terms(self) -> list[list[str]]:
        """Names of the regressors of each equation."""
        ends = np.cumsum([x.shape[1] for x in self._x])
        names = np.split(np.array(self.param_names, dtype=object), ends[:-1])
        return [[name[len(label) + 1 :] for name in mine] for label, mine in zip(self._eq_labels, names, strict=True)]

    @property
    def read(self) -> System:
        """The rows as linearmodels read them: without missing ones, weights of mean one."""
        w = np.hstack(self._w)
        weights = None if np.ptp(w) == 0 else w if np.ptp(w, axis=1).any() else w[:, 0]
        return System.from_arrays(
            np.hstack(self._y), self._x, equations=self._eq_labels, regressors=self.terms, weights=weights
        )

    def fit(
        self,
        *,
        method: str | None = None,
        full_cov: bool = True,
        iterate: bool = False,
        iter_limit: int = 100,
        tol: float = 1e-6,
        cov_type: str = "robust",
        **config: Any,
    ) -> Answers:
        shared = self._common_exog and self._constraints is None
        method = ("ols" if shared else "gls") if method is None else method.lower()
        debiased = config.pop("debiased", False)
        how: dict[str, Any] = {"covariance": "full" if full_cov else "diagonal", "algorithm": "fgls"}
        if method == "ols":
            ols = "ols" in OPTIONS["algorithm"].allowed.words
            how = {"algorithm": "ols", "covariance": "full"} if ols else {"covariance": "diagonal", "algorithm": "fgls"}
        elif self._sigma is not None:
            how = {"covariance": Known(self._sigma)}
        elif iterate:
            how |= {"algorithm": "als", "max_sweeps": iter_limit, "rel_tol": tol**2}
        elif method != "gls":
            raise ValueError(f"algorithm must be one of 'als', 'em', 'fgls' and 'ols'; got {method!r}.")
        if debiased and self._sigma is None:
            how["debiased"] = True
        if self._constraints is not None:
            how["restrictions"] = (np.asarray(self._constraints.r), np.asarray(self._constraints.q))
        return Answers(self, how, _kind(cov_type, config, debiased), debiased, method == "ols")


def _kind(cov_type: str, config: dict[str, Any], debiased: bool) -> dict[str, Any]:
    """Options of `with_cov` for linearmodels' name of a covariance and its options."""
    name = "hac" if cov_type in ("kernel", "hac") else KINDS.get(cov_type, cov_type)
    given: dict[str, Any] = {"kind": name}
    if name == "hac":
        kernel = config.pop("kernel", "bartlett")
        given |= {"kernel": KERNELS.get(kernel, kernel), "bandwidth": config.pop("bandwidth", None), "asked": kernel}
    if name == "cluster":
        given["groups"] = np.squeeze(np.asarray(config.pop("clusters")))
        given["group_debias"] = config.pop("group_debias", False)
    if name != "classical":
        given["debiased"] = debiased
    return given | config


class Numbers:
    """What both kinds of results take from our fits: errors, p-values, intervals."""

    of: Answers
    places: slice

    def _ours(self, what: str) -> np.ndarray:
        return np.asarray(getattr(self.of.with_errors(self.reference), what).values[self.places])

    @property
    def reference(self) -> str:
        """Which distribution p-values and intervals have: that of the system, or of one equation, or the normal one."""
        debiased: bool = self._debiased  # type: ignore[attr-defined]
        return "normal" if not debiased else "system-t" if self is self.of else "t"

    @property
    def std_errors(self) -> pd.Series:
        return pd.Series(self._ours("std_errors"), self._param_names, name="stderr")  # type: ignore[attr-defined]

    @property
    def tstats(self) -> pd.Series:
        return pd.Series(self._ours("tvalues"), self._param_names, name="tstat")  # type: ignore[attr-defined]

    @property
    def pvalues(self) -> pd.Series:
        return pd.Series(self._ours("pvalues"), self._param_names, name="pvalue")  # type: ignore[attr-defined]

    def conf_int(self, level: float = 0.95) -> pd.DataFrame:
        values = self.of.with_errors(self.reference).conf_int(1 - level).values[self.places]
        return pd.DataFrame(values, self._param_names, ["lower", "upper"])  # type: ignore[attr-defined]


class Equation(Numbers, SystemEquationResult):
    """One equation of them."""


class Answers(Numbers, SystemResults):
    """linearmodels' results, every number of them from fits of ours."""

    def __init__(self, model: Us, how: dict[str, Any], kind: dict[str, Any], debiased: bool, ols: bool) -> None:
        self.of, self.places = self, slice(None)
        self.how, self.kind, self.read = how, kind, model.read
        self._fits: dict[str, Fit] = {}
        fit = self.with_errors("t")
        labels, spans = model._eq_labels, fit.design.spans
        resid, fitted = fit.residuals(self.read).values, fit.predict(self.read).values
        scaled = np.sqrt(np.hstack(model._w)) * resid
        sigma = scaled.T @ scaled / len(scaled) if ols and how["algorithm"] != "ols" else fit.sigma().values
        wresid = scaled if ols else scaled @ inv_matrix_sqrt(sigma)
        rss = (scaled**2).sum(0)
        tss = rss / (1 - fit.r2.values)
        cov = fit.cov().values
        shared = AttrDict(
            method="OLS" if ols else "Iterated GLS" if how.get("algorithm") == "als" else "GLS",
            debiased=debiased,
            nobs=fit.n_obs,
            index=model._dependent[0].rows,
            original_index=model._original_index,
            iter=0 if ols else max(fit.n_sweeps, 1),
            cov_type=kind["kind"],
            cov_estimator=TITLES[kind["kind"]] + f" (Kernel: {kind.get('asked')})" * ("asked" in kind),
            cov_config=kind,
            model=model,
            constraints=model.constraints,
            weighted_resid=scaled,
            instruments=None,
            endog=None,
        )
        whole = {
            "params": fit.coefficients,
            "cov": cov,
            "param_names": model.param_names,
            "r2": 1 - rss.sum() / tss.sum(),
            "resid": resid,
            "wresid": wresid,
            "fitted": fitted,
            "df_model": len(cov),
            "resid_ss": rss.sum(),
            "total_ss": tss.sum(),
            "sigma": pd.DataFrame(sigma, labels, labels),
            "system_r2": self._system_r2_of(fit, "residual" if ols else "reported"),
            "individual": {},
        }
        super().__init__(AttrDict({**shared, **whole}))
        self._df_resid = fit.df_resid
        for i, label in enumerate(labels):
            one = {
                "params": fit.coefficients[spans[i]],
                "cov": cov[spans[i], spans[i]],
                "param_names": model.terms[i],
                "r2": float(fit.r2[i]),
                "r2a": float(fit.adj_r2[i]),
                "resid": resid[:, [i]],
                "wresid": wresid[:, [i]],
                "fitted": fitted[:, [i]],
                "df_model": fit.design.sizes[i],
                "resid_ss": rss[i],
                "total_ss": tss[i],
                "eq_label": label,
                "dependent": model._dependent[i].cols[0],
                "f_stat": self._f_stat(fit, i, debiased, model),
            }
            self._individual[label] = Equation(AttrDict({**shared, **one}))
            self._individual[label].of, self._individual[label].places = self, spans[i]

    def with_errors(self, use: str) -> Fit:
        """The fit whose p-values have this distribution, with the covariance that was asked for."""
        if use not in self._fits:
            COUNT["fits"] += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FitWarning)  # iterations may end at a limit that a test sets
                fit = LowRankGLS(**self.how, **option("use", use)).fit(self.read).result_
            given = {name: value for name, value in self.kind.items() if name != "asked"}
            self._fits[use] = fit if given == {"kind": "classical"} else fit.with_cov(**given)
        return self._fits[use]

    @staticmethod
    def _system_r2_of(fit: Fit, sigma: Any) -> pd.Series:
        if hasattr(fit, "system_r2"):
            return fit.system_r2(sigma).to_series()
        return pd.Series({"mcelroy": fit.mcelroy_r2(), "berndt": np.nan, "judge": np.nan, "dhrymes": np.nan})

    @staticmethod
    def _f_stat(fit: Fit, i: int, debiased: bool, model: Us) -> Any:
        name, terms = "Equation F-statistic", list(model.terms[i])
        if model.has_constant.iloc[i]:
            terms.pop(model._constant_loc[i])
        try:
            test = fit.wald_test({(model._eq_labels[i], term): 0.0 for term in terms}, use_f=debiased)
        except ValueError as refused:
            return InvalidTestStatistic(str(refused), name=name)
        return WaldTestStatistic(
            test.statistic, test.null, int(test.df), df_denom=fit.df_resid if debiased else None, name=name
        )

    def breusch_pagan(self) -> Any:
        return self._test("breusch_pagan", "Breusch-Pagan LM Test", "Residuals are uncorrelated")

    def likelihood_ratio(self) -> Any:
        return self._test("lr_diagonal", "Likelihood Ratio Test for Diagonal Covariance", "Covariance is diagonal")

    def _test(self, what: str, name: str, null: str) -> Any:
        try:
            test = getattr(self.with_errors("t"), what)()
        except ValueError as refused:
            return InvalidTestStatistic(str(refused), name=name)
        return WaldTestStatistic(test.statistic, null, int(test.df), name=name)


for module in (linearmodels, linearmodels.system, linearmodels.system.model):
    module.SUR = Us  # type: ignore[misc]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    """Write the outcome of each test, and whether a fit of ours was in it, where the environment says."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "setup" and report.passed:
        return
    if report.when == "teardown":
        COUNT["fits"] = 0
        return
    line = {"test": f"{item.path.name}::{item.name}", "outcome": report.outcome, "fits": COUNT["fits"]}
    line["why"] = str(call.excinfo.value)[:300] if call.excinfo is not None else ""
    with Path(os.environ["LRGLS_PEERS_REPORT"]).open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
