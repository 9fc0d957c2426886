"""What standard errors of all coefficients will cost, said before a fit."""

from __future__ import annotations

from typing import Literal, Protocol

from dask.utils import format_bytes

from lrgls_dask.design.design import Design
from lrgls_dask.rows.memory import MAX_COEFFICIENTS
from lrgls_dask.solve.streamed import PARTIALS_IN_FLIGHT

__all__ = ["AT_ONCE", "PAYS", "price_of_errors"]

PAYS = 4  # coefficients for each score of a factor, from which on P x P arrays are the dearer ones
AT_ONCE = 512 * 2**20  # bytes of right-hand sides solved together, five arrays of which are held
FACTORS = 8  # that are priced: how many there are is known after the fit
ITERATIONS = 4  # of conjugate gradients: equations that hang together by a few factors take three to seven


class Priced(Protocol):
    """What is asked of the plan of a fit."""

    @property
    def engine(self) -> Literal["compress", "stream"]: ...

    @property
    def n_obs(self) -> int: ...

    @property
    def bytes_per_pass(self) -> int: ...

    @property
    def worker_peak(self) -> int: ...

    @property
    def memory_limit(self) -> int: ...


def price_of_errors(design: Design, plan: Priced) -> str:
    """In words: reads, and memory, beside what the fit takes."""
    P, q = design.n_coefficients, design.n_regressors
    matrix, spare = 8 * P**2, plan.memory_limit - plan.worker_peak
    if len(design.groups) == 1:
        return "no read: all equations share their regressors"
    scores = min(plan.n_obs, q + 1) * FACTORS
    if plan.engine == "compress" or PARTIALS_IN_FLIGHT * 8 * q**2 <= spare:
        one = f"one read more, {format_bytes(plan.bytes_per_pass)}, for X'X"
        read = "no read" if plan.engine == "compress" else one
        if PAYS * scores <= P:
            return f"{read}; about {format_bytes(8 * scores * (scores + P))}"
        if P <= MAX_COEFFICIENTS or matrix + 8 * q * P <= spare:
            return f"{read}; {format_bytes(3 * matrix if P <= MAX_COEFFICIENTS else matrix + 8 * q * P)}"
        return f"{read}; conjugate gradients, since {format_bytes(matrix)} do not fit"
    width = (spare - matrix) / (PARTIALS_IN_FLIGHT * 8 * q)
    if width >= design.sizes.max():
        passes, takes = -int(-q // width) + 1, format_bytes(matrix)
    else:
        passes, takes = ITERATIONS * -int(-matrix // AT_ONCE) + 1, format_bytes(5 * AT_ONCE)
    return (
        f"when asked for, about {passes:,} reads of X, {takes}; one equation about {ITERATIONS + 1} reads "
        "(X'X does not fit)"
    )
