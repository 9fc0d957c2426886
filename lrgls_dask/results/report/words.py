"""What was fitted, in sentences with the user's own names."""

from __future__ import annotations

from collections.abc import Iterator

from lrgls_dask.checks import shown
from lrgls_dask.options.stored import from_stored
from lrgls_dask.options.table import OPTIONS
from lrgls_dask.results.measures import Measures
from lrgls_dask.results.reported import Reported
from lrgls_dask.results.text import cut_in_the_middle

__all__ = ["call", "in_words"]

LONGEST = 120  # letters of an option's value, whose middle is left out where there are more


def in_words(fit: Reported) -> list[str]:
    """The data, the regressors, the errors, and what statistics rest on."""
    return [*_data(fit), _regressors(fit), *_formulas(fit), *_errors(fit), _inference(fit)]


def _data(fit: Reported) -> Iterator[str]:
    whole = fit._whole
    rows = f"{fit.n_obs:,} rows{'' if fit.obs_dim == 'obs' else f' along {fit.obs_dim}'}"
    if whole.equation_dims:
        sizes = " x ".join(f"{dim} ({len(labels):,})" for dim, labels in whole.equation_dims.items())
        yield f"{whole.n_equations:,} equations on {sizes}, fitted to {rows}."
    else:
        along = "" if fit.equation_dim == "equation" else f" along {fit.equation_dim}"
        count = f"{whole.n_equations:,} equation{'' if whole.n_equations == 1 else 's'}"
        yield f"{count}{along}, fitted to {rows}: {shown(list(whole.equations))}."
    if fit.skipped is not None:
        left = fit.design.n_equations
        yield f"{left:,} of them were estimated; the others are in the table of equations, with why they were skipped."


def _regressors(fit: Reported) -> str:
    whole = fit._whole
    sets = list(dict.fromkeys(whole.terms))
    names = list(dict.fromkeys(term for own in sets for term in own))
    columns = f"{whole.given.n_regressors:,} distinct columns, {fit.n_coefficients:,} coefficients"
    if len(sets) == 1:
        count = f"{len(names):,} regressor{'' if len(names) == 1 else 's'}"
        return f"Every equation has the same {count}, {shown(names)}: {columns}."
    least, most = int(whole.sizes.min()), int(whole.sizes.max())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"Equations have {each} regressors each, of {len(names):,} different names, {shown(names)}: {columns}."


def _formulas(fit: Reported) -> Iterator[str]:
    if fit.formulas is not None:
        texts = [sided.text for sided in fit.formulas.encoding.formulas.sided]
        yield f"By formula{'' if len(texts) == 1 else 's'}: {shown(texts)}."


def _errors(fit: Reported) -> Iterator[str]:
    if isinstance(fit, Measures):
        sigma = fit.covariance.describe()
        yield f"The errors of a row have one covariance across equations, {sigma.formula}; factors: {sigma.factors}."
    else:
        count = f"{fit.n_segments:,}"  # type: ignore[attr-defined]
        yield (
            "The errors of a row have a covariance across equations, Sigma_t = F_t F_t' + diag(d_t), for each of "
            f"{count} segments of rows; factors: {fit.rank}."
        )
    table = fit.selection  # type: ignore[attr-defined]
    if table is not None:
        name, among = table.index.name, f"{table.index.min():g} to {table.index.max():g}"
        chosen = f"{getattr(fit, name):g}"
        yield f"The {name}, {chosen}, was chosen by {table.attrs['criterion']} among {len(table)} candidates, {among}."


def _inference(fit: Reported) -> str:
    note = f" ({fit.cov_note})" if fit.cov_note else ""
    return f"Standard errors are {fit.cov_kind}{note}. P-values and intervals: {fit.reference}."


def call(fit: Reported) -> str:
    """The estimator that fits the same, with the options that are not left to their defaults."""
    defaults = {name: repr(each.default) for name, each in OPTIONS.items()}
    said = {name: repr(value) for name, value in from_stored(fit.settings.options).items()}
    given = [f"{name}={cut_in_the_middle(text, LONGEST)}" for name, text in said.items() if text != defaults.get(name)]
    return f"LowRankGLS({', '.join(given)})"
