"""Mathematics as MathML, which browsers show by themselves: no script, no font, no server."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_as_mathml(node, "inline"))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="equation" tabindex="0">{_as_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def _as_mathml(node: nodes.Element, display: str) -> str:
    """A prime is a transpose on these pages."""
    mathml: str = convert(node.astext().replace("'", r"^{\top}"), display=display)
    return mathml
