"""Parts of results save and open themselves, and a fit that has no answer says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from lrgls_dask import Fit, LowRankGLS, TimeVarying, TimeVaryingFit
from lrgls_dask.data.seal import SEAL
from lrgls_dask.errors import NoAnswer
from lrgls_dask.results.evidence import CellsOfRows, CompressedRows, StreamedSums
from support.fits import fit
from support.incomplete import with_holes
from support.systems import simulate

DATA = simulate("mixed", n=240, seed=3)
SEGMENTS = np.arange(240) // 60


def drifting(**options: Any) -> TimeVaryingFit:
    found: Any = LowRankGLS(covariance=TimeVarying(1, SEGMENTS, 2.0), **options).fit(DATA.system()).result_
    return found


@pytest.mark.parametrize(
    ("options", "evidence"),
    [({}, CompressedRows), ({"engine": "stream"}, StreamedSums), ({"missing": "em"}, CellsOfRows)],
    ids=["compress", "stream", "holes"],
)
def test_evidence_is_of_three_kinds_and_comes_back(options: dict[str, Any], evidence: type, tmp_path: Path) -> None:
    data = with_holes(DATA, 0.05) if "missing" in options else DATA
    made = fit(data.system(), 1, **options)
    made.to_zarr(tmp_path / "fit.zarr")
    back = Fit.from_zarr(tmp_path / "fit.zarr")
    for each in (made, back):
        assert type(each.evidence) is evidence
        assert each.n_cells == np.sum(~np.isnan(data.Y))
    assert back.settings == made.settings or back.settings.options == made.settings.options
    assert back.summary() == made.summary()
    np.testing.assert_array_equal(back.std_errors.values, made.std_errors.values)


@pytest.mark.parametrize("name", ["covariance", "predict_given", "impute", "factor_scores"])
def test_what_needs_one_sigma_is_not_there_and_says_what_to_do(name: str) -> None:
    found = drifting()
    assert not hasattr(found, name)
    with pytest.raises(NoAnswer, match=r"one Sigma for each segment, .* Use sigma\(segment\), or predict"):
        getattr(found, name)


@pytest.mark.parametrize("name", ["r2", "lr_test", "rank_test", "bootstrap", "loadings_std_errors"])
def test_what_is_defined_for_one_sigma_only_is_named(name: str) -> None:
    with pytest.raises(NoAnswer, match=rf"has no {name}: it is defined for one Sigma of all rows. Fit a segment"):
        getattr(drifting(), name)
    with pytest.raises(AttributeError, match="'TimeVaryingFit' object has no attribute 'loadingss'"):
        _ = drifting().loadingss  # type: ignore[attr-defined]


def test_the_remedies_of_a_drifting_fit_are_true() -> None:
    found = drifting()
    assert found.sigma(0).shape == (DATA.Y.shape[1],) * 2
    assert found.predict(DATA.system(), interval=0.9, kind="mean")["lower"].shape == DATA.Y.shape
    static: Any = LowRankGLS(covariance=TimeVarying(1, SEGMENTS, float("inf"))).fit(DATA.system()).result_
    assert np.isfinite(static.bic)
    with pytest.raises(ValueError, match="one Sigma for each segment"):
        found.predict(DATA.system(), interval=0.9, kind="observation")


def test_a_file_of_a_later_format_is_refused_by_version(tmp_path: Path) -> None:
    for made, name in ((fit(DATA.system(), 1), "fit"), (drifting(), "timevarying")):
        path = tmp_path / name
        made.to_zarr(path)
        zarr.open_group(path).attrs[f"lrgls_{name}_format"] = 2
        with pytest.raises(ValueError, match=rf"lrgls_{name}_format 2 but this lrgls_dask reads 1. Upgrade"):
            type(made).from_zarr(path)


def test_a_drifting_fit_of_the_first_version_opens(tmp_path: Path) -> None:
    """It kept the local likelihood of each sweep and nothing else of its run, no objective and no options."""
    made = drifting()
    made.to_zarr(tmp_path / "fit.zarr")
    group = zarr.open_group(tmp_path / "fit.zarr")
    for name in [name for name in group if name.startswith("trace_")]:
        del group[name]
    for name in ("objective", "options", "candidates", "engine", "n_starts", "n_agreed", "algorithm", "l1", SEAL):
        del group.attrs[name]
    back = TimeVaryingFit.from_zarr(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(back.trace["local_nll"].values, made.trace["local_nll"].values)
    np.testing.assert_array_equal(back.std_errors.values, made.std_errors.values)
    assert (back.termination, back.n_sweeps, back.bandwidth) == (made.termination, made.n_sweeps, made.bandwidth)
    assert back.selection is None and back.options == {}
