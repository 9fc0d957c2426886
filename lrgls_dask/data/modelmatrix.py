"""Model matrices of blocks of rows: what formulaic makes of all rows at once, whatever the cut.

What all rows decide together is fixed once, in an `Encoding`: which columns are categories and their levels, what
center, scale, poly and splines keep of a column, and with it the names of the columns. A block then depends on its own
rows alone. Encodings are plain values, kept with fits as JSON.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from formulaic import ModelSpec, SimpleFormula
from formulaic.errors import FormulaicError
from formulaic.materializers import PandasMaterializer
from formulaic.materializers.types import FactorValues
from formulaic.model_spec import ModelSpecs
from formulaic.parser.types import Factor, Term
from formulaic.transforms import C

from lrgls_dask.checks import shown
from lrgls_dask.data.expressions import FactorRead
from lrgls_dask.data.formulas import Formulas, Sided
from lrgls_dask.data.tables import Kind, as_kind, unknown_level

__all__ = ["Block", "Columns", "Encoding", "Shift", "n_rows_of", "put_columns", "same_row"]

Columns: TypeAlias = pd.DataFrame | Mapping[str, Any]
"""Some rows, by column: a frame, or arrays of NumPy and pandas."""
SLAB_BYTES = 2**20  # of rows that are filled column by column

Shift = Callable[[int], np.ndarray]
"""By how many steps -> (n,) where the row that many steps before each row is, -1 where there is none."""


def n_rows_of(raw: Columns) -> int:
    """How many rows these are."""
    return len(raw) if isinstance(raw, pd.DataFrame) else len(next(iter(raw.values())))


def put_columns(out: np.ndarray, columns: Sequence[np.ndarray]) -> None:
    """Columns (n,) of numbers side by side into out (n, c), a few rows at a time, which stay in the cache meanwhile."""
    step = max(1, SLAB_BYTES // max(1, out.strides[0]))
    for start in range(0, len(out), step):
        rows = slice(start, start + step)
        for i, column in enumerate(columns):
            out[rows, i] = column[rows]


def same_row(n_rows: int) -> Shift:
    """Lags of rows whose neighbours are not at hand: for levels and states, which are those of the column itself."""
    return lambda steps: np.arange(n_rows)


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of the model matrices.

    x : (n, q) the distinct columns of all formulas.  y : response -> (n,).
    """

    x: np.ndarray
    y: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Encoding:
    """What is fixed of formulas before a block of rows is looked at.

    kinds : of the columns that are read.  levels : of those that are categories.  coded : of factors C(...).
    states : what transforms keep, as formulaic names them.  named : for each right side the names of its columns.
    """

    formulas: Formulas
    kinds: Mapping[str, Kind]
    levels: Mapping[str, tuple[Any, ...]]
    coded: Mapping[str, tuple[Any, ...]]
    states: Mapping[str, dict[str, Any]]
    named: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """(q,) the distinct columns, in the order in which formulas name them."""
        return tuple(dict.fromkeys(name for names in self.named for name in names))

    @cached_property
    def places(self) -> tuple[np.ndarray, ...]:
        """For each right side where its columns lie among the distinct ones."""
        at = {name: i for i, name in enumerate(self.names)}
        return tuple(np.array([at[name] for name in names], dtype=np.intp) for names in self.named)

    @cached_property
    def plain(self) -> tuple[str | None, ...] | None:
        """(q,) the columns of numbers that the distinct columns are, None for a constant 1; None where any is another,
        for which formulaic is asked."""
        if not all(map(self._is_plain, self.formulas.rights, self.named)):
            return None
        return tuple(name if name in self.kinds else None for name in self.names)

    def _is_plain(self, formula: SimpleFormula, names: tuple[str, ...]) -> bool:
        """Whether each term of a right side is a column of numbers by its own name, or the intercept."""
        alone = [term.factors[0] for term in formula if len(term.factors) == 1]
        if len(alone) != len(formula) or len(names) != len(alone):
            return False
        return all(
            factor.expr == name and self.kinds[name] == "number"
            if factor.eval_method is Factor.EvalMethod.LOOKUP
            else (factor.expr, name) == ("1", "Intercept") and name not in self.kinds
            for factor, name in zip(alone, names, strict=True)
        )

    def number(self, raw: Columns, name: str) -> np.ndarray:
        """(n,) a column of numbers as it is."""
        found = raw[name]
        if isinstance(found, np.ndarray) and found.dtype.kind in "fiu":
            return found
        series = found if isinstance(found, pd.Series) else pd.Series(found)
        return np.asarray(as_kind(name, series, self.kinds.get(name, "number"), self.levels.get(name)))

    def columns_of(self, raw: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        """These columns of some rows, of the kinds and levels that are fixed."""
        made = {name: as_kind(name, raw[name], self.kinds[name], self.levels.get(name)) for name in names}
        frame = pd.DataFrame(made, pd.RangeIndex(len(raw)), copy=False)
        frame.columns = pd.Index(list(made), dtype=object)  # in which names are found sooner than in one of text
        return frame

    def block(self, raw: Columns, shift: Shift, *, responses: bool = True) -> Block:
        """The model matrices of some rows. Raises ValueError for what the formulas cannot take, naming it."""
        y = self.responses(raw, shift, self.formulas.responses) if responses else {}
        x = np.empty((n_rows_of(raw), len(self.names)))
        self.fill(x, raw, shift)
        return Block(x, y)

    def fill(self, x: np.ndarray, raw: Columns, shift: Shift) -> None:
        """Write the distinct columns of some rows into x (n, q). Raises as `block` does.

        raw : a frame; or arrays, where the columns are `plain`.
        """
        if self.plain is not None:
            one = np.ones(len(x))
            put_columns(x, [one if name is None else self.number(raw, name) for name in self.plain])
            return
        assert isinstance(raw, pd.DataFrame)
        found = self._materialised(self.columns_of(raw, self.formulas.regressor_columns), shift, self.formulas.rights)
        done = np.zeros(len(self.names), dtype=bool)
        for values, places in zip(found, self.places, strict=True):
            new = ~done[places]
            if new.all() and len(new) == len(done):
                x[...] = values
            else:
                x[:, places[new]] = values[:, new]
            done[places] = True

    def lost(self, raw: Columns, shift: Shift) -> np.ndarray:
        """(formulas, n) which rows lack a regressor of each right side.  raw : as of `fill`."""
        lost = np.zeros((len(self.places), n_rows_of(raw)), dtype=bool)
        if self.plain is None:
            x = self.block(raw, shift, responses=False).x
            for i, places in enumerate(self.places):
                lost[i] = np.isnan(x[:, places]).any(axis=1)
            return lost
        for c, name in enumerate(self.plain):
            missing = np.isnan(self.number(raw, name)) if name is not None else np.zeros(1, dtype=bool)
            if missing.any():
                for i, places in enumerate(self.places):
                    lost[i] |= missing & (c in places)
        return lost

    def responses(self, raw: Columns, shift: Shift, wanted: Sequence[FactorRead]) -> Mapping[str, np.ndarray]:
        """Some of the responses -> (n,), of rows that need show the columns of these only. Raises as `block` does.

        raw : a frame; or arrays, where all responses are columns as they are.
        """
        y = {each.text: np.asarray(self.number(raw, each.text), dtype=np.float64) for each in wanted if each.plain}
        made = {each.text: each for each in wanted if not each.plain}
        if made:
            assert isinstance(raw, pd.DataFrame)
            names = dict.fromkeys(name for each in made.values() for name in each.columns)
            formula = SimpleFormula([Term([self._left[text]]) for text in made])
            (found,) = self._materialised(self.columns_of(raw, list(names)), shift, [formula], tuple(made))
            y |= dict(zip(made, found.T.astype(np.float64), strict=True))
        return y

    @cached_property
    def _left(self) -> Mapping[str, Factor]:
        """The factors of responses."""
        return {factor.expr: factor for one in self.formulas.sided for factor in one.left}

    def _materialised(
        self, columns: pd.DataFrame, shift: Shift, wanted: Sequence[SimpleFormula], named: tuple[str, ...] = ()
    ) -> list[np.ndarray]:
        """The matrix of each formula.  named : of responses, what the columns of the last must be."""
        materializer = self._materializer(columns, shift)
        with _in_our_words(self.formulas.sided):
            made = materializer.get_model_matrix(ModelSpecs(tuple(self._spec(each) for each in wanted)))
        if named:
            _check_responses(made[-1].model_spec.column_names, named)
        lost = self._lost(materializer, columns)
        return [_without(each, lost) for each in made]

    def _lost(self, materializer: PandasMaterializer, columns: pd.DataFrame) -> dict[str, np.ndarray]:
        """Factor -> (n,) whether a row has no value of it, where formulaic takes that for another value: of categories
        for none of them, of comparisons for a no."""
        read = {each.text: each for each in self.formulas.factors}
        lost = {}
        for text, factor in materializer.factor_cache.items():
            rows = np.zeros(len(columns), dtype=bool)
            if factor.metadata.kind is Factor.Kind.CATEGORICAL:
                rows |= _as_series(factor.values).isna().to_numpy()
            if text in read and read[text].asks:
                rows |= columns[list(read[text].columns)].isna().any(axis=1).to_numpy()
            lost[text] = rows
        return {text: rows for text, rows in lost.items() if rows.any()}

    def _spec(self, formula: SimpleFormula) -> ModelSpec:
        category = Factor.Kind.CATEGORICAL
        return ModelSpec(
            formula=formula,
            na_action="ignore",
            output="numpy",
            transform_state=copy.deepcopy(dict(self.states)),
            encoder_state={text: (category, {"categories": list(levels)}) for text, levels in self.coded.items()},
        )

    def _materializer(self, columns: pd.DataFrame, shift: Shift) -> PandasMaterializer:
        def lag(values: Any, n: int = 1, **named: int) -> Any:
            return _lagged(values, shift(next(iter(named.values()), n)))

        return PandasMaterializer(columns, context={"lag": lag, "C": _coded})

    # ------------------------------------------------------------------------------------------ what all rows decide

    def with_states(self, of_factor: Mapping[str, pd.DataFrame], sample: pd.DataFrame) -> Encoding:
        """With the states of factors that need all rows, and the names of all columns.

        of_factor : for each such factor the columns that it reads, raw: all their rows, or, for levels, the distinct
        ones.  sample : a few rows of the columns that regressors read.
        """
        states: dict[str, dict[str, Any]] = {}
        coded = dict(self.coded)
        for each in self.formulas.factors:
            if each.text in of_factor:
                state, levels = self._state_of(each, of_factor[each.text])
                states |= state
                if each.coded:
                    coded[each.text] = levels
        made = Encoding(self.formulas, self.kinds, self.levels, coded, states)
        columns = made.columns_of(sample, made.formulas.regressor_columns)
        with _in_our_words(self.formulas.sided):
            materializer = made._materializer(columns, same_row(len(columns)))
            built = [materializer.get_model_matrix(made._spec(one)) for one in self.formulas.rights]
        named = tuple(tuple(map(str, each.model_spec.column_names)) for each in built)
        return Encoding(self.formulas, self.kinds, self.levels, coded, states, named)

    def _state_of(self, each: FactorRead, raw: pd.DataFrame) -> tuple[dict[str, Any], tuple[Any, ...]]:
        columns = self.columns_of(raw[raw[list(each.columns)].notna().all(axis=1)], each.columns)
        if columns.empty:
            raise ValueError(f"{each.text!r} has no values: {shown(each.columns)} are missing in every row. Drop it.")
        formula = SimpleFormula([Term([Factor(each.text, eval_method="python")])])
        with _in_our_words(self.formulas.sided):
            materializer = self._materializer(columns, same_row(len(columns)))
            spec = materializer.get_model_matrix(self._spec(formula)).model_spec
        levels = spec.encoder_state[each.text][1].get("categories", ())
        return {key: value for key, value in spec.transform_state.items() if value}, tuple(levels)


def _check_responses(names: Sequence[str], wanted: Sequence[str]) -> None:
    if tuple(names) != tuple(wanted):
        odd = next((name for name in names if name not in wanted), names[-1] if names else "nothing")
        raise ValueError(
            f"a response must be one column of numbers, but {shown(wanted)} give {odd!r}. Calculate it from columns of "
            "numbers."
        )


def _without(matrix: Any, lost: Mapping[str, np.ndarray]) -> np.ndarray:
    """The values of a model matrix, NaN in the columns of terms that rows have no value of."""
    values = np.asarray(matrix)
    if not lost:
        return values
    values = values.astype(np.float64)
    start = 0
    for term, _, names in matrix.model_spec.structure:
        for factor in term.factors:
            if factor.expr in lost:
                values[lost[factor.expr], start : start + len(names)] = np.nan
        start += len(names)
    return values


def _lagged(values: Any, rows: np.ndarray) -> Any:
    """The values of these rows, NaN where there is none."""
    there = rows >= 0
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        codes = np.where(there, values.cat.codes.to_numpy()[rows], -1)
        return pd.Series(pd.Categorical.from_codes(codes, dtype=values.dtype))
    return np.where(there, np.asarray(values).astype(np.float64)[rows], np.nan)


def _coded(data: Any, *args: Any, **named: Any) -> FactorValues:
    """Formulaic's C, to which a level that is not known is an error rather than a value that is missing."""
    made = C(data, *args, **named)
    encoder = made.__formulaic_metadata__.encoder

    def checked(values: Any, reduced_rank: bool, drop_rows: list[int], encoder_state: Any, model_spec: Any) -> Any:
        known = encoder_state.get("categories")
        if known is not None:
            given = _as_series(values)
            missing = given.isna()
            odd = ~(missing | given.isin(list(known))).to_numpy()
            if odd.any():
                raise _UnknownLevel(given.iloc[int(odd.argmax())], int(odd.argmax()), tuple(known))
            if missing.any():  # which formulaic would take for an unknown level; these rows have no value in the end
                values = given.where(~missing, known[0])
        return encoder(values, reduced_rank, drop_rows, encoder_state, model_spec)

    return FactorValues(made, encoder=checked)


def _as_series(values: Any) -> pd.Series:
    return pd.Series(getattr(values, "__wrapped__", values)).reset_index(drop=True)


class _UnknownLevel(ValueError):
    """A value, its row, and the levels that it is none of."""


@contextmanager
def _in_our_words(formulas: Sequence[Sided]) -> Iterator[None]:
    """Whatever formulaic cannot evaluate becomes a ValueError with the formula."""
    try:
        yield
    except _UnknownLevel as error:
        raise _of_factor(error, formulas) from None
    except (FormulaicError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        text = formulas[0].text if len(formulas) == 1 else f"{formulas[0].text}, ..."
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ValueError(
            f"formula {text!r} cannot be evaluated on the frame: {reason}. Calculate with columns of numbers, and call "
            "transforms with values that fit the data; or make a column of the frame that holds it."
        ) from error


def _of_factor(error: _UnknownLevel, formulas: Sequence[Sided]) -> ValueError:
    """The same error with the factor's text, as far as it can be told by its levels."""
    value, row, levels = error.args
    coded = [each for one in formulas for each in one.regressors if each.coded]
    text = coded[0].text if len({each.text for each in coded}) == 1 else "C(...)"
    return unknown_level(repr(text), value, row, levels, coded[0].columns[0])
