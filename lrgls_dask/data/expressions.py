"""What a factor of a formula says: which columns it reads, and what of them it has to know beyond one row.

A block of rows gives the columns of a model matrix only where every value depends on its own row, and on a state that
was fixed once. So a factor may read columns, calculate with them, and call what is listed here; whatever else would
depend on how rows are cut, as a mean or a cumulated sum does, and is refused with the way to have it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from formulaic.parser.types import Factor
from formulaic.utils.code import sanitize_variable_names

from lrgls_dask.checks import closest

__all__ = ["FactorRead", "read_factor"]

STATEFUL = frozenset(("center", "scale", "standardize", "poly", "bs", "cc", "cr", "cs"))
BY_ROW = frozenset(("log", "log10", "log2", "exp", "exp10", "exp2", "I"))
CODINGS = frozenset(("Treatment", "Poly", "Sum", "Helmert", "Diff"))
FUNCTIONS = STATEFUL | BY_ROW | {"C", "lag"}
NUMPY_BY_ROW = frozenset(("where", "clip", "round", "nan_to_num", "real_if_close", "sinc", "i0"))
FILLS = frozenset(("where", "isnan", "isfinite", "nan_to_num"))  # with which users say themselves what missing is
SIZED = frozenset(("poly", "bs", "cc", "cr", "cs"))
COUNTS = frozenset(("df", "degree"))  # what says of how many
MOST_COLUMNS = 1000  # that one call makes of one column
GRAMMAR = (
    ast.Expression,
    ast.Call,
    ast.Name,
    ast.Attribute,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.keyword,
    ast.Load,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
)


@dataclass(frozen=True)
class FactorRead:
    """A factor of a term.

    text : as formulaic writes it.  columns : of the frame, that it reads.  whole : it takes a state from all rows.
    coded : the whole factor is a category, C(...).  steps : by how many each of its lags goes back, to other rows of
    the same equation.
    asks : it compares, so that what is missing would count as a no.  plain : it is a column as it stands.
    given_levels : what C(..., levels=[...]) says, or None.  coded_column : the column that C(column, ...) codes.
    unlagged : columns that it reads at their own row.
    """

    text: str
    columns: tuple[str, ...]
    whole: bool = False
    coded: bool = False
    steps: tuple[int, ...] = ()
    asks: bool = False
    plain: bool = False
    given_levels: tuple[object, ...] | None = None
    coded_column: str | None = None
    unlagged: tuple[str, ...] = ()

    @property
    def lags(self) -> bool:
        """Whether it reads other rows than its own."""
        return bool(self.steps)

    @property
    def reach(self) -> tuple[int, int]:
        """How many rows before and after a row it reads at most, one lag within another."""
        return sum(n for n in self.steps if n > 0), -sum(n for n in self.steps if n < 0)


def read_factor(factor: Factor, formula: str) -> FactorRead:
    """What a factor reads; of a number such as 1, nothing.

    formula : it stands in, for messages. Raises ValueError for what blocks of rows cannot give.
    """
    kind = factor.eval_method.value
    if kind == "literal":
        return FactorRead(factor.expr, ())
    if kind == "lookup":
        return FactorRead(factor.expr, (factor.expr,), plain=True, unlagged=(factor.expr,))
    return _read(factor.expr, formula)


@lru_cache(maxsize=4096)
def _read(text: str, formula: str) -> FactorRead:
    aliases: dict[str, str] = {}
    try:
        tree = ast.parse(sanitize_variable_names(text, {}, aliases), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"formula {formula!r}: {text!r} is no expression ({error.msg}). Mend it.") from None
    _check_grammar(tree, text, formula)
    columns = tuple(dict.fromkeys(aliases.get(name, name) for name in _columns(tree)))
    unlagged = tuple(dict.fromkeys(aliases.get(name, name) for name in _columns(tree, through_lags=False)))
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [node.func.id for node in called if isinstance(node.func, ast.Name)]
    lags = [node for node in called if isinstance(node.func, ast.Name) and node.func.id == "lag"]
    if not columns:
        raise ValueError(f"formula {formula!r}: {text!r} reads no column of the frame. Write 1 for a constant.")
    fills = any(isinstance(node, ast.Attribute) and node.attr in FILLS for node in ast.walk(tree))
    top = tree.body
    coded = isinstance(top, ast.Call) and isinstance(top.func, ast.Name) and top.func.id == "C"
    if "C" in calls and not coded:
        raise ValueError(f"formula {formula!r}: {text!r} calculates with a category. Let C(...) stand alone.")
    given, of_column = _coding(top, aliases, text, formula) if coded and isinstance(top, ast.Call) else (None, None)
    return FactorRead(
        text,
        columns,
        whole=any(name in STATEFUL for name in calls),
        coded=coded,
        steps=tuple(n for n in map(lag_steps, lags) if n is not None),
        asks=not fills and any(isinstance(node, ast.Compare) for node in ast.walk(tree)),
        given_levels=given,
        coded_column=of_column,
        unlagged=unlagged,
    )


def _columns(node: ast.AST, *, through_lags: bool = True) -> Iterator[str]:
    """Names that stand for columns: all but those of functions, modules and codings."""
    if isinstance(node, ast.Name):
        if node.id not in CODINGS:
            yield node.id
        return
    if isinstance(node, ast.Attribute):
        return
    if isinstance(node, ast.Call):
        if not through_lags and isinstance(node.func, ast.Name) and node.func.id == "lag":
            return
        inside: Sequence[ast.AST] = [*node.args, *(each.value for each in node.keywords)]
    else:
        inside = list(ast.iter_child_nodes(node))
    for child in inside:
        yield from _columns(child, through_lags=through_lags)


def _check_grammar(tree: ast.Expression, text: str, formula: str) -> None:
    where = f"formula {formula!r}: {text!r}"
    for node in ast.walk(tree):
        if not isinstance(node, GRAMMAR):
            raise ValueError(
                f"{where} is more than calculation with columns and calls of functions ({type(node).__name__}). Make "
                "a column of the frame that holds it, and name that."
            )
        if isinstance(node, ast.Call):
            _check_call(node, where)
        if isinstance(node, ast.BinOp):
            _check_constants(node, where)
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in _MODULES):
            raise ValueError(f"{where} asks a column for {node.attr!r}. {_BY_ROW_ONLY}")


_MODULES = ("np", "contr")
_BY_ROW_ONLY = (
    "What a row gets may depend on that row alone, as np.log(x) does, or on what center, scale, poly, bs, cr and cc "
    "keep of the whole column. Make a column of the frame that holds it, and name that."
)


def _check_call(node: ast.Call, where: str) -> None:
    function = node.func
    if isinstance(function, ast.Attribute):
        if not isinstance(function.value, ast.Name) or function.value.id not in _MODULES:
            raise ValueError(f"{where} calls the method {function.attr!r}. {_BY_ROW_ONLY}")
        if function.value.id == "np":
            _check_numpy(node, function.attr, where)
        return
    if not isinstance(function, ast.Name):
        raise ValueError(f"{where} calls what is no function. {_BY_ROW_ONLY}")
    name = function.id
    if name == "offset":
        raise ValueError(
            f"{where} is an offset, a regressor whose coefficient is 1. Take it from the response, as in "
            "'I(y - z) ~ x'; or write it as a regressor, and pass restrictions that set its coefficient to 1."
        )
    if name == "Q":
        raise ValueError(f"{where}: Q(...) is not needed. Write names that are no words of Python in backticks.")
    if name not in FUNCTIONS | CODINGS:
        raise ValueError(
            f"{where} calls {name!r}, which formulas do not have{closest(name, FUNCTIONS)} They have "
            f"{', '.join(sorted(FUNCTIONS))}, and the functions of np that take each row by itself. Or make a column "
            "of the frame that holds it, and name that."
        )
    if name in SIZED:
        _check_size(node, where)
    if name == "lag":
        _check_lag(node, where)
    if name in STATEFUL and any(
        isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "lag"
        for argument in node.args
        for inner in ast.walk(argument)
    ):
        raise ValueError(f"{where}: {name}(lag(...)) takes a state from lagged values. Write lag({name}(...)).")


def _check_numpy(node: ast.Call, name: str, where: str) -> None:
    """Raise ValueError for a function of np that does not take each row by itself, or writes into what it is given."""
    if not _is_by_row(name):
        raise ValueError(f"{where} calls np.{name}. {_BY_ROW_ONLY}")
    function = getattr(np, name)
    if not isinstance(function, np.ufunc):
        return
    if len(node.args) > function.nin or node.keywords:
        raise ValueError(
            f"{where} gives np.{name} more than the {function.nin} it takes of a row, such as a place to write into. "
            f"Give it {function.nin}."
        )


def _check_size(node: ast.Call, where: str) -> None:
    """Raise ValueError for more columns than any regression has use for, before they are made."""
    counts = [each.value for each in node.keywords if each.arg in COUNTS]
    for given in (*node.args[1:], *counts):
        known = given.value if isinstance(given, ast.Constant) else None
        if isinstance(given, ast.BinOp) or (isinstance(known, int | float) and known > MOST_COLUMNS):
            raise ValueError(
                f"{where} asks for {ast.unparse(given)} columns. Write a number of at most {MOST_COLUMNS}."
            )


def _check_constants(node: ast.BinOp, where: str) -> None:
    """Raise ValueError for arithmetic without columns that may not end: powers of powers, texts that are multiplied."""
    parts = list(_operands(node))
    if any(isinstance(each, ast.Constant) and isinstance(each.value, str | bytes) for each in parts):
        raise ValueError(f"{where} calculates with a text. Compare with texts, and calculate with numbers.")
    if isinstance(node.op, ast.Pow | ast.LShift) and all(isinstance(each, ast.Constant) for each in parts):
        exponent = node.right.value if isinstance(node.right, ast.Constant) else None
        if not isinstance(node.left, ast.Constant) or not isinstance(exponent, int | float) or exponent > 999:
            raise ValueError(f"{where} has a power of numbers alone that may have no end. Write it as a number.")


def _operands(node: ast.expr) -> Iterator[ast.expr]:
    """What arithmetic is done with: columns, numbers, calls, comparisons."""
    if isinstance(node, ast.BinOp):
        yield from _operands(node.left)
        yield from _operands(node.right)
    elif isinstance(node, ast.UnaryOp):
        yield from _operands(node.operand)
    else:
        yield node


def lag_steps(node: ast.Call) -> int | None:
    """By how many steps a call of lag goes back; None where it does not say it with one whole number."""
    given = [*node.args[1:], *(each.value for each in node.keywords)]
    if not given:
        return 1
    try:
        steps = ast.literal_eval(given[0])
    except ValueError:
        return None
    return steps if len(given) == 1 and isinstance(steps, int) and not isinstance(steps, bool) and steps else None


def _check_lag(node: ast.Call, where: str) -> None:
    if not node.args or lag_steps(node) is None:
        raise ValueError(f"{where}: lag(x, n) takes a column and by how many steps, a whole number but 0.")


def _is_by_row(name: str) -> bool:
    return name in NUMPY_BY_ROW or isinstance(getattr(np, name, None), np.ufunc)


def _coding(
    call: ast.Call, aliases: dict[str, str], text: str, formula: str
) -> tuple[tuple[object, ...] | None, str | None]:
    """The levels that C(...) says, and the column that it codes as it stands."""
    given = next((each.value for each in call.keywords if each.arg == "levels"), None)
    levels = None
    if given is not None:
        try:
            levels = tuple(ast.literal_eval(given))
        except (ValueError, TypeError):
            raise ValueError(f"formula {formula!r}: levels in {text!r} must be a list of values.") from None
    first = call.args[0] if call.args else None
    return levels, aliases.get(first.id, first.id) if isinstance(first, ast.Name) else None
