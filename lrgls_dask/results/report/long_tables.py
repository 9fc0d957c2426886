"""Tables of thousands of rows in a page: compact data for its script, and the first rows for readers without one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Column", "LongTable", "labels", "numbers", "p_value", "p_values", "texts"]

FIRST_ROWS = 25  # that a page has without its script
NONE = "–"  # where there is no number


@dataclass(frozen=True, eq=False)
class Column:
    """cells : positions in `distinct`, the texts that occur, or the texts themselves where distinct is None."""

    name: str
    kind: Literal["label", "number", "text"]
    cells: Sequence[Any]
    distinct: Sequence[str] | None = None

    def cell(self, row: int) -> str:
        """What it says in a row."""
        return str(self.cells[row]) if self.distinct is None else self.distinct[self.cells[row]]

    def for_script(self) -> dict[str, Any]:
        """As JSON: cells are one text with spaces between, which no number has inside."""
        made = {"name": self.name, "kind": self.kind, "cells": " ".join(map(str, self.cells))}
        return made if self.distinct is None else made | {"distinct": list(self.distinct)}


@dataclass(frozen=True, eq=False)
class LongTable:
    """key : by which the page calls it.  said : sentences below it."""

    key: str
    caption: str
    columns: Sequence[Column]
    said: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.columns[0].cells)

    @property
    def first(self) -> list[list[tuple[str, str]]]:
        """(kind, text) of the cells of the first rows."""
        rows = range(min(FIRST_ROWS, len(self)))
        return [[(column.kind, column.cell(row)) for column in self.columns] for row in rows]

    def for_script(self) -> dict[str, Any]:
        """As JSON."""
        return {"key": self.key, "rows": len(self), "columns": [each.for_script() for each in self.columns]}


def labels(name: str, values: Iterable[Hashable], kind: Literal["label", "text"] = "label") -> Column:
    """A column of labels, each distinct one kept once."""
    place: dict[str, int] = {}
    cells = [place.setdefault(str(value), len(place)) for value in values]
    return Column(name, kind, cells, list(place))


def texts(name: str, values: Iterable[Hashable]) -> Column:
    """A column of words that often repeat."""
    return labels(name, values, "text")


def numbers(name: str, values: np.ndarray, form: str) -> Column:
    """A column of numbers in digits by `form`; a dash where one is NaN."""
    return Column(name, "number", [NONE if value != value else format(value, form) for value in values.tolist()])


def p_values(name: str, values: np.ndarray) -> Column:
    """A column of p-values."""
    return Column(name, "number", [p_value(value) for value in values.tolist()])


def p_value(value: float) -> str:
    """In three digits; what underflows is not zero."""
    return NONE if value != value else f"{value:.3g}" if value > 0 else "<1e-300"
