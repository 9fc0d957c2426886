"""The estimator."""

from __future__ import annotations

import inspect
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import xarray as xr

from lrgls_dask.checks import check_rank, number, one_of
from lrgls_dask.compression.compressed import Compressed, compress_rows
from lrgls_dask.design.design import Design
from lrgls_dask.design.hypotheses import read_hypotheses
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.missing.first_look import look
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.options import TimeVarying, check_goes_together, check_varying
from lrgls_dask.plan import Engine, Plan, make_plan
from lrgls_dask.results.assemble import as_fit, as_time_varying_fit, fit_incomplete_rows, warn_of
from lrgls_dask.results.fit import Fit
from lrgls_dask.results.parts import Settings
from lrgls_dask.rows.progress import Progress
from lrgls_dask.rows.resources import blas_for
from lrgls_dask.rows.run_pass import Meter
from lrgls_dask.sigma.full import Full
from lrgls_dask.sigma.identified import max_rank
from lrgls_dask.sigma.interface import SigmaOption, Structure
from lrgls_dask.sigma.structures import LowRankStructure, diagonal
from lrgls_dask.solve.checkpoint import Checkpoint
from lrgls_dask.solve.crossvalidate import Folds, compress_folds
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.record import Options
from lrgls_dask.solve.select_l1 import choose_l1
from lrgls_dask.solve.selection import Table, choose
from lrgls_dask.solve.streamed import Streamed
from lrgls_dask.system import CompressedSystem, System, complete_only
from lrgls_dask.varying.fit import fit_segments, plan_segments
from lrgls_dask.varying.labels import rows_in_segments

__all__ = ["LowRankGLS"]

OPTIONS = (SigmaOption, TimeVarying)  # what `covariance` may be besides a name
COMPRESSED_REL_TOL, STREAM_REL_TOL = 1e-10, 1e-6  # a sweep is free on a compressed system and costs passes otherwise

Rank = int | Literal["auto", "bic", "cv"]


class LowRankGLS:
    """Seemingly unrelated regressions with errors of covariance Sigma = F F' + diag(d), on data of any length.

    Parameters
    ----------
    rank : number of factors k. An integer (0 makes Sigma diagonal, the only choice for one or two equations),
        "auto" for min(8, ceil(K / 10)), "bic" for the least BIC over 1..min(K // 2, 12), "cv" for the smallest
        over the same whose likelihood of rows left out is within one standard error of the best; all at most what K
        identifies.
    covariance : "lowrank", Sigma = F F' + diag(d); "full", any Sigma, the classical model, which needs many more rows
        than equations; "diagonal", every equation by itself. `rank` is only for the first.
        Or an object that says more of Sigma, such as `SparseLowRank` (mostly zero loadings), `GroupedLowRank` (factors
        of all equations and of groups of them), and whatever else `lrgls_dask.sigma.registry` names; `TimeVarying` is a
        Sigma for each segment of rows (`result_` is then a `TimeVaryingFit`). See their docstrings.
    algorithm : "als", alternating a GLS step for the coefficients and a step for Sigma up to maximum likelihood; "em",
        expectation-maximisation, which ends at the same optimum and streamed is a pass a round; "fgls", feasible GLS
        in one step: Sigma from the OLS residuals, one GLS step, done. The Sigma reported is then the one that weighted,
        and the log-likelihood that of the reported coefficients and Sigma. With restrictions OLS keeps to them too, all
        squared residuals counted alike in the units of the data.
    debiased : find Sigma from S_ij N / sqrt((N - p_i)(N - p_j)) instead of the mean products S of residuals. Iterated,
        it ends at a fixed point, not at the maximum of the likelihood.
    restrictions : linear restrictions R b = r that every estimate keeps to: texts over labels, such as
        "food:price + food:income = 1" or "a:x = b:x", or a pair (R, r), (m, P) and (m,), equation by equation.
    engine : "compress" reads the data once into q + K + 1 equivalent rows, "stream" makes a pass for every quantity it
        needs and holds K^2 numbers, "auto" compresses where (q + K)^2 fits.
    sigma_step : "ml", maximum likelihood factor analysis, or "pca", principal components with a line search.
    lam_F, lam_B : penalties lam_F / 2 ||F||^2 and lam_B / (2 N) ||b||^2 per row, in standard units (each response by
        its OLS residual standard deviation, each column by its root mean square), so free of the units of the data.
    d_floor : the least idiosyncratic variance, as a fraction of the equation's OLS residual variance.
    rel_tol : stop when a sweep lowers the objective by less than this fraction; 1e-10 on a compressed system, 1e-6
        streamed, if None.
    max_sweeps : the most sweeps, of algorithm="em" the most rounds; ending there is a warning, not an error. None: 50
        sweeps; 500 rounds of EM, 10,000 with accelerate=False. Streamed, EM is also what algorithm="als" runs for rows
        that miss responses and where K x K sums do not fit.
    cg_tol, cg_maxit : relative residual and most iterations of the conjugate gradients of a GLS step. None chooses a
        tolerance far below the statistical error of the coefficients.
    n_folds, folds : for rank="cv", how many folds, and of which rows: "rows", each row's fold drawn by a hash of its
        number, or "blocks", consecutive rows, for data that depend on each other over time. All folds come from the
        one pass that compresses the data, which then holds n_folds times (q + K)^2 numbers.
    accelerate : False is the textbook iteration of algorithm="em", which takes many times the rounds.
    missing : "raise" refuses NaN in Y. "em" maximises the likelihood of what each row shows, which is right where
        values are missing at random; X must be complete. Rows that show the same equations are compressed together
        where there are few such patterns, so that one pass is enough; else every round is one. "drop" leaves out rows
        that miss a response.
    checkpoint : a path or URL where a long fit keeps its progress. A fit of the same data that finds one there goes on
        from it; it is deleted when the fit is complete. The data must not have changed in between. With missing="em"
        the first pass is made again, and rounds go on where they were.
    progress : True for a bar on stderr, or a callable (label, bytes_done, bytes_total).
    memory_limit : bytes, or text like "1GB", that one process may use; found out if None.

    Attributes
    ----------
    result_ : the `Fit`.  params_ : its coefficients.  rank_ : the number of factors.  plan_ : the `Plan` that was run.
    """

    def __init__(
        self,
        rank: Rank = "auto",
        *,
        covariance: Literal["lowrank", "full", "diagonal"] | SigmaOption | TimeVarying = "lowrank",
        algorithm: Literal["als", "fgls", "em"] = "als",
        debiased: bool = False,
        restrictions: str | Sequence[str] | Mapping[Any, float] | Restrictions | tuple[Any, Any] | None = None,
        engine: Engine = "auto",
        sigma_step: Literal["ml", "pca"] = "ml",
        lam_F: float = 0.0,
        lam_B: float = 0.0,
        d_floor: float = 1e-8,
        rel_tol: float | None = None,
        max_sweeps: int | None = None,
        cg_tol: float | None = None,
        cg_maxit: int = 500,
        n_folds: int = 5,
        folds: Literal["rows", "blocks"] = "rows",
        accelerate: bool = True,
        missing: Literal["raise", "em", "drop"] = "raise",
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool | Callable[[str, int, int], object] = False,
        memory_limit: int | str | None = None,
    ) -> None:
        self.rank = rank
        self.covariance = covariance
        self.algorithm = algorithm
        self.debiased = debiased
        self.restrictions = restrictions
        self.engine = engine
        self.sigma_step = sigma_step
        self.lam_F = lam_F
        self.lam_B = lam_B
        self.d_floor = d_floor
        self.rel_tol = rel_tol
        self.max_sweeps = max_sweeps
        self.cg_tol = cg_tol
        self.cg_maxit = cg_maxit
        self.n_folds = n_folds
        self.folds = folds
        self.accelerate = accelerate
        self.missing = missing
        self.checkpoint = checkpoint
        self.progress = progress
        self.memory_limit = memory_limit
        self._check()

    # ------------------------------------------------------------------------------------------ scikit-learn

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> LowRankGLS:
        """Change arguments by name; returns self."""
        unknown = sorted(set(params) - set(self._names()))
        if unknown:
            raise ValueError(f"unknown parameter {unknown[0]!r}; the parameters are {', '.join(self._names())}.")
        before = self.get_params()
        for name, value in params.items():
            setattr(self, name, value)
        try:
            self._check()
        except (TypeError, ValueError):
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def __repr__(self) -> str:
        defaults = {n: p.default for n, p in inspect.signature(type(self).__init__).parameters.items()}
        changed = [f"{n}={v!r}" for n, v in self.get_params().items() if v != defaults[n]]
        return f"LowRankGLS({', '.join(changed)})"

    # ------------------------------------------------------------------------------------------ fitting

    def plan(self, system: System) -> Plan:
        """What `fit` would do and cost; reads nothing. Raises MemoryError if it would not fit."""
        if isinstance(self.covariance, TimeVarying):
            return plan_segments(self.covariance, system, self.memory_limit)
        by_folds = self._by_folds(system)
        plan = make_plan(
            system.rows,
            engine=self.engine,
            memory_limit=self.memory_limit,
            needs_matrix=any(structure.needs_matrix for structure in self._structures(system.design)),
            parts=self.n_folds if by_folds else 1,
            missing=self.missing == "em",
            by_rounds=self.algorithm == "em",
        )
        if by_folds and plan.engine == "stream":
            raise ValueError(
                f"rank='cv' keeps the cross-products of {self.n_folds} folds apart, which engine='stream' does not, "
                f"and engine='compress' {'was not allowed' if self.engine == 'stream' else 'does not fit in memory'}. "
                "Use engine='compress', fewer folds or a larger memory_limit, or rank='bic'."
            )
        return plan

    def fit(self, system: System | CompressedSystem) -> LowRankGLS:
        """Fit and keep the result in `result_`; follows the active Dask client, else uses threads.

        Warns once, with FitWarning, when the loop did not converge or a variance ended on its floor.
        """
        if self.missing == "drop" and isinstance(system, System):
            system = complete_only(system)
        if isinstance(self.covariance, TimeVarying):
            return self._fit_segments(self.covariance, system)
        structures = self._structures(system.design)
        restrictions = None if self.restrictions is None else read_hypotheses(system.design, self.restrictions)
        meter = Meter(Progress(self.progress))
        kept = self._checkpoint(system)
        problem, engine, folds = self._problem(system, restrictions, meter, kept)
        options = self._options(engine)
        settings = self._settings(system, restrictions)
        notes: list[str] = []
        with blas_for(system.n_regressors + system.n_equations):
            if isinstance(problem, Incomplete):
                with_cov = self.plan_.holds_cov
                fit, notes = fit_incomplete_rows(
                    problem, system, structures, options, settings, kept, with_cov=with_cov
                )
            else:
                path: Table = ()
                structures = tuple(each.in_units(problem.whitened.y_scale) for each in structures)
                if isinstance(self.covariance, SigmaOption) and self.covariance.by_bic:
                    chosen, path = choose_l1(problem, structures[0], options)
                    structures = (chosen,)
                solution, table = choose(problem, structures, options, kept, folds)
                settings = replace(settings, l1=structures[0].l1)
                fit = as_fit(problem, solution, settings, path or table, system)
        self.result_, self.rank_ = fit, fit.rank
        if kept is not None:
            kept.clear()
        warn_of(fit, problem.whitened.exact, notes)
        return self

    def _fit_segments(self, varying: TimeVarying, system: System | CompressedSystem) -> LowRankGLS:
        """The fit whose factors vary in time, a `TimeVaryingFit`."""
        system = rows_in_segments(system)
        restrictions = None if self.restrictions is None else read_hypotheses(system.design, self.restrictions)
        self.plan_ = self.plan(system)
        meter = Meter(Progress(self.progress))
        with blas_for(system.n_regressors + system.n_equations):
            fitted = fit_segments(varying, system, self._options("compress"), restrictions, meter)
        found: Any = as_time_varying_fit(fitted, self._settings(system, restrictions), system, meter)
        self.result_, self.rank_ = found, found.rank
        return self

    def _settings(self, system: System | CompressedSystem, restrictions: Restrictions | None) -> Settings:
        """What the fit remembers of how it was made."""
        return Settings(
            algorithm=self.algorithm,
            debiased=self.debiased,
            lam_B=float(self.lam_B),
            lam_F=float(self.lam_F),
            sigma_step=self.sigma_step,
            d_floor=float(self.d_floor),
            missing=self.missing if isinstance(system, System) else "raise",
            restrictions=restrictions,
        )

    @property
    def params_(self) -> xr.DataArray:
        """The fitted coefficients."""
        return self._fitted().params

    def predict(self, data: Any) -> xr.DataArray:
        """(obs, equation) fitted values of a System or of regressors alone; lazy. See `Fit.predict`."""
        return self._fitted().predict(data)

    def score(self, system: System | CompressedSystem) -> float:
        """Mean log-likelihood per row of the fitted parameters on other rows with the same designs; one pass.

        With covariance=TimeVarying(...) the segments of these rows are told apart as those of the fit were, which
        labels of all its rows do for no other rows: then use `result_.score(system, segments)`.
        """
        fit: Any = self._fitted()
        if isinstance(self.covariance, TimeVarying):
            score: float = fit.score(system, self.covariance.segments)
            return score
        return float(fit.score(system))

    def _fitted(self) -> Fit:
        if not hasattr(self, "result_"):
            raise AttributeError("this LowRankGLS has not been fitted. Call fit(system) first.")
        return self.result_

    def _checkpoint(self, system: System | CompressedSystem) -> Checkpoint | None:
        if self.checkpoint is None or isinstance(system, CompressedSystem):
            return None  # a compressed system has nothing to lose
        return Checkpoint.at(self.checkpoint, system.rows)

    def _problem(
        self,
        system: System | CompressedSystem,
        restrictions: Restrictions | None,
        meter: Meter,
        kept: Checkpoint | None,
    ) -> tuple[Problem | Incomplete, Literal["compress", "stream"], Folds | None]:
        by_folds = self._by_folds(system)
        if isinstance(system, CompressedSystem):
            if self.missing == "em":
                raise ValueError(
                    "missing='em' looks at rows, and a compressed system, which was made of complete ones, holds none. "
                    "Fit the System itself, or use missing='raise'."
                )
            if self.engine == "stream":
                raise ValueError("a compressed system holds no rows to stream. Use engine='compress' or 'auto'.")
            return _in_memory(system.rows, self.lam_B, meter, restrictions), "compress", None
        self.plan_ = self.plan(system)
        if self.missing == "em":
            seen = look(system.rows, self.plan_, self.lam_B, self.engine, meter, restrictions)
            if isinstance(seen, Incomplete):
                return seen, "compress" if seen.restarts_are_free else "stream", None
            if seen is not None:
                return _in_memory(seen, self.lam_B, meter, restrictions), "compress", None
        if self.plan_.engine == "stream":
            spare = self.plan_.memory_limit - self.plan_.worker_peak
            dense = self.plan_.holds_sigma
            streamed = Streamed(
                system.rows,
                lam_B=self.lam_B,
                meter=meter,
                dense=dense,
                spare_bytes=spare,
                restrictions=restrictions,
            )
            return streamed, "stream", None
        if by_folds:
            folds = compress_folds(system.rows, int(self.n_folds), self.folds, restrictions, meter=meter)
            return _in_memory(folds.parts.together(), self.lam_B, meter, restrictions), "compress", folds
        compressed = compress_rows(system.rows, meter=meter, saved=None if kept is None else kept.sums)
        return _in_memory(compressed, self.lam_B, meter, restrictions), "compress", None

    def _by_folds(self, system: System | CompressedSystem) -> bool:
        """Whether folds decide; raises ValueError where there can be none."""
        if self.rank != "cv" or len(self._structures(system.design)) == 1:
            return False
        if isinstance(system, CompressedSystem):
            raise ValueError(
                "rank='cv' leaves rows out, and a compressed system has none left to tell apart. Fit the System "
                "itself, which is read once, or use rank='bic'."
            )
        if self.n_folds > system.n_obs:
            raise ValueError(f"n_folds={self.n_folds} is more than the {system.n_obs} rows there are. Use fewer folds.")
        return True

    def _options(self, engine: Literal["compress", "stream"]) -> Options:
        default = COMPRESSED_REL_TOL if engine == "compress" else STREAM_REL_TOL
        return Options(
            algorithm=self.algorithm,
            debiased=self.debiased,
            lam_B=float(self.lam_B),
            d_floor=float(self.d_floor),
            rel_tol=default if self.rel_tol is None else float(self.rel_tol),
            max_sweeps=self.max_sweeps,
            cg_tol=self.cg_tol,
            cg_maxit=self.cg_maxit,
            accelerate=self.accelerate,
        )

    # ------------------------------------------------------------------------------------------ checks

    def _structures(self, design: Design) -> tuple[Structure, ...]:
        """What to fit and compare."""
        if isinstance(self.covariance, SigmaOption):
            return (self.covariance.structure(design),)
        if self.covariance == "full":
            return (Full(),)
        if self.covariance == "diagonal":
            return (diagonal(),)
        ranks = self._candidates(design.n_equations)
        return tuple(LowRankStructure(rank, self.sigma_step, float(self.lam_F)) for rank in ranks)

    def _candidates(self, n_equations: int) -> tuple[int, ...]:
        """The ranks to fit, ascending; raises ValueError for one that K equations do not identify."""
        most = max_rank(n_equations)
        if self.rank == "auto":
            return (min(8, -(-n_equations // 10), most),)
        if self.rank in ("bic", "cv"):
            top = min(n_equations // 2, 12, most)
            return tuple(range(1, top + 1)) or (0,)
        rank = int(self.rank)
        if rank > most:
            raise ValueError(
                f"rank {rank} is more than {n_equations} equations identify: the largest k with "
                f"(K - k)^2 >= K + k is {most}. Use rank <= {most}."
            )
        return (rank,)

    def _check(self) -> None:
        check_rank(self.rank)
        if not isinstance(self.covariance, OPTIONS):
            one_of("covariance", self.covariance, ("lowrank", "full", "diagonal"))
        one_of("algorithm", self.algorithm, ("als", "fgls", "em"))
        for name in ("debiased", "accelerate"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False; got {getattr(self, name)!r}.")
        one_of("engine", self.engine, ("auto", "compress", "stream"))
        one_of("sigma_step", self.sigma_step, ("ml", "pca"))
        one_of("folds", self.folds, ("rows", "blocks"))
        n_folds: Any = self.n_folds
        if isinstance(n_folds, bool) or not isinstance(n_folds, numbers.Integral) or n_folds < 2:
            raise ValueError(f"n_folds must be an integer of at least 2; got {n_folds!r}.")
        one_of("missing", self.missing, ("raise", "em", "drop"))
        check_goes_together(self.get_params())
        for name in ("lam_F", "lam_B"):
            number(name, getattr(self, name), least=0.0, strict=False)
        self._check_factors()
        number("d_floor", self.d_floor, least=0.0, strict=True)
        if self.d_floor >= 1:
            raise ValueError(
                f"d_floor is a fraction of each residual variance and must be below 1; got {self.d_floor}."
            )
        for name in ("rel_tol", "cg_tol"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), least=0.0, strict=True)
        for name in ("max_sweeps", "cg_maxit"):
            value = getattr(self, name)
            if value is None and name == "max_sweeps":
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"{name} must be a positive integer; got {value!r}.")
        if not (isinstance(self.progress, bool) or callable(self.progress)):
            raise TypeError(f"progress must be True, False or a callable; got {self.progress!r}.")

    def _check_factors(self) -> None:
        """What only plain factors have is refused where there are none."""
        if self.covariance == "lowrank":
            return
        described = isinstance(self.covariance, OPTIONS)
        for name, unused in (
            ("rank", ("auto",) if described else ("auto", 0)),
            ("lam_F", (0,)),
            ("sigma_step", ("ml",)),
        ):
            value = getattr(self, name)
            if value not in unused and described:
                raise ValueError(
                    f"covariance={type(self.covariance).__name__}(...) says what the factors are, so {name} must "
                    f"keep its default; got {value!r}. Drop {name}, or use covariance='lowrank'."
                )
            if value not in unused:
                raise ValueError(
                    f"covariance={self.covariance!r} has no factors, so {name} must keep its default; got {value!r}. "
                    f"Drop {name}, or use covariance='lowrank'."
                )
        if isinstance(self.covariance, TimeVarying):
            settings = (self.engine, self.algorithm, self.debiased, self.checkpoint, self.cg_tol, self.cg_maxit)
            check_varying(*settings)


def _in_memory(rows: Compressed, lam_B: float, meter: Meter, restrictions: Restrictions | None) -> InMemory:
    with blas_for(rows.design.n_regressors + rows.design.n_equations):
        return InMemory(rows, lam_B=lam_B, meter=meter, restrictions=restrictions)
