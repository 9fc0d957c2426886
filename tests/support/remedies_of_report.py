"""What the page of a fit refuses, and what to do instead."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lrgls_dask import LowRankGLS, System
from support.remedies import Case

__all__ = ["REPORT"]

RNG = np.random.default_rng(3)
FIT = LowRankGLS(0).fit(System.from_arrays(RNG.normal(size=(20, 2)), RNG.normal(size=(20, 1)))).result_


def written(name: str, there: str | None = None, **options: Any) -> None:
    """A page in a new folder.  there : what the file of that name says before; "" is a page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if there == "":
            FIT.report(path)
        elif there is not None:
            path.write_text(there)
        if options.pop("make", False):
            path.parent.mkdir()
        if options.pop("another", False):
            path = path.with_name("another.html")
        FIT.report(path, **options)


REPORT = [
    Case(
        "a report is written to a path of this machine; got s3://b/f.html",
        lambda: FIT.report("s3://b/f.html"),
        (lambda: written("f.html"),),
    ),
    Case(
        "exists and is no report, so it is not replaced",
        lambda: written("f.html", "mine", overwrite=True),
        (lambda: written("f.html", "mine", another=True),),
    ),
    Case(
        r"f.html exists\. Choose another path, or pass overwrite=True",
        lambda: written("f.html", ""),
        (lambda: written("f.html", "", another=True), lambda: written("f.html", "", overwrite=True)),
    ),
    Case(
        "there is no folder .*new",
        lambda: written("new/f.html"),
        (lambda: written("new/f.html", make=True), lambda: written("f.html")),
    ),
]
