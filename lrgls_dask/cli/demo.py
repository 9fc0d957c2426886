"""`lrgls demo`: returns of 30 portfolios, fitted and shown; with --gb a large simulated store too."""

from __future__ import annotations

import argparse
import importlib.util
import textwrap
from pathlib import Path

import xarray as xr
from dask.utils import format_bytes

from lrgls_dask.cli.arguments import add_memory_limit, add_overwrite, exit_code, positive, save_fit
from lrgls_dask.cli.cost import print_cost, watched
from lrgls_dask.datasets import load_french
from lrgls_dask.model import LowRankGLS
from lrgls_dask.results.fit import Fit
from lrgls_dask.results.multiple_tests import MultipleTests
from lrgls_dask.simulate import rows_for_bytes, simulate_to_zarr
from lrgls_dask.system import System

DEMO_REGRESSORS = ["const", "mktrf", "smb", "hml", "mom"]
SHOWN, WIDTH = "mom", 96  # the regressor that the last words are about, and how long their lines are
DEMO_MARKER = "made-by-lrgls-demo.txt"  # what makes an existing directory safe to write into again
DEMO_MONTHS = 120  # rows per chunk of the small store, so that it has several


def add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("demo", help="fit the monthly returns of 30 portfolios that ship with the package")
    parser.add_argument("--out", type=Path, default=Path("lrgls-demo"), help="directory to write (default %(default)s)")
    parser.add_argument("--gb", type=positive, help="also simulate a store of this many GB beside it and fit it")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated store")
    add_memory_limit(parser, default="1GB")
    add_overwrite(parser, "write into a directory that this command did not make")
    parser.set_defaults(run=_demo)


# ----------------------------------------------------------------------------------------------------- commands


def _demo(args: argparse.Namespace) -> int:
    _claim_directory(args.out, args.overwrite)
    code = _demo_french(args.out)
    if args.gb is not None:
        code = max(code, _demo_large(args.out, args.gb, args.seed, args.memory_limit))
    return code


def _demo_french(out: Path) -> int:
    store = out / "returns.zarr"
    french = load_french().drop_vars("lag_return")
    # Zarr format 2, because the metadata of a whole dataset in one file is not part of format 3 yet.
    french.chunk(time=DEMO_MONTHS).to_zarr(store, mode="w", zarr_format=2)
    print(
        f"Monthly excess returns of {french.sizes['portfolio']} portfolios, {french.sizes['time']} months, on "
        f"{', '.join(DEMO_REGRESSORS)}: {store}\n"
    )
    with xr.open_zarr(store) as ds:
        system = System.from_xarray(ds, y="excess_return", x=DEMO_REGRESSORS, obs="time", equation="portfolio")
        fit = LowRankGLS(rank="bic", improper="avoid").fit(system).result_
    print(fit.summary())
    save_fit(fit, out / "fit.zarr", overwrite=True)
    of_momentum = fit.across(f"*:{SHOWN} = 0", "sup-t")  # whose intervals say what its tests say
    print("\n" + textwrap.fill(_in_words(fit, of_momentum), WIDTH))
    print(_picture(of_momentum, out / "momentum.png"))
    return exit_code(fit)


def _in_words(fit: Fit, tests: MultipleTests) -> str:
    """What the fit says, in three sentences."""
    explained = float(fit.r2.mean())
    common = float((1.0 - fit.idio_var / fit.sigma_diagonal).mean())
    found = tests.table[tests.table["rejected"]]
    up, down = ([str(name) for name in found.index[found["estimate"] * sign > 0]] for sign in (1, -1))
    return (
        f"The {len(DEMO_REGRESSORS) - 1} market-wide factors and a constant explain {explained:.0%} of the variance of "
        f"the average portfolio. What they leave moves together: {fit.rank} factors that were found in it, the number "
        f"with the least BIC of those that leave every portfolio some variance of its own, hold {common:.0%} of that. "
        f"Momentum pays in {len(up)} of {tests.n_tests} portfolios ({', '.join(up)}) and costs in {len(down)} "
        f"({', '.join(down)}), with a chance of at most 5% that one or more of these {tests.n_rejected} are mistaken."
    )


def _picture(tests: MultipleTests, path: Path) -> str:
    """Draws the estimates with their simultaneous intervals, if matplotlib is there; where to, or why not."""
    if importlib.util.find_spec("matplotlib") is None:
        return "\nNo picture was drawn: matplotlib is not installed. With it, lrgls demo draws one."
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(7, 6), layout="constrained")
    axes, table = figure.add_subplot(), tests.table.sort_values("estimate")
    half = table["conf_high"] - table["estimate"]
    for rejected, color in ((True, "tab:blue"), (False, "tab:gray")):
        at = table["rejected"].to_numpy() == rejected
        places = [i for i, mine in enumerate(at) if mine]
        label = "differs from zero" if rejected else "may be zero"
        axes.errorbar(table["estimate"][at], places, xerr=half[at], fmt="o", markersize=4, color=color, label=label)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(table)), [str(name) for name in table.index], fontsize=7)
    axes.set_xlabel(f"coefficient of momentum, with intervals that cover all {tests.n_tests} with 95% confidence")
    axes.legend()
    figure.savefig(path, dpi=120)
    return f"\nPicture of the {tests.n_tests} coefficients of momentum: {path}"


def _demo_large(out: Path, gigabytes: float, seed: int, memory_limit: int) -> int:
    store = out / "simulated.zarr"
    shape = {"n_equations": 50, "n_regressors": 5}
    n_obs = rows_for_bytes(gigabytes * 1e9, **shape)
    print(f"\nWriting {gigabytes:g} GB, {n_obs:,} rows, to {store}")
    simulate_to_zarr(store, n_obs=n_obs, rank=3, seed=seed, overwrite=True, **shape)
    system = System.from_zarr(store)
    model = LowRankGLS(rank="bic", memory_limit=memory_limit, progress=True)
    print(f"\nPlan, under a limit of {format_bytes(memory_limit)}:\n{model.plan(system)}\n")
    with watched() as cost:
        fit = model.fit(system).result_
    print(fit.summary())
    print_cost(fit, cost)
    save_fit(fit, out / "simulated-fit.zarr", overwrite=True)
    return exit_code(fit)


def _claim_directory(out: Path, overwrite: bool) -> None:
    """Make the demo's directory, or recognise one it made before; anybody else's is refused."""
    marker = out / DEMO_MARKER
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file. Choose another name with --out.")
    if out.is_dir() and any(out.iterdir()) and not marker.exists() and not overwrite:
        raise FileExistsError(
            f"{out} exists and was not made by 'lrgls demo'. Choose another name with --out, or pass --overwrite "
            "to replace the stores of the demo in it."
        )
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text("lrgls demo writes its stores here and replaces them when it runs again.\n", encoding="utf-8")
