"""What every kind of fit is made of; each part writes itself into a group of arrays and attributes and reads it back.

The parts of a fit share one flat group, so that `xr.open_zarr` shows it whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import zarr

from lrgls_dask.data.framefit import FittedFormulas, read_formulas, write_formulas
from lrgls_dask.data.storedlabels import labels_from_json, labels_to_json
from lrgls_dask.data.zarrio import read_array, read_design, write_array, write_design
from lrgls_dask.design.design import Design
from lrgls_dask.design.penalties import Ridge, penalises
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.errors import FitWarning, warn_user
from lrgls_dask.inference.structured import StructuredCov
from lrgls_dask.options.table import Use
from lrgls_dask.rows.fingerprint import Fingerprint
from lrgls_dask.sigma.interface import Sigma
from lrgls_dask.sigma.registry import sigma_of
from lrgls_dask.solve.record import Termination, TraceRow

__all__ = [
    "CLASSICAL",
    "BehindErrors",
    "Estimated",
    "OneSigma",
    "Run",
    "Settings",
    "attributes_of",
    "read_fingerprint",
    "write_fingerprint",
]

Candidates = tuple[dict[str, float], ...]

RIDGE = "about means, constants free"  # what lam_B means in files of this version; earlier ones do not say
OLDER_RIDGE = (
    "this fit was made by an earlier version, whose lam_B shrank constants too and measured regressors by their root "
    "mean square. Its estimates are as they were; covariances and refits take lam_B as it is meant now. Fit again."
)


def attributes_of(group: zarr.Group) -> dict[str, Any]:
    """The attributes of a group as plain Python."""
    return dict(group.attrs)


@dataclass(frozen=True, eq=False)
class Estimated:
    """Coefficients (P,) by equation, from N rows, their log-likelihood, and what the dims are called.

    objective : what was minimised, per row: nll and penalties.  weighted : what had weights, "rows", "cells" or
    "equations", nothing where none had.  formulas : by which regressors are made of a frame, or None.
    """

    design: Design
    coefficients: np.ndarray
    n_obs: int
    loglik: float
    objective: float
    obs_dim: str = "obs"
    equation_dim: str = "equation"
    weighted: str = ""
    formulas: FittedFormulas | None = None

    def __post_init__(self) -> None:
        self.coefficients.flags.writeable = False

    def write(self, group: zarr.Group) -> None:
        write_design(group, self.design)
        write_array(group, "params", self.coefficients, ("coefficient",))
        for name in ("n_obs", "loglik", "objective", "obs_dim", "equation_dim", "weighted"):
            group.attrs[name] = getattr(self, name)
        write_formulas(group, self.formulas)

    @classmethod
    def read(cls, group: zarr.Group) -> Estimated:
        known = attributes_of(group)
        # time-varying fits of the first version do not say what they minimised
        objective = known.get("objective", -known["loglik"] / known["n_obs"])
        said = known["obs_dim"], known["equation_dim"], known.get("weighted", ""), read_formulas(group)
        return cls(read_design(group), read_array(group, "params"), known["n_obs"], known["loglik"], objective, *said)


@dataclass(frozen=True, eq=False)
class OneSigma:
    """The error covariance of all rows, in the user's units.

    on_floor : equations whose own variance ended on its floor.  y_scale : (K,) the standard units of the responses, in
    which penalties and floors are meant.
    """

    value: Sigma
    y_scale: np.ndarray
    on_floor: tuple[Hashable, ...] = ()

    def __post_init__(self) -> None:
        for array in (self.y_scale, *(array for array, _ in self.value.stored().values())):
            array.flags.writeable = False

    def held(self, design: Design) -> np.ndarray:
        """(K,) whether an equation's own variance is on its floor."""
        return np.isin(np.arange(design.n_equations), [design.equations.index(name) for name in self.on_floor])

    def write(self, group: zarr.Group, design: Design) -> None:
        for name, (array, dims) in self.value.stored().items():
            write_array(group, name, array, dims)
        write_array(group, "y_scale", self.y_scale, ("equation",))
        write_array(group, "on_floor", self.held(design), ("equation",))
        group.attrs["covariance"] = self.value.kind

    @classmethod
    def read(cls, group: zarr.Group, design: Design) -> OneSigma:
        kind = str(group.attrs.get("covariance", "lowrank"))
        value = sigma_of(kind, lambda name: read_array(group, name))
        floored = np.flatnonzero(read_array(group, "on_floor"))
        return cls(value, read_array(group, "y_scale"), tuple(design.equations[j] for j in floored))


@dataclass(frozen=True, eq=False)
class Settings:
    """With which options it was estimated, as far as statistics, refits and tables depend on them.

    The names are those of `LowRankGLS`; l1 is that of `SparseLowRank`, as chosen.  options : all that were given to the
    estimator, by name, as they are stored; empty in files of earlier versions.
    """

    algorithm: str = "als"
    debiased: bool | Literal["Theil", "max"] = False
    lam_B: Ridge = 0.0
    lam_F: float = 0.0
    l1: float = 0.0
    sigma_step: str = "ml"
    d_floor: float = 1e-8
    missing: str = "raise"
    use: Use | None = None
    restrictions: Restrictions | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, group: zarr.Group) -> None:
        for name in _plain(self):
            group.attrs[name] = getattr(self, name)
        if isinstance(self.lam_B, Mapping):
            names = labels_to_json(list(self.lam_B), "the names in lam_B")
            group.attrs["lam_B"] = {"names": names, "values": list(self.lam_B.values())}
        group.attrs["ridge"] = RIDGE
        group.attrs["options"] = dict(self.options)
        if self.restrictions is not None:
            write_array(group, "restriction_matrix", self.restrictions.matrix, ("restriction", "coefficient"))
            write_array(group, "restriction_values", self.restrictions.values, ("restriction",))
            group.attrs["restriction_texts"] = list(self.restrictions.texts)

    @classmethod
    def read(cls, group: zarr.Group) -> Settings:
        """What earlier versions do not say of themselves has its default."""
        known = attributes_of(group)
        restrictions = None
        if "restriction_values" in group:
            matrix, values = read_array(group, "restriction_matrix"), read_array(group, "restriction_values")
            restrictions = Restrictions(matrix, values, tuple(known["restriction_texts"]))
        said = {name: _like(known[name], getattr(cls(), name), name) for name in _plain(cls()) if name in known}
        if isinstance(said.get("lam_B"), Mapping):
            names, values = labels_from_json(said["lam_B"]["names"]), said["lam_B"]["values"]
            said["lam_B"] = dict(zip(names, values, strict=True))
        if penalises(said.get("lam_B", 0.0)) and known.get("ridge") != RIDGE:
            warn_user(OLDER_RIDGE, FitWarning)
        return cls(**said, restrictions=restrictions, options=known.get("options", {}))


def _like(value: Any, default: Any, name: str) -> Any:
    """An option as it is stored, of the kind that it has; ValueError where it is of another, which no fit has."""
    texts = (str, bool) if name == "debiased" else (str, type(None)) if name == "use" else (str,)
    numbers = (int, float, Mapping) if name == "lam_B" else (int, float)
    if isinstance(value, numbers if isinstance(default, float) else texts):
        return value
    raise ValueError(f"its {name} is {value!r:.40}")


def _plain(settings: Settings) -> list[str]:
    """The names of those that are a number or a text."""
    return [
        each.name
        for each in fields(settings)
        if not isinstance(getattr(settings, each.name), Mapping | Restrictions) and each.name != "restrictions"
    ]


@dataclass(frozen=True, eq=False)
class Run:
    """How the run went.

    history : what the loop noted, a row a half-step.  n_passes, bytes_read : of the whole fit, decoded bytes.
    n_starts, n_agreed : starting points tried, and how many of them led to this optimum.  n_dropped : rows that
    missing="drop" left out.  candidates : one row for each rank, penalty or bandwidth, where one was chosen.
    """

    termination: Termination
    history: tuple[TraceRow, ...]
    engine: str
    n_passes: int
    bytes_read: int
    n_starts: int = 1
    n_agreed: int = 1
    n_dropped: int = 0
    candidates: Candidates = ()

    @property
    def n_sweeps(self) -> int:
        return self.history[-1].sweep

    @cached_property
    def trace(self) -> pd.DataFrame:
        """One row per half-step: nll, objective, step length accept_t, CG iterations, totals of passes, bytes and
        seconds so far, and what rows were read for since the row before."""
        return pd.DataFrame([asdict(row) for row in self.history])

    def write(self, group: zarr.Group) -> None:
        for each in fields(TraceRow):
            column = np.array([getattr(row, each.name) for row in self.history])
            write_array(group, f"trace_{each.name}", column, ("half_step",))
        for name in ("engine", "n_passes", "bytes_read", "n_starts", "n_agreed", "n_dropped"):
            group.attrs[name] = getattr(self, name)
        group.attrs["termination"] = self.termination.value
        # an infinite bandwidth is no number in JSON
        group.attrs["candidates"] = [
            {k: v if np.isfinite(v) else repr(v) for k, v in row.items()} for row in self.candidates
        ]

    @classmethod
    def read(cls, group: zarr.Group) -> Run:
        known = attributes_of(group)
        names = [each.name for each in fields(TraceRow) if f"trace_{each.name}" in group]  # earlier versions had fewer
        columns = {name: read_array(group, f"trace_{name}").tolist() for name in names}
        rows = zip(*columns.values(), strict=True)
        return cls(
            Termination(known["termination"]),
            tuple(TraceRow(**dict(zip(columns, row, strict=True))) for row in rows),
            known["engine"],
            known["n_passes"],
            known["bytes_read"],
            known["n_starts"],
            known["n_agreed"],
            known.get("n_dropped", 0),
            tuple({k: float(v) if isinstance(v, str) else v for k, v in row.items()} for row in known["candidates"]),
        )


@dataclass(frozen=True, eq=False)
class BehindErrors:
    """The covariance behind the standard errors, tests and intervals of a fit.

    kind, note : which it is and how it was made.  values : (P, P), formed or as blocks and a part of low rank, or None
    where it is the classical one, not yet made.  n_groups : groups that it was made of, the fewest where there are
    several kinds; None where there are none.
    """

    kind: str = "classical"
    note: str = ""
    values: np.ndarray | StructuredCov | None = None
    n_groups: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.values, np.ndarray):
            self.values.flags.writeable = False

    def write(self, group: zarr.Group) -> None:
        if isinstance(self.values, StructuredCov):
            write_array(group, "cov_blocks", self.values.own.data, ("cov_block_entry",))
            write_array(group, "cov_factors", self.values.factors, ("coefficient", "cov_factor"))
            write_array(group, "cov_middle", self.values.middle, ("cov_factor", "cov_factor_other"))
            group.attrs["cov_knows_between"] = self.values.knows_between
        elif self.values is not None:
            write_array(group, "cov", self.values, ("coefficient", "coefficient_other"))
        group.attrs.update(cov_kind=self.kind, cov_note=self.note, cov_groups=self.n_groups)

    @classmethod
    def read(cls, group: zarr.Group) -> BehindErrors:
        known = attributes_of(group)
        values: np.ndarray | StructuredCov | None = read_array(group, "cov") if "cov" in group else None
        if "cov_factors" in group:
            parts = [read_array(group, f"cov_{name}") for name in ("blocks", "factors", "middle")]
            between = bool(known.get("cov_knows_between", True))
            values = StructuredCov.of_arrays(read_design(group), *parts, knows_between=between)
        return cls(known.get("cov_kind", "classical"), known.get("cov_note", ""), values, known.get("cov_groups"))


CLASSICAL = BehindErrors()


def write_fingerprint(group: zarr.Group, fingerprint: Fingerprint | None) -> None:
    """By which the fitted rows are told from others."""
    if fingerprint is not None:
        for each in fields(Fingerprint):
            values = getattr(fingerprint, each.name)
            write_array(
                group, f"fitted_{each.name}", values, tuple(f"fitted_{each.name}_{i}" for i in range(values.ndim))
            )


def read_fingerprint(group: zarr.Group) -> Fingerprint | None:
    """The same; None from files of versions that did not keep it."""
    if "fitted_mean" not in group:
        return None
    return Fingerprint(**{each.name: read_array(group, f"fitted_{each.name}") for each in fields(Fingerprint)})
