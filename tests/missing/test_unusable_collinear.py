"""An equation whose own regressors are collinear is skipped as those are that cannot be estimated for other reasons."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import MemoryStore

from lrgls_dask import Fit, FitWarning, LowRankGLS, System, TimeVarying
from lrgls_dask.solve.checkpoint import Checkpoint
from support.unusable import check_same

N, NAMES, GOOD = 160, ("a", "b", "c", "d", "e"), [0, 1, 3, 4]
SAID = ["ok", "ok", "collinear (columns 'one', 'x', 'u[c]', 'v[c]')", "ok", "ok"]


class Collinear:
    """Five equations with two shared regressors and two of their own, which in "c" depend on the others.

    holes : whether responses are missing, in whose rows the regressors of "c" are not collinear.
    """

    def __init__(self, *, holes: bool = False) -> None:
        rng = np.random.default_rng([5, holes])
        self.shared = np.column_stack([np.ones(N), rng.normal(size=N)])
        self.own = rng.normal(size=(5, N, 2))
        self.Y = rng.normal(size=(N, 1)) @ rng.uniform(0.5, 1.0, size=(1, 5)) + rng.normal(size=(N, 5))
        if holes:
            self.Y[rng.random((N, 5)) < 0.1] = np.nan
        seen = ~np.isnan(self.Y[:, 2])
        self.own[2][seen, 1] = (2.0 * self.shared[:, 1] + self.own[2][:, 0] - 3.0)[seen]

    def system(self, at: Any = range(5), **how: Any) -> Any:
        """Some of the equations."""
        columns = np.column_stack([self.shared, *(self.own[j] for j in at)])
        incidence = np.vstack(
            [np.ones((2, len(at)), bool), np.kron(np.eye(len(at), dtype=bool), np.ones((2, 1), bool))]
        )
        names = [NAMES[j] for j in at]
        terms = ["one", "x", *(f"{term}[{name}]" for name in names for term in "uv")]
        return System.from_arrays(self.Y[:, at], columns, incidence=incidence, equations=names, regressors=terms, **how)


def both(data: Collinear, holes: bool, *how: Any, **options: Any) -> tuple[Any, Any]:
    """The fit that skips, and that of the system without the equation."""
    options = ({"missing": "em"} if holes else {}) | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        found = LowRankGLS(*how, unusable="skip", **options).fit(data.system()).result_
        return found, LowRankGLS(*how, **options).fit(data.system(GOOD)).result_


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_the_others_are_fitted_as_if_they_were_all(holes: bool, engine: Any) -> None:
    data = Collinear(holes=holes)
    found, expected = both(data, holes, 1, engine=engine)
    assert found.status.values.tolist() == SAID
    check_same(found.params, expected.params, atol=1e-9)
    check_same(found.std_errors, expected.std_errors, atol=1e-9)
    assert found.loglik == pytest.approx(expected.loglik, rel=1e-12)
    assert np.isnan(found.params[8:12]).all()
    assert "1 of 5 equations skipped: 'c' (collinear (columns" in found.summary()
    with pytest.raises(np.linalg.LinAlgError, match=r"equation 'c': columns .*'v\[c\]' are collinear.*rank 3 of 4"):
        LowRankGLS(1, engine=engine, missing="em" if holes else "raise").fit(data.system())


def test_a_saved_fit_says_the_same() -> None:
    data, store = Collinear(), MemoryStore()
    found = LowRankGLS(0, unusable="skip").fit(data.system()).result_
    found.to_zarr(store)
    opened = Fit.from_zarr(store)
    np.testing.assert_array_equal(opened.status, found.status)
    np.testing.assert_array_equal(opened.predict(data.system()), found.predict(data.system()))
    assert opened.status.values.tolist() == SAID


@pytest.mark.parametrize(
    "options",
    [
        {"rank": "cv"},
        {"rank": 1, "missing": "drop"},
        {"covariance": TimeVarying(1, np.arange(N) // 80)},
        {"rank": 1, "restrictions": ["a:x = b:x"]},
        {"covariance": "full", "missing": "em"},
    ],
    ids=str,
)
def test_options(options: dict[str, Any]) -> None:
    holes = options.get("missing") in ("em", "drop")
    found, expected = both(Collinear(holes=holes), holes, **options)
    check_same(found.params, expected.params, atol=1e-9)
    assert found.n_obs == expected.n_obs and found.status[2].item().startswith("collinear")


def test_compressed_rows_and_weights_of_cells() -> None:
    data, weights = Collinear(), np.random.default_rng(0).uniform(0.5, 2.0, size=(N, 5))
    expected = LowRankGLS(1).fit(data.system(GOOD)).result_
    found = LowRankGLS(1, unusable="skip").fit(data.system().compress()).result_
    check_same(found.params, expected.params, atol=1e-9)
    assert found.n_passes == 0
    found = LowRankGLS(1, unusable="skip").fit(data.system(weights=weights)).result_
    expected = LowRankGLS(1).fit(data.system(GOOD, weights=weights[:, GOOD])).result_
    check_same(found.params, expected.params, atol=1e-9)


def test_a_ridge_estimates_it_and_what_all_equations_have_is_refused() -> None:
    data = Collinear()
    assert (LowRankGLS(1, lam_B=1.0, unusable="skip").fit(data.system()).result_.status == "ok").all()
    shared = np.column_stack([data.shared, 2.0 * data.shared[:, 1]])
    with pytest.raises(np.linalg.LinAlgError, match=r"'y0' \(and 4 more with the same columns\).*are collinear"):
        LowRankGLS(1, unusable="skip").fit(System.from_arrays(data.Y, shared))
    some = np.array([[True] * 5, [True] * 5, [False, False, True, True, False]])
    found = LowRankGLS(1, unusable="skip").fit(System.from_arrays(data.Y, shared, incidence=some)).result_
    assert [said[:9] for said in found.status.values.tolist()] == ["ok", "ok", "collinear", "collinear", "ok"]


@pytest.mark.parametrize("engine", ["compress", "stream"])
def test_a_regressor_that_absorbed_effects_determine(engine: Any) -> None:
    data, firm = Collinear(), np.arange(N) // 8
    data.shared, data.own[2][:, 1] = data.shared[:, 1:], np.sin(firm)
    columns = [np.column_stack([data.shared, data.own[j]]) for j in range(5)]
    found, expected = (
        LowRankGLS(1, engine=engine, unusable="skip")
        .fit(System.from_arrays(data.Y[:, at], [columns[j] for j in at], absorb={"firm": firm}))
        .result_
        for at in (list(range(5)), GOOD)
    )
    check_same(found.params, expected.params, atol=1e-9)
    assert "is constant within every group of 'firm'" in found.status[2].item()


def test_a_killed_fit_goes_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Collinear()
    wanted = LowRankGLS(1, engine="stream", unusable="skip").fit(data.system()).result_
    model = LowRankGLS(1, engine="stream", unusable="skip", checkpoint=str(tmp_path / "c"))
    original = Checkpoint.save_point

    def save(self: Checkpoint, *args: Any) -> None:
        original(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save_point", save)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data.system())
    monkeypatch.undo()
    resumed = model.fit(data.system()).result_
    np.testing.assert_array_equal(resumed.params, wanted.params)
    assert resumed.n_passes < wanted.n_passes and not (tmp_path / "c").exists()
