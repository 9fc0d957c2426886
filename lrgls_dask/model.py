"""The estimator."""

from __future__ import annotations

import numbers
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, get_args

import xarray as xr

from lrgls_dask.checks import as_number, made_of, takes
from lrgls_dask.compression.by_pattern import CompressedPatterns
from lrgls_dask.compression.compressed import Compressed, compress_rows
from lrgls_dask.compression.either import (
    absorbed_labels,
    check_compressed,
    check_more_rows,
    complete_only,
    complete_rows,
    some_equations,
)
from lrgls_dask.data.labels import check_ascending
from lrgls_dask.design.design import Design
from lrgls_dask.design.hypotheses import read_hypotheses
from lrgls_dask.design.penalties import Ridge, column_penalties, ridge_of_some
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.design.skipped import Skipped
from lrgls_dask.errors import CollinearColumns, NoAnswer
from lrgls_dask.missing.crossvalidate import ShownFolds, compress_any_folds
from lrgls_dask.missing.first_look import look, plan_of_complete_rows, plan_of_holes
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.unusable import skipped_in
from lrgls_dask.options import OPTIONS, EstimatorOptions, TimeVarying, estimator
from lrgls_dask.options.absorbed import check_goes_with_effects
from lrgls_dask.options.rules import CHOSEN
from lrgls_dask.options.stored import as_stored
from lrgls_dask.plan.make import look_bytes, make_plan, plan_compressed
from lrgls_dask.plan.plan import Plan
from lrgls_dask.plan.rates import NOMINAL
from lrgls_dask.prediction.methods import HOW_TO_PREDICT, ROWS_TO_PREDICT
from lrgls_dask.results.assemble import as_fit, as_time_varying_fit, fit_incomplete_rows, warn_of
from lrgls_dask.results.fit import Fit
from lrgls_dask.results.parts import Settings
from lrgls_dask.results.time_varying import TimeVaryingFit
from lrgls_dask.rows.memory import Cluster, cluster_of
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.progress import Progress
from lrgls_dask.rows.resources import blas_for
from lrgls_dask.sigma.full import Full
from lrgls_dask.sigma.identified import check_identified, max_rank
from lrgls_dask.sigma.interface import SigmaOption, Structure
from lrgls_dask.sigma.structures import LowRankStructure, diagonal
from lrgls_dask.solve.checkpoint import Checkpoint
from lrgls_dask.solve.crossvalidate import Folds, compress_folds
from lrgls_dask.solve.eigenvalues import EigenvalueWay
from lrgls_dask.solve.in_memory import InMemory
from lrgls_dask.solve.interface import Problem
from lrgls_dask.solve.record import Options
from lrgls_dask.solve.same_columns import streamed
from lrgls_dask.solve.select_l1 import choose_l1
from lrgls_dask.solve.selection import Table, choose
from lrgls_dask.system import MAKE_ONE, CompressedSystem, System, is_system
from lrgls_dask.varying.fit import fit_segments, plan_segments
from lrgls_dask.varying.labels import rows_in_segments

__all__ = ["LowRankGLS"]

AnySystem = System | CompressedSystem
LEARNED = ("result_", "params_", "rank_", "plan_")
CALLED_ELSEWHERE = {"coef_": "params", "intercept_": "params", "bse": "std_errors", "resid": "residuals(system)"}
COMPRESSED_REL_TOL, STREAM_REL_TOL = 1e-10, 1e-6  # a sweep is free on a compressed system and costs passes otherwise


@dataclass(frozen=True, eq=False)
class Road:
    """What answers the loop for the rows, the plan of it, and folds of rows where these choose."""

    problem: Problem | Incomplete
    plan: Plan
    folds: Folds | ShownFolds | None = None


@made_of(
    "options by name, the number of factors first",
    "The data go to fit: LowRankGLS(rank=2).fit(System.from_arrays(Y, X)).result_; a constant is a column of X.",
    lambda rank: rank is None or isinstance(rank, str | numbers.Number),
)
@estimator
class LowRankGLS(EstimatorOptions):
    """Seemingly unrelated regressions with errors of covariance Sigma = F F' + diag(d), on data of any length.

    Parameters
    ----------
    {options}

    Attributes
    ----------
    result_ : the `Fit`.  params_ : its coefficients.  rank_ : the number of factors.  plan_ : the `Plan` that was run.
    """

    # ------------------------------------------------------------------------------------------ fitting

    @takes("a System", f"{MAKE_ONE}.", check=is_system)
    def plan(
        self,
        system: System | CompressedSystem,
        *,
        workers: int | None = None,
        threads: int = 1,
        worker_memory: int | str = "4GB",
        gb_per_s: float | None = None,
        usual_machine: bool = False,
    ) -> Plan:
        """What `fit` would do and cost; reads nothing. Raises MemoryError if it would not fit.

        workers : processes of a cluster that one does not have, each with so many `threads` and so much
        `worker_memory`; None plans for the active client or for this process.  gb_per_s : what storage gives to each
        process, in 10^9 bytes a second of decoded rows; None takes what this machine's disk gives.
        usual_machine : seconds of threads that do 35 Gflop/s, as a core of a few years ago does, and of storage that
        gives 1 GB/s where no `gb_per_s` is given, and not of this machine's; with `workers` they are the same wherever
        they are asked for.
        """
        check_goes_with_effects(self.get_params(), absorbed_labels(system))
        column_penalties(system.design, self._ridge)  # which refuses names of no regressor
        check_more_rows(system, of_any=self.unusable == "skip")
        cluster = None if workers is None else cluster_of(workers, threads, worker_memory)
        plan = self._with_look(self._plan(system, cluster), system)
        plan = plan.at(NOMINAL) if usual_machine else plan
        if gb_per_s is None:
            return plan
        rate = as_number("gb_per_s", gb_per_s, "a number of 10^9 bytes a second")
        if not rate > 0:
            raise ValueError(f"gb_per_s must be above zero, found {gb_per_s}.")
        return plan.reading(1e9 * rate)

    def _with_look(self, plan: Plan, system: AnySystem) -> Plan:
        """The plan with what is read for equations that cannot be estimated, and what was read before."""
        if isinstance(system, CompressedSystem):
            return plan
        look = look_bytes(system.rows) if self.unusable == "skip" else 0
        return replace(plan, look_bytes=look, made_bytes=system.made_bytes)

    def _plan(self, system: AnySystem, cluster: Cluster | None = None) -> Plan:
        """What fitting all equations would do and cost.  cluster : where, if not here."""
        if isinstance(self.covariance, TimeVarying):
            labelled, holes = rows_in_segments(system), self.missing == "em"
            return plan_segments(self.covariance, labelled, self.memory_limit, holes=holes, cluster=cluster)
        by_folds = self._by_folds(system)
        if isinstance(system, CompressedSystem):
            check_compressed(system, self.missing, self.engine)
            rows = system.rows
            if self.missing == "drop" and isinstance(rows, CompressedPatterns):
                rows = rows.complete()
            return plan_compressed(rows, self.memory_limit)
        structures, K = self._structures(system.design), system.n_equations
        plan = make_plan(
            system.rows,
            engine=self.engine,
            memory_limit=self.memory_limit,
            needs_matrix=self._by_eigenvalues or any(each.needs_matrix for each in structures),
            matrices=max(each.matrices(K) for each in structures),
            parts=self.n_folds if by_folds else 1,
            missing=self.missing == "em",
            by_rounds=self.algorithm == "em",
            candidates=1 if self._by_eigenvalues else len(structures),
            next_best=len(structures) - 1 if self.improper == "avoid" else 0,
            takes_rows=self._takes_rows(system.design),
            cluster=cluster,
        )
        if by_folds and plan.engine == "stream" and self.missing != "em":
            allowed = self.engine != "stream"
            use = "fewer folds, a larger memory_limit" if allowed else "engine='compress'"
            raise ValueError(
                f"rank='cv' keeps the cross-products of {self.n_folds} folds apart, which engine='stream' does not, "
                f"and engine='compress' {'does not fit in memory' if allowed else 'was not allowed'}. "
                f"Use {use} or rank='bic'."
            )
        return plan

    @takes(
        "a System, which holds responses and regressors",
        f"{MAKE_ONE}. Options go to LowRankGLS(...), kinds of standard errors to result_.with_cov(...).",
        check=is_system,
    )
    def fit(self, system: System | CompressedSystem) -> LowRankGLS:
        """Fit and keep the result in `result_`; follows the active Dask client, else uses threads.

        Warns once, with FitWarning, when the loop did not converge or a variance ended on its floor.
        """
        meter = Meter(Progress(self.progress))
        meter.say_begun(system.n_obs, system.design)
        check_goes_with_effects(self.get_params(), absorbed_labels(system))
        skipped = None
        if self.unusable == "skip":
            column_penalties(system.design, self._ridge)
            skipped = skipped_in(system, meter)
        self.result_, self.plan_, skipped = self._fit_those(system, skipped, meter)
        if skipped is not None:
            self.plan_ = self._with_look(self.plan_, system)
            settings = replace(self.result_.settings, options=as_stored(self.get_params()))
            held = None if self.result_.system is None else system
            self.result_ = replace(self.result_, skipped=skipped, settings=settings, system=held)
        self.rank_ = self.result_.rank
        meter.say_fitted(self.result_)
        return self

    def _fit_those(
        self, system: AnySystem, skipped: Skipped | None, meter: Meter, begun: AnySystem | None = None
    ) -> tuple[Any, Plan, Skipped | None]:
        """The fit of the equations that are left, its plan, and which they are: with unusable="skip" not those whose
        columns turn out to be collinear.  begun : whose fit found some, and to which a checkpoint belongs.
        """
        some = system if skipped is None else some_equations(system, skipped.equations)
        if self.missing == "drop" and isinstance(some, System):
            some = complete_only(some)
        try:
            mine = self if skipped is None else self._of_some(skipped)
            return *mine._fit_all(some, meter, begun), skipped
        except CollinearColumns as error:
            left = Skipped.of(system.design, skipped, error.which) if self.unusable == "skip" else None
            if left is None:
                raise
        return self._fit_those(system, left, meter, begun or some)

    def _of_some(self, skipped: Skipped) -> LowRankGLS:
        """The estimator of the equations that are left, with what its options say of these."""
        changed: dict[str, Any] = {"unusable": "raise"}
        if self.restrictions is not None:
            changed["restrictions"] = skipped.restrictions(self.restrictions)
        if isinstance(self.covariance, SigmaOption):
            changed["covariance"] = self.covariance.of_some(skipped.whole, skipped.equations.tolist())
        changed["lam_B"] = ridge_of_some(skipped.whole, skipped.kept.design, self._ridge)
        return type(self)(**(self.get_params() | changed))

    def _fit_all(self, system: AnySystem, meter: Meter, begun: AnySystem | None) -> tuple[Any, Plan]:
        """The fit of all equations, and the plan that was run."""
        if isinstance(self.covariance, TimeVarying):
            return self._fit_segments(self.covariance, system, meter)
        restrictions = None if self.restrictions is None else read_hypotheses(system.design, self.restrictions)
        plan = self.plan(system)  # before a checkpoint is made: what is refused leaves nothing behind
        with self._checkpoint(system, begun) as kept, meter.pinning(plan.pinned_rows):
            road = self._road(system, plan, restrictions, meter, kept)
            return self._fit_along(road, system, self._settings(restrictions), kept), road.plan

    def _fit_along(self, road: Road, system: AnySystem, settings: Settings, kept: Checkpoint | None) -> Any:
        problem, options = road.problem, self._options(road.plan.engine)
        notes: list[str] = []
        structures = self._structures(system.design)
        by_bic = isinstance(self.covariance, SigmaOption) and self.covariance.by_bic
        whole = system.design.n_regressors + system.n_equations
        with blas_for(problem.width if isinstance(problem, InMemory) else whole):
            if isinstance(problem, Incomplete):
                folds = road.folds if isinstance(road.folds, ShownFolds) else None
                given = (problem, system, structures, options, settings, kept)
                fit, notes = fit_incomplete_rows(*given, with_cov=road.plan.holds_cov, folds=folds, by_bic=by_bic)
            else:
                path: Table = ()
                structures = tuple(each.in_units(problem.whitened.y_scale) for each in structures)
                if by_bic:
                    chosen, path = choose_l1(problem, structures[0], options)
                    structures = (chosen,)
                assert not isinstance(road.folds, ShownFolds)  # which come with rows that miss responses
                solution, table = choose(problem, structures, options, kept, road.folds)
                if isinstance(system, System):
                    system = replace(system, rows=replace(system.rows, design=problem.design))  # which knows effects
                if self.missing == "em" and isinstance(system, System):
                    system = complete_only(system)  # as the fit saw it: rows that show nothing took no part
                fit = as_fit(problem, solution, replace(settings, l1=structures[0].l1), path or table, system)
        if kept is not None:
            kept.clear()
        warn_of(fit, problem.whitened.exact, notes)
        return fit

    def _fit_segments(self, varying: TimeVarying, system: AnySystem, meter: Meter) -> tuple[TimeVaryingFit, Plan]:
        """The fit whose factors vary in time."""
        system = rows_in_segments(system)
        restrictions = None if self.restrictions is None else read_hypotheses(system.design, self.restrictions)
        plan = self.plan(system)
        with blas_for(system.design.n_regressors + system.n_equations):
            options = self._options("compress")
            fitted = fit_segments(varying, system, options, restrictions, meter, plan.most_patterns)
        return as_time_varying_fit(fitted, self._settings(restrictions), system, meter), plan

    def _settings(self, restrictions: Restrictions | None) -> Settings:
        """What the fit remembers of how it was made."""
        made = {"missing": self.missing, "restrictions": restrictions, "options": as_stored(self.get_params())}
        return Settings(**self.given_to(Settings) | made)

    @property
    def _ridge(self) -> Ridge:
        found: Ridge = OPTIONS["lam_B"].plain(self.lam_B)
        return found

    @property
    def params_(self) -> xr.DataArray:
        """The fitted coefficients."""
        return self._fitted().params

    @takes(ROWS_TO_PREDICT, HOW_TO_PREDICT, first=lambda model: model._fitted())
    def predict(self, data: Any) -> xr.DataArray:
        """(obs, equation) fitted values of a System or of regressors alone; lazy. See `Fit.predict`."""
        return self._fitted().predict(data)

    @takes("a System, whose likelihood it is", f"{MAKE_ONE}.", check=is_system, first=lambda model: model._fitted())
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
        return self.result_

    def __getattr__(self, name: str) -> NoReturn:
        if name in LEARNED and "result_" not in vars(self):
            raise NoAnswer("this LowRankGLS has not been fitted. Call fit(system) first.")
        if name in CALLED_ELSEWHERE or (not name.startswith("_") and hasattr(Fit, name)):
            there = CALLED_ELSEWHERE.get(name, name)
            raise NoAnswer(f"{name} is the fit's, not the estimator's: model.fit(system).result_.{there}.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _checkpoint(self, system: AnySystem, begun: AnySystem | None) -> AbstractContextManager[Checkpoint | None]:
        if self.checkpoint is None or isinstance(system, CompressedSystem):  # which has nothing to lose
            return nullcontext()
        of = begun.rows if isinstance(begun, System) else None
        return Checkpoint.alone(self.checkpoint, system.rows, system.read_from, of)

    def _road(
        self,
        system: AnySystem,
        plan: Plan,
        restrictions: Restrictions | None,
        meter: Meter,
        kept: Checkpoint | None,
    ) -> Road:
        """What answers for the rows; compressing and looking for missing responses is the first pass."""
        if isinstance(system, CompressedSystem):
            rows = system.rows
            if isinstance(rows, CompressedPatterns) and self.missing == "em":
                return Road(Incomplete(rows, lam_B=self._ridge, meter=meter, restrictions=restrictions), plan)
            complete = complete_rows(system, self.missing)
            return Road(self._in_memory(complete, meter, restrictions), plan)
        if self._by_folds(system):
            return self._road_of_folds(system, plan, restrictions, meter)
        if self.missing == "em":
            seen = look(system.rows, plan, self._ridge, self.engine, meter, restrictions)
            if isinstance(seen, Incomplete):
                return Road(seen, plan_of_holes(plan, seen, by_rounds=self.algorithm == "em"))
            plan = plan_of_complete_rows(plan, system.design if seen is None else None)
            if seen is not None:
                return Road(self._in_memory(seen, meter, restrictions), plan)
            system = complete_only(system)  # without the rows that show nothing
        if plan.engine == "stream":
            problem = streamed(
                system.rows,
                lam_B=self._ridge,
                meter=meter,
                dense=plan.holds_sigma,
                keeps_x=plan.keeps_x,
                restrictions=restrictions,
            )
            return Road(problem, plan)
        compressed = compress_rows(system.rows, meter=meter, saved=None if kept is None else kept.sums)
        return Road(self._in_memory(compressed, meter, restrictions), plan)

    def _road_of_folds(self, system: System, plan: Plan, restrictions: Restrictions | None, meter: Meter) -> Road:
        """The same where folds of rows choose, which are compressed apart."""
        if self.folds == "blocks":
            check_ascending(system.obs, system.obs_dim, "folds='blocks'")
        given = system.rows, int(self.n_folds), self.folds, restrictions
        holes, limits = self.missing == "em", (plan.most_patterns, plan.keeps_rows)
        folds = compress_any_folds(*given, *limits, meter=meter) if holes else compress_folds(*given, meter=meter)
        if isinstance(folds, Folds):
            plan = plan_of_complete_rows(plan, None) if self.missing == "em" else plan
            return Road(self._in_memory(folds.parts.together(), meter, restrictions), plan, folds)
        first = folds.parts.together().first()
        seen = Incomplete(system.rows, lam_B=self._ridge, meter=meter, first=first, restrictions=restrictions)
        return Road(seen, plan_of_holes(plan, seen, by_rounds=False), folds)

    def _in_memory(self, rows: Compressed, meter: Meter, restrictions: Restrictions | None) -> InMemory:
        """Fewer rows than equations stand for their own products, where every Sigma is found from these."""
        by_rows = self._takes_rows(rows.design)
        with blas_for(rows.design.n_regressors + rows.design.n_equations):
            return InMemory(rows, lam_B=self._ridge, meter=meter, restrictions=restrictions, by_rows=by_rows)

    def _takes_rows(self, design: Design) -> bool:
        """Whether Sigma may be found from the few rows that S is made of."""
        return self.debiased is False and all(each.takes_rows for each in self._structures(design))

    def _by_folds(self, system: AnySystem) -> bool:
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
        rel_tol = COMPRESSED_REL_TOL if engine == "compress" else STREAM_REL_TOL
        said = self.given_to(Options) | ({"rank_by": self.rank} if self._by_eigenvalues else {})
        return Options(**said | ({"rel_tol": rel_tol} if self.rel_tol is None else {}))

    @property
    def _by_eigenvalues(self) -> bool:
        """Whether eigenvalues of the residuals choose the number of factors, which no candidate is fitted for."""
        return self.rank in get_args(EigenvalueWay)

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
        if self.ranks is not None:
            ranks = sorted(int(rank) for rank in self.ranks)
            for rank in ranks:
                check_identified(rank, n_equations)
            return tuple(ranks)
        most = max_rank(n_equations)
        if self.rank == "auto":
            return (min(8, -(-n_equations // 10), most),)
        if self.rank in CHOSEN:
            top = min(n_equations // 2, 12, most)
            return tuple(range(0 if self._by_eigenvalues else 1, top + 1)) or (0,)
        check_identified(int(self.rank), n_equations)
        return (int(self.rank),)
