"""The laws of the house: imports go down, rooms know only what they should, files and functions can be read."""

from __future__ import annotations

import ast
import graphlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import lrgls_dask

PACKAGE = Path(lrgls_dask.__file__).parent
TESTS = Path(__file__).parents[1]
TREES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
CLASSES: dict[str, list[ast.ClassDef]] = {}
for _tree in TREES.values():
    for _node in ast.walk(_tree):
        if isinstance(_node, ast.ClassDef):
            CLASSES.setdefault(_node.name, []).append(_node)
# From the street to the cellar, as the docstring of the package tells a newcomer.
ROOMS = re.findall(r"^    ([a-z_]+)(?:/|\.py) ", lrgls_dask.__doc__ or "", flags=re.MULTILINE)
LARGEST_FILE, LARGEST_FUNCTION = 450, 70


def room(module: str) -> str:
    """The room of a module: its folder, or itself."""
    return module.split(".")[0]


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that a module imports, anywhere: under TYPE_CHECKING and inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package in full"
            if (node.module or "").split(".")[0] == "lrgls_dask":
                base = ".".join((node.module or "").split(".")[1:])
                for alias in node.names:
                    inner = f"{base}.{alias.name}".lstrip(".")
                    yield inner if inner in TREES else base if base in TREES else f"{base}.__init__".lstrip(".")
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "lrgls_dask":
                    yield ".".join(alias.name.split(".")[1:]) or "__init__"


ARROWS = {name: set(imported(tree)) - {name} for name, tree in TREES.items()}


def modules_of(tree: ast.Module) -> set[str]:
    """Dotted names of the modules that a module imports, whosever they are."""
    plain = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    return plain | {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}


def outside(tree: ast.Module) -> set[str]:
    """Top-level names of the packages that a module imports."""
    return {name.split(".")[0] for name in modules_of(tree)}


def test_the_page_for_newcomers_names_every_room_and_fits_a_screen() -> None:
    there = {room(module) for module in TREES} - {"__init__"}
    assert set(ROOMS) == there
    assert len(ROOMS) == len(set(ROOMS))
    assert len((lrgls_dask.__doc__ or "").splitlines()) <= 45


def test_imports_between_files_form_no_circle() -> None:
    order = list(graphlib.TopologicalSorter(ARROWS).static_order())
    assert set(order) == set(TREES)


def test_a_room_imports_only_from_rooms_below_it() -> None:
    height = {name: -i for i, name in enumerate(ROOMS)} | {"__init__": 0.5, "cli": 1}
    up = [
        f"{module} -> {other}"
        for module, others in ARROWS.items()
        for other in others
        if room(module) != room(other) and height[room(other)] >= height[room(module)]
    ]
    assert up == []


def test_private_names_stay_in_their_file() -> None:
    leaked = [
        f"{module}: {alias.name}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lrgls_dask")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert leaked == []


@pytest.mark.parametrize("where", ["sigma", "inference", "design", "rows.kernels", "rows.moments", "missing.kernels"])
def test_what_computes_knows_neither_schedulers_nor_labels(where: str) -> None:
    found = {name: outside(tree) for name, tree in TREES.items() if name == where or name.startswith(f"{where}.")}
    assert found
    knows = {name: sorted(them & {"dask", "distributed", "xarray", "zarr", "pandas"}) for name, them in found.items()}
    assert {name: them for name, them in knows.items() if them} == {}


def test_only_rows_schedules_passes() -> None:
    """No other room speaks to a cluster; the command line only starts one."""
    found = [
        name for name, tree in TREES.items() if "distributed" in outside(tree) and room(name) not in ("rows", "cli")
    ]
    assert found == []


def test_a_file_is_read_in_one_sitting() -> None:
    long = {
        str(p.relative_to(PACKAGE)): n
        for p in PACKAGE.rglob("*.py")
        if (n := len(p.read_text().splitlines())) > LARGEST_FILE
    }
    assert long == {}


def test_a_function_fits_a_screen() -> None:
    long = {
        f"{module}.{node.name}": node.end_lineno - node.lineno + 1
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LARGEST_FUNCTION
    }
    assert long == {}


def test_no_property_only_raises() -> None:
    """What a kind of result cannot say it does not have."""
    found = [
        f"{module}.{node.name}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
        and isinstance(node.body[-1], ast.Raise)
        and all(isinstance(each, ast.Raise | ast.Expr) for each in node.body)
    ]
    assert found == []


def _names(tree: ast.AST) -> Iterator[str]:
    """Every name that a tree uses: variables, attributes, imports, words of short strings such as annotations."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


def _defined(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Functions, classes and constants of a module, and methods of classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("__"):
                    yield inner.name, inner
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and target.id != "__all__":
                yield target.id, node


def public_names() -> set[str]:
    """What users may call: the package's names, their methods and those of what they return, the data sets."""
    public = set(lrgls_dask.__all__)
    for name in (*lrgls_dask.__all__, "Bootstrap", "Pictures"):
        for node in CLASSES.get(name, ()):
            public |= _members(node)
    return public | {"load_french", "grunfeld_csv", "simulate_system", "main"}


def _members(node: ast.ClassDef) -> set[str]:
    """Names in the body of a class and of the classes it is made of."""
    own = {n.name for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
    bases = {ast.unparse(base).split(".")[-1].split("[")[0] for base in node.bases}
    for other in (each for base in bases for each in CLASSES.get(base, ())):
        if other is not node:
            own |= _members(other)
    return own


def test_nothing_is_used_by_tests_alone() -> None:
    used: Counter[str] = Counter()
    for module, tree in TREES.items():
        used.update(_names(tree))
        if module.endswith("__init__"):  # naming again is no use
            used.subtract(alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names)
    public = public_names()
    idle = []
    for module, tree in TREES.items():
        for name, node in _defined(tree):
            inside = Counter(_names(node))[name]
            if name not in public and used[name] - inside <= 0 and not name.startswith(("__", "_repr_")):
                idle.append(f"{module}.{name}")
    assert idle == []


# ---------------------------------------------------------------------------------------------- tests


def test_tests_have_the_rooms_of_the_package() -> None:
    """In the folder of their room, or beside the rooms under the name of one; those of the whole in `whole`, and those
    of other packages, run on this one, in `peers`."""
    files = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    alone = tuple(f"test_{name}{end}" for name in ROOMS for end in (".", "_"))
    beside = [file.name for file in files if len(file.parts) == 1 and not file.name.startswith(alone)]
    folders = {str(file.parent) for file in files if len(file.parts) > 1}
    assert beside == []
    assert folders - {*ROOMS, "whole", "peers"} == set()


def test_tests_share_by_support_alone() -> None:
    found = [
        f"{path.relative_to(TESTS)} -> {module}"
        for path in sorted(TESTS.rglob("*.py"))
        for module in sorted(modules_of(ast.parse(path.read_text(encoding="utf-8"))))
        if any(part == "conftest" or part.startswith("test_") for part in module.split("."))
    ]
    assert found == []


# One word, one meaning: what each may name, by the room and the names in which it stands.
GONE = {"nested", "assessed", "solved", "estimates", "covkinds"}
SCORES = re.compile(r"score|Score")
# The likelihood of new rows, in the public method and what it calls, and of segments left out.
OF_NEW_ROWS = {"score", "segment_score", "BandwidthScore", "held_out_scores", "scores"}


def test_words_that_meant_something_else_are_gone() -> None:
    files = {part for name in TREES for part in name.split(".")}
    defined = {name for tree in TREES.values() for name, _ in _defined(tree)}
    assert GONE & files == set()
    assert {name for name in defined if name.lower() in GONE} == set()


def test_a_score_is_a_likelihood_of_new_rows_or_of_factors() -> None:
    """Derivatives are gradients."""
    found = {
        f"{module}: {name}"
        for module, tree in TREES.items()
        for name in _names(tree)
        if SCORES.search(name) and "factor_score" not in name.lower() and "FactorScore" not in name
        if name not in OF_NEW_ROWS and "lrgls_dask" not in name
    }
    assert found == set()


def test_sigma_is_of_the_errors_and_cov_of_the_coefficients() -> None:
    """No folder or class is called after both; `covariance`, option and attribute, is the public name of Sigma."""
    classes = [node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if name == "Covariance" or name.startswith("Covariance")] == []
    assert "covariance" not in {room(name) for name in TREES}
