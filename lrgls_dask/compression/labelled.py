"""`CompressedSystem`: rows that have been read once, with the user's labels."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import zarr

from lrgls_dask.checks import made_of, shown, takes
from lrgls_dask.compression.by_pattern import AnyCompressed, CompressedPatterns, merged
from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.compression.given import compressed_of_moments
from lrgls_dask.compression.stored import read_any, write_any
from lrgls_dask.data.framefit import FittedFormulas, check_same_states, read_formulas, write_formulas
from lrgls_dask.data.labelled import LabelledRows
from lrgls_dask.data.places import Location
from lrgls_dask.data.seal import check_seal, read_whole, write_sealed
from lrgls_dask.data.storage import new_store, open_group
from lrgls_dask.data.zarrio import check_version, read_design, write_design
from lrgls_dask.design.design import Design, Designed
from lrgls_dask.page import described

__all__ = ["MAKE_ONE", "CompressedSystem", "is_system", "misses_responses", "size_text"]

COMPLETE_FORMAT, PATTERNS_FORMAT = 1, 2  # of compressed systems; the second where rows miss responses
MAKE_ONE = (
    "Make one with System.from_arrays(Y, X), Y (N, K) and X (N, p) with its constant; System.from_frame(frame, "
    "'y1 + y2 ~ x'); System.from_xarray(ds, y, x); or System.from_zarr(path)"
)


def is_system(data: Any) -> bool:
    """Whether these are rows, compressed or not, with responses, regressors and labels."""
    return isinstance(data, LabelledRows | CompressedSystem)


class Compressible(Protocol):
    """A System, or a compressed one."""

    @property
    def formulas(self) -> FittedFormulas | None: ...

    def compress(self) -> Any: ...


@made_of(
    "rows that are compressed",
    f"{MAKE_ONE}, and compress it: system.compress().",
    lambda rows: isinstance(rows, Compressed | CompressedPatterns),
)
@dataclass(frozen=True, eq=False)
class CompressedSystem(Designed):
    """K equations on N rows that have been read once; fits, rank selection and appended rows cost no further read.

    Made by `System.compress`. Holds 8 (q + K)^2 bytes, however many rows it stands for. Where rows miss responses it
    holds as much for every pattern of them, less where a pattern has few rows, and is fitted with missing="em".
    rows : q + K + 1 of them, or those of every pattern.
    read_from : where the rows that were compressed lie, so that nothing is written over them; not saved.
    formulas : by which the columns were made of a frame, None where they were given.
    """

    rows: AnyCompressed
    obs_dim: Hashable = "obs"
    equation_dim: Hashable = "equation"
    read_from: frozenset[Location] = frozenset()
    formulas: FittedFormulas | None = None

    @classmethod
    def from_moments(
        cls,
        xx: Any,
        xy: Any,
        yy: Any,
        n_obs: int,
        means: Any = None,
        *,
        incidence: Any = None,
        equations: Iterable[Hashable] | None = None,
        regressors: Iterable[Hashable] | None = None,
        constant: Hashable | None = None,
    ) -> CompressedSystem:
        """A compressed system of sums of products that were made elsewhere, in a database say; rows are never seen.

        xx : (q, q) X'X of the distinct regressors.  xy : (q, K) X'Y.  yy : (K, K) Y'Y.  Frames and DataArrays bring
        their labels.  n_obs : rows that were summed.
        means : (q + K,) of the regressors, then of the responses, or a mapping by label. The sums are then about these
        means, sum (x - mean)(x - mean)', which keeps digits where means are large; otherwise they are about zero.
        constant : the regressor that is one in every row, whose products are the sums of all others; by default one
        named "const", "Intercept" or "constant" whose sum of squares is n_obs. Without it and without means, all means
        count as zero, which only R2s and the ridge ask for.
        incidence : (q, K), true where an equation uses a regressor, by default all.  equations, regressors : labels.
        Costs O((q + K)^3). Sums of squares keep half the digits of rows: where an equation's regressors are nearly
        collinear, give rows.

        Raises ValueError naming the columns whose sums no rows can have, TypeError for what is no numbers.
        """
        made = compressed_of_moments(
            xx,
            xy,
            yy,
            n_obs,
            means,
            incidence=incidence,
            equations=equations,
            regressors=regressors,
            constant=constant,
        )
        return cls(made)

    @property
    def design(self) -> Design:
        """Which equation uses which column."""
        return self.rows.design

    @property
    def n_obs(self) -> int:
        """N, the rows (of positive weight) it stands for."""
        return self.rows.n_obs

    @property
    def n_patterns(self) -> int:
        """Patterns of missing responses that are kept apart, complete rows among them; 0 where none is missing."""
        return self.rows.n_patterns if isinstance(self.rows, CompressedPatterns) else 0

    def compress(self) -> CompressedSystem:
        """Itself."""
        return self

    @takes("a System or CompressedSystem with the same designs", f"{MAKE_ONE}.", check=is_system)
    def append(self, other: Compressible) -> CompressedSystem:
        """The compressed system of these rows and those of `other`, a System (read once) or a compressed one.

        Any number of rows is appended, one or none complete ones too: responses may be missing, in patterns that are
        new. A fit of the sum is that of all rows. Costs O((q + K)^3) for each pattern of both.
        Raises ValueError, naming what differs, for other equations, regressors or designs.
        """
        check_same_states(self.formulas, other.formulas)
        more: CompressedSystem = other.compress()
        return replace(self, rows=merged(self.rows, more.rows), read_from=self.read_from | more.read_from)

    def to_zarr(self, path: Any, *, overwrite: bool = False, storage_options: Mapping[str, Any] | None = None) -> None:
        """Write it to a zarr group, complete or not at all; 8 (q + K)^2 bytes. Days later, append to it and refit.

        Raises FileExistsError where something is at `path`, unless overwrite is True; ValueError where `path` is, holds
        or lies in a store of the rows that were compressed.
        """
        options = None if storage_options is None else dict(storage_options)
        with new_store(path, overwrite=overwrite, storage_options=options, apart_from=self.read_from) as store:
            group = zarr.open_group(store, mode="w", zarr_format=3)
            write_design(group, self.design)
            write_any(group, self.rows)
            write_formulas(group, self.formulas)
            write_sealed(
                group,
                obs_dim=str(self.obs_dim),
                equation_dim=str(self.equation_dim),
                lrgls_compressed_format=PATTERNS_FORMAT if self.n_patterns else COMPLETE_FORMAT,
            )

    @classmethod
    def from_zarr(cls, path: Any, *, storage_options: Mapping[str, Any] | None = None) -> CompressedSystem:
        """A compressed system as `to_zarr` wrote it, to the last bit."""
        group = open_group(path, None if storage_options is None else dict(storage_options))
        versions = COMPLETE_FORMAT, PATTERNS_FORMAT
        check_version(group, "lrgls_compressed_format", versions, path, "compressed system")
        check_seal(group, path, "compressed system")
        return read_whole(path, "compressed system", lambda: cls._read(group))

    @classmethod
    def _read(cls, group: zarr.Group) -> CompressedSystem:
        known: dict[str, Any] = dict(group.attrs)
        rows, formulas = read_any(group, read_design(group)), read_formulas(group)
        return cls(rows, known["obs_dim"], known["equation_dim"], formulas=formulas)

    def __repr__(self) -> str:
        return (
            f"<CompressedSystem of {self.n_equations:,} equations standing for {self.n_obs:,} rows: "
            f"{self.n_regressors:,} distinct regressors, {self.n_coefficients:,} coefficients{self._holes()}>"
        )

    def _repr_html_(self) -> str:
        """The system as a notebook shows it."""
        return described(
            f"{self!r}\n  {self.equation_dim}: {shown(self.equations)}\n  regressors: {shown(self.regressors)}"
        )

    def _holes(self) -> str:
        rows = self.rows
        if not isinstance(rows, CompressedPatterns):
            return ""
        return f"; {rows.n_patterns:,} patterns of missing responses in {rows.n_rows:,} rows, {size_text(rows.n_bytes)}"


def misses_responses(system: CompressedSystem) -> str:
    """What a compressed system stands for, where that misses responses, for messages."""
    assert isinstance(system.rows, CompressedPatterns)
    seen = system.rows.cells
    least = int(seen.argmin())
    return (
        f"the compressed system stands for rows that miss responses: equation {system.equations[least]!r} is observed "
        f"in {seen[least]:,} of {system.n_obs:,} rows"
    )


def size_text(n_bytes: int) -> str:
    """Bytes, for people."""
    amount = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 999.5:  # which is written as 1e+03
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
