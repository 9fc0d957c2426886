"""Anderson acceleration of a map that lowers a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np

__all__ = ["KEPT", "Anderson", "Space"]

# Differences kept: deeper gained nothing on factor-structured data.  Ridge of the least squares, relative to its
# largest singular value squared: smaller lets nearly parallel differences through, larger slows the last digits.
DEPTH, RIDGE = 8, 1e-10
KEPT = ("points", "images", "value", "returned")  # of `Anderson.marks`


P = TypeVar("P")


@dataclass(frozen=True, eq=False)
class Anderson:
    """The points a map has been applied to and their images, of which the next point is made; a new one every time.

    points, images : the last depth + 1 accepted vectors and their images under the map; value : at the last of them.
    forgets : whether a refusal drops all but the last: right where points far behind mislead, as those of EM do; wrong
    where the value may rise on the way, as the distance still to go may.
    returned : whether it goes on from the last image because a point was refused.
    Type II, Walker & Ni (2011), equation 2.2, regularised least squares; memory 2 (depth + 1) vectors.
    """

    depth: int = DEPTH
    points: tuple[np.ndarray, ...] = field(default=())
    images: tuple[np.ndarray, ...] = field(default=())
    value: float = np.inf
    forgets: bool = True
    returned: bool = False

    @property
    def marks(self) -> dict[str, Any]:
        """What a checkpoint keeps: the points and images, each (m, n), 2 (depth + 1) n numbers at most."""
        vectors = {"points": np.stack(self.points), "images": np.stack(self.images)}
        return vectors | {"value": self.value, "returned": self.returned}

    def of(self, marks: Mapping[str, Any]) -> Anderson:
        """The same extrapolation with what was kept."""
        points, images = tuple(marks["points"]), tuple(marks["images"])
        value, returned = float(marks["value"]), bool(marks["returned"])
        return replace(self, points=points, images=images, value=value, returned=returned)

    @property
    def plain(self) -> bool:
        """Where it leads next is the last image itself, which the map guarantees is no worse."""
        return self.returned or len(self.points) <= 1

    def refuses(self, value: float, slack: float = 0.0) -> bool:
        """Whether a point of this value is no step forward; a plain one has nothing to be compared with."""
        return not (self.plain or value <= self.value + slack)

    def accepted(self, point: np.ndarray, image: np.ndarray, value: float) -> Anderson:
        """With one more point, its image and its value."""
        keep = self.depth + 1
        points, images = (*self.points, point)[-keep:], (*self.images, image)[-keep:]
        return replace(self, points=points, images=images, value=value, returned=False)

    def refused(self) -> Anderson:
        """Back at the last accepted point: it leads on to that point's image."""
        if not self.forgets:
            return replace(self, returned=True)
        return replace(self, points=self.points[-1:], images=self.images[-1:], returned=True)

    def ahead(self, metric: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """image - (change of images) gamma, gamma minimising |residual - (change of residuals) gamma|^2 + ridge.

        metric : from residuals (m, n) to coordinates of equal weight; None where they have that.
        """
        if self.plain:
            return self.images[-1]
        images = np.stack(self.images)
        residuals = images - np.stack(self.points)
        residuals = residuals if metric is None else metric(residuals)
        changes = np.diff(residuals, axis=0)
        U, s, Vt = np.linalg.svd(changes, full_matrices=False)
        if s[0] == 0.0:
            return self.images[-1]
        gamma = U @ (s / (s**2 + RIDGE * s[0] ** 2) * (Vt @ residuals[-1]))
        return np.asarray(images[-1] - gamma @ np.diff(images, axis=0))


@dataclass(frozen=True, eq=False)
class Space(Generic[P]):
    """Where points are extrapolated. vector : of a point, in coordinates of equal weight.  at : the point of a vector,
    near the one given or that very one.  start : an extrapolation that knows of no point yet.

    metric : where the weights change on the way, to coordinates of equal weight at a point from changes (m, n) of
    vectors.
    """

    vector: Callable[[P], np.ndarray]
    at: Callable[[np.ndarray, P], P]
    start: Anderson
    metric: Callable[[np.ndarray, P], np.ndarray] | None = None

    def ahead(self, anderson: Anderson, image: P) -> P:
        """The point to which those of an extrapolation lead, image the last image."""
        metric = self.metric
        if metric is None:
            return self.at(anderson.ahead(), image)
        return self.at(anderson.ahead(lambda changes: metric(changes, image)), image)
