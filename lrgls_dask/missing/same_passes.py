"""Problems of the same streamed rows, each of which sees them in its own way, answered by the same passes.

A problem sees some of the rows, or some more than once, or all of them with other responses: what is left without a
fold, what groups that are drawn make up, what is drawn from a fit. Its loop is the one that it has where rows are in
memory (in_step.py); all that it asks of the rows is a sum over them, and sums of all problems come from one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from lrgls_dask.compression.patterns import FirstMoments, FirstParams, first_kernel
from lrgls_dask.compression.shown_parts import SeenRows
from lrgls_dask.design.penalties import Ridge
from lrgls_dask.design.restrictions import Restrictions
from lrgls_dask.missing.expected import ExpectedMoments, SeveralExpected, expected_moments
from lrgls_dask.missing.in_step import ask, in_step
from lrgls_dask.missing.kernels import MaskedParams, PairMoments, SeveralParams
from lrgls_dask.missing.problem import Incomplete
from lrgls_dask.missing.slabs import block_slabs
from lrgls_dask.rows.block import Block
from lrgls_dask.rows.meter import Meter
from lrgls_dask.rows.partition import LabelledMoments
from lrgls_dask.rows.rows import Rows
from lrgls_dask.rows.run_pass import run_pass

__all__ = ["AskedRows", "Question", "SamePasses", "Views"]

T = TypeVar("T")


class Views(Protocol):
    """How each of several problems, by its number, sees a block."""

    def seen(self, number: int, block: Block) -> tuple[Block, np.ndarray | None]:
        """The rows that count, and how often each of them does, (n,) integers above zero; None where all do once."""
        ...


@dataclass(frozen=True, eq=False)
class Question:
    """What `moments` sums at `params` over the rows as problem `number` sees them."""

    number: int
    moments: Callable[..., Any]
    params: Any


class AskedRows(Incomplete):
    """The likelihood of rows as one problem sees them, in a loop that is in step with others: it asks, and its answers
    take no passes of its own.  rows : what a first pass finds in them.  number : of the problem."""

    def __init__(self, rows: SeenRows, number: int, *, lam_B: Ridge, restrictions: Restrictions | None) -> None:
        self._number = number
        self._pairs: PairMoments | None = None
        super().__init__(rows, lam_B=lam_B, meter=Meter(), restrictions=restrictions)
        self.restarts_are_free = True

    def begun(self) -> Self:
        """The problem once it has asked for `pairs_at_start`, before all else: where a cached property asked for them
        it would hold a lock meanwhile that all instances share, in Python before 3.12."""
        if self._pairs is None and self._pseudo is None:
            self._pairs = self._pairs_at_start()
        return self

    @property
    def pairs_at_start(self) -> PairMoments:
        return self._pairs_at_start() if self._pairs is None else self._pairs

    def _sum(self, moments: Callable[..., Any], params: Any, label: str, besides: int = 0) -> Any:
        if self._pseudo is not None:
            return super()._sum(moments, params, label, besides)
        return ask(Question(self._number, moments, params))


@dataclass(frozen=True, eq=False)
class SamePasses:
    """Passes that answer all problems.

    sums : bytes of those of one problem.  label : what the passes are for.
    """

    rows: Rows
    views: Views
    meter: Meter
    label: str
    sums: int

    def first(self, numbers: Sequence[int]) -> list[FirstMoments]:
        """What a first pass over the rows finds as each problem sees them, but for patterns; one pass.

        Raises ValueError where a problem sees no row of positive weight.
        """
        params = FirstParams.of(self.rows.design, 0, by_qr=False)
        size = 8 * int(((self.rows.design.sizes + 1) ** 2).sum())
        found = self._pass(_first_of_each(self.views, tuple(numbers)), params, size)
        return [found[number] for number in numbers]

    def run(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """What works return that ask `Question`s of the rows, a pass for all of them whenever all wait for one."""
        return in_step(works, self.answers)

    def answers(self, questions: Sequence[Question]) -> list[Any]:
        """Those to some questions; one pass."""
        merged: list[list[int]] = []
        looks: dict[int, list[int]] = {}
        for place, question in enumerate(questions):
            if question.moments is not expected_moments:
                merged.append([place])
            elif question.number in looks:  # looks of one problem at several points go through its rows once
                looks[question.number].append(place)
            else:
                merged.append(looks.setdefault(question.number, [place]))
        asked = tuple(_together([questions[place] for place in places]) for places in merged)
        found = self._pass(_sums_of_each(self.views), asked, self.sums)
        out: list[Any] = [None] * len(questions)
        for number, places in enumerate(merged):
            if len(places) == 1:
                out[places[0]] = found[number]
                continue
            points: list[ExpectedMoments] = list(found[number].points)
            for place in places:
                some = len(questions[place].params.points)
                out[place], points = SeveralExpected(tuple(points[:some])), points[some:]
        return out

    def _pass(self, kernel: Any, params: Any, size: int) -> dict[int, Any]:
        # cut as for the sums of one: no digit depends on how many problems there are
        found: LabelledMoments = run_pass(
            self.rows, kernel, params, partial_bytes=size, meter=self.meter, label=self.label, holes=True
        )
        return found.parts


def _together(questions: list[Question]) -> Question:
    """One question for all points of several about the same rows."""
    first = questions[0]
    if len(questions) == 1:
        return first
    points: tuple[MaskedParams, ...] = sum((each.params.points for each in questions), ())
    return Question(first.number, first.moments, SeveralParams(first.params.origin, points))


@dataclass(frozen=True, eq=False)
class _sums_of_each:
    """The kernel that answers questions, by their places."""

    views: Views

    def __call__(self, block: Block, asked: tuple[Question, ...]) -> LabelledMoments | None:
        found: dict[int, Any] = {}
        of_problem: dict[int, list[int]] = {}
        for place, each in enumerate(asked):
            of_problem.setdefault(each.number, []).append(place)
        for number, places in of_problem.items():
            rows, counts = self.views.seen(number, block)
            for place in places if rows.n_rows else []:
                each = asked[place]
                part = each.moments(block_slabs(rows, each.params.origin, counts), each.params)
                if part is not None:
                    found[place] = part
        return LabelledMoments(found) if found else None


@dataclass(frozen=True, eq=False)
class _first_of_each:
    """The kernel of what a first pass finds, by the numbers of the problems."""

    views: Views
    numbers: tuple[int, ...]

    def __call__(self, block: Block, params: FirstParams) -> LabelledMoments | None:
        found: dict[int, Any] = {}
        for number in self.numbers:
            rows, counts = self.views.seen(number, block)
            if rows.n_rows == 0:
                continue
            if counts is not None:
                rows = rows.take(np.repeat(np.arange(rows.n_rows), counts))
            part = first_kernel(rows, params)
            if part is not None:
                found[number] = part
        return LabelledMoments(found) if found else None
