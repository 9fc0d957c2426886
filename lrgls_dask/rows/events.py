"""What happens in a fit, said to `logging`: logger "lrgls_dask", an event and its fields in each record.

Nothing is shown unless somebody listens. `record.lrgls` holds the fields, "event" among them; the message is the same
in words. Never a path with what opens it, nor a number of the data.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["LOGGER", "say"]

LOGGER = logging.getLogger("lrgls_dask")
LOGGER.addHandler(logging.NullHandler())


def say(event: str, *, level: str = "INFO", **fields: Any) -> None:
    """Log an event with its fields."""
    number = logging.getLevelNamesMapping()[level]
    if LOGGER.isEnabledFor(number):
        words = ", ".join(f"{name} {_shown(value)}" for name, value in fields.items() if value is not None)
        LOGGER.log(number, "%s: %s", event, words, extra={"lrgls": {"event": event, **fields}}, stacklevel=2)


def _shown(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
