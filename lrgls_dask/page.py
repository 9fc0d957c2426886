"""How objects look in a notebook: one stylesheet, inline; no scripts, nothing from elsewhere, every text escaped."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from html import escape

__all__ = ["described", "facts", "paragraphs", "shown_page", "table"]

Rows = Iterable[tuple[Sequence[Hashable], Sequence[str]]]

# Text and ground are set together, so that a page is readable whatever is around it: by what the reader's system says,
# unless a notebook says otherwise of itself.
LIGHT = "--ink:#1b1f24;--ground:#fff;--soft:#57606a;--line:#d0d7de;--band:#f6f8fa;--accent:#0b5cad"
DARK = "--ink:#e6e8eb;--ground:#16191d;--soft:#a3abb5;--line:#3a414a;--band:#1f242a;--accent:#7db7f0"
STYLE = (
    f".lrgls{{{LIGHT};color-scheme:light}}"
    f"@media(prefers-color-scheme:dark){{.lrgls{{{DARK};color-scheme:dark}}}}"
    f'[data-jp-theme-light="true"] .lrgls,body.vscode-light .lrgls{{{LIGHT};color-scheme:light}}'
    f'[data-jp-theme-light="false"] .lrgls,body.vscode-dark .lrgls{{{DARK};color-scheme:dark}}'
    ".lrgls{color:var(--ink);background:var(--ground);font:14px/1.45 system-ui,sans-serif;padding:.75em;"
    "box-sizing:border-box;max-width:100%;overflow-wrap:anywhere}"
    ".lrgls .title{font-weight:600;margin:0 0 .6em;padding-bottom:.4em;border-bottom:2px solid var(--accent)}"
    ".lrgls dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17em,100%),1fr));gap:.1em 1.5em;margin:0}"
    ".lrgls dl div{display:flex;gap:.75em;justify-content:space-between;border-bottom:1px solid var(--line)}"
    ".lrgls dt{color:var(--soft);flex:none;font-weight:400}.lrgls dd{margin:0;text-align:right}"
    ".lrgls p{margin:.6em 0;padding-left:.6em;border-left:3px solid var(--line)}"
    ".lrgls .box{overflow-x:auto;margin:.8em 0 0}.lrgls .box:focus-visible{outline:2px solid var(--accent)}"
    ".lrgls table{border-collapse:collapse;margin:0;color:inherit;font-size:13px}"
    ".lrgls caption{caption-side:top;text-align:left;font-weight:600;color:var(--ink);padding:.2em 0}"
    ".lrgls th,.lrgls td{padding:.2em .7em;text-align:right;white-space:nowrap;border:0;"
    "border-bottom:1px solid var(--line);color:inherit;background:var(--ground);font-variant-numeric:tabular-nums}"
    ".lrgls thead th{color:var(--soft);background:var(--band)}"
    ".lrgls tbody th{text-align:left;font-weight:400}"
    ".lrgls thead th.label{text-align:left}"
)


def shown_page(title: str, *parts: str) -> str:
    """A titled page of parts that the functions below made."""
    inner = "".join(parts)
    return f'<div class="lrgls"><style>{STYLE}</style><div class="title">{escape(title)}</div>{inner}</div>'


def described(text: str) -> str:
    """A description of several lines as a page: the first its title, "name: what" or "name  what" below facts."""
    first, *lines = text.splitlines()
    pairs = [re.split(r":? {2,}|: ", line.strip(), maxsplit=1) for line in lines]
    return shown_page(first.strip("<>"), facts((name, rest[0] if rest else "") for name, *rest in pairs))


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, in as many columns as there is room for."""
    each = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f"<dl>{''.join(each)}</dl>"


def paragraphs(lines: Iterable[str]) -> str:
    """Sentences, one below the other."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def table(caption: str, labels: Sequence[str], names: Sequence[str], rows: Rows, note: str = "") -> str:
    """A table that scrolls inside its box.

    labels, names : heads of the columns with labels and of those with cells.  rows : labels and cells of each.
    note : a sentence below it.
    """
    head = "".join(f'<th class="label" scope="col">{escape(name)}</th>' for name in labels)
    head += "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(_row(*row) for row in rows)
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(caption)}"><table><caption>'
        f"{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"{paragraphs([note] if note else [])}"
    )


def _row(labels: Sequence[Hashable], cells: Sequence[str]) -> str:
    head = "".join(f'<th scope="row">{escape(str(label))}</th>' for label in labels)
    return f"<tr>{head}{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
