"""Imports inside the package go one way."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import lrgls_dask

PACKAGE = Path(lrgls_dask.__file__).parent
# The order in which data flow (DESIGN section 3): a module imports only from modules before it.
LAYERS = [
    {
        "rows",
        "design",
        "errors",
        "kernels",
        "inference.joint_scores",
        "progress",
        "layout",
        "inference.score_kernels",
        "inference.score_moments",
    },
    {"missing.kernels"},
    {"passes"},
    {"compress", "missing.patterns"},
    {"whiten", "problem", "cg", "missing.problem"},
    {"sweep"},
    {"als", "rounds", "varying.segments", "varying.loop"},
    {"resampling.crossvalidate"},
    {"em", "selection", "missing.starts", "missing.polish", "missing.loop"},
    {"inference.incomplete"},
    {"inference.standardised", "inference.tangents", "inference.information", "inference.scorepass"},
    {"inference.huber_white", "inference.kackar_harville"},
    {"inference.classical", "inference.measures", "inference.fullml", "inference.tests", "hypotheses"},
    {"inference.sandwich", "inference.bread", "inference.segmented", "inference.hac", "inference.operator"},
    {"resampling.bootstrap", "resampling.replicated"},
    {"estimates", "missing.observed"},
    {"results", "fitstore", "report", "assessed", "nested", "covkinds", "covariances"},
    {"factorstructures", "sparsepath", "varying.covariance", "varying.result", "varying.fit"},
    {"missing.fit"},
    {"model"},
    {"cli", "__init__"},
]


def imports() -> dict[str, set[str]]:
    """Module -> modules of this package that it imports, anywhere but under TYPE_CHECKING."""
    graph: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = {n for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
                   for n in ast.walk(i)}  # fmt: skip
        found = set()
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.ImportFrom)
                and node not in skipped
                and (node.module or "").startswith("lrgls_dask")
            ):
                found.add((node.module or "").removeprefix("lrgls_dask").removeprefix(".") or "__init__")
        graph[name] = {f"{f}.__init__" if (PACKAGE / f.replace(".", "/")).is_dir() else f for f in found}
    return graph


def test_imports_form_no_cycle() -> None:
    order = list(graphlib.TopologicalSorter(imports()).static_order())
    assert order.index("kernels") < order.index("passes") < order.index("compress") < order.index("als")


def test_no_module_imports_from_a_later_layer() -> None:
    place = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    graph = imports()
    assert set(place) <= set(graph)
    backward = [(a, b) for a, bs in graph.items() for b in bs if a in place and b in place and place[b] > place[a]]
    assert backward == []


def test_only_passes_and_a_few_schedule_or_know_labels() -> None:
    """Kernels and the loop know neither Dask nor xarray nor files."""
    for name in (
        "kernels",
        "inference/joint_scores",
        "inference/scorepass",
        "inference/score_kernels",
        "inference/score_moments",
        "whiten",
        "cg",
        "als",
        "sweep",
        "rounds",
        "em",
        "problem",
        "selection",
        "resampling/crossvalidate",
        "resampling/bootstrap",
        "resampling/replicated",
        "resampling/partition",
        "inference/classical",
        "inference/standardised",
        "inference/tangents",
        "inference/information",
        "inference/huber_white",
        "inference/kackar_harville",
        "inference/measures",
        "inference/fullml",
        "inference/tests",
        "restrictions",
        "hypothesis_syntax",
        "hypotheses",
        "nested",
        "inference/bread",
        "inference/segmented",
        "inference/hac",
        "inference/operator",
        "compress",
        "varying/segments",
        "varying/loop",
        "design",
        "rows",
        "missing/kernels",
        "missing/patterns",
        "missing/problem",
        "missing/starts",
        "missing/loop",
        "inference/incomplete",
    ):
        source = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
        modules = {a.name.split(".")[0] for n in ast.walk(source) if isinstance(n, ast.Import) for a in n.names}
        modules |= {(n.module or "").split(".")[0] for n in ast.walk(source) if isinstance(n, ast.ImportFrom)}
        assert not modules & {"dask", "distributed", "xarray", "zarr", "pandas"}, name


def test_a_file_is_read_in_one_sitting() -> None:
    long = {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 450}
    assert long == {}
