"""A summary shows what there is, and says why the rest is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrgls_dask import Fit, LowRankGLS, TimeVarying, TimeVaryingFit
from lrgls_dask.inference import classical
from lrgls_dask.results import html, segment_source, time_varying
from lrgls_dask.results.evidence import StreamedSums
from lrgls_dask.results.parts import BehindErrors
from support.fits import remade
from support.systems import simulate

DATA = simulate("own", n=120, K=4, k=1)
VARYING = TimeVarying(1, np.arange(120) // 40)

pytestmark = pytest.mark.filterwarnings("ignore:LowRankGLS. idiosyncratic variance")


def raising(error: Exception) -> Any:
    def raise_it(*_: Any, **__: Any) -> None:
        raise error

    return raise_it


def made(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> tuple[Any, str]:
    """A fit without standard errors, and what its summary must say."""
    if way == "no room for X'X":
        found = LowRankGLS(1, engine="stream").fit(DATA.system()).result_
        kept = StreamedSums(None, found.evidence.squares)
        return remade(found, evidence=kept, system=None), "need X'X, which this streamed"
    if way == "singular":
        monkeypatch.setattr(classical, "estimator_covariance", raising(np.linalg.LinAlgError("no inverse")))
        return LowRankGLS(1).fit(DATA.system()).result_, "no inverse"
    if way == "no memory":
        monkeypatch.setattr(classical, "estimator_covariance", raising(MemoryError("3 GB of 2 GB")))
        return LowRankGLS(1).fit(DATA.system()).result_, "3 GB of 2 GB"
    if way == "holes":
        Y = DATA.Y.copy()
        Y[::7, 1] = np.nan
        found = LowRankGLS(1, missing="em").fit(replace(DATA, Y=Y).system()).result_
        return replace(found, behind_errors=BehindErrors()), "needs complete rows"
    if way == "segments, too many":
        monkeypatch.setattr(segment_source, "MAX_COEFFICIENTS", 5)
        return LowRankGLS(covariance=VARYING).fit(DATA.system()).result_, "is limited to 5"
    if way == "segments, no memory":
        monkeypatch.setattr(segment_source, "require_here", raising(MemoryError("3 GB of 2 GB")))
        return LowRankGLS(covariance=VARYING).fit(DATA.system()).result_, "3 GB of 2 GB"
    monkeypatch.setattr(time_varying, "SAVED_UP_TO", 5)
    LowRankGLS(covariance=VARYING).fit(DATA.system()).result_.to_zarr(tmp_path / "fit")
    return TimeVaryingFit.from_zarr(tmp_path / "fit"), "was saved without the covariance"


WAYS = [
    "no room for X'X",
    "singular",
    "no memory",
    "holes",
    "segments, too many",
    "segments, no memory",
    "segments, saved",
]


@pytest.mark.parametrize("way", WAYS)
def test_the_rest_is_there(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    found, why = made(way, monkeypatch, tmp_path)
    with pytest.raises((ValueError, MemoryError), match=why) as caught:
        _ = found.std_errors
    text, page = found.summary(), found._repr_html_()
    for shown in (text, page):
        assert f"{found.loglik:.6g}" in shown and found.termination.value in shown
        assert all(f"{b:.5g}" in shown for b in found.coefficients)
        assert "P&gt;|t|" not in shown and "P>|t|" not in shown
    assert f"No standard errors, t, p and intervals: {caught.value}" in " ".join(text.split())
    assert "No standard errors, t, p and intervals:" in page
    assert max(map(len, text.splitlines())) <= 110
    with pytest.raises(ValueError, match="alpha"):
        found.summary(alpha=2.0)


def test_a_measure_that_cannot_be_had_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    found = LowRankGLS(1).fit(DATA.system()).result_
    monkeypatch.setattr(Fit, "mcelroy_r2", raising(np.linalg.LinAlgError("singular")))
    line = next(line for line in found.summary().splitlines() if "McElroy" in line)
    assert line.split()[-1] == "-" and "std err" in found.summary()


def test_segments_in_a_notebook() -> None:
    system = DATA.system(equations=["<b>", *"xyz"])
    found = LowRankGLS(covariance=VARYING, restrictions="x:x1 = y:x1").fit(system).result_
    page = found._repr_html_()
    assert "Sigma_t = F_t F_t&#x27; + diag(d_t)" in page and "<b>" not in page and "&lt;b&gt;" in page
    assert "Restriction: x:x1 = y:x1" in page
    printed = found.summary().split()
    for value in found.coef_table()["std_err"]:
        assert f"{value:.5g}" in printed and f">{value:.5g}<" in page


def test_many_coefficients_wait_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "MOST_AT_ONCE", 3)
    for covariance in ("full", VARYING):
        found = LowRankGLS(covariance=covariance).fit(DATA.system()).result_
        assert "they are in coef_table()" in found._repr_html_() and "std err" in found.summary()
