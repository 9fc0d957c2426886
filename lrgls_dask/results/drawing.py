"""How pictures are drawn: axes of their own, names there is room for, heat maps whose colours say the sign."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lrgls_dask.results.excerpt import evenly_spaced
from lrgls_dask.results.text import cut_in_the_middle

__all__ = [
    "PLAIN",
    "axes_of",
    "call",
    "correlation_map",
    "name_places",
    "name_square",
    "readable",
    "several_axes",
    "short",
    "write_ticks",
]

PLAIN = {
    "parse_math": False,
    "usetex": False,
}  # of text with names of the user's: $, _, ^ and the backslash are letters
NO_LETTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # in no font, and XML has none
LETTERS, UPRIGHT = 28, 14  # of a name beside a picture, and of one that stands below it
ACROSS = 4  # letters that need not stand
ROOM = 1.25  # of the height of a letter, that a line takes


def axes_of(ax: Any, height: float = 4.0, width: float = 6.4) -> Any:
    """These, or new ones."""
    return several_axes(None if ax is None else [ax], 1, height, width)[0]


def several_axes(ax: Any, count: int, height: float, width: float, **options: Any) -> Any:
    """(count,) these axes, one below the other where they are new.  Raises ValueError for another number of them."""
    if ax is not None:
        given = np.ravel(np.asarray(ax, dtype=object))
        if len(given) != count:
            raise ValueError(
                f"this picture has {count} parts, and ax has {len(given)}. Pass {count} axes, such as those of "
                f"pyplot.subplots({count})[1], or none."
            )
        return given
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise ImportError("pictures are drawn by matplotlib. Install it: pip install 'lrgls_dask[plot]'.") from None
    return pyplot.subplots(count, figsize=(width, height), layout="constrained", squeeze=False, **options)[1][:, 0]


def short(name: str, letters: int = LETTERS) -> str:
    """A name beside a picture: a long one without its middle, with a sign where that was."""
    return cut_in_the_middle(name, letters)


def readable(text: str) -> str:
    """The text with a sign for what no font and no SVG can have: control characters, halves of surrogate pairs."""
    return NO_LETTERS.sub("\N{REPLACEMENT CHARACTER}", text)


def call(axis: Any, text: str) -> None:
    """Label an axis or a colorbar with the user's words, letter by letter."""
    (axis.set_label_text if hasattr(axis, "set_label_text") else axis.set_label)(readable(text), **PLAIN)


def write_ticks(axis: Any, places: Sequence[float] | np.ndarray, names: Sequence[str]) -> None:
    """The user's names beside an axis, letter by letter."""
    axis.set_ticks(places, [readable(name) for name in names], **PLAIN)


def name_places(axes: Any, names: Sequence[str], along: str = "y", *, called: str = "") -> None:
    """Write as many names along an axis as there is room for, evenly spaced, the first and the last among them.

    called : what they are names of; the label of the axis says how many are there.
    """
    box, beside = axes.get_window_extent(), along == "y"
    room = box.height if beside else box.width
    letters = int(72 * box.width / axes.figure.dpi / _letter(axes))  # less than half of the width
    _write(axes, names, along, room, min(LETTERS, max(letters, UPRIGHT)) if beside else UPRIGHT, called)


def name_square(axes: Any, names: Sequence[str], called: str) -> None:
    """The same along both axes of a square, whose sides are as long as the names below and beside it leave room for."""
    box = axes.get_window_extent()
    height = _letter(axes) * axes.figure.dpi / 72
    room = min(box.width, box.height) - 0.6 * height * min(UPRIGHT, max(map(len, names)))
    _write(axes, names, "y", room, UPRIGHT, called)
    _write(axes, names, "x", room, UPRIGHT, "")


def _write(axes: Any, names: Sequence[str], along: str, room: float, letters: int, called: str) -> None:
    """room : in dots.  letters : of a name, at most."""
    axis = axes.yaxis if along == "y" else axes.xaxis
    lines = int(72 * room / axes.figure.dpi / (ROOM * _letter(axes)))
    places = evenly_spaced(len(names), min(len(names), max(2, lines)))
    written = [short(names[place], letters) for place in places]
    write_ticks(axis, places, written)
    if along == "x" and max(map(len, written)) > ACROSS:
        axes.tick_params("x", labelrotation=90)
    if called:
        some = f" ({len(places):,} of {len(names):,} named)" if len(places) < len(names) else ""
        call(axis, f"{called}{some}")


def _letter(axes: Any) -> float:
    """The height of a letter beside an axis, in points."""
    labels = axes.yaxis.get_ticklabels()
    return float(labels[0].get_fontsize()) if labels else 10.0


def correlation_map(axes: Any, values: np.ndarray, label: str) -> None:
    """Numbers from -1 to 1 as colours, the first row on top; what is NaN has none."""
    mesh = axes.pcolormesh(
        np.arange(values.shape[1] + 1) - 0.5,
        np.arange(len(values) + 1) - 0.5,
        values,
        cmap="RdBu_r",
        vmin=-1.0,
        vmax=1.0,
        rasterized=True,
    )
    axes.invert_yaxis()
    axes.figure.colorbar(mesh, ax=axes, label=label)
