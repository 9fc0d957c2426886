"""A table of models as text, Markdown, LaTeX and HTML: one arrangement, four ways to write it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from lrgls_dask.page import paragraphs, shown_page, table

__all__ = ["Block", "ModelGrid"]

# What LaTeX reads as commands, and how it writes them.
LATEX = {each: f"\\{each}" for each in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
Line = tuple[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Block:
    """The coefficients of an equation: of each its label, a cell for each model, and what stands below that."""

    label: Hashable
    rows: list[tuple[str, list[str], list[str]]]


@dataclass(frozen=True, eq=False)
class ModelGrid:
    """names : of the models.  heads : of their responses, if each has one.  below : whether coefficients have a second
    line.  headed : whether blocks are of several equations, which are then named."""

    names: list[str]
    heads: list[str]
    blocks: list[Block]
    foot: Sequence[Line]
    notes: list[str]
    below: bool
    headed: bool

    def _lines(self, indent: str) -> list[Line]:
        """Of all blocks, top to bottom."""
        lines: list[Line] = []
        for block in self.blocks:
            if self.headed:
                lines.append((_on_one_line(block.label), [""] * len(self.names)))
            for label, top, low in block.rows:
                lines.append((f"{indent if self.headed else ''}{_on_one_line(label)}", top))
                if self.below:
                    lines.append(("", low))
        return lines

    def _head(self) -> list[Line]:
        names, heads = ([_on_one_line(each) for each in row] for row in (self.names, self.heads))
        return [("", names), *([("Response", heads)] if heads else [])]

    def text(self) -> str:
        """Columns as wide as what is in them; nothing is cut."""
        head, body = self._head(), self._lines("  ")
        every = [*head, *body, *self.foot]
        first = max(len(label) for label, _ in every)
        widths = [max(len(cells[i]) for _, cells in every) + 3 for i in range(len(self.names))]

        def written(lines: Sequence[Line]) -> list[str]:
            both = ((label, zip(cells, widths, strict=True)) for label, cells in lines)
            return [
                f"{label:<{first}}{''.join(f'{cell:>{width}}' for cell, width in each)}".rstrip()
                for label, each in both
            ]

        wide = first + sum(widths)
        parts = ["=" * wide, *written(head), "-" * wide, *written(body), "-" * wide, *written(self.foot), "=" * wide]
        return "\n".join([*parts, *self.notes])

    def markdown(self) -> str:
        """A pipe table."""

        def written(label: str, cells: Sequence[str]) -> str:
            texts = (re.sub(r"([|*\\])", r"\\\1", each) for each in (label, *cells))
            return f"| {' | '.join(texts)} |"

        head, *more = self._head()
        rule = f"|:--|{'--:|' * len(self.names)}"
        lines = [written(*head), rule, *(written(*each) for each in [*more, *self._lines(""), *self.foot])]
        return "\n".join([*lines, "", *(re.sub(r"([|*\\])", r"\\\1", note) + "  " for note in self.notes)]).rstrip()

    def latex(self) -> str:
        """A tabular with the rules of booktabs; notes as comments would be lost, so they follow it."""

        def written(label: str, cells: Sequence[str]) -> str:
            guard = "{}" if label.startswith(("[", "*")) else ""  # which the \\\\ before it would take for its own
            return f"{guard}{' & '.join(_escaped(each) for each in (label, *cells))} \\\\"

        head = [written(*each) for each in self._head()]
        body = [written(*each) for each in self._lines("")]
        foot = [written(*each) for each in self.foot]
        lines = [rf"\begin{{tabular}}{{l{'r' * len(self.names)}}}", r"\toprule", *head, r"\midrule", *body, r"\midrule"]
        lines += [*foot, r"\bottomrule", r"\end{tabular}"]
        return "\n".join([*lines, *(rf"\par {_escaped(note)}" for note in self.notes)])

    def html(self) -> str:
        """As a notebook shows it."""
        head, *more = self._head()
        lines = [*more, *self._lines("\u2003"), *self.foot]
        rows = [((label,), cells) for label, cells in lines]
        return shown_page("Models side by side", table("Models", [head[0]], head[1], rows), paragraphs(self.notes))


def _on_one_line(label: Hashable) -> str:
    """A label as text; where it has several lines, with blanks between them."""
    return " ".join(str(label).splitlines())


def _escaped(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
