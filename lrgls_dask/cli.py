"""The command line `lrgls`: demo, simulate, plan, fit, summary, predict."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import xarray as xr
from dask.utils import format_bytes, parse_bytes
from distributed import Client, LocalCluster

from lrgls_dask import __version__
from lrgls_dask.data.storage import new_store
from lrgls_dask.datasets import load_french
from lrgls_dask.errors import FitWarning
from lrgls_dask.model import LowRankGLS
from lrgls_dask.predictcommand import add_predict_options, predicted
from lrgls_dask.results.fit import Fit
from lrgls_dask.simulate import rows_for_bytes, simulate_to_zarr
from lrgls_dask.system import System

__all__ = ["main"]

DEMO_REGRESSORS = ["const", "mktrf", "smb", "hml", "mom"]
DEMO_MARKER = "made-by-lrgls-demo.txt"  # what makes an existing directory safe to write into again
DEMO_MONTHS = 120  # rows per chunk of the small store, so that it has several
SAMPLE_SECONDS = 0.02  # between two looks at the memory of the process


def main(argv: Sequence[str] | None = None) -> int:
    """0 when done, 2 when the input is refused; the message is one line on stderr, with --debug a traceback."""
    args = _parser().parse_args(argv)
    try:
        with _short_warnings():
            args.run(args)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("lrgls: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        print(f"lrgls: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings of the library as one line each, those of others as Python shows them."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_short(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, FitWarning):
                print(f"lrgls: warning: {' '.join(str(message).split())}", file=sys.stderr)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_short
        warnings.simplefilter("always", FitWarning)  # a note to the user, whatever the filters outside
        yield


def _one_line(error: Exception) -> str:
    """The library's own messages as they are; anything else with its type and the way to learn more."""
    lines = [line for line in str(error).splitlines() if line.strip(" ^")]  # no mark under a line on the same line
    text = " ".join(" ".join(lines).split())
    if text and isinstance(error, ValueError | TypeError | OSError | MemoryError):
        return text
    return f"{type(error).__name__}: {text} (run `lrgls --debug ...` for the traceback)"


# ---------------------------------------------------------------------------------------------------- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lrgls",
        description="Seemingly unrelated regressions with a low-rank error covariance, on data larger than memory.",
    )
    parser.add_argument("--version", action="version", version=f"lrgls {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_demo, _add_simulate, _add_plan, _add_fit, _add_summary, _add_predict):
        add(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("demo", help="fit the monthly returns of 30 portfolios that ship with the package")
    parser.add_argument("--out", type=Path, default=Path("lrgls-demo"), help="directory to write (default %(default)s)")
    parser.add_argument("--gb", type=_positive, help="also simulate a store of this many GB beside it and fit it")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated store")
    _add_memory_limit(parser, default="1GB")
    _add_overwrite(parser, "write into a directory that this command did not make")
    parser.set_defaults(run=_demo)


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("simulate", help="write a store drawn from known parameters")
    parser.add_argument("out", type=Path, metavar="OUT.zarr")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--n-obs", type=int, help="rows")
    size.add_argument("--gb", type=_positive, help="size on disk in GB, instead of --n-obs")
    parser.add_argument("--n-equations", type=int, default=50, help="default %(default)s")
    parser.add_argument(
        "--p", type=int, default=5, help="regressors of its own for each equation (default %(default)s)"
    )
    parser.add_argument(
        "--n-shared", type=int, default=0, help="regressors used by all equations (default %(default)s)"
    )
    parser.add_argument("--rank", type=int, default=3, help="factors in the errors (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--row-chunk", type=int, help="rows per chunk (default: about 16 MB of regressors)")
    _add_overwrite(parser)
    parser.set_defaults(run=_simulate)


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("plan", help="what a fit would read and need, without reading it")
    parser.add_argument("store", metavar="STORE.zarr")
    _add_model(parser)
    parser.set_defaults(run=_plan)


def _add_fit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("fit", help="fit a store of format 1 and save the result")
    parser.add_argument("store", metavar="STORE.zarr")
    parser.add_argument("--out", required=True, metavar="FIT.zarr")
    _add_model(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, such as tcp://127.0.0.1:8786")
    where.add_argument("--workers", type=int, metavar="N", help="start this many local processes, one thread each")
    parser.add_argument("--progress", action="store_true", help="show a progress bar")
    _add_overwrite(parser)
    parser.set_defaults(run=_fit)


def _add_summary(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("summary", help="print a saved fit")
    parser.add_argument("fit", metavar="FIT.zarr")
    parser.add_argument(
        "--test",
        action="append",
        default=[],
        metavar="HYPOTHESES",
        help="a Wald test, e.g. 'Telcm:smb = 0'; repeatable",
    )
    parser.set_defaults(run=_summary)


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("predict", help="write the fitted values of a store, intervals, or factor scores")
    parser.add_argument("fit", metavar="FIT.zarr")
    parser.add_argument("store", metavar="STORE.zarr")
    parser.add_argument("--out", required=True, type=Path, metavar="YHAT.zarr")
    add_predict_options(parser)
    _add_overwrite(parser)
    parser.set_defaults(run=_predict)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rank", type=_rank, default="auto", help="factors: a number, auto, bic or cv (default %(default)s)"
    )
    parser.add_argument(
        "--covariance", choices=["lowrank", "full", "diagonal"], default="lowrank", help="default %(default)s"
    )
    parser.add_argument(
        "--algorithm",
        choices=["als", "fgls", "em"],
        default="als",
        help="to the optimum, one step, or to the optimum by EM (default %(default)s)",
    )
    parser.add_argument("--engine", choices=["auto", "compress", "stream"], default="auto", help="default %(default)s")
    parser.add_argument("--sigma-step", choices=["ml", "pca"], default="ml", help="default %(default)s")
    parser.add_argument(
        "--missing",
        choices=["raise", "em", "drop"],
        default="raise",
        help="NaN in responses: refuse it, use what its row shows, or leave the row out (default %(default)s)",
    )
    parser.add_argument("--lam-b", type=float, default=0.0, help="ridge on the coefficients (default %(default)s)")
    parser.add_argument("--lam-f", type=float, default=0.0, help="ridge on the loadings (default %(default)s)")
    parser.add_argument("--max-sweeps", type=int, default=50, help="default %(default)s")
    parser.add_argument("--rel-tol", type=float, help="relative decrease of the objective at which to stop")
    _add_memory_limit(parser, default=None)


def _add_memory_limit(parser: argparse.ArgumentParser, default: str | None) -> None:
    text = "refuse a fit that needs more" + (" (default %(default)s)" if default else "")
    parser.add_argument("--memory-limit", type=_bytes, default=default, metavar="SIZE", help=f"{text}, e.g. 1GB")


def _add_overwrite(parser: argparse.ArgumentParser, text: str = "replace an output that exists") -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _bytes(text: str) -> int:
    try:
        return int(parse_bytes(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB or 1GB") from None


def _rank(text: str) -> int | str:
    if text in ("auto", "bic", "cv"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, auto, bic or cv") from None


# ----------------------------------------------------------------------------------------------------- commands


def _demo(args: argparse.Namespace) -> None:
    _claim_directory(args.out, args.overwrite)
    _demo_french(args.out)
    if args.gb is not None:
        _demo_large(args.out, args.gb, args.seed, args.memory_limit)


def _demo_french(out: Path) -> None:
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
        fit = LowRankGLS(rank="bic").fit(system).result_
    print(fit.summary())
    _save_fit(fit, out / "fit.zarr", overwrite=True)


def _demo_large(out: Path, gigabytes: float, seed: int, memory_limit: int) -> None:
    store = out / "simulated.zarr"
    shape = {"n_equations": 50, "n_regressors": 5}
    n_obs = rows_for_bytes(gigabytes * 1e9, **shape)
    print(f"\nWriting {gigabytes:g} GB, {n_obs:,} rows, to {store}")
    simulate_to_zarr(store, n_obs=n_obs, rank=3, seed=seed, overwrite=True, **shape)
    system = System.from_zarr(store)
    model = LowRankGLS(rank="bic", memory_limit=memory_limit, progress=True)
    print(f"\nPlan, under a limit of {format_bytes(memory_limit)}:\n{model.plan(system)}\n")
    with _watched() as cost:
        fit = model.fit(system).result_
    print(fit.summary())
    _print_cost(fit, cost)
    _save_fit(fit, out / "simulated-fit.zarr", overwrite=True)


def _simulate(args: argparse.Namespace) -> None:
    shape = {"n_equations": args.n_equations, "n_regressors": args.p, "n_shared": args.n_shared}
    n_obs = args.n_obs if args.gb is None else rows_for_bytes(args.gb * 1e9, **shape)
    drawn = simulate_to_zarr(
        args.out,
        n_obs=n_obs,
        rank=args.rank,
        seed=args.seed,
        row_chunk=args.row_chunk,
        overwrite=args.overwrite,
        **shape,
    )
    system = drawn.system
    print(
        f"{args.out}: {system.n_obs:,} rows, {system.n_equations} equations, {system.n_regressors} distinct columns, "
        f"{8 * system.n_obs * (system.n_equations + system.n_regressors) / 1e9:.3g} GB"
    )


def _plan(args: argparse.Namespace) -> None:
    print(_model(args).plan(System.from_zarr(args.store)))


def _fit(args: argparse.Namespace) -> None:
    _refuse_existing(args.out, args.overwrite)
    with _cluster(args.scheduler, args.workers), _watched() as cost:
        fit = _model(args, progress=args.progress).fit(System.from_zarr(args.store)).result_
    print(fit.summary())
    _print_cost(fit, cost)
    _save_fit(fit, args.out, args.overwrite)


def _summary(args: argparse.Namespace) -> None:
    fit = Fit.from_zarr(args.fit)
    tests = [fit.wald_test(text) for text in args.test]  # a mistake in one is told before anything is printed
    print("\n".join([fit.summary(), *map(str, tests)]))


def _predict(args: argparse.Namespace) -> None:
    _refuse_existing(args.out, args.overwrite)
    fit, system = Fit.from_zarr(args.fit), System.from_zarr(args.store)
    with new_store(args.out, overwrite=args.overwrite) as store:
        predicted(fit, system, args).to_zarr(store, zarr_format=2)
    print(f"Fitted values: {args.out}")


# ------------------------------------------------------------------------------------------------------- pieces


def _model(args: argparse.Namespace, progress: bool = False) -> LowRankGLS:
    return LowRankGLS(
        rank=args.rank,
        covariance=args.covariance,
        algorithm=args.algorithm,
        missing=args.missing,
        engine=args.engine,
        sigma_step=args.sigma_step,
        lam_F=args.lam_f,
        lam_B=args.lam_b,
        rel_tol=args.rel_tol,
        max_sweeps=args.max_sweeps,
        memory_limit=args.memory_limit,
        progress=progress,
    )


@contextlib.contextmanager
def _cluster(scheduler: str | None, workers: int | None) -> Iterator[None]:
    """Fits inside run on this scheduler, on this many new local processes, or on threads."""
    if scheduler is not None:
        with Client(scheduler):
            yield
    elif workers is not None:
        local = LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")
        with local, Client(local):
            yield
    else:
        yield


class _Cost:
    """Seconds, and the most bytes of memory this process and the children it has now held together at any look."""

    def __init__(self) -> None:
        this = psutil.Process()
        self.processes = [this, *this.children(recursive=True)]  # found once: finding them costs milliseconds
        self.peak, self.seconds = 0, 0.0

    def look(self) -> None:
        total = 0
        for process in self.processes:
            with contextlib.suppress(psutil.Error):  # a child may have ended
                total += process.memory_info().rss
        self.peak = max(self.peak, total)


@contextlib.contextmanager
def _watched() -> Iterator[_Cost]:
    cost, done, began = _Cost(), threading.Event(), time.perf_counter()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            cost.look()

    watcher = threading.Thread(target=watch, daemon=True)
    cost.look()
    watcher.start()
    try:
        yield cost
    finally:
        done.set()
        watcher.join()
        cost.look()
        cost.seconds = time.perf_counter() - began


def _print_cost(fit: Fit, cost: _Cost) -> None:
    """Passes, bytes, seconds and bytes per second of the whole fit, and the memory held at most."""
    total = fit.trace.iloc[-1]
    print(
        f"\nPasses {total.passes}, read {format_bytes(int(total.bytes_read))} in {cost.seconds:.2f} s "
        f"({format_bytes(int(total.bytes_read / cost.seconds))}/s), peak memory {format_bytes(cost.peak)}"
    )


def _save_fit(fit: Fit, path: str | Path, overwrite: bool) -> None:
    fit.to_zarr(path, overwrite=overwrite)
    print(f"\nSaved: {path}")


def _refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Before the work, not after it."""
    if not overwrite and "://" not in str(path) and Path(path).exists():
        raise FileExistsError(f"{path} exists. Choose another name, or pass --overwrite to replace it.")


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


if __name__ == "__main__":
    sys.exit(main())
