"""Models side by side: the numbers of each, what is below them, and what does not compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lrgls_dask import Comparison, Fit, FitWarning, LowRankGLS, System, TimeVarying, compare
from support.fits import fit
from support.systems import simulate

DATA = simulate("shared", n=120, K=4, k=1)
EQUATIONS, REGRESSORS = ["a_1", "b&c", "d", "e"], ["const", "mkt", "smb", "x|y"]


def of(rows: slice = slice(None), columns: int = 4, **options: Any) -> System:
    names = {"equations": EQUATIONS, "regressors": REGRESSORS[:columns]}
    return System.from_arrays(DATA.Y[rows], DATA.X[rows, :columns], **names | options)


@pytest.fixture(scope="module")
def small() -> Fit:
    return fit(of(columns=2), 1)


@pytest.fixture(scope="module")
def large() -> Fit:
    return fit(of(), 1)


@pytest.fixture(scope="module")
def both(small: Fit, large: Fit) -> Comparison:
    return compare({"small": small, "large": large})


def test_the_numbers_are_those_of_the_models(both: Comparison, small: Fit, large: Fit) -> None:
    frame = both.to_frame()
    assert frame.index.names == ["equation", "term"]
    assert frame.index.tolist() == [(name, term) for name in EQUATIONS for term in REGRESSORS]
    np.testing.assert_array_equal(frame["large"].to_numpy(), large.tidy().iloc[:, 2:].to_numpy())
    mine = frame["small"].dropna()
    np.testing.assert_array_equal(mine.to_numpy(), small.tidy().iloc[:, 2:].to_numpy())
    assert frame["small"]["estimate"].isna().sum() == 8
    for name, model in (("small", small), ("large", large)):
        assert both.foot.loc["n_obs", name] == 120 and both.foot.loc["bic", name] == model.bic
    assert both.notes == ("Standard errors in parentheses.",)


def test_text_has_every_number_below_its_model(both: Comparison, small: Fit, large: Fit) -> None:
    lines = str(both).splitlines()
    head = next(line for line in lines if "small" in line)
    row = next(i for i, line in enumerate(lines) if line.startswith("  mkt"))
    one, two = small.tidy("a_1", "mkt").iloc[0], large.tidy("a_1", "mkt").iloc[0]
    assert lines[row].split()[1:] == [f"{each['estimate']:#.4g}" for each in (one, two)]
    assert lines[row + 1].split() == [f"({each['std_error']:#.4g})" for each in (one, two)]
    assert len(lines[row]) == len(lines[row + 1]) == len(head)
    only = next(line for line in lines if line.startswith("  smb"))
    assert len(only.split()) == 2 and len(only) == len(head)
    assert "*" not in str(both) and str(both) == repr(both) == both.to_text()
    assert next(line for line in lines if line.startswith("Observations")).split()[1:] == ["120", "120"]


def test_stars_and_what_stands_below(small: Fit, large: Fit) -> None:
    starred = compare([small, large], stars=True)
    p = large.tidy("d", "mkt")["p_value"].item()
    cell = next(line for line in str(starred).split("\nd\n")[1].splitlines() if line.startswith("  mkt")).split()[2]
    assert cell.count("*") == sum(p < least for least in (0.1, 0.05, 0.01))
    assert "* p < 0.1" in str(starred)
    row = large.tidy("d", "mkt", level=0.9).iloc[0]
    interval = f"[{row['conf_low']:#.3g}, {row['conf_high']:#.3g}]"
    assert interval in str(compare([large], below="conf_int", level=0.9, digits=3))
    assert f"[{row['statistic']:#.4g}]" in str(compare([large], below="statistic"))
    assert f"({row['p_value']:#.4g})" in str(compare([large], below="p_value"))
    bare = compare([large], equation="d", below="none")
    assert "(" not in str(bare).split("Observations")[0].replace("(1)", "") and bare.notes == ()


def test_what_is_chosen(small: Fit, large: Fit) -> None:
    found = compare([small, large], equation=["a_1", "e"], term="m*").to_frame()
    assert found.index.tolist() == [("a_1", "mkt"), ("e", "mkt")]
    found = compare([small, large], term=["smb", "mkt"]).to_frame()
    assert found["(1)"]["estimate"].notna().sum() == 4 and found["(2)"]["estimate"].notna().all()
    with pytest.raises(ValueError, match="no term is called 'hml'"):
        compare([small, large], term="hml")
    with pytest.raises(ValueError, match=r"below must be 'std_error' or .* got 'se'"):
        compare([small], below="se")  # type: ignore[arg-type]


def test_what_does_not_compare_is_said(large: Fit) -> None:
    shorter = fit(of(slice(80)), 1)
    assert any("(1) 120, (2) 80" in note and "do not compare" in note for note in compare([large, shorter]).notes)
    moved = fit(
        System.from_arrays(DATA.Y + np.array([0, 5, 0, 0]), DATA.X, equations=EQUATIONS, regressors=REGRESSORS), 1
    )
    (note,) = compare([large, moved]).notes[1:]
    assert note.startswith("Responses differ: the mean of 'b&c' is") and "do not compare" in note
    fewer = fit(System.from_arrays(DATA.Y[:, :3], DATA.X, equations=EQUATIONS[:3], regressors=REGRESSORS), 0)
    assert any(note.startswith("(2) lacks 'e', beside (1)") for note in compare([large, fewer]).notes)
    with pytest.warns(FitWarning, match="not converged"):
        hasty = LowRankGLS(1, max_sweeps=1, rel_tol=1e-15).fit(of()).result_
    assert any(note.startswith("(1) did not converge: max_sweeps after 1") for note in compare([hasty, large]).notes)
    holes = DATA.Y.copy()
    holes[3, 1] = np.nan
    some = LowRankGLS(1, missing="em").fit(System.from_arrays(holes, DATA.X, equations=EQUATIONS)).result_
    assert any("480, (2) 479 observed" in note for note in compare([large, some]).notes)


def test_equations_are_compared_term_by_term(large: Fit, small: Fit) -> None:
    found = compare([large["d"], small["e"]])
    assert found.to_frame().index.get_level_values("term").tolist() == REGRESSORS
    text = str(found)
    assert text.splitlines()[2].split() == ["Response", "d", "e"]
    assert f"{large.r2.values[2]:.4f}" in text and "BIC" not in text
    mixed = compare([large, small["e"]], term="mkt").to_frame()
    assert mixed["(2)"]["estimate"].notna().tolist() == [False, False, False, True]


def test_of_segments(large: Fit) -> None:
    varying = LowRankGLS(covariance=TimeVarying(1, np.arange(120) // 40)).fit(of()).result_
    found = compare([large, varying])
    np.testing.assert_array_equal(found.to_frame()["(2)"]["std_error"], varying.std_errors.values)
    assert np.isnan(found.foot.loc["mcelroy_r2", "(2)"]) and " -\n" in str(found)


def test_what_compare_does_not_take(small: Fit, large: Fit) -> None:
    with pytest.raises(ValueError, match="two models are called '1' as text"):
        compare({1: small, "1": large})
    with pytest.raises(TypeError, match="compare takes a list of fits, or a mapping from names to them; got int"):
        compare(5)  # type: ignore[arg-type]
    for digits, error in ((0, ValueError), (2.5, TypeError), ("4", TypeError), (True, TypeError)):
        with pytest.raises(error, match="digits must be"):
            compare([small], digits=digits)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one equation each, and equation='d' has nothing to choose"):
        compare([large["d"], small["e"]], equation="d")


def test_small_variances_have_digits_and_one_equation_its_name() -> None:
    tiny = fit(System.from_arrays(DATA.Y * 1e-3, DATA.X, equations=EQUATIONS), 1)
    shown = next(line for line in str(compare([tiny["d"]])).splitlines() if line.startswith("Error variance"))
    assert shown.split()[-1] == f"{tiny['d'].scale:#.4g}" and tiny["d"].scale < 1e-4
    assert "\nd\n  x0 " in str(compare([tiny], equation="d"))


def test_equations_by_dims_are_those_of_any_model(small: Fit) -> None:
    made = []
    for lat in ([1.5, 2.5], [2.5, 3.5]):
        ds = xr.Dataset(
            {"t": (("time", "lat", "lon"), DATA.Y.reshape(120, 2, 2)), "x": ("time", DATA.X[:, 1])},
            coords={"lat": lat, "lon": [10, 20]},
        )
        made.append(fit(System.from_xarray(ds, "t", ["x"], obs="time", equation=("lat", "lon")), 0))
    found = compare([small, *made], equation={"lat": [1.5, 3.5], "lon": 20}).to_frame()
    assert found.index.tolist() == [((1.5, 20), "x"), ((3.5, 20), "x")]
    assert found["(3)"]["estimate"].notna().tolist() == [False, True]
    with pytest.raises(ValueError, match="equations lie on 'lat', 'lon', not on 'lot'; did you mean"):
        compare(made, equation={"lot": 1})


def test_as_many_responses_that_miss_other_cells() -> None:
    models = []
    for j in (1, 2):
        Y = DATA.Y.copy()
        Y[3, j] = np.nan
        models.append(LowRankGLS(1, missing="em").fit(System.from_arrays(Y, DATA.X, equations=EQUATIONS)).result_)
    assert any("'b&c' has 119 in (1) and 120 in (2)" in note for note in compare(models).notes)


def test_labels_that_latex_and_markdown_would_read() -> None:
    names = ["[a]", "*b", "c\nd", "e"]
    found = compare([fit(System.from_arrays(DATA.Y, DATA.X, equations=EQUATIONS, regressors=names), 0)], equation="d")
    latex, table = found.to_latex(), found.to_markdown().split("\n\n")[0]
    assert "{}[a] &" in latex and "{}*b &" in latex and "c d &" in latex
    assert "| c d |" in table and all(row.endswith("|") for row in table.splitlines())


def test_markdown_latex_and_html_are_well_formed(both: Comparison) -> None:
    rows = both.to_markdown().split("\n\n")[0].splitlines()
    assert len({len(row.replace(r"\|", "").split("|")) for row in rows}) == 1 and r"x\|y" in both.to_markdown()
    latex = both.to_latex()
    lines = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {2}
    assert r"a\_1" in latex and r"b\&c" in latex and latex.count(r"\begin") == latex.count(r"\end") == 1
    assert "b&amp;c" in both._repr_html_()


def test_of_very_many_the_first_are_shown() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(60, 2)), rng.normal(size=(60, 150))
    found = compare([LowRankGLS(0).fit(System.from_arrays(Y, X)).result_])
    assert len(found.to_frame()) == 300 and found.to_markdown().count("| x0 |") == 150
    assert "100 more coefficients: to_frame(), or equation= and term=." in str(found)
    assert str(found).count("  x0") == 100
    assert isinstance(found.coefficients, pd.DataFrame)
