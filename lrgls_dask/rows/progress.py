"""Progress of passes: bytes done, bytes per second and time left, from threads and from workers alike."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import distributed
from tqdm import tqdm

__all__ = ["Progress", "report"]

_listeners: dict[str, Callable[[int], object]] = {}


def report(topic: str | None, n_bytes: int) -> None:
    """Say that n_bytes more of a watched pass are done; called where the task runs."""
    if topic is None:
        return
    listener = _listeners.get(topic)
    if listener is not None:
        listener(n_bytes)
    else:
        distributed.get_worker().log_event(topic, n_bytes)


@dataclass(frozen=True)
class Progress:
    """Where progress goes. show : True for a bar on stderr, False for silence, or a callable
    ``show(label, bytes_done, bytes_total)`` called now and then from another thread.
    seen : what the fit knows by now, rank and nll, for the bar of its next pass."""

    show: bool | Callable[[str, int, int], object] = False
    seen: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def watch(self, label: str, n_bytes: int, number: int | None = None) -> Iterator[str | None]:
        """Listen to a pass of n_bytes; yields the topic its tasks report under, None in silence.

        number : of the pass among those of the fit.
        """
        if self.show is False:
            yield None
            return
        topic = f"lrgls-progress-{uuid.uuid4().hex}"
        named = label if number is None else f"pass {number}: {label}"
        with _bar(named, n_bytes, self.seen) if self.show is True else _Counter(self.show, label, n_bytes) as bar:
            _listeners[topic] = bar.update
            client = _client()
            if client is not None:
                client.subscribe_topic(topic, lambda event: bar.update(event[1]))
            try:
                yield topic
            finally:
                if client is not None:
                    client.unsubscribe_topic(topic)
                del _listeners[topic]


def _bar(label: str, n_bytes: int, seen: Mapping[str, float]) -> tqdm:
    """A bar of a terminal, or of a notebook that can show one: bytes, bytes a second, time left, and what is seen."""
    bar: type[tqdm] = _notebook_bar() or tqdm
    return bar(total=n_bytes, desc=label, unit="B", unit_scale=True, postfix=seen)


def _notebook_bar() -> type[tqdm] | None:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if not hasattr(shell, "kernel") or importlib.util.find_spec("ipywidgets") is None:
        return None
    found: type[tqdm] = importlib.import_module("tqdm.notebook").tqdm
    return found


class _Counter:
    """The bar's interface over a user's callable."""

    def __init__(self, show: Callable[[str, int, int], object], label: str, total: int) -> None:
        self.show, self.label, self.done, self.total = show, label, 0, total

    def __enter__(self) -> _Counter:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def update(self, n_bytes: int) -> None:
        self.done += n_bytes
        self.show(self.label, self.done, self.total)


def _client() -> distributed.Client | None:
    try:
        return distributed.get_client()
    except ValueError:
        return None
