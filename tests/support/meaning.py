"""What a System means, however its rows are stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrgls_dask.rows.rows import Part
from lrgls_dask.system import System


def stack(parts: tuple[Part, ...]) -> np.ndarray:
    """All columns of these parts, read."""
    return np.concatenate([np.asarray(part.array[:]).reshape(part.array.shape[0], -1) for part in parts], axis=1)


def designs(system: System) -> dict[Any, dict[Any, list[float]]]:
    """equation -> term -> column, and the response under None: what a system means, however it is stored."""
    x, y = stack(system.rows.x), stack(system.rows.y)
    return {
        equation: {None: y[:, j].tolist()}
        | {term: x[:, c].tolist() for term, c in zip(design.terms[j], design.columns[j].tolist(), strict=True)}
        for design in [system.design]
        for j, equation in enumerate(system.equations)
    }
