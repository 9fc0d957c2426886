"""Pictures of a fit as images inside a page, for light and for dark screens."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrgls_dask.page import DARK, LIGHT
from lrgls_dask.results.error_structure import IN_A_MAP, When
from lrgls_dask.results.excerpt import equation_name, evenly_spaced
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.pictures import Pictures
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.text import cut_in_the_middle
from lrgls_dask.results.tidy import NOT_TO_BE_HAD

__all__ = ["Drawing", "pictures"]

MOST_TERMS, MOST_EQUATIONS = 4, 30  # pictures of regressors, and equations that each has room for
OTHERS = ("#d1662a", "#3a9a5b", "#b03a5b")  # colours of lines beside the first, seen on light and on dark
LONGEST = 24  # letters of a label beside a picture
WIDTH = 5.0  # inches, so that words are read on a phone too
IN_TABLE = "The numbers are in the table of coefficients."
NO_MATPLOTLIB = "Pictures are drawn by matplotlib, which is not installed here: pip install 'lrgls_dask[plot]'."


@dataclass(frozen=True, eq=False)
class Drawing:
    """light, dark : images as data: URLs.  alt : what a reader who does not see it is told."""

    caption: str
    alt: str
    light: str
    dark: str


@dataclass(frozen=True, eq=False)
class Wanted:
    """A picture to draw.  draw : on the axes that it is given.  has_labels : the user's.  height : inches."""

    caption: str
    alt: str
    draw: Callable[[Any], Any]
    has_labels: bool = False
    height: float = 3.2


def pictures(fit: Reported) -> tuple[list[Drawing], list[str]]:
    """The pictures that there are of a fit, and why others are not; nothing is read."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        figure = importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        return [], [NO_MATPLOTLIB]
    drawn: list[Drawing] = []
    said: dict[str, None] = {}
    for each in _wanted(fit):
        try:
            images = _images(matplotlib, figure, each)
        except NOT_TO_BE_HAD as error:
            said[f"A picture is missing: {error}"] = None
            continue
        drawn.append(Drawing(each.caption, each.alt, *images))
    return drawn, list(said)


def _wanted(fit: Reported) -> Iterator[Wanted]:
    plot = Pictures(fit)
    draw = _map if len(fit._whole.equation_dims) == 2 else _of_term
    yield from (draw(fit, plot, term) for term in _terms(fit))
    if fit.design.n_equations > 1:
        yield _of_errors(fit, plot)
    table = fit.selection  # type: ignore[attr-defined]
    if table is not None:
        criterion, name = table.attrs["criterion"], table.index.name
        chosen = f"{len(table)} candidates for {name}; {getattr(fit, name):g} was chosen"
        alt = f"Line of {criterion} over {chosen}. The numbers are in the table of candidates."
        yield Wanted(f"Choice of {name}", alt, lambda axes: plot.selection(ax=axes))
    if len(fit.trace) > 1:  # type: ignore[attr-defined]
        alt = "Line of what was minimised, above its last value, on a logarithmic scale, as in the table of iterations."
        yield Wanted("Convergence", alt, lambda axes: plot.trace(ax=axes))


def _terms(fit: Reported) -> list[Hashable]:
    """Regressors that most equations have, in the order in which these have them."""
    counts = Counter(term for j in fit._estimated_equations.tolist() for term in fit._whole.terms[j])
    return [term for term, _ in counts.most_common(MOST_TERMS)]


def _of_errors(fit: Reported, plot: Pictures) -> Wanted:
    """Correlations of errors; what factors leave of them too where the fit keeps what tells it, opened from a file or
    not."""
    when: When = "before"
    if isinstance(fit, Measures):
        with contextlib.suppress(*NOT_TO_BE_HAD):
            when = "both" if len(plot.errors(data=True)) == 2 else "before"
    few = min(fit.design.n_equations, IN_A_MAP)
    which = f"{few} of {fit.design.n_equations:,} equations, evenly spaced" if few < fit.design.n_equations else ""
    of = f"Correlations of errors between equations{f', {which}' if which else ''}, those that are alike together"
    alt = f"{of}{', below the diagonal, and above it what the factors leave of them' if when == 'both' else ''}."
    caption = f"Errors across equations{f': {which}' if which else ''}"
    return Wanted(caption, alt, lambda axes: plot.errors(when, ax=axes), True, 4.6)


def _map(fit: Reported, plot: Pictures, term: Hashable) -> Wanted:
    down, along = map(str, fit._whole.equation_dims)
    alt = f"Map of the estimates of {term} over {down} and {along}. {IN_TABLE}"
    return Wanted(f"Estimates of {term}", alt, lambda axes: plot.map(term, ax=axes), True)


def _of_term(fit: Reported, plot: Pictures, term: Hashable) -> Wanted:
    whole = fit._whole
    having = np.array([j for j in fit._estimated_equations.tolist() if term in whole.terms[j]])
    chosen = having[evenly_spaced(len(having), min(len(having), MOST_EQUATIONS))]
    some = f"{len(chosen)} of {len(having):,} equations, evenly spaced"
    which = some if len(chosen) < len(having) else "all equations that have it"
    names = [whole.equations[j] for j in chosen.tolist()]
    alt = f"Coefficients of {term} as points with 95% intervals, one below the other, in {which}. {IN_TABLE}"

    def draw(axes: Any) -> None:
        plot.coefficients(names, [term], ax=axes)
        axes.locator_params(axis="x", nbins=5)  # whose numbers may be long
        axes.set_yticklabels([cut_in_the_middle(equation_name(fit, j), LONGEST) for j in chosen.tolist()])

    return Wanted(f"{term}: {which}", alt, draw, True, 1.0 + 0.2 * len(chosen))


def _images(matplotlib: Any, figure: Any, wanted: Wanted) -> tuple[str, str]:
    """The picture in the colours of the page, for light and for dark; the same bytes whatever the user's settings."""
    light, dark = _colours(LIGHT), _colours(DARK)
    ink, ground = light["--ink"], light["--ground"]
    named = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor")
    grounds = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # browsers have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(dict.fromkeys(named, ink) | dict.fromkeys(grounds, ground))
        matplotlib.rcParams["axes.prop_cycle"] = matplotlib.cycler(color=[light["--accent"], *OTHERS])
        matplotlib.rcParams["svg.hashsalt"] = "lrgls_dask"  # else ids inside are drawn at random
        matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text, which browsers shape in every script
        matplotlib.rcParams["text.parse_math"] = not wanted.has_labels  # a name may have $ in it
        made = figure(figsize=(WIDTH, wanted.height), layout="constrained")
        axes = made.subplots()
        wanted.draw(axes)
        for mesh in axes.collections:
            mesh.set_rasterized(mesh.get_array() is not None)
        into = io.StringIO()
        made.savefig(into, format="svg", metadata={"Date": None})
    drawn = into.getvalue()
    return _as_url(drawn), _as_url(re.sub(r"#[0-9a-f]{6}\b", lambda found: _darker(found[0], light, dark), drawn))


def _darker(colour: str, light: dict[str, str], dark: dict[str, str]) -> str:
    """What stands for it in the dark; itself where nothing does."""
    return next((dark[name] for name, each in light.items() if each == colour), colour)


def _colours(theme: str) -> dict[str, str]:
    """By their names in the stylesheet, in six digits."""
    pairs = (each.split(":") for each in theme.split(";"))
    return {name: _full(colour) for name, colour in pairs}


def _as_url(drawn: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"


def _full(colour: str) -> str:
    """#fff as #ffffff."""
    return colour if len(colour) == 7 else "#" + "".join(2 * letter for letter in colour[1:])
