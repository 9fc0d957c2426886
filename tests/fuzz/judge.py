"""What a case may end in: the right answer, or an error that this library raised and worded."""

from __future__ import annotations

import dis
import re
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import lrgls_dask
from lrgls_dask import FitWarning, UnwrittenChunks

PACKAGE = Path(lrgls_dask.__file__).parent
RIGHT, REFUSED = "right", "refused"
WORDED = 25  # characters that a message has at least, so that a bare key is none
OF_FORMULAS = re.compile("encountered in (log|power|divide|exp)")  # numpy's, of what a formula asks it
OURS = (FitWarning, UnwrittenChunks)


class Finding(AssertionError):
    """A wrong answer, an error that came through unworded, or a warning of another package."""


def judged(case: Callable[[], object], let_pass: re.Pattern[str] | None = None) -> str:
    """RIGHT or REFUSED; raises Finding for anything else. What a case finds wrong itself it raises as a Finding.

    let_pass : warnings of other packages that are what the case asked for.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            case()
            ended = RIGHT
        except Finding:
            raise
        except Exception as error:
            if not ours(error):
                notes = " ".join(getattr(error, "__notes__", ()))
                raise Finding(f"not worded: {type(error).__name__}: {error} {notes}\n{last_lines(error)}") from error
            ended = REFUSED
    foreign = [each for each in said if not issubclass(each.category, OURS)]
    if let_pass is not None:
        foreign = [each for each in foreign if not let_pass.search(str(each.message))]
    if foreign:
        first = foreign[0]
        where = f"{first.filename}:{first.lineno}"
        raise Finding(f"warned: {first.category.__name__}: {first.message} at {where}")
    return ended


def ours(error: BaseException) -> bool:
    """Whether the package itself raised it, by a `raise` statement and in words."""
    if type(error).__module__.startswith("lrgls_dask"):
        return True
    return raised_here(error.__traceback__) and len(" ".join(map(str, error.args)) or str(error)) >= WORDED


def raised_here(frames: TracebackType | None) -> bool:
    if frames is None:
        return False
    while frames.tb_next is not None:
        frames = frames.tb_next
    code = frames.tb_frame.f_code
    if not Path(code.co_filename).is_relative_to(PACKAGE):
        return False
    at = frames.tb_lasti
    return any(
        each.offset == at and each.opname.startswith(("RAISE", "RERAISE")) for each in dis.get_instructions(code)
    )


def last_lines(error: BaseException) -> str:
    """The last of the package's own frames and what they called."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [i for i, frame in enumerate(frames) if Path(frame.filename).is_relative_to(PACKAGE)]
    return "".join(traceback.format_list(frames[max(own[-1] - 2, 0) if own else -4 :]))


def require(holds: object, what: str) -> None:
    """Raise Finding with `what` unless it holds."""
    if not holds:
        raise Finding(f"wrong: {what}")
