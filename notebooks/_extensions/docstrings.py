"""Docstrings of this package as numpydoc reads them.

In the source they name parameters where they explain them, `name : text.  other : text.`, in the lines of a paragraph.
Here each becomes an entry of the section Parameters, and what is between backticks a link or a literal.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from sphinx.application import Sphinx

import lrgls_dask

SECTION = re.compile(r"^(Parameters|Attributes)\n-+\n", re.MULTILINE)
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
LEARNED = {"result_", "params_", "rank_", "plan_"}
WHOLE = "Raises|Returns|Costs|Every|No read|One pass|Equations that|Where effects|It prints|The same"
OF_THE_WHOLE = re.compile(rf"\n(?=(?:{WHOLE}) )")
SPECIAL = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _rewrite, priority=0)  # before numpydoc
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _rewrite(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_numpydoc(inspect.cleandoc("\n".join(lines)), _parameters(obj)).splitlines()


def _parameters(obj: Any) -> list[str]:
    """Names of what a class or function takes; of a property none."""
    try:
        return [name for name in inspect.signature(obj).parameters if name != "self"]
    except (TypeError, ValueError):
        return []


def as_numpydoc(text: str, parameters: list[str]) -> str:
    """The docstring with its explanations of `parameters` in a section of their own."""
    text = SECTION.sub("", text)
    known = "|".join(
        sorted(map(re.escape, {*parameters, "result_", "params_", "rank_", "plan_"}), key=len, reverse=True)
    )
    entry = re.compile(rf"(?:^|(?<=[.:;)]  )|(?<=[.:;)] ))((?:{known})(?:, (?:{known}))*) : ", re.MULTILINE)
    summary, _, rest = text.partition("\n\n")
    body, entries = [_escaped(" ".join(summary.split()))], []
    for paragraph in re.split(r"\n{2,}", rest):
        dedented = inspect.cleandoc(paragraph) if paragraph.strip() else ""
        aligned = "\n".join(line.strip() for line in dedented.splitlines())
        before, *found = entry.split(aligned)
        if before.strip():
            body.append(_block(dedented) if not found else _escaped(before.strip()))
        for names, said in zip(found[::2], found[1::2], strict=True):
            said, after = _split_after(said)
            entries.append((names, _escaped(said)))
            if after:
                body.append(_escaped(after))
    sections: dict[str, list[tuple[str, str]]] = {"Parameters": [], "Attributes": []}
    for names, said in entries:
        sections["Parameters" if names.split(", ")[0] in parameters else "Attributes"].append((names, said))
    for title, listed in sections.items():
        if listed:
            body.append(f"{title}\n{'-' * len(title)}\n" + "\n".join(f"{n}\n    {said}" for n, said in listed))
    return "\n\n".join(body)


def _split_after(said: str) -> tuple[str, str]:
    """What an entry says, and sentences behind it that are of the whole."""
    found = re.search(
        r"\n(?=(?:Raises|Returns|Costs|Every|No read|One pass|Equations that|Where effects|It prints|The same) )", said
    )
    parts = (said[: found.start()], said[found.end() :]) if found else (said, "")
    first, second = (" ".join(part.split()) for part in parts)
    return first, second


def _block(paragraph: str) -> str:
    """A paragraph; one that is indented, or says mathematics by its layout, as it stands."""
    if any(line.startswith("    ") for line in paragraph.splitlines()):
        return "::\n\n" + "\n".join(f"    {line}" for line in paragraph.splitlines())
    return _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """Plain text for reStructuredText; `name` links where the package has such a name, and is a literal otherwise."""
    pieces, at = [], 0
    for found in CODE.finditer(text):
        pieces += [SPECIAL.sub(r"\\\1", text[at : found.start()]), _named(found[2].strip())]
        at = found.end()
    return "".join([*pieces, SPECIAL.sub(r"\\\1", text[at:])])


def _named(name: str) -> str:
    owner, _, member = name.partition(".")
    public = owner in lrgls_dask.__all__ and (not member or hasattr(getattr(lrgls_dask, owner), member))
    return f":py:obj:`{name} <lrgls_dask.{name}>`" if public else f"``{name}``"
