"""The loop: start, step, acceptance, stopping, trace and checkpoint of every algorithm here.

An algorithm is a `Step`, a sweep of it two half-steps: a look at a point, which finds the objective there and what
leads on, and a move to the next point. ALS looks by finding Sigma at the coefficients and moves by a GLS step; EM looks
by reading the likelihood and moves by its formulas. What a half-step has to tell of itself is a `Half`, and the loop
knows nothing else of the algorithm.

The stopping rule, one for all (`Goal.ended`): a fit is done where one more sweep is expected to lower the objective by
no more than rel_tol of it, and the coefficients are expected to move by no more than they are asked to settle to, or
move no less than they did before, so that rounding moves them. Both are needed: where N is large the objective says
nothing of a coefficient's last digits, and where the likelihood is flat in some coefficient a small move of it says
nothing of the objective. They are expectations, not what the last sweep did, because seeing for oneself costs a sweep:
where sweeps are free that is how they are found, where a sweep costs passes they are told from the sweeps before (a
Sigma found at the present coefficients tells without a pass what it would gain; `to_come` tells the rest of a move).

An extrapolated point is accepted where it does not raise the objective, else the loop goes back to the image of the
last accepted point, whose objective the map itself keeps from rising.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from lrgls_dask.rows.events import say
from lrgls_dask.rows.meter import Meter
from lrgls_dask.solve.anderson import KEPT, Anderson, Space
from lrgls_dask.solve.record import Saved, Solution, Termination, TraceRow

__all__ = [
    "MOST_PLAIN_ROUNDS",
    "MOST_ROUNDS",
    "MOST_SWEEPS",
    "MOST_TIED_SWEEPS",
    "PATIENCE",
    "ROUNDING",
    "Goal",
    "Half",
    "Kept",
    "Space",
    "State",
    "Step",
    "Trace",
    "begun",
    "go_on",
    "iterate",
    "resumed",
    "run",
    "side_by_side",
]

# The most sweeps where none are asked for. Alternating steps gain a digit or more a sweep, where restrictions tie
# equations as little as a hundredth of one; a round of EM a tenth of one if accelerated, a hundredth or less if not.
MOST_SWEEPS, MOST_TIED_SWEEPS, MOST_ROUNDS, MOST_PLAIN_ROUNDS = 50, 2_000, 500, 10_000
# An objective that rises by less than this, relative to max(1, |objective|), has not risen.
ROUNDING = 1e-14
# A move with more than this share of the least energy before it is no shorter: rounding, or convergence as slow.
STAGNANT = 0.5
# So many such moves in turn say that only rounding is left where the moves of extrapolated points go up and down.
PATIENCE = 8

P = TypeVar("P")
Loop = Generator["State[P]", "Half[P]", Solution[P]]  # asks for looks by states, and returns where it ends


@dataclass(frozen=True, eq=False)
class Half(Generic[P]):
    """What a half-step leaves; nll and objectives per row, in standard units.

    point : where it led.  name : of its row in the trace, "" for none.  nll, obj : at the point.
    left : by how much one more sweep is expected to lower obj; infinity where this half-step does not show it.
    moving : the squared distance, in standard errors, that the coefficients are expected still to move.
    least : the least that sweeps to come could make of obj.
    value, rounding : what no accepted point may raise, and by how much rounding does; None where nothing is judged.
    energy : the squared distance, in standard errors, of the old coefficients from those of Sigma, for a GLS step.
    whole : the coefficients are those of Sigma to the digits asked for, and another sweep, which would cost passes,
    would not move them: the point may be reported.  ahead : whether this is the best of the loops that go side by side.
    informed : as of `Solution`.
    stalled : a line search found nothing.  accept_t, cg : for the trace.  seen : what a look found that leads on.
    """

    point: P
    name: str = ""
    nll: float = np.nan
    obj: float = np.nan
    left: float = np.inf
    moving: float = 0.0
    least: float = -np.inf
    value: float | None = None
    rounding: float = 0.0
    energy: float | None = None
    whole: bool = False
    ahead: bool = True
    informed: bool = False
    stalled: bool = False
    accept_t: float = 1.0
    cg: int = 0
    seen: Any = None


@dataclass(frozen=True, eq=False)
class State(Generic[P]):
    """Where a loop stands before a look: all that it goes on from.

    sweep : the number of the one to come.  point : looked at next.  looked : that look, if it was made already.
    opened : the start.  best : the last accepted look.  image : the last accepted point it led to.
    obj, gain : of the last accepted look, and by how much the last look's differed from the one accepted before it.
    energies : of the last GLS steps, the last one last.  idle : GLS steps in turn that were no shorter.
    movings : `Half.moving` of the last two accepted looks, the last one last.  ahead : `Half.ahead` of the last.
    anderson : what is extrapolated from, None where nothing is.
    """

    sweep: int
    point: P
    looked: Half[P] | None = None
    opened: Half[P] | None = None
    best: Half[P] | None = None
    image: Half[P] | None = None
    obj: float = np.inf
    gain: float = np.inf
    energies: tuple[float, ...] = ()
    idle: int = 0
    movings: tuple[float, ...] = ()
    ahead: bool = True
    anderson: Anderson | None = None

    def refuses(self, half: Half[P]) -> bool:
        """Whether an extrapolated point turns out to be worse than the last accepted one."""
        if half.value is None or self.anderson is None:
            return False
        return self.anderson.refuses(half.value, half.rounding)

    def idle_after(self, half: Half[P], patience: int) -> int:
        """GLS steps in turn, a new one counted, that were not shorter than all of the `patience` before them."""
        if half.energy is None:
            return self.idle
        return 0 if half.energy < STAGNANT * min(self.energies[-patience:], default=np.inf) else self.idle + 1

    def back(self, space: Space[P] | None, looked: Half[P], idle: int) -> State[P]:
        """The next sweep, from the image of the last accepted point, because what was looked at is worse."""
        assert self.image is not None  # only an extrapolation is refused, and it has two accepted points behind it
        assert self.anderson is not None and space is not None
        anderson = self.anderson.refused()
        return replace(
            self,
            sweep=self.sweep + 1,
            point=space.ahead(anderson, self.image.point),
            looked=None,
            gain=abs(self.obj - looked.obj),
            idle=idle,
            ahead=looked.ahead,
            anderson=anderson,
        )

    def onward(self, looked: Half[P], image: Half[P], idle: int) -> State[P]:
        """The next sweep, from the image of a point that was accepted."""
        energies = self.energies if image.energy is None else (*self.energies, image.energy)[-PATIENCE:]
        return State(
            self.sweep + 1,
            image.point,
            opened=self.opened,
            best=looked,
            image=image,
            obj=looked.obj,
            gain=abs(self.obj - looked.obj),
            energies=energies,
            idle=idle,
            movings=(*self.movings, looked.moving)[-2:],
            ahead=looked.ahead,
            anderson=self.anderson,
        )

    @property
    def moving(self) -> float:
        """What `Half.moving` of the next look is expected to be, infinity where nothing tells."""
        return self.movings[1] ** 2 / self.movings[0] if len(self.movings) > 1 and self.movings[0] > 0 else np.inf

    @property
    def energy(self) -> float:
        """Of the last GLS step, infinity if there was none."""
        return self.energies[-1] if self.energies else np.inf

    @property
    def before(self) -> float:
        """Of the one before it."""
        return self.energies[-2] if len(self.energies) > 1 else np.inf

    @property
    def marks(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the image of the last accepted point, which leads on: all the rest of it.

        Numbers, arrays and, where points are extrapolated and may be refused, the last accepted look.
        """
        assert self.image is not None
        kept = {"obj": self.obj, "gain": self.gain, "energies": list(self.energies), "idle": self.idle}
        kept |= {"image": [self.image.nll, self.image.obj, float(self.image.whole)], "movings": list(self.movings)}
        kept["ahead"] = float(self.ahead)
        if self.anderson is None or self.best is None:
            return kept
        best = {"best": [self.best.nll, self.best.obj], "best_point": self.best.point}
        return kept | best | {f"anderson_{name}": value for name, value in self.anderson.marks.items()}

    @classmethod
    def of(cls, sweep: int, point: P, marks: Mapping[str, Any], space: Space[P] | None) -> State[P]:
        """The state before it looks ahead, from what was kept of it."""
        nll, obj, whole = map(float, marks["image"])
        image: Half[P] = Half(point, nll=nll, obj=obj, whole=bool(whole))
        energies, idle = tuple(map(float, marks["energies"])), int(marks["idle"])
        state = cls(sweep, point, image=image, obj=float(marks["obj"]), gain=float(marks["gain"]), energies=energies)
        movings, ahead = marks.get("movings", ()), marks.get("ahead", 1.0)  # which earlier versions did not keep
        state = replace(state, movings=tuple(map(float, movings)), ahead=bool(float(ahead)))
        if space is None:
            return replace(state, idle=idle)
        nll, obj = map(float, marks["best"])
        best: Half[P] = Half(marks["best_point"], nll=nll, obj=obj)
        return replace(state, idle=idle, best=best, anderson=space.start.of({n: marks[f"anderson_{n}"] for n in KEPT}))


@dataclass(frozen=True)
class Goal:
    """When a loop ends. See the head of this file for the reasons.

    rel_tol : of the objective.  settled : of `Half.moving`.  most : sweeps.
    patience, nearly : so many moves in turn no shorter than as many before end the loop too, if not above `nearly`.
    wanted : an objective another start reached: the loop ends, as MAX_SWEEPS, once it shows it will not get there.
    """

    most: int
    rel_tol: float
    settled: float = np.inf
    nearly: float = 0.0
    patience: int = PATIENCE
    wanted: float = np.inf

    def flat(self, half: Half[Any]) -> bool:
        """Whether the objective has little left to gain."""
        return half.left <= self.rel_tol * max(1.0, abs(half.obj))

    def ended(self, half: Half[Any], idle: int) -> Termination | None:
        """The stopping rule: why the loop ends with this half-step, None where it goes on.  idle : as of a `State`."""
        if half.stalled:
            return Termination.STALLED
        settled = half.moving <= self.settled or (idle >= self.patience and half.moving <= self.nearly)
        if settled and self.flat(half):
            return Termination.CONVERGED
        return Termination.MAX_SWEEPS if half.least > self.wanted else None


class Step(Protocol[P]):
    """An algorithm: what a sweep of it does.

    first : the number of the first sweep: 1 where a look moves on, 0 where it only reads the start.
    space : where points are extrapolated, None where they are not.
    """

    @property
    def first(self) -> int: ...

    @property
    def space(self) -> Space[P] | None: ...

    def trace(self) -> Trace:
        """An empty one."""
        ...

    def start(self, point: P) -> Half[P]:
        """The objective at a point, named "start"."""
        ...

    def look(self, state: State[P]) -> Half[P]:
        """The first half-step of a sweep."""
        ...

    def move(self, looked: Half[P], state: State[P]) -> Half[P]:
        """The second."""
        ...

    def finish(self, looked: Half[P], state: State[P]) -> Half[P]:
        """The last half-step of all: the coefficients of the Sigma of `looked`, to the last digits."""
        ...


@dataclass
class Trace:
    """The rows that half-steps leave."""

    rank: int
    nll_offset: float
    meter: Meter
    rows: list[TraceRow] = field(default_factory=list)

    def note(self, sweep: int, half: Half[Any]) -> None:
        """One more row, unless the half-step has no name."""
        if half.name:
            nll, obj = half.nll + self.nll_offset, half.obj + self.nll_offset
            self.meter.progress.seen.update(rank=self.rank, nll=nll)
            say("step", fit=self.meter.name, rank=self.rank, sweep=sweep, step=half.name, nll=nll, obj=obj)
            totals = (*self.meter.totals, self.meter.seconds)
            read_for = self.meter.read_for(self.rows[-1].passes if self.rows else 0)
            self.rows.append(TraceRow(self.rank, sweep, half.name, nll, obj, half.accept_t, half.cg, *totals, read_for))

    def solution(self, half: Half[P], why: Termination) -> Solution[P]:
        """What the loop hands back."""
        return Solution(half.point, half.nll, half.obj, why, tuple(self.rows), informed=half.informed)


class Kept(Protocol[P]):
    """Where a loop keeps what a killed client could go on from."""

    def keep(self, sweep: int, point: P, marks: Mapping[str, Any], trace: Trace) -> None: ...

    def finish(self, found: Solution[P], trace: Trace) -> None: ...


def run(
    step: Step[P], point: P, goal: Goal, *, looked: Half[P] | None = None, kept: Kept[P] | None = None
) -> Solution[P]:
    """The solution a step leads to from a point.  looked : the first look at it, if it was made already."""
    return _answered(step, begun(step, point, goal, looked=looked, kept=kept))


def go_on(step: Step[P], saved: Saved[P], goal: Goal, kept: Kept[P] | None) -> Solution[P]:
    """The solution from a point that `kept` was given, the same to the last bit as if nothing had happened since.

    Where the loop had ended there, that is the solution.
    """
    return _answered(step, resumed(step, saved, goal, kept))


def iterate(step: Step[P], state: State[P], goal: Goal, trace: Trace, kept: Kept[P] | None = None) -> Solution[P]:
    """From a state to where the goal is met, or the sweeps are used up."""
    return _answered(step, _loop(step, state, goal, trace, kept))


def _answered(step: Step[P], loop: Loop[P]) -> Solution[P]:
    """Where a loop ends that looks by itself."""
    (found,) = side_by_side([loop], lambda asked, _: [step.look(state) for _, state in asked])
    return found


def side_by_side(
    loops: Sequence[Loop[P]], looks: Callable[[list[tuple[int, State[P]]], set[int]], Sequence[Half[P]]]
) -> list[Solution[P]]:
    """Where loops end that look at the same time, sweep by sweep; those that an interruption left behind catch up.

    looks : the next looks of some, each by its number, given the numbers of all that still go on.
    """
    ended: dict[int, Solution[P]] = {}
    asked: dict[int, State[P]] = {}

    def advance(number: int, half: Half[P] | None) -> None:
        try:
            asked[number] = next(loops[number]) if half is None else loops[number].send(half)
        except StopIteration as end:
            ended[number] = end.value

    for number in range(len(loops)):
        advance(number, None)
    while asked:
        sweep = min(state.sweep for state in asked.values())
        now = [(number, state) for number, state in sorted(asked.items()) if state.sweep == sweep]
        for (number, _), half in zip(now, looks(now, set(asked)), strict=True):
            del asked[number]
            advance(number, half)
    return [ended[number] for number in range(len(loops))]


def begun(
    step: Step[P], point: P, goal: Goal, *, looked: Half[P] | None = None, kept: Kept[P] | None = None
) -> Loop[P]:
    """The loop of a step from a point; `run` with its looks made elsewhere."""
    trace, opened = step.trace(), None
    if step.first:
        opened = step.start(point)
        trace.note(0, opened)
    anderson = None if step.space is None else step.space.start
    return (yield from _loop(step, State(step.first, point, looked, opened, anderson=anderson), goal, trace, kept))


def resumed(step: Step[P], saved: Saved[P], goal: Goal, kept: Kept[P] | None) -> Loop[P]:
    """The loop of a step from a point that was kept; `go_on` with its looks made elsewhere."""
    trace = step.trace()
    trace.rows.extend(saved.trace)
    trace.meter.go_on_from(saved.totals)
    if saved.ended is not None:
        nll, obj = map(float, saved.marks["image"])
        informed = bool(float(saved.marks.get("informed", 0.0)))
        return trace.solution(Half(saved.point, nll=nll, obj=obj, informed=informed), saved.ended)
    state = State.of(saved.sweep + 1, saved.point, saved.marks, step.space)
    return (yield from _loop(step, _ahead(step.space, state), goal, trace, kept))


def _loop(step: Step[P], state: State[P], goal: Goal, trace: Trace, kept: Kept[P] | None) -> Loop[P]:
    """The loop: it asks for the look of each sweep by its state, and returns where it ends."""
    while True:
        looked = (yield state) if state.looked is None else state.looked
        why = goal.ended(looked, state.idle)
        if why is not None and state.image is not None and state.image.whole:
            return _ended(trace, state.image, why, kept)
        trace.note(state.sweep, looked)
        refused = state.refuses(looked)
        best = looked if not refused or state.best is None else state.best
        if why is not None or state.sweep >= goal.most:
            last = step.finish(best, state)
            trace.note(state.sweep, last)
            if not refused:  # else the last led back to what was found already, and shows nothing
                why = why or goal.ended(last, state.idle_after(last, goal.patience))
            return _ended(trace, last, why or Termination.MAX_SWEEPS, kept)
        if refused:
            state = state.back(step.space, looked, state.idle)
            continue
        image = step.move(looked, state)
        trace.note(state.sweep, image)
        idle = state.idle_after(image, goal.patience)
        why = goal.ended(image, idle)
        if why is not None:
            return _ended(trace, image, why, kept)
        if state.refuses(image):
            state = state.back(step.space, looked, idle)
            continue
        state = _accepted(step.space, state.onward(looked, image, idle), looked, image)
        if kept is not None:
            kept.keep(state.sweep - 1, image.point, state.marks, trace)
        state = _ahead(step.space, state)


def _accepted(space: Space[P] | None, state: State[P], looked: Half[P], image: Half[P]) -> State[P]:
    """With one more point to extrapolate from."""
    if space is None or state.anderson is None:
        return state
    value = next(each.value for each in (looked, image) if each.value is not None)
    vectors = space.vector(looked.point), space.vector(image.point)
    return replace(state, anderson=state.anderson.accepted(*vectors, value))


def _ahead(space: Space[P] | None, state: State[P]) -> State[P]:
    """The next sweep, from where the images of accepted points lead."""
    if space is None or state.anderson is None or state.image is None:
        return state
    return replace(state, point=space.ahead(state.anderson, state.image.point))


def _ended(trace: Trace, half: Half[P], why: Termination, kept: Kept[P] | None) -> Solution[P]:
    found = trace.solution(half, why)
    if kept is not None:
        kept.finish(found, trace)
    return found
