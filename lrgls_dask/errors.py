"""Errors that know where in the data they arose; labels are added where the labels are known."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

import numpy as np

__all__ = [
    "BadValues",
    "ChangedStore",
    "ClusterLost",
    "CollinearColumns",
    "DamagedStore",
    "FitWarning",
    "NoAnswer",
    "StoreFailure",
    "UnreadableRows",
    "UnwrittenChunks",
    "reason_of",
    "scrubbed",
    "warn_user",
    "without_secrets",
]


class FitWarning(UserWarning):
    """A fit ended in a way its user should know of: not converged, or a variance on its floor."""


class UnwrittenChunks(UserWarning):
    """A zarr store lacks chunks of an array of rows, which read as its fill value."""


def warn_user(text: str, category: type[UserWarning]) -> None:
    """One warning, at the line outside this package that asked for what it is about."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "lrgls_dask":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def without_secrets(path: object) -> str:
    """A path or URL to be shown: user names, passwords and signatures of a URL are left out, also of URLs in chain."""
    return "::".join(map(_bare, str(path).split("::"))) if "://" in str(path) else str(path)


def scrubbed(text: object) -> str:
    """The same of all URLs and keys in what another library says."""
    bare = _URLS.sub(lambda found: without_secrets(found[0]), str(text))
    return _SECRETS.sub(r"\1=...", _USERS.sub("", bare))


def reason_of(error: BaseException) -> str:
    """The kind of an error and what it says; where a codec is not here, what to do, as nothing need be damaged."""
    missing = type(error).__name__ == "UnknownCodecError"  # of zarr, and another of numcodecs
    return f"{type(error).__name__}: {error}" + ("; install the package of this codec, on workers too" * missing)


_URLS = re.compile(r"[a-zA-Z][\w+.-]*://[^\s'\"<>)\]]+")
_USERS = re.compile(r"[^\s/'\"@:]+:[^\s/'\"@]+@")
_SECRETS = re.compile(
    r"(?i)\b(x-amz-[\w-]+|awsaccesskeyid|(?:aws_)?(?:access_key_id|secret_access_key|session_token)|signature|sig|"
    r"password|secret|token)=[^&\s'\",)]+"
)


def _bare(url: str) -> str:
    parts = urlsplit(url)
    if not parts.scheme or "://" not in url:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


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
    name : the user's name for the column.  users : of a regressor, the equations that use it in that row and are
    observed there, by position, and then by name.  label : of the row, None where rows have none.
    """

    def __init__(
        self,
        array: str,
        column: int,
        what: str,
        row: int,
        count: int,
        start: int,
        stop: int,
        name: str = "",
        users: tuple[Hashable, ...] = (),
        label: Hashable = None,
    ) -> None:
        super().__init__(array, column, what, row, count, start, stop, name, users, label)
        self.array, self.column, self.what, self.row, self.count = array, column, what, row, count
        self.start, self.stop, self.name, self.users, self.label = start, stop, name, users, label

    def used_by(self, equations: Sequence[int]) -> BadValues:
        """The same error, knowing the equations whose cells in that row use the regressor."""
        return self._with(self.name, tuple(equations), self.label)

    def named(
        self,
        regressors: Sequence[Hashable],
        equations: Sequence[Hashable],
        label_of: Callable[[int], Hashable] | None = None,
    ) -> BadValues:
        """The same error in the user's labels."""
        name = "weights"
        if self.array == "X":
            name = f"X, regressor {regressors[self.column]!r}"
        elif self.array == "Y":
            name = f"Y, equation {equations[self.column]!r}"
        elif self.array == "cell weights":
            name = f"weights, equation {equations[self.column]!r}"
        users = tuple(equations[j] for j in self.users)  # type: ignore[call-overload]
        label = None if label_of is None else label_of(self.row)
        return self._with(name, users, label)

    def _with(self, name: str, users: tuple[Hashable, ...], label: Hashable) -> BadValues:
        """The same value, said of in other words."""
        where = self.row, self.count, self.start, self.stop
        return BadValues(self.array, self.column, self.what, *where, name, users, label)

    def __str__(self) -> str:
        where = self.name or f"column {self.column} of {self.array}"
        remedy = _REMEDY[self.what]
        if self.array == "cell weights" and self.what != "zero":
            remedy = "A weight is a positive number, or zero for a response that is to count as missing."
        if self.array == "Y" and self.what == "NaN":
            remedy = "Drop or fill these rows, or fit with missing='em', which uses what they show, or missing='drop'."
        if self.array == "X" and self.what == "NaN":
            remedy = self._remedy_of_cells()
        row = f"row {self.row}"
        if self.label is not None and self.label != self.row:
            row += f", labelled {self.label!r}" if isinstance(self.label, str) else f", labelled {self.label}"
        return (
            f"{where}: {self.what} value at {row} "
            f"({self.count} in the chunk of rows {self.start} to {self.stop - 1}). {remedy}"
        )

    def _remedy_of_cells(self) -> str:
        """What to do about a regressor that is NaN where it is needed."""
        users = ", ".join(repr(name) for name in self.users[:5])
        if not users:
            return _REMEDY["NaN"]
        more = f" and {len(self.users) - 5} more" if len(self.users) > 5 else ""
        return (
            f"Drop or fill these rows; every value must be observed that an observed response uses, in this row that "
            f"of equation{'s' if len(self.users) > 1 else ''} {users}{more}. Or set such responses to NaN too and fit "
            "with missing='em', which uses what else the rows show; or fit with missing='drop', which leaves them out."
        )


_REMEDY = {
    "NaN": "Drop or fill these rows; every value must be observed.",
    "infinite": "Replace or drop these rows.",
    "negative": "Weights must be zero or more.",
    "zero": "Such a response counts as missing: fit with missing='em', which uses the row's others, or missing='drop'.",
    "too large": "Divide the column by a constant: its squares must not overflow.",
}


class CollinearColumns(np.linalg.LinAlgError):
    """Equations whose own regressors do not determine their coefficients.

    text : of one of them, and what to do.  which : by position, of every one what its status says.
    """

    def __init__(self, text: str, which: Mapping[int, str]) -> None:
        super().__init__(text, which)
        self.text, self.which = text, which

    def __str__(self) -> str:
        return self.text


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


class ChangedStore(RuntimeError):
    """Stored rows were written anew while they were read, so that what was read is of both."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self.name, self.path = name, path

    def __str__(self) -> str:
        return (
            f"{self.name} at {without_secrets(self.path)} was written anew or deleted since its "
            "rows were first read, and would be a mixture. "
            "Open it again, and write to another path while it is read."
        )


class StoreFailure(OSError):
    """A store did not do what it was asked for: out of reach, denied, full. Nothing is known of what it holds.

    path : of the store.  part : of it.  reason : what its client said. What may pass by itself was tried again before.
    """

    def __init__(self, path: object, part: str, reason: object) -> None:
        super().__init__(without_secrets(path), part, scrubbed(reason))
        self.path, self.part, self.reason = without_secrets(path), part, scrubbed(reason)

    def __reduce__(self) -> tuple[type[StoreFailure], tuple[str, str, str]]:
        return StoreFailure, (self.path, self.part, self.reason)  # OSError would keep two of the three

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.part} could not be read or written ({self.reason}). Check that the store can be "
            "reached, what your credentials allow there and whether there is room, and do it again."
        )


class DamagedStore(ValueError):
    """Something that this library saved is not what it wrote: a bit flipped, an edited number, a chunk that is gone.

    path, what : what was saved, and where.  reason : which part of it is not as it was.
    """

    def __init__(self, path: object, what: str, reason: str) -> None:
        super().__init__(str(path), what, reason)
        self.path, self.what, self.reason = str(path), what, reason

    def __str__(self) -> str:
        return (
            f"the {self.what} at {without_secrets(self.path)} is damaged: {self.reason}. Restore it from a copy, or "
            f"{_REMADE.get(self.what, 'write it again')}."
        )


_REMADE = {
    "store": "write it again with System.to_zarr(..., overwrite=True)",
    "checkpoint": "delete it, and the fit goes on without it",
}
