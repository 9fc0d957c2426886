"""The loop by itself, with steps that need no data: when it stops, what it counts, accepts, notes and goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from lrgls_dask.rows.meter import Meter
from lrgls_dask.solve.anderson import Anderson
from lrgls_dask.solve.iterate import Goal, Half, Space, State, Trace, go_on, iterate, run
from lrgls_dask.solve.record import Solution, Termination, TraceRow, to_come

CURVE = np.array([1.0, 4.0, 9.0])
START = np.array([3.0, -2.0, 1.0])


def objective(x: np.ndarray) -> float:
    return 2.0 + 0.5 * float(CURVE @ x**2)


@dataclass(eq=False)
class Shrinking:
    """x -> rate x, minimising a parabola at 0. A look reads the objective; a move says how far it went.

    fast : extrapolated.  overshoots : the first so many extrapolations are thrown far off.  whole_from : the sweep from
    which a point may be reported.  looks, moves : how many were made.
    """

    rate: float = 0.1
    fast: bool = False
    overshoots: int = 0
    whole_from: int = 10**9
    first: int = 1
    looks: int = 0
    moves: int = 0
    meter: Meter = field(default_factory=Meter)

    @property
    def space(self) -> Space[np.ndarray] | None:
        return Space(lambda point: point, self.at, Anderson(depth=3)) if self.fast else None

    def trace(self) -> Trace:
        return Trace(0, 0.0, self.meter)

    def start(self, point: np.ndarray) -> Half[np.ndarray]:
        return Half(point, "start", objective(point), objective(point))

    def look(self, state: State[np.ndarray]) -> Half[np.ndarray]:
        self.looks += 1
        value = objective(state.point)
        left = abs(state.obj - value)
        moving = to_come(state.energy, state.before)
        return Half(state.point, "sigma", value, value, left=left, moving=moving, value=value, rounding=1e-14)

    def move(self, looked: Half[np.ndarray], state: State[np.ndarray]) -> Half[np.ndarray]:
        self.moves += 1
        image = self.rate * looked.point
        energy = float(np.sum((image - looked.point) ** 2))
        obj = objective(image)
        return Half(image, "beta", obj, obj, energy=energy, whole=state.sweep >= self.whole_from)

    def finish(self, looked: Half[np.ndarray], state: State[np.ndarray]) -> Half[np.ndarray]:
        return replace(self.move(looked, state), left=np.inf)

    def at(self, vector: np.ndarray, image: np.ndarray) -> np.ndarray:
        if self.overshoots > 0 and not np.array_equal(vector, image):
            self.overshoots -= 1
            return vector + 100.0
        return vector


def sweeps_of(found: Solution[np.ndarray]) -> list[int]:
    return [row.sweep for row in found.trace]


@dataclass
class Shelf:
    """A checkpoint in memory: the last point and what it was told of the sweeps before."""

    sweep: int = 0
    point: Any = None
    marks: Mapping[str, Any] = field(default_factory=dict)
    trace: tuple[TraceRow, ...] = ()
    totals: tuple[int, int] = (0, 0)
    ended: Termination | None = None
    killed_after: int = 10**9

    def keep(self, sweep: int, point: np.ndarray, marks: Mapping[str, Any], trace: Trace) -> None:
        self.sweep, self.point, self.marks = sweep, point, marks
        self.trace, self.totals = tuple(trace.rows), trace.meter.totals
        if sweep == self.killed_after:
            raise KeyboardInterrupt

    def finish(self, found: Solution[np.ndarray], trace: Trace) -> None:
        self.sweep, self.point, self.ended = found.trace[-1].sweep, found.point, found.termination
        self.marks, self.trace, self.totals = {"image": [found.nll, found.obj]}, found.trace, trace.meter.totals


# ---------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize("rel_tol", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6])
def test_it_stops_where_a_sweep_gains_no_more_than_asked_and_not_before(rate: float, rel_tol: float) -> None:
    found = run(Shrinking(rate), START, Goal(most=500, rel_tol=rel_tol))
    assert found.termination is Termination.CONVERGED
    looks = np.array([row.obj for row in found.trace if row.step == "sigma"])
    gains = -np.diff(looks)
    assert gains[-1] <= rel_tol * looks[-1]
    assert (gains[:-1] > rel_tol * looks[1:-1]).all()


def test_an_objective_without_digits_left_is_not_enough_while_coefficients_move() -> None:
    """rel_tol is met at once; what is asked of the moves decides."""
    loose = run(Shrinking(0.3), START, Goal(most=500, rel_tol=1.0))
    settled = run(Shrinking(0.3), START, Goal(most=500, rel_tol=1.0, settled=1e-12))
    assert settled.trace[-1].sweep > loose.trace[-1].sweep
    assert np.sum(settled.point**2) < 1e-12 < np.sum(loose.point**2)


def test_what_is_to_come_is_the_sum_of_all_later_moves() -> None:
    lengths = 0.3 ** np.arange(60)
    assert to_come(lengths[4] ** 2, lengths[3] ** 2) == pytest.approx(lengths[5:].sum() ** 2)
    assert to_come(1.0, np.inf) == 1.0  # the length of one move says nothing of the next
    assert to_come(1.0, 1.0) == to_come(2.0, 1.0) == np.inf


def test_moves_that_get_no_shorter_end_the_loop_too() -> None:
    """Rounding: a step that always moves by the same."""

    class Restless(Shrinking):
        def move(self, looked: Half[np.ndarray], state: State[np.ndarray]) -> Half[np.ndarray]:
            return replace(super().move(looked, state), energy=1e-9)

    goal = Goal(most=500, rel_tol=1e-9, settled=1e-12, nearly=1e-8, patience=4)
    found = run(replace_moving(Restless(0.1)), START, goal)
    assert found.termination is Termination.CONVERGED and 5 <= found.trace[-1].sweep < 20
    stubborn = run(replace_moving(Restless(0.1)), START, replace(goal, nearly=1e-10, most=30))
    assert stubborn.termination is Termination.MAX_SWEEPS and stubborn.trace[-1].sweep == 30


def replace_moving(step: Shrinking) -> Shrinking:
    """The same step, whose looks tell the last move itself instead of what is to come."""
    look = step.look
    step.look = lambda state: replace(look(state), moving=state.energy)  # type: ignore[method-assign]
    return step


@pytest.mark.parametrize("most", [1, 2, 7])
def test_sweeps_are_counted_as_they_are_asked_for(most: int) -> None:
    step = Shrinking(0.99)
    found = run(step, START, Goal(most=most, rel_tol=1e-15))
    assert found.termination is Termination.MAX_SWEEPS
    assert found.trace[-1].sweep == step.looks == step.moves == most
    assert sweeps_of(found) == [0, *np.repeat(np.arange(1, most + 1), 2)]
    rounds = Shrinking(0.99, first=0)  # whose first look only reads the start
    found = run(rounds, START, Goal(most=most, rel_tol=1e-15))
    assert found.trace[-1].sweep == most and rounds.looks == most + 1


def test_the_last_sweep_does_not_converge_by_going_back() -> None:
    class Satisfied(Shrinking):
        def finish(self, looked: Half[np.ndarray], state: State[np.ndarray]) -> Half[np.ndarray]:
            return replace(self.move(looked, state), left=0.0, moving=0.0)

    for overshoots, why in ((0, Termination.CONVERGED), (1, Termination.MAX_SWEEPS)):
        step = Satisfied(rate=0.9, fast=True, overshoots=overshoots)
        assert run(step, START, Goal(3, 1e-12)).termination is why


def test_a_point_that_may_be_reported_is_not_moved_again() -> None:
    step = Shrinking(0.1, whole_from=3)
    found = run(step, START, Goal(most=50, rel_tol=1e-3))
    assert step.looks == step.moves + 1
    assert found.trace[-1].step == "beta"  # the look that showed it is in no row: its Sigma is not reported
    assert found.obj == found.trace[-1].obj == objective(found.point)


def test_a_stalled_search_ends_at_the_coefficients_of_its_sigma() -> None:
    class Stuck(Shrinking):
        def look(self, state: State[np.ndarray]) -> Half[np.ndarray]:
            return replace(super().look(state), stalled=state.sweep == 3)

    found = run(Stuck(0.9), START, Goal(most=50, rel_tol=1e-15))
    assert found.termination is Termination.STALLED
    assert [(row.sweep, row.step) for row in found.trace[-2:]] == [(3, "sigma"), (3, "beta")]


def test_a_start_that_will_not_get_to_what_another_reached_is_left() -> None:
    class Bounded(Shrinking):
        def move(self, looked: Half[np.ndarray], state: State[np.ndarray]) -> Half[np.ndarray]:
            half = super().move(looked, state)
            return replace(half, least=half.obj - 0.5 * (looked.obj - half.obj))

    found = run(Bounded(0.5), START, Goal(most=50, rel_tol=1e-15, wanted=1.0))
    assert found.termination is Termination.MAX_SWEEPS and found.trace[-1].sweep < 50
    assert run(Bounded(0.5), START, Goal(most=50, rel_tol=1e-12, wanted=2.0)).termination is Termination.CONVERGED


# ---------------------------------------------------------------------------------- acceptance


@pytest.mark.parametrize("overshoots", [1, 3])
def test_no_rise_is_accepted(overshoots: int) -> None:
    step = Shrinking(0.9, fast=True, overshoots=overshoots)
    shelf = Shelf()
    found = run(step, START, Goal(most=200, rel_tol=1e-14), kept=shelf)
    looks = np.array([row.obj for row in found.trace if row.step == "sigma"])
    assert np.sum(looks > objective(START)) == overshoots  # noted as they were
    assert found.termination is Termination.CONVERGED and found.obj < 2.0 + 1e-9
    moved = np.array([row.obj for row in found.trace if row.step == "beta"])
    assert np.diff(moved).max() <= 1e-14
    assert np.array_equal(shelf.point, found.point)


def test_extrapolation_takes_fewer_sweeps() -> None:
    plain, fast = (run(Shrinking(0.97, fast), START, Goal(most=500, rel_tol=1e-9)) for fast in (False, True))
    assert fast.trace[-1].sweep < 0.1 * plain.trace[-1].sweep
    assert fast.obj <= plain.obj


# ---------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("killed_after", [1, 2, 4])
@pytest.mark.parametrize("settled", [np.inf, 1e-6])
def test_a_killed_loop_goes_on_to_the_same_bits(killed_after: int, settled: float) -> None:
    goal = Goal(most=40, rel_tol=1e-6, settled=settled)
    whole = run(Shrinking(0.3, whole_from=4), START, goal)
    shelf = Shelf(killed_after=killed_after)
    with pytest.raises(KeyboardInterrupt):
        run(Shrinking(0.3, whole_from=4), START, goal, kept=shelf)
    step = Shrinking(0.3, whole_from=4)
    found = go_on(step, shelf, goal, Shelf())
    assert np.array_equal(found.point, whole.point)
    assert found.termination is whole.termination and found.trace[-1].sweep == whole.trace[-1].sweep
    assert [replace(row, seconds=0.0) for row in found.trace] == [replace(row, seconds=0.0) for row in whole.trace]
    assert step.moves == whole.trace[-1].sweep - killed_after


def test_a_loop_that_had_ended_is_read_and_not_run() -> None:
    shelf = Shelf()
    whole = run(Shrinking(0.3), START, Goal(most=2, rel_tol=1e-9), kept=shelf)
    step = Shrinking(0.3)
    found = go_on(step, shelf, Goal(most=2, rel_tol=1e-9), shelf)
    assert found.termination is whole.termination is Termination.MAX_SWEEPS
    assert np.array_equal(found.point, whole.point) and step.looks == step.moves == 0
    assert (found.nll, found.obj, found.trace) == (whole.nll, whole.obj, whole.trace)


def test_a_state_is_all_that_it_goes_on_from() -> None:
    """From the state after some sweeps, accelerated, the rest is the same to the last bit."""
    step, states = Shrinking(0.9, fast=True), []
    look = step.look
    step.look = lambda state: states.append(state) or look(state)  # type: ignore[method-assign,func-returns-value]
    goal = Goal(most=60, rel_tol=1e-12)
    whole = run(step, START, goal)
    middle = states[len(states) // 2]
    again = Shrinking(0.9, fast=True)
    found = iterate(again, middle, goal, again.trace())
    assert np.array_equal(found.point, whole.point)
