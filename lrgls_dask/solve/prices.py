"""What standard errors of all coefficients will cost, said before a fit."""

from __future__ import annotations

import math
from typing import Literal, Protocol

from dask.utils import format_bytes

from lrgls_dask.design.design import Design
from lrgls_dask.rows.memory import MAX_COEFFICIENTS, Room
from lrgls_dask.solve.streamed import PARTIALS_IN_FLIGHT

__all__ = [
    "AT_ONCE",
    "PAYS",
    "SOLUTIONS",
    "VARIANCES",
    "columns_at_once",
    "has_room_for_matrix",
    "iterations",
    "price_of_errors",
    "solved_at_once",
]

PAYS = 4  # coefficients for each score of a factor, from which on P x P arrays are the dearer ones
AT_ONCE = 512 * 2**20  # bytes of right-hand sides solved together
HELD = 5  # arrays of that size: solutions, residuals, directions, their images, and what is added to these
FACTORS = 8  # that are priced: how many there are is known after the fit
# Iterations of conjugate gradients for a decimal digit of the solution: three to four for six digits and seven to eight
# for thirteen, whatever the factors, where regressors of different equations are not correlated but for their means;
# three times as many where they have most of their variance in common.
ITERATIONS_A_DIGIT = 0.62
VARIANCES, SOLUTIONS = 1e-12, 1e-26  # errors in the norm of the matrix, squared, of variances and of what is solved for


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

    @property
    def client_peak(self) -> int: ...

    @property
    def client_limit(self) -> int: ...

    @property
    def keeps_x(self) -> bool: ...

    @property
    def in_process(self) -> bool: ...


def columns_at_once(design: Design, room: Room) -> int:
    """How many columns of X'X a pass may sum beside a P x P matrix, each a partial sum of q numbers."""
    return int(room.beside(8 * design.n_coefficients**2) // (PARTIALS_IN_FLIGHT * 8 * design.n_regressors))


def has_room_for_matrix(design: Design, room: Room) -> bool:
    """Whether a P x P matrix has room, and sums of one equation's columns of X'X beside it."""
    return 8 * design.n_coefficients**2 <= room.here and columns_at_once(design, room) >= design.sizes.max()


def solved_at_once(design: Design, n_factors: int, room: Room) -> int:
    """How many right-hand sides may be solved for together, by passes that sum q k numbers for each; those of one
    equation at least."""
    held, sums = 8 * HELD * design.n_coefficients, 8 * PARTIALS_IN_FLIGHT * design.n_regressors * max(1, n_factors)
    width = room.here / (held + sums) if room.in_process else min(room.here / held, room.worker / sums)
    return max(int(design.sizes.max()), int(min(width, AT_ONCE / (8 * design.n_coefficients))))


def iterations(tol: float) -> int:
    """That are priced, of errors `tol` in the norm of the matrix, squared."""
    return math.ceil(-0.5 * math.log10(tol) * ITERATIONS_A_DIGIT)


def price_of_errors(design: Design, plan: Priced) -> str:
    """In words: reads, and memory, beside what the fit takes."""
    P, q = design.n_coefficients, design.n_regressors
    matrix, spare = 8 * P**2, plan.memory_limit - plan.worker_peak
    if len(design.groups) == 1:
        return "no read: all equations share their regressors"
    scores = min(plan.n_obs, q + 1) * FACTORS
    if plan.engine == "compress" or plan.keeps_x:
        one = f"one read more, {format_bytes(plan.bytes_per_pass)}, for X'X"
        read = "no read" if plan.engine == "compress" else one
        if PAYS * scores <= P:
            return f"{read}; about {format_bytes(8 * scores * (scores + 2 * P))}"
        if P <= MAX_COEFFICIENTS or matrix + 8 * q * P <= spare:
            return f"{read}; {format_bytes(3 * matrix if P <= MAX_COEFFICIENTS else matrix + 8 * q * P)}"
        return f"{read}; conjugate gradients, since {format_bytes(matrix)} do not fit"
    room = Room(spare, spare if plan.in_process else plan.client_limit - plan.client_peak, plan.in_process)
    width, each = solved_at_once(design, FACTORS, room), iterations(VARIANCES)
    if has_room_for_matrix(design, room):
        passes, takes = -(-q // columns_at_once(design, room)) + 1, matrix
    else:
        passes, takes = each * -(-P // width) + 1, 8 * width * (HELD * P + PARTIALS_IN_FLIGHT * q * FACTORS)
    return (
        f"when asked for, about {passes:,} reads of X, {format_bytes(takes)}; one equation about {each + 1}, "
        "two to four times as many with lam_B or restrictions (X'X does not fit)"
    )
