"""Every kind of covariance of the coefficients by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lrgls_dask.checks import one_of
from lrgls_dask.results.cov.classical import Classical
from lrgls_dask.results.cov.cluster import Cluster
from lrgls_dask.results.cov.driscoll_kraay import DriscollKraay
from lrgls_dask.results.cov.hac import Hac
from lrgls_dask.results.cov.huber_white import HuberWhite
from lrgls_dask.results.cov.kackar_harville import KackarHarville
from lrgls_dask.results.cov.kind import CovKind
from lrgls_dask.results.cov.observed import Observed
from lrgls_dask.results.cov.sandwich import Robust

__all__ = ["KINDS", "cov_kind"]

NOTHING = (("correction", "none"), ("correction", "HC0"), ("kernel", "bartlett"))
KINDS: dict[str, Any] = {
    kind.name: kind for kind in (Classical, Robust, Cluster, Hac, DriscollKraay, Observed, HuberWhite, KackarHarville)
}


def cov_kind(kind: str | CovKind, given: Mapping[str, Any]) -> CovKind:
    """The kind of that name with these options, or the object itself, which has its own.

    given : options by name that are not left at their defaults; one that asks for nothing goes with every kind.
    Raises ValueError or TypeError for an unknown kind or value, and for an option that the kind does not take.
    """
    asked = [name for name, value in given.items() if not _is_nothing(name, value)]
    if isinstance(kind, CovKind):
        if asked:
            name = asked[0]
            raise ValueError(f"{type(kind).__name__}(...) has its own options, so {name}= says it twice. Leave it out.")
        return kind
    one_of("kind", kind, tuple(KINDS))
    for name in asked:
        if name not in _options(KINDS[kind]):
            takes = [other for other, entry in KINDS.items() if name in _options(entry)]
            raise ValueError(
                f"kind={kind!r} takes no {name}=; {' and '.join(map(repr, takes))} "
                f"{'do' if len(takes) > 1 else 'does'}. Leave it out, or choose another kind."
            )
    made: CovKind = KINDS[kind](**{name: value for name, value in given.items() if name in _options(KINDS[kind])})
    return made


def _is_nothing(name: str, value: Any) -> bool:
    """Whether an option says what a kind that does not have it does."""
    return value is False or (isinstance(value, str) and (name, value) in NOTHING)


def _options(kind: Any) -> set[str]:
    return {each.name for each in fields(kind)}
