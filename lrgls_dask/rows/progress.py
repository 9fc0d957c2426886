"""Progress of passes: bytes done, bytes per second and time left, from threads and from workers alike."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    ``show(label, bytes_done, bytes_total)`` called now and then from another thread."""

    show: bool | Callable[[str, int, int], object] = False

    @contextmanager
    def watch(self, label: str, n_bytes: int) -> Iterator[str | None]:
        """Listen to one pass of n_bytes; yields the topic its tasks report under, None in silence."""
        if self.show is False:
            yield None
            return
        topic = f"lrgls-progress-{uuid.uuid4().hex}"
        with _bar(label, n_bytes) if self.show is True else _Counter(self.show, label, n_bytes) as bar:
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


def _bar(label: str, n_bytes: int) -> tqdm:
    return tqdm(total=n_bytes, desc=label, unit="B", unit_scale=True)


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
