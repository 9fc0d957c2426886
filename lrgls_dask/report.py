"""A fit as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrgls_dask.results import Fit

__all__ = ["summary"]

MAX_ROWS = 200  # a table longer than this is cut in the middle
WIDTH = 96


def summary(fit: Fit, *, alpha: float = 0.05, max_rows: int = MAX_ROWS) -> str:
    """The fit in one page: what was fitted, how it ended, the coefficients equation by equation."""
    lines = ["Seemingly unrelated regressions, Sigma = F F' + diag(d)", "=" * WIDTH]
    lines += _pairs(
        [
            ("Observations", f"{fit.n_obs:,}"),
            ("Log-likelihood", f"{fit.loglik:.6g}" if abs(fit.loglik) < 1e5 else f"{fit.loglik:,.2f}"),
            ("Equations", f"{fit.n_equations:,}"),
            ("AIC", f"{fit.aic:,.2f}"),
            ("Coefficients", f"{fit.n_coefficients:,}"),
            ("BIC", f"{fit.bic:,.2f}"),
            ("Factors (rank)", f"{fit.rank}"),
            ("nll per row", f"{fit.nll:.8f}"),
            ("Engine", f"{fit.engine}, {fit.n_passes} pass{'' if fit.n_passes == 1 else 'es'} over the data"),
            ("Ended", f"{fit.termination.value} after {fit.n_sweeps} sweep{'' if fit.n_sweeps == 1 else 's'}"),
            ("Starts", f"{fit.n_agreed} of {fit.n_starts} reached this optimum"),
            ("Penalties", f"lam_B = {fit.lam_B:g}, lam_F = {fit.lam_F:g}"),
        ]
    )
    lines.append(f"{'Std errors:':<17}{fit.cov_kind}{f' ({fit.cov_note})' if fit.cov_note else ''}")
    if len(fit.on_floor):
        lines.append(f"Variance on its floor (Heywood case): {', '.join(map(str, fit.on_floor))}")
    lines += ["-" * WIDTH, *_coefficients(fit, alpha, max_rows), "-" * WIDTH, *_equations(fit, max_rows), "=" * WIDTH]
    return "\n".join(lines)


def _pairs(items: list[tuple[str, str]]) -> list[str]:
    cells = [f"{name + ':':<17}{value}" for name, value in items]
    left = max(len(cell) for cell in cells[::2]) + 3
    return [f"{a:<{left}}{b}" for a, b in zip(cells[::2], cells[1::2], strict=True)]


def _coefficients(fit: Fit, alpha: float, max_rows: int) -> list[str]:
    table = fit.coef_table(alpha=alpha)
    percent = f"{100 * (1 - alpha):g}%"
    head = f"{'':<28}{'coef':>12}{'std err':>12}{'t':>9}{'P>|t|':>8}{percent + ' low':>12}{'high':>11}"
    lines, last = [head], None
    for (equation, regressor), row in table.iterrows():
        if equation != last:
            lines.append(f"{equation}")
            last = equation
        lines.append(
            f"  {str(regressor)[:25]:<26}{row['coef']:>12.5g}{row['std_err']:>12.5g}{row['t']:>9.2f}"
            f"{row['p']:>8.3f}{row['low']:>12.5g}{row['high']:>11.5g}"
        )
    return _cut(lines, max_rows)


def _equations(fit: Fit, max_rows: int) -> list[str]:
    variances = fit.sigma_diagonal
    head = f"{'Equation':<28}{'error sd':>12}{'own sd':>12}{'common share':>14}"
    lines = [head]
    for name, total, own in zip(fit.equations, variances, fit.idio_var.values, strict=True):
        lines.append(f"{str(name)[:27]:<28}{total**0.5:>12.5g}{own**0.5:>12.5g}{1 - own / total:>14.3f}")
    return _cut(lines, max_rows)


def _cut(lines: list[str], max_rows: int) -> list[str]:
    if len(lines) <= max_rows:
        return lines
    half = max_rows // 2
    return [*lines[:half], f"  ... {len(lines) - 2 * half:,} more lines, all in coef_table() ...", *lines[-half:]]
