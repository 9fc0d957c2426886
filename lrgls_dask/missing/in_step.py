"""Loops that ask the same rows, side by side: what all of them ask for next is answered at once.

Each runs as if it were alone, in a thread of its own that waits wherever it asks for something; once all of them wait,
one answer is found for all. Only one of the threads runs at a time, so that nothing depends on how they are timed.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

__all__ = ["ask", "in_step"]

T = TypeVar("T")

_here = threading.local()


class _Left(BaseException):
    """Raised where a loop waits that nobody will answer any more."""


def ask(question: Any) -> Any:
    """The answer to what a loop asks, found together with those to the others."""
    loop: _Loop[Any] = _here.loop
    return loop.asks(question)


def in_step(works: Sequence[Callable[[], T]], answers: Callable[[list[Any]], Sequence[Any]]) -> list[T]:
    """What each of the works returns.

    answers : to the questions that the works which still go on wait for, in their order.
    Raises what the first of the works that fails raises.
    """
    loops = [_Loop(work) for work in works]
    try:
        waiting = [loop for loop in loops if loop.goes_on(None)]
        while waiting:
            found = answers([loop.question for loop in waiting])
            waiting = [loop for loop, answer in zip(waiting, found, strict=True) if loop.goes_on(answer)]
        return [loop.result for loop in loops]
    finally:
        for loop in loops:
            loop.leave()


class _Loop(Generic[T]):
    """One work and its thread, which runs only while `goes_on` waits for it."""

    question: Any = None
    result: T

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._heard: SimpleQueue[Any] = SimpleQueue()
        self._said: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), daemon=True, name="lrgls-in-step")

    def goes_on(self, answer: Any) -> bool:
        """Whether the work asks again, given an answer; the first time there is none."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._heard.put(answer)
        what, value = self._said.get()
        if what == "asks":
            self.question = value
            return True
        self._thread.join()
        if what == "fails":
            raise value
        self.result = value
        return False

    def leave(self) -> None:
        """End the thread, whatever it waits for."""
        if self._thread.is_alive():
            self._heard.put(_Left())
            self._thread.join()

    def asks(self, question: Any) -> Any:
        self._said.put(("asks", question))
        answer = self._heard.get()
        if isinstance(answer, _Left):
            raise answer
        return answer

    def _run(self) -> None:
        _here.loop = self
        try:
            self._said.put(("ends", self._work()))
        except _Left:
            pass
        except BaseException as error:
            self._said.put(("fails", error))
