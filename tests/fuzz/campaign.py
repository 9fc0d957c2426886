"""The kinds of cases by name, and one case by kind and seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from fuzz import arrays, checkpoints, frames, restrictions, stores
from fuzz.judge import OF_FORMULAS, Finding, judged

KINDS: dict[str, Callable[[np.random.Generator], None]] = {
    "arrays": arrays.run,
    "frames": frames.run,
    "formulas": frames.formulas,
    "stores": stores.run,
    "checkpoints": checkpoints.run,
    "restrictions": restrictions.run,
}


def outcome(kind: str, seed: int) -> str:
    """ "right", "refused", or what was found."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    try:
        return judged(lambda: KINDS[kind](rng), OF_FORMULAS if kind in ("frames", "formulas") else None)
    except Finding as found:
        return str(found)
