"""Messages of the package that tell their reader what to do, as its source has them, and the cases that follow them."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lrgls_dask
from lrgls_dask.cli import main

PACKAGE = Path(lrgls_dask.__file__).parent
# A sentence, or what follows a colon, a semicolon or "or", that begins with what to do.
VERBS = (
    "Add|Align|Ask|Call|Check|Choose|Close|Compare|Convert|Delete|Divide|Drop|Fill|Fit|Give|Index|Install|Join|Label|"
    "Leave|Lower|Make|Name|Open|Pass|Raise|Read|Remove|Rename|Repeat|Replace|Resample|Restore|Scale|Select|Set|Sort|"
    "Split|Start|Store|Take|Transpose|Try|Turn|Upgrade|Use|Wait|Write"
)
REMEDY = re.compile(rf"(?:^|[.:;] |, or |\bEither )({VERBS}|{VERBS.lower()})\b")


@dataclass(frozen=True)
class Case:
    """A mistake, a part of what is said to it, and each of the remedies, followed to the letter."""

    says: str
    mistake: Callable[[], object]
    remedies: tuple[Callable[[], object], ...]


def command(*words: Any) -> None:
    """The command line; what it refuses is raised with what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main([str(word) for word in words])
        except SystemExit as left:
            code = int(left.code or 0)
    if code not in (0, 3):
        raise ValueError(said.getvalue())


def said_to(mistake: Callable[[], object]) -> str:
    """The message of the error, or of the first warning, that a call ends with; nothing where it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            mistake()
        except Exception as said:
            return f"{said.args[0]}" if isinstance(said, KeyError) else str(said)
    return ""


@dataclass(frozen=True)
class Template:
    """A text in the source with a remedy in it. file : below the package.  pattern : what it becomes when filled."""

    file: str
    text: str
    pattern: re.Pattern[str]

    @property
    def key(self) -> str:
        """The file, and the first words of what it tells to do."""
        start = REMEDY.search(self.text)
        assert start is not None
        return f"{self.file}: {' '.join(self.text[start.start(1) :].split()[:7])}"


def templates() -> Iterator[Template]:
    """Every text of the package, outside of docstrings and of the help of options, that says what to do."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = {id(node) for node in _not_said(tree)}
        for node in ast.walk(tree):
            if id(node) not in skipped and isinstance(node, ast.JoinedStr | ast.Constant):
                parts = [part for part in _parts(node) if part != ""]
                text = "".join("{}" if part is None else part for part in parts)
                if REMEDY.search(text) and " " in text:
                    filled = "".join(".*" if part is None else re.escape(part) for part in parts)
                    name = str(path.relative_to(PACKAGE))
                    yield Template(name, text, re.compile(filled, flags=re.DOTALL))


def _parts(node: ast.JoinedStr | ast.Constant) -> Iterator[str | None]:
    """The texts of a literal, None for what is filled in, there or by `format`."""
    for value in node.values if isinstance(node, ast.JoinedStr) else [node]:
        if not isinstance(value, ast.Constant):
            yield None
        elif isinstance(value.value, str):
            for i, part in enumerate(re.split(r"\{\w*\}", value.value)):
                yield from (None, part) if i else (part,)


def _not_said(tree: ast.Module) -> Iterator[ast.AST]:
    """Docstrings, helps, and what is inside of other literals."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            yield node.value
        if isinstance(node, ast.JoinedStr):
            for part in node.values:
                yield part
                if isinstance(part, ast.FormattedValue) and part.format_spec is not None:
                    yield part.format_spec
                    yield from ast.walk(part.format_spec)
        if isinstance(node, ast.keyword) and node.arg == "help":
            yield from ast.walk(node.value)
