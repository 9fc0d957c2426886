"""What a plan says of standard errors is what they take."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest

from lrgls_dask import LowRankGLS, System
from lrgls_dask.design.design import Design
from lrgls_dask.inference import by_passes
from lrgls_dask.inference.by_solving import conjugate_gradients_of_many, unit_columns
from lrgls_dask.inference.operator import InformationOperator
from lrgls_dask.sigma.lowrank import LowRank
from lrgls_dask.solve.prices import SOLUTIONS, VARIANCES, iterations, price_of_errors
from support.fits import remade


@dataclass(frozen=True)
class Priced:
    engine: Literal["compress", "stream"] = "stream"
    n_obs: int = 10**6
    bytes_per_pass: int = 10**9
    worker_peak: int = 10**9
    memory_limit: int = 2 * 10**9
    client_peak: int = 10**9
    client_limit: int = 2 * 10**9
    keeps_x: bool = True
    in_process: bool = True


def own(K: int, p: int) -> Design:
    columns = tuple(np.arange(p * j, p * j + p) for j in range(K))
    terms = tuple(tuple(f"x{i}" for i in mine) for mine in columns)
    return Design(tuple(f"y{j}" for j in range(K)), tuple(f"x{i}" for i in range(K * p)), columns, terms)


def subsets(K: int) -> Design:
    columns = tuple(np.array([0, 1 + j % 3]) for j in range(K))
    names = ("const", "a", "b", "c")
    return Design(tuple(f"y{j}" for j in range(K)), names, columns, tuple(tuple(names[i] for i in c) for c in columns))


@pytest.mark.parametrize(
    ("design", "changes", "says"),
    [
        (own(1, 3), {}, "no read: all equations share their regressors"),
        (subsets(500), {"engine": "compress"}, "no read; about 637.50 kiB"),
        (subsets(500), {}, "one read more, 0.93 GiB, for X'X; about 637.50 kiB"),
        (own(100, 3), {"engine": "compress"}, "no read; 2.06 MiB"),
        (
            own(100, 3),
            {"memory_limit": 10**9 + 10**7, "keeps_x": False},
            r"when asked for, about 3 reads of X, 703\.12 kiB; one",
        ),
        (
            own(2_000, 10),
            {"memory_limit": 15 * 10**9, "keeps_x": False},
            r"when asked for, about 9 reads of X, 2\.98 GiB; one equation",
        ),
        (
            own(2_000, 10),
            {"memory_limit": 4 * 10**9, "keeps_x": False},
            r"when asked for, about 845 reads of X, 2\.79 GiB; one equation",
        ),
        (own(20_000, 10), {"engine": "compress", "n_obs": 400}, r"no read; about 9\.61 GiB"),
        (own(3_000, 10), {"engine": "compress"}, r"no read; conjugate gradients, since 6\.71 GiB do not fit"),
    ],
)
def test_what_is_said(design: Design, changes: dict[str, Any], says: str) -> None:
    assert re.match(says, price_of_errors(design, replace(Priced(), **changes)))


def test_reads_are_no_more_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2_000, 120))
    X[:, ::3] = 1.0
    Y = rng.normal(size=(2_000, 1)) + rng.normal(size=(2_000, 40))
    system = System.from_arrays(Y, [X[:, 3 * j : 3 * j + 3] for j in range(40)])
    model = LowRankGLS(1, engine="stream", algorithm="fgls")
    assert "\n  errors  one read more" in str(model.plan(system))
    made = model.fit(system).result_
    said = price_of_errors(system.design, Priced(memory_limit=10**9 + 1, keeps_x=False))
    monkeypatch.setattr(by_passes.CovByPasses, "_has_room", False)
    found = remade(made, evidence=replace(made.evidence, x=None))
    _ = found.std_errors
    taken = found._classical.problem.meter.passes
    assert taken <= int(re.search(r"about ([\d,]+) reads of X", said)[1])
    one = int(re.search(r"equation about (\d+)", said)[1])
    first = [terms[1] for terms in system.design.terms[:2]]
    ways: list[tuple[dict[str, Any], int]] = [
        ({}, one),
        ({"lam_B": 5.0}, 2 * one),
        ({"restrictions": [f"y0:{first[0]} = y1:{first[1]}"]}, 2 * one),
    ]
    for given, most in ways:
        wanted = LowRankGLS(1, engine="stream", algorithm="fgls", **given).fit(system).result_
        found = remade(wanted, evidence=replace(wanted.evidence, x=None))
        before = found._classical.problem.meter.passes
        block = found.cov(equation=found.equations[1])
        np.testing.assert_allclose(block, wanted.cov(equation=wanted.equations[1]), rtol=1e-9, atol=1e-14)
        assert found._classical.problem.meter.passes - before <= most


@pytest.mark.parametrize("n_factors", [1, 6])
def test_iterations_are_those_that_are_priced(n_factors: int) -> None:
    """Of equations with intercepts, whose regressors have nothing else in common, however strong the factors."""
    K, p, n, rng = 150, 3, 300, np.random.default_rng(0)
    X = rng.normal(size=(n, p, K))
    X[:, 0] = 1.0
    centred = X - X.mean(axis=0)  # as X'X is kept: the mean of all rows, then what is left
    rows = np.concatenate([np.sqrt(n) * X.mean(axis=0)[None], centred])
    pieces = tuple(np.linalg.qr(rows[:, :, j])[0] for j in range(K))
    sigma = LowRank(rng.normal(size=(K, n_factors)) * 3.0, np.exp(0.3 * rng.normal(size=K)))
    operator = InformationOperator.of(own(K, p), pieces, sigma, np.zeros(K * p))
    made = [0]

    def counted(c: np.ndarray) -> np.ndarray:
        made[0] += 1
        return operator.product(c)

    for tol in (VARIANCES, SOLUTIONS):
        made[0] = 0
        unit = unit_columns(K * p, np.arange(7))
        found, _ = conjugate_gradients_of_many(counted, operator.preconditioned, unit, tol)
        np.testing.assert_allclose(operator.product(found), unit, atol=10 * np.sqrt(tol))
        assert abs(made[0] - iterations(tol)) <= 2
