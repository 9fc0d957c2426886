"""The documentation site builds without a warning, runs all its code, has no broken link, and fetches nothing."""

from __future__ import annotations

import enum
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lrgls_dask
from support.browser import axe_source, browser_or_skip, serious_faults
from support.html import CSS_OUTSIDE, Page, broken_links

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "notebooks"
PAGES = sorted(path for path in SOURCE.rglob("*.md"))
# What a fence may hold: code that the build runs, markup, programs of other languages beside the digits they gave.
RUN_OR_MARKUP = {"{code-cell}", "{code-cell} ipython3", "{toctree}", "{eval-rst}", "{include} ../../deploy/README.md"}
RUN_OR_MARKUP |= {
    f"{{include}} ../../deploy/{name}.md" for name in ("GATEWAY", "KUBERNETES", "SCALING", "SLURM", "SSH", "TLS")
} | {
    "r",
    "math",
    "{math}",
}


# One page of each kind, as different readers see them: (page, width, whether dark).
KINDS = [
    ("index.html", 1280, False),
    ("api/estimator.html", 1280, False),  # long signatures, parameters
    ("guide/tables.html", 360, True),  # results as HTML, tables wider than their boxes
]


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """The site in `folder`, by a process of its own, whose warnings are those of the site alone."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2", "-d", str(folder / "trees")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(SOURCE), str(folder / "html")], capture_output=True, text=True, env=environment, check=False
    )


def public_members() -> set[str]:
    """Anchors of all that users may call."""
    found = set()
    for name in lrgls_dask.__all__:
        value = getattr(lrgls_dask, name)
        found.add(f"lrgls_dask.{name}")
        if inspect.isclass(value) and not issubclass(value, (Warning, enum.Enum)):
            members = vars(value).keys() if issubclass(value, tuple) else dir(value)
            found |= {f"lrgls_dask.{name}.{member}" for member in members if is_documented(value, member)}
    return found


def is_documented(owner: type, member: str) -> bool:
    value = inspect.getattr_static(owner, member)
    callable_or_value = isinstance(value, (property, staticmethod, classmethod)) or inspect.isfunction(value)
    return callable_or_value and not member.startswith("_")


def test_the_site(tmp_path: Path) -> None:
    """One build, which takes most of the time, and all that is to be seen on its pages."""
    pytest.importorskip("myst_nb", reason="the extra `docs` is not installed")
    run = built(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    check_pages(tmp_path / "html")
    assert faults_of(tmp_path / "html", KINDS) == {}


@pytest.mark.slow
def test_no_page_has_a_serious_fault(tmp_path: Path) -> None:
    """Light and dark, on a screen and on a telephone."""
    pytest.importorskip("myst_nb", reason="the extra `docs` is not installed")
    assert built(tmp_path).returncode == 0
    html = tmp_path / "html"
    pages = [str(path.relative_to(html)) for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]
    assert len(pages) > len(KINDS) and {page for page, *_ in KINDS} <= set(pages)
    assert faults_of(html, [(page, *look) for look in ((1280, False), (360, True)) for page in pages]) == {}


def faults_of(html: Path, looks: list[tuple[str, int, bool]]) -> dict[str, list[str]]:
    """Pages that are wider than the screen, or in which axe-core finds something serious."""
    axe, found = axe_source(), {}
    with browser_or_skip() as browser:
        for page, width, dark in looks:
            browser.look(width, dark=dark)
            browser.open(html / page)
            assert browser.value("document.documentElement.dataset.theme") == ("dark" if dark else "light")
            wide = browser.value("document.documentElement.scrollWidth") > width
            faults = [f"wider than {width}"] * wide + serious_faults(browser, axe)
            if faults:
                found[f"{page} {width} {'dark' if dark else 'light'}"] = faults
    return found


def check_pages(html: Path) -> None:
    """Links, addresses, public names, of the site as built."""
    pages = [Page(path) for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]
    assert {"index.html", "csv.html", "01_first_fit.html"} <= {page.path.name for page in pages}
    assert broken_links(pages) == []
    assert {page.path.name: page.outside() for page in pages if page.outside()} == {}
    styles = {path.name: CSS_OUTSIDE.findall(path.read_text("utf-8")) for path in html.rglob("*.css")}
    assert {name: found for name, found in styles.items() if found} == {}
    api = set().union(*(page.ids for page in pages if page.path.parent.name == "api"))
    assert public_members() - api == set()
    first = next(page for page in pages if page.path == html / "index.html")
    assert "guide/csv.html" in first.links  # how do I fit my CSV: one click


def test_every_block_of_code_is_one_that_runs() -> None:
    """But for commands that install, and programs in other languages."""
    for path in PAGES:
        for language, block in re.findall(r"^```(.+?)\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            installs = language == "sh" and all(line.startswith("pip install ") for line in block.splitlines())
            assert installs or language in RUN_OR_MARKUP, f"{path.name}: {language}\n{block}"


def test_pages_are_stored_without_outputs() -> None:
    assert list(SOURCE.rglob("*.ipynb")) == []


def test_every_promise_names_a_test_that_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", (SOURCE / "promises.md").read_text("utf-8"))
    assert len(named) > 20
    lost = [f"{file}::{test}" for file, test in named if not is_test(ROOT / "tests" / file, test)]
    assert lost == []


def is_test(path: Path, name: str) -> bool:
    return path.is_file() and f"def {name}(" in path.read_text("utf-8")


def test_the_first_lines_of_help_run(capsys: pytest.CaptureFixture[str]) -> None:
    """As `help(lrgls_dask)` shows them."""
    first = (lrgls_dask.__doc__ or "").split("\n\n")[1]
    rng = np.random.default_rng(0)
    columns = [*(f"y{i}" for i in range(6)), "x1", "x2"]
    frame = pd.DataFrame(rng.normal(size=(60, 8)), columns=columns).rename_axis("date").reset_index()
    frame[columns[:6]] += rng.normal(size=(60, 1))
    names = {**vars(lrgls_dask), "frame": frame, "new_frame": frame.tail(3)}
    exec(compile(inspect.cleandoc(first), "help", "exec"), names)
    assert "y5" in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_on_genes_takes_fourteen_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it says: half a minute."""
    pytest.importorskip("myst_nb", reason="the extra `docs` is not installed")
    monkeypatch.syspath_prepend(str(SOURCE / "_extensions"))
    executed = importlib.import_module("executed")
    page = (SOURCE / "tutorials" / "08_genes.md").read_text("utf-8")
    assert page.count("= 60, 400, 2") == 1 and "14,000 take the same lines" in page
    notebook = executed.read(page.replace("= 60, 400, 2", "= 60, 14_000, 2"))
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "14,000 equations on 60 rows" in printed and "parallel analysis: 2" in printed
