"""Errors that know where in the data they arose; labels are added where the labels are known."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

__all__ = ["BadValues", "ClusterLost", "FitWarning", "NoAnswer", "UnreadableRows", "UnwrittenChunks"]


class FitWarning(UserWarning):
    """A fit ended in a way its user should know of: not converged, or a variance on its floor."""


class UnwrittenChunks(UserWarning):
    """A zarr store lacks chunks of an array of rows, which read as its fill value."""


class NoAnswer(AttributeError, ValueError):
    """A kind of result was asked for what it does not have: why not, and what to do. `hasattr` is false there."""


class ClusterLost(RuntimeError):
    """A cluster that cannot finish what it was given: its scheduler went away, a worker was stopped, or has another
    version of this package. What is wrong, and how to go on."""


class BadValues(ValueError):
    """A block held values no fit can use.

    array : "X", "Y", "weights" of rows or "cell weights".  column : its column, of weights the equation.
    what : "NaN", "infinite", "negative", "zero" or "too large".
    row : first such row, counted from the first row of the data.  count : how many in rows start..stop of that column.
    name : the user's name for the column.
    """

    def __init__(
        self, array: str, column: int, what: str, row: int, count: int, start: int, stop: int, name: str = ""
    ) -> None:
        super().__init__(array, column, what, row, count, start, stop, name)
        self.array, self.column, self.what, self.row, self.count = array, column, what, row, count
        self.start, self.stop, self.name = start, stop, name

    def named(self, regressors: Sequence[Hashable], equations: Sequence[Hashable]) -> BadValues:
        """The same error in the user's labels."""
        name = "weights"
        if self.array == "X":
            name = f"X, regressor {regressors[self.column]!r}"
        elif self.array == "Y":
            name = f"Y, equation {equations[self.column]!r}"
        elif self.array == "cell weights":
            name = f"weights, equation {equations[self.column]!r}"
        return BadValues(self.array, self.column, self.what, self.row, self.count, self.start, self.stop, name)

    def __str__(self) -> str:
        where = self.name or f"column {self.column} of {self.array}"
        remedy = _REMEDY[self.what]
        if self.array == "cell weights" and self.what != "zero":
            remedy = "A weight is a positive number, or zero for a response that is to count as missing."
        if self.array == "Y" and self.what == "NaN":
            remedy = "Drop or fill these rows, or fit with missing='em', which uses what they show, or missing='drop'."
        return (
            f"{where}: {self.what} value at row {self.row} "
            f"({self.count} in the chunk of rows {self.start} to {self.stop - 1}). {remedy}"
        )


_REMEDY = {
    "NaN": "Drop or fill these rows; every value must be observed.",
    "infinite": "Replace or drop these rows.",
    "negative": "Weights must be zero or more.",
    "zero": "Such a response counts as missing: fit with missing='em', which uses the row's others, or missing='drop'.",
    "too large": "Divide the column by a constant: its squares must not overflow.",
}


class UnreadableRows(OSError):
    """Stored rows that could not be read or decoded."""

    def __init__(self, name: str, start: int, stop: int, reason: str) -> None:
        super().__init__(name, start, stop, reason)
        self.name, self.start, self.stop, self.reason = name, start, stop, reason

    def __reduce__(self) -> tuple[type[UnreadableRows], tuple[str, int, int, str]]:
        return UnreadableRows, (self.name, self.start, self.stop, self.reason)  # OSError would keep two of the four

    def __str__(self) -> str:
        return (
            f"{self.name}: rows {self.start} to {self.stop - 1} cannot be read ({self.reason}). "
            "Restore or rewrite this chunk of the store."
        )
