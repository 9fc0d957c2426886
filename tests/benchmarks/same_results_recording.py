"""What `same_results.py` writes down of a fit: the questions it asks, and the recording of every answer.

An answer is taken apart into numbers, kept to the last bit, and texts; what is raised or warned instead is a text too.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from same_results_cases import Case

from lrgls_dask import (
    CompressedSystem,
    Fit,
    FitWarning,
    HypothesisTest,
    LowRankGLS,
    System,
    Termination,
    TimeVaryingFit,
)

__all__ = ["Recording", "ask_opened", "recorded"]

LONGEST_TEXT = 4_000  # of the labels of an array; longer ones are recorded as a digest
ROWS_KEPT = 60  # of an array with one row for each row of data, evenly spread
FEW_EQUATIONS = 12  # up to which what costs K^3 a row is asked for
MANY_EQUATIONS = 100  # beyond which the information of all parameters is a minute's work
OF_ALL_PARAMETERS = ("observed", "huber-white", "kackar-harville")
PLANNED = ("engine", "holds_sigma", "reason", "passes", "n_blocks", "largest_block", "most_patterns", "holds_cov")
SIMPLE = [
    name
    for line in (
        "params loglik nll objective sigma loadings idio_var std_errors tvalues pvalues termination rank n_starts",
        "n_agreed on_floor trace selection aic bic r2 adj_r2 n_obs n_parameters n_restrictions df_model df_resid",
        "n_cells n_patterns n_dropped n_sweeps n_passes bytes_read engine algorithm covariance_kind lam_B lam_F",
        "l1 cells cov_kind cov_note bandwidth segments",
    )
    for name in line.split()
]
COVARIANCES: dict[str, dict[str, Any]] = {
    "robust": {},
    "robust HC1": {"correction": "HC1"},
    "cluster": {"correction": "HC1"},
    "hac": {"bandwidth": 4},
    "hac automatic": {"kernel": "parzen"},
    "observed": {},
    "huber-white": {},
    "kackar-harville": {},
    "classical debiased": {"debiased": True},
    "robust debiased": {"debiased": True},
}


# ---------------------------------------------------------------------------------------------- a recording


@dataclass
class Recording:
    """What one fit says. numbers, texts : by name; `put` takes apart whatever is not one of these."""

    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def ask(self, name: str, question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Put what the question returns, its warnings, and what it raises instead; None if it raised."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = question(*arguments, **options)
            except Exception as error:  # a refusal is a result too
                found = None
                if isinstance(error, AttributeError) and isinstance(error.obj, Fit | TimeVaryingFit):
                    return None  # kinds of fits have not all the same attributes
                self.texts[f"{name} raises"] = f"{type(error).__name__}: {error}"
            else:
                self.put(name, found)
        said = sorted({_said(warning) for warning in caught})
        if said:
            self.texts[f"{name} warns"] = "\n".join(said)
        return found

    def put(self, name: str, value: Any) -> None:
        """Numbers as they are, tables and labelled arrays by their parts, anything else as its text."""
        if isinstance(value, Termination):
            self.texts[name] = value.value
        elif isinstance(value, HypothesisTest):
            self.put(name, {"text": str(value), "statistic": value.statistic, "pvalue": value.pvalue, "df": value.df})
        elif isinstance(value, xr.DataArray):
            self._put_labelled(name, value)
        elif isinstance(value, xr.Dataset):
            self.put(name, {str(key): value[key] for key in value.data_vars} | {"attrs": repr(value.attrs)})
        elif isinstance(value, pd.DataFrame):
            columns = {str(key): value[key].to_numpy() for key in value if key != "seconds"}
            labels = f"{list(map(str, value))} {value.attrs} {value.index.names}"
            self.put(name, columns | {"labels": labels, "index": value.index.to_numpy()})
        elif isinstance(value, Mapping):
            for key, each in value.items():
                self.put(f"{name}.{key}", each)
        else:
            self._put_plain(name, value)

    def _put_plain(self, name: str, value: Any) -> None:
        if isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
            self.put(name, dict(enumerate(value)))
            return
        if isinstance(value, np.ndarray | np.generic | bool | int | float | list | tuple):
            array = np.asarray(value)
            if array.dtype.kind in "biufcmM":
                self.numbers[name] = array
                return
            value = array.tolist()
        self.texts[name] = value if isinstance(value, str) else _digest(str(value))

    def _put_labelled(self, name: str, value: xr.DataArray) -> None:
        if name.startswith("rows "):
            step = max(1, value.shape[0] // ROWS_KEPT)
            value = value.compute()
            self.put(f"{name}.squares", (value.values**2).sum(axis=0))
            value = value[::step]
        self._put_plain(name, value.values)
        coords = {str(key): (each.dims, each.values.tolist()) for key, each in sorted(value.coords.items(), key=str)}
        self.texts[f"{name}.labels"] = _digest(f"{value.name} {value.dims} {value.shape} {coords} {value.attrs}")

    def write(self, path: Path) -> None:
        """Two files, without pickles."""
        np.savez(path.with_suffix(".npz"), allow_pickle=False, **self.numbers)
        path.with_suffix(".json").write_text(json.dumps(self.texts, indent=1, sort_keys=True), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Recording:
        """As `write` wrote it."""
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            numbers = {name: stored[name] for name in stored.files}
        return cls(numbers, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))

    def part(self, prefix: str) -> Recording:
        """What has names that begin so."""
        numbers = {name: value for name, value in self.numbers.items() if name.startswith(prefix)}
        return Recording(numbers, {name: value for name, value in self.texts.items() if name.startswith(prefix)})


def _said(warning: warnings.WarningMessage) -> str:
    """The text of a warning, and of the package's own ones whether it points at the line that called."""
    where = ""
    if issubclass(warning.category, FitWarning):
        where = f" at {'the caller' if Path(warning.filename).name == Path(__file__).name else 'a line of its own'}"
    return f"{warning.category.__name__}{where}: {warning.message}"


def _digest(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:200]} ... {len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()}"


# ---------------------------------------------------------------------------------------------- what is asked


def recorded(case: Case, store: Path) -> Recording:
    """All that the fit of a case says; it is saved at `store`."""
    record = Recording()
    with tempfile.TemporaryDirectory() as folder:
        system, fitted, model = case.make(Path(folder))
        if record.ask("fit", lambda: model.fit(fitted).result_) is None:
            return record
        fit = model.result_
        record.put("class", type(fit).__name__)
        if isinstance(fitted, CompressedSystem):
            ask_store(record, "saved compressed", Path(folder) / "compressed.zarr", fitted.to_zarr)
        else:
            record.ask("plan", lambda: {name: getattr(model.plan_, name) for name in PLANNED})
        ask_estimates(record, fit)
        ask_tests(record, fit, case, fitted)
        ask_covariances(record, fit, system)
        ask_rows(record, fit, model, system, Path(folder))
        for number, options in enumerate(case.bootstraps):
            ask_bootstrap(record, f"bootstrap {number}", fit, {**options, "system": fitted})
        ask_store(record, "saved", store, fit.to_zarr)
        record.put("checkpoint is gone", not (Path(folder) / "progress.zarr").exists())
        opened = ask_opened(record, store)
        same = {name: _same(opened, fit, name) for name in ("params", "std_errors")}
        record.put("opened fit is the same to the last bit", str(same))
    return record


def _same(opened: Any, fit: Any, name: str) -> bool | str:
    try:
        return bool(np.array_equal(getattr(opened, name).values, getattr(fit, name).values))
    except (ValueError, AttributeError) as error:
        return f"{type(error).__name__}"


def ask_estimates(record: Recording, fit: Any) -> None:
    """Numbers, tables and texts."""
    for name in SIMPLE:
        record.ask(name, said_by, fit, name)
    if isinstance(fit, TimeVaryingFit):
        record.ask("sigmas", lambda: {str(label): fit.sigma(label) for label in fit.segments})
        record.ask("sigma unknown", lambda: fit.sigma("none"))
    record.ask("summary", fit.summary)
    record.ask("summary short", lambda: fit.summary(alpha=0.1, max_rows=10))
    record.ask("html", said_by, fit, "_repr_html_")
    record.ask("coef_table", fit.coef_table)
    record.ask("conf_int", lambda: fit.conf_int(0.1))
    record.ask("cov", fit.cov)
    first = fit.params["equation"].values[0]
    record.ask("cov of one", lambda: fit.cov("robust", equation=first))
    record.ask("mcelroy_r2", lambda: {"reported": fit.mcelroy_r2(), "residual": fit.mcelroy_r2("residual")})


def said_by(fit: Any, name: str) -> Any:
    """What an attribute holds or a method without arguments returns."""
    found = getattr(fit, name)
    if isinstance(found, pd.Index):
        return found.tolist()
    return found() if callable(found) else found


def ask_tests(record: Recording, fit: Any, case: Case, fitted: Any) -> None:
    """Tests of hypotheses, of the covariance, and against another model of the same rows."""
    ask_wald(record, "wald", fit)
    for name in ("breusch_pagan", "lr_diagonal", "rank_test"):
        record.ask(name, said_by, fit, name)
    record.ask("rank_test bartlett", lambda: fit.rank_test(bartlett=True))
    if case.other is not None:
        other = LowRankGLS(**{**case.model, **case.other})
        record.ask("lr_test", lambda: fit.lr_test(other.fit(fitted).result_))


def ask_wald(record: Recording, name: str, fit: Any) -> None:
    """Two coefficients are zero, by labels and as F; one text over all equations."""
    equations, regressors = fit.params["equation"].values.tolist(), fit.params["regressor"].values.tolist()
    ends = {(equations[at], regressors[at]): 0.0 for at in (0, -1)}
    record.ask(name, lambda: fit.wald_test(ends))
    record.ask(f"{name} F", lambda: fit.wald_test(ends, use_f=True))
    record.ask(f"{name} text", lambda: fit.wald_test(f"*:{regressors[0]} = 0"))


def ask_covariances(record: Recording, fit: Any, system: System) -> None:
    """Every kind of covariance that there is, or why there is none."""
    labels = np.arange(system.n_obs) // 7
    rows = {"system": system} if fit.system is None else {}
    for name, options in COVARIANCES.items():
        if name in OF_ALL_PARAMETERS and len(system.equations) > MANY_EQUATIONS:
            continue
        groups = {"groups": labels} if name == "cluster" and system.groups is None else {}
        kind: Any = name.split()[0]
        other = record.ask(f"with_cov {name}", With.of, fit, kind, {**options, **groups, **rows})
        if other is not None:
            ask_wald(record, f"with_cov {name} wald", other.fit)


class With(dict[str, Any]):
    """What a fit says that uses another covariance."""

    fit: Any

    @classmethod
    def of(cls, fit: Any, kind: Any, options: dict[str, Any]) -> With:
        """Its standard errors, covariance, note, table and the text of its summary."""
        other = fit.with_cov(kind, **options)
        found = cls(std_errors=other.std_errors, cov=other.cov(), note=other.cov_note, summary=other.summary())
        found.fit = other
        return found


def ask_rows(record: Recording, fit: Any, model: LowRankGLS, system: System, folder: Path) -> None:
    """Predictions, scores and residuals of the fitted rows, and the likelihood of them."""
    few = len(system.equations) <= FEW_EQUATIONS
    half = list(system.equations)[::2]
    kind: Any = "observation" if few else "error"
    asked: dict[str, Callable[[], Any]] = {
        "predict": lambda: fit.predict(system),
        "predict mean": lambda: fit.predict(system, interval=0.9),
        "predict observation": lambda: fit.predict(system, interval=0.95, kind="observation"),
        "predict_given": lambda: fit.predict_given(system, observed=half),
        "predict_given interval": lambda: fit.predict_given(system, observed=half, interval=0.95, kind=kind),
        "factor_scores": lambda: fit.factor_scores(system),
        "factor_scores bartlett": lambda: fit.factor_scores(system, method="bartlett"),
        "residuals": lambda: fit.residuals(system),
        "impute": lambda: fit.impute(system),
    }
    for name, question in asked.items():
        record.ask(f"rows {name}", question)
    record.ask("score", lambda: fit.score(system))
    record.ask("score of the model", lambda: model.score(system))
    if fit.missing == "em":
        ask_store(record, "saved imputed", folder / "imputed.zarr", lambda path: fit.impute(system, path))


def ask_bootstrap(record: Recording, name: str, fit: Any, options: Mapping[str, Any]) -> None:
    """Every replicate, and the intervals."""
    found = record.ask(name, fit.bootstrap, **options)
    if found is None:
        return
    for what in ("params", "replicate_std_errors", "std_errors", "bias", "sigma"):
        record.ask(f"{name} {what}", said_by, found, what)
    for kind in ("studentised", "percentile", "basic"):
        record.ask(f"{name} {kind}", found.conf_int, 0.2, kind)


def ask_store(record: Recording, name: str, path: Path, write: Callable[[Path], Any]) -> None:
    """Every array and attribute of a zarr group, with type, shape, dims and chunks."""
    record.ask(f"{name} written", write, path)
    if f"{name} written raises" in record.texts:
        return
    group = zarr.open_group(path, mode="r")
    record.put(f"{name}@", dict(group.attrs))
    for where, member in sorted(group.members(max_depth=None)):
        record.put(f"{name}/{where}@", dict(member.attrs))
        if isinstance(member, zarr.Array):
            dims = getattr(member.metadata, "dimension_names", None)
            record.put(f"{name}/{where} type", f"{member.dtype} {member.shape} {dims} {member.chunks}")
            if not where.endswith("seconds"):
                record.put(f"{name}/{where}", member[...])


def ask_opened(record: Recording, store: Path) -> Any:
    """What a saved fit says, which knows its rows no more."""
    kind = TimeVaryingFit if record.texts["class"] == "TimeVaryingFit" else Fit
    fit = record.ask("opened", kind.from_zarr, store)
    if fit is None:
        return None
    for name in ("params", "loglik", "std_errors", "loadings", "idio_var", "trace", "selection", "termination", "r2"):
        record.ask(f"opened {name}", said_by, fit, name)
    record.ask("opened sigma", lambda: fit.sigma() if kind is Fit else fit.sigma(fit.segments[-1]))
    for name in ("summary", "coef_table"):
        record.ask(f"opened {name}", getattr(fit, name))
    for covariance in ("observed", "robust") if len(fit.equations) <= MANY_EQUATIONS else ("robust",):
        record.ask(f"opened {covariance}", lambda kind: fit.with_cov(kind).std_errors, covariance)
    record.ask("opened rank_test", said_by, fit, "rank_test")
    ask_wald(record, "opened wald", fit)
    return fit
