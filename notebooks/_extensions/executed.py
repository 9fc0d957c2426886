"""Pages whose code runs while the site is built, each in a process of its own that has the packages imported already.

A page is MyST Markdown with `{code-cell}` blocks. It runs from top to bottom with no names but its own, in an empty
folder. An error ends the build, and so does what a page writes to stderr, other than a `FitWarning`.
"""

from __future__ import annotations

import base64
import multiprocessing
import os
import re
import shlex
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from myst_nb.core.read import read_myst_markdown_notebook

from lrgls_dask.cli import main

REPOSITORY = Path(__file__).parents[2]
SECONDS = 600  # a page that takes longer hangs
NOISE = re.compile(r"^(?!.*FitWarning).*Warning.*$|Traceback", re.MULTILINE)
TIMES = "LRGLS_SITE_TIMES"  # names a file that is told what each page took


class _Shell(InteractiveShell):
    """No window, no terminal."""

    def enable_gui(self, gui: str | None = None) -> None:
        """Pictures are outputs."""

    def system(self, cmd: str) -> None:
        """`!lrgls ...` in this process, of this version, wherever the command is installed; no other command."""
        program, *words = shlex.split(cmd)
        if program != "lrgls":
            raise RuntimeError(f"{cmd}: not a command of this package")
        try:
            code = main(words)
        except SystemExit as ended:  # --help
            code = int(ended.code or 0)
        if code != 0:
            raise RuntimeError(f"{cmd}: exit code {code}")


def read(text: str) -> nbformat.NotebookNode:
    """The page as a notebook with the outputs of its code."""
    notebook = read_myst_markdown_notebook(text, add_source_map=True)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    if cells:
        title = re.search(r"^# (.*)$", text, re.MULTILINE)
        name = title[1] if title else "a page without a title"
        begun = time.monotonic()
        for i, (cell, outputs) in enumerate(zip(cells, run([cell.source for cell in cells], name), strict=True), 1):
            cell.outputs, cell.execution_count = [nbformat.from_dict(each) for each in outputs], i
        if TIMES in os.environ:
            with Path(os.environ[TIMES]).open("a", encoding="utf-8") as times:
                times.write(f"{time.monotonic() - begun:.1f}\t{name}\n")
    return notebook


def run(sources: list[str], name: str) -> list[list[dict[str, Any]]]:
    """What each cell shows, as outputs of a notebook. Raises RuntimeError with the cell that failed or complained."""
    forked = multiprocessing.get_context("fork")
    here, there = forked.Pipe(duplex=False)
    process = forked.Process(target=_run, args=(sources, there), name=name)
    process.start()
    there.close()
    try:
        if not here.poll(SECONDS):
            raise RuntimeError(f"{name}: still running after {SECONDS} seconds")
        found: list[list[dict[str, Any]]] | str = here.recv()
    except EOFError:
        raise RuntimeError(f"{name}: its process was lost") from None
    finally:
        here.close()
        process.kill()
        process.join()
    if isinstance(found, str):
        raise RuntimeError(f"{name}: {found}")
    return found


def _run(sources: list[str], answers: Connection) -> None:
    """In the process of the page."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["LRGLS_REPOSITORY"] = str(REPOSITORY)
        shell = _Shell.instance()
        shell.colors = "nocolor"
        shell.enable_matplotlib("inline")
        outputs = []
        for source in sources:
            with capture_output() as captured:
                shell.display_trap.hook = sys.displayhook  # which a cell would replace: what it ends with is shown too
                done = shell.run_cell(source)
            if not done.success or NOISE.search(captured.stderr):
                answers.send(f"in the cell\n\n{source}\n\n{captured.stdout[-2000:]}\n{captured.stderr}")
                break
            outputs.append(_as_outputs(captured))
        else:
            answers.send(outputs)
        os.chdir("/")


def _as_outputs(captured: Any) -> list[dict[str, Any]]:
    """What was printed, what warned, what was shown."""
    streams = {"stdout": captured.stdout, "stderr": captured.stderr}
    printed = [{"output_type": "stream", "name": name, "text": text} for name, text in streams.items() if text]
    shown = [
        {"output_type": "display_data", "data": _plain(each.data), "metadata": each.metadata or {}}
        for each in captured.outputs
        if each.data
    ]
    return [*printed, *shown]


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Data of an output; bytes as notebooks store them."""
    return {k: base64.b64encode(value).decode() if isinstance(value, bytes) else value for k, value in data.items()}
