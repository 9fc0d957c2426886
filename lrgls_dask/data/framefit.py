"""The formulas that a system was made by, kept with it and its fits: they make the same columns of other frames."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrgls_dask.data.assemble import Use, build_design
from lrgls_dask.data.formulas import Formulas
from lrgls_dask.data.framelook import labels_of_rows, pieces_of, whole_columns
from lrgls_dask.data.labels import RowLabels
from lrgls_dask.data.longframes import Placing, cells_of
from lrgls_dask.data.modelmatrix import Encoding
from lrgls_dask.data.storedlabels import labels_from_json, labels_to_json
from lrgls_dask.data.tables import column_names
from lrgls_dask.data.wideframes import WideColumns, wide_rows
from lrgls_dask.design.design import Design
from lrgls_dask.rows.rows import Part

__all__ = [
    "FittedFormulas",
    "FrameRows",
    "check_same_states",
    "design_of",
    "design_of_long",
    "read_formulas",
    "write_formulas",
]

VERSION = 1


@dataclass(frozen=True, eq=False)
class FrameRows:
    """Unread rows of a frame in columns of regressors, and of responses where these were asked for."""

    x: Part
    y: tuple[Part, ...]
    design: Design
    labels: RowLabels | None


@dataclass(frozen=True, eq=False)
class FittedFormulas:
    """Formulas with all that was fixed by the fitted frame; it needs that frame no more.

    of : for each equation which label of the formulas it has.  obs, equation : the columns that say what a row is.
    """

    encoding: Encoding
    of: tuple[int, ...]
    obs: str | None = None
    equation: str | None = None

    def lacking(self, frame: Any) -> list[str]:
        """Columns that regressors need and the frame does not have."""
        known = set(column_names(frame))
        keys = [] if self.equation is None else [str(self.obs), self.equation]
        return [name for name in (*keys, *self.encoding.formulas.regressor_columns) if name not in known]

    def shows_responses(self, frame: Any) -> bool:
        """Whether the frame has the columns of the responses too."""
        return set(self.encoding.formulas.columns) <= set(column_names(frame))

    def rows(self, frame: Any, equations: Sequence[Hashable], *, responses: bool) -> FrameRows:
        """The rows of another frame, for these equations; what is missing in it is NaN, and so are cells it lacks.

        responses : whether to have those too; the frame then needs their columns.
        Raises ValueError for columns and levels that do not fit, naming them.
        """
        if self.equation is not None:
            return self._long(frame, equations, responses=responses)
        formulas = self.encoding.formulas
        keys = [name for name in (self.obs,) if name is not None and name in column_names(frame)]
        wanted = formulas.columns if responses else formulas.regressor_columns
        pieces = pieces_of(frame, [*wanted, *keys])
        index, labels = pieces.labels(keys)
        named = labels_of_rows("the data", index, labels[self.obs] if keys else None, self.obs, pieces.labelled)
        columns = WideColumns(self.encoding, self.of if responses else (), (), "keep")
        found = wide_rows(pieces, tuple(map(len, index)), columns, None if named is None else named.read())
        y = (found.part("the data", found.y),) if responses else ()
        design = design_of(self.encoding, self.of, equations)
        return FrameRows(found.part("the data", found.x), y, design, named)

    def _long(self, frame: Any, equations: Sequence[Hashable], *, responses: bool) -> FrameRows:
        """Each equation has columns of its own: a cell that the frame lacks is NaN in all of them."""
        formulas, obs, equation = self.encoding.formulas, str(self.obs), str(self.equation)
        wanted = formulas.columns if responses else formulas.regressor_columns
        raw = whole_columns(frame, [obs, equation, *wanted])
        cells = cells_of(raw, obs, equation, equations)
        block = self.encoding.block(raw, cells.lags, responses=responses)
        uses = [self.encoding.places[formulas.right[i]] for i in self.of]
        placing = Placing.of(uses, self.encoding.names, np.zeros(len(self.encoding.names), dtype=bool))
        design = design_of_long(placing, equations)
        y = (Part("the data", cells.spread(self.response(block.y, cells.column), np.nan), None),) if responses else ()
        labels = RowLabels("the data", cells.obs, "", "", obs)
        return FrameRows(Part("the data", placing(cells, block.x), None), y, design, labels)

    def response(self, y: Mapping[str, np.ndarray], column: np.ndarray) -> np.ndarray:
        """(L,) the response of each cell of a long frame, which may be another one in each equation."""
        texts = [self.encoding.formulas.responses[i].text for i in self.of]
        values = y[texts[0]].copy()
        for text in set(texts[1:]) - {texts[0]}:
            mine = np.array([each == text for each in texts])[column]
            values[mine] = y[text][mine]
        return values

    # ------------------------------------------------------------------------------------------ files

    def to_json(self) -> str:
        """A JSON document."""
        encoding, formulas = self.encoding, self.encoding.formulas
        return json.dumps(
            {
                "version": VERSION,
                "labels": labels_to_json(formulas.labels, "equation labels"),
                "formulas": formulas.to_json(),
                "kinds": dict(encoding.kinds),
                "levels": {name: _levels_to_json(each) for name, each in encoding.levels.items()},
                "coded": {name: _levels_to_json(each) for name, each in encoding.coded.items()},
                "states": _plain(encoding.states),
                "named": encoding.named,
                "of": self.of,
                "obs": self.obs,
                "equation": self.equation,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> FittedFormulas:
        """What `to_json` wrote. Raises ValueError for what a later version wrote."""
        known = json.loads(text)
        if known["version"] > VERSION:
            raise ValueError("the formulas were saved by a later version of this package. Update it.")
        encoding = Encoding(
            Formulas.from_json(labels_from_json(known["labels"]), known["formulas"]),
            known["kinds"],
            {name: _levels_from_json(each) for name, each in known["levels"].items()},
            {name: _levels_from_json(each) for name, each in known["coded"].items()},
            _restored(known["states"]),
            tuple(map(tuple, known["named"])),
        )
        return cls(encoding, tuple(known["of"]), known["obs"], known["equation"])


def check_same_states(one: FittedFormulas | None, other: FittedFormulas | None) -> None:
    """Raise ValueError where two systems were made with transforms that keep another state: columns of equal name that
    are not the same. Levels show in the names."""
    if one is None or other is None:
        return
    mine, theirs = (json.loads(json.dumps(_plain(each.encoding.states)))["map"] for each in (one, other))
    odd = [key for key, value in mine if dict(theirs).get(key, value) != value]
    if odd:
        raise ValueError(
            f"the systems differ in what {odd[0]!r} keeps of the whole column, its mean and the like, since each was "
            "made of its own frame. Make the second with the formulas of the first: "
            "System.from_frame(frame, first.formulas)."
        )


def write_formulas(group: Any, formulas: FittedFormulas | None) -> None:
    """The formulas that the columns were made by, where there are any."""
    if formulas is not None:
        group.attrs["formulas"] = formulas.to_json()


def read_formulas(group: Any) -> FittedFormulas | None:
    """The formulas that `write_formulas` wrote, None where there are none."""
    known = group.attrs.get("formulas")
    return None if known is None else FittedFormulas.from_json(str(known))


def design_of(encoding: Encoding, of: Sequence[int], equations: Sequence[Hashable]) -> Design:
    """Which equation uses which of the distinct columns of an encoding."""
    uses = [
        [Use(0, places, names)] for places, names in zip(encoding.places, encoding.named, strict=True)
    ]  # equations of one formula share theirs
    each = [uses[encoding.formulas.right[label]] for label in of]
    return build_design(tuple(equations), [len(encoding.names)], each, encoding.names)


def design_of_long(placing: Placing, equations: Sequence[Hashable]) -> Design:
    """Which equation uses which column of the rows of a long frame."""
    own: list[list[Use]] = [[Use(0, used, terms)] for used, terms in zip(placing.used, placing.terms, strict=True)]
    return build_design(tuple(equations), [placing.width], own)


def _levels_to_json(levels: Sequence[Any]) -> list[Any]:
    """Labels, and the intervals that pd.cut makes."""
    return [
        {"between": labels_to_json([each.left, each.right], "levels"), "closed": each.closed}
        if isinstance(each, pd.Interval)
        else labels_to_json([each], "levels")[0]
        for each in levels
    ]


def _levels_from_json(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        pd.Interval(*labels_from_json(each["between"]), each["closed"])
        if isinstance(each, dict) and "between" in each
        else labels_from_json([each])[0]
        for each in values
    )


def _plain(value: Any) -> Any:
    """What transforms keep, as JSON has it."""
    if isinstance(value, Mapping):
        return {"map": [[key, _plain(each)] for key, each in value.items()]}
    if isinstance(value, np.ndarray):
        return {"array": value.ravel().tolist(), "shape": value.shape, "dtype": value.dtype.str}
    if isinstance(value, list | tuple):
        return {"list": [_plain(each) for each in value]}
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "map" in value:
        return {key: _restored(each) for key, each in value["map"]}
    if "list" in value:
        return [_restored(each) for each in value["list"]]
    return np.array(value["array"], dtype=value["dtype"]).reshape(value["shape"])
