"""The page itself: a template, one stylesheet and one script, and a policy by which a browser fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from lrgls_dask.page import STYLE, facts, paragraphs, table
from lrgls_dask.results.report.contents import contents_of
from lrgls_dask.results.report.written import MARK
from lrgls_dask.results.reported import Reported

__all__ = ["report_page"]


def report_page(fit: Reported, level: float) -> str:
    """The page of a fit, the same text for the same fit; see `Fit.report`."""
    contents = contents_of(fit, level)
    style, script = STYLE + _text("report.css"), _text("report.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    return _template().render(
        page=contents,
        data=json_in_script([each.for_script() for each in contents.tables]),
        style=Markup(style),
        script=Markup(script),
        mark=Markup(MARK),
        policy=policy,
    )


def json_in_script(value: Any) -> Markup:
    """Compact JSON that no script element ends in, whatever texts say."""
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)  # other letters than ASCII as \\u
    for letter in "<>&'":
        plain = plain.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(plain)


@cache
def _template() -> Template:
    """Every text is escaped, but those that the functions of `lrgls_dask.page` have escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for function in (facts, paragraphs, table):
        environment.globals[function.__name__] = _escaped(function)
    return environment.from_string(_text("report.html"))


def _escaped(function: Any) -> Any:
    return lambda *given: Markup(function(*given))


def _text(name: str) -> str:
    return (files("lrgls_dask.results.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """By which a policy knows what is inline."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
