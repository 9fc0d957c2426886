"""Loops in step: what they ask together, and what becomes of them when one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from lrgls_dask.missing.in_step import ask, in_step


def adding(number: int, times: int) -> Callable[[], int]:
    def work() -> int:
        return sum(ask(number) for _ in range(times))

    return work


def test_those_that_wait_are_answered_together_until_they_end() -> None:
    rounds: list[list[int]] = []

    def answers(questions: list[int]) -> list[int]:
        rounds.append(questions)
        return [10 * question for question in questions]

    assert in_step([adding(1, 2), adding(2, 0), adding(3, 3)], answers) == [20, 0, 90]
    assert rounds == [[1, 3], [1, 3], [3]]


def test_one_that_fails_ends_the_others() -> None:
    def failing() -> int:
        ask(0)
        raise ValueError("this one")

    before, left = threading.active_count(), []

    def patient() -> int:
        try:
            return adding(1, 5)()
        finally:
            left.append(threading.current_thread().name)

    with pytest.raises(ValueError, match="this one"):
        in_step([patient, failing, patient], lambda questions: questions)
    assert left == ["lrgls-in-step"] * 2 and threading.active_count() == before


def test_answers_that_fail_end_all() -> None:
    before = threading.active_count()

    def answers(questions: list[int]) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_step([adding(1, 1), adding(2, 1)], answers)
    assert threading.active_count() == before
