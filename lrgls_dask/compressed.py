"""A system whose rows have been compressed: labels and q + K + 1 rows in memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import zarr

from lrgls_dask.compression.compressed import Compressed
from lrgls_dask.data.storage import new_store, open_group
from lrgls_dask.data.zarrio import check_version, read_array, read_design, write_array, write_design
from lrgls_dask.design.design import Design, Designed
from lrgls_dask.rows.moments import Head

__all__ = ["CompressedSystem", "read_compressed", "write_compressed"]

COMPRESSED_FORMAT = 1


@dataclass(frozen=True, eq=False)
class CompressedSystem(Designed):
    """K equations on N rows that have been read once; fits, rank selection and appended rows cost no further read.

    Made by `System.compress`. Holds 8 (q + K)^2 bytes, however many rows it stands for.
    """

    rows: Compressed
    obs_dim: Hashable = "obs"
    equation_dim: Hashable = "equation"

    @property
    def design(self) -> Design:
        return self.rows.design

    @property
    def n_obs(self) -> int:
        """N, the rows (of positive weight) it stands for."""
        return self.rows.n_obs

    def compress(self) -> CompressedSystem:
        """Itself."""
        return self

    def append(self, other: Any) -> CompressedSystem:
        """The compressed system of these rows and those of `other`, a System (read once) or a compressed one.

        Raises ValueError when equations, regressors or designs differ.
        """
        return replace(self, rows=self.rows.merge(other.compress().rows))

    def to_zarr(self, path: Any, *, overwrite: bool = False, storage_options: Mapping[str, Any] | None = None) -> None:
        """Write it to a zarr group, complete or not at all; 8 (q + K)^2 bytes. Days later, append to it and refit.

        Raises FileExistsError where something is at `path`, unless overwrite is True.
        """
        options = None if storage_options is None else dict(storage_options)
        with new_store(path, overwrite=overwrite, storage_options=options) as store:
            group = zarr.open_group(store, mode="w", zarr_format=3)
            write_design(group, self.design)
            write_compressed(group, self.rows)
            group.attrs.update(
                obs_dim=str(self.obs_dim),
                equation_dim=str(self.equation_dim),
                lrgls_compressed_format=COMPRESSED_FORMAT,
            )

    @classmethod
    def from_zarr(cls, path: Any, *, storage_options: Mapping[str, Any] | None = None) -> CompressedSystem:
        """A compressed system as `to_zarr` wrote it, to the last bit."""
        group = open_group(path, None if storage_options is None else dict(storage_options))
        check_version(group, "lrgls_compressed_format", COMPRESSED_FORMAT, path, "compressed system")
        known: dict[str, Any] = dict(group.attrs)
        return cls(read_compressed(group, read_design(group)), known["obs_dim"], known["equation_dim"])

    def __repr__(self) -> str:
        return (
            f"<CompressedSystem of {self.n_equations:,} equations standing for {self.n_obs:,} rows: "
            f"{self.n_regressors:,} distinct regressors, {self.n_coefficients:,} coefficients>"
        )


def write_compressed(group: zarr.Group, rows: Compressed) -> None:
    """The rows themselves, without their design."""
    write_array(group, "anchor", rows.head.anchor, ("column",))
    write_array(group, "offset", rows.head.offset, ("column",))
    write_array(group, "root", rows.root, ("row", "column"))
    head = rows.head
    group.attrs.update(n_obs=head.n_rows, weight=head.weight, log_weight=head.log_weight, route=rows.route)


def read_compressed(group: zarr.Group, design: Design) -> Compressed:
    """The rows that `write_compressed` wrote."""
    known: dict[str, Any] = dict(group.attrs)
    anchor, offset = read_array(group, "anchor"), read_array(group, "offset")
    head = Head(known["n_obs"], known["weight"], known["log_weight"], anchor, offset)
    return Compressed(design, head, read_array(group, "root"), known["route"])
