"""`lrgls fit` and `lrgls plan`: a store fitted and the result saved, or what that would cost."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from distributed import Client, LocalCluster

from lrgls_dask.cli.arguments import add_memory_limit, add_overwrite, refuse_existing, save_fit
from lrgls_dask.cli.cost import print_cost, watched
from lrgls_dask.model import LowRankGLS
from lrgls_dask.system import System


def add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("plan", help="what a fit would read and need, without reading it")
    parser.add_argument("store", metavar="STORE.zarr")
    _add_model(parser)
    parser.set_defaults(run=_plan)


def add_fit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("fit", help="fit a store of format 1 and save the result")
    parser.add_argument("store", metavar="STORE.zarr")
    parser.add_argument("--out", required=True, metavar="FIT.zarr")
    _add_model(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, such as tcp://127.0.0.1:8786")
    where.add_argument("--workers", type=int, metavar="N", help="start this many local processes, one thread each")
    parser.add_argument("--progress", action="store_true", help="show a progress bar")
    add_overwrite(parser)
    parser.set_defaults(run=_fit)


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
    parser.add_argument("--max-sweeps", type=int, help="default 50")
    parser.add_argument("--rel-tol", type=float, help="relative decrease of the objective at which to stop")
    add_memory_limit(parser, default=None)


def _rank(text: str) -> int | str:
    if text in ("auto", "bic", "cv"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, auto, bic or cv") from None


def _plan(args: argparse.Namespace) -> None:
    print(_model(args).plan(System.from_zarr(args.store)))


def _fit(args: argparse.Namespace) -> None:
    refuse_existing(args.out, args.overwrite)
    with _cluster(args.scheduler, args.workers), watched() as cost:
        fit = _model(args, progress=args.progress).fit(System.from_zarr(args.store)).result_
    print(fit.summary())
    print_cost(fit, cost)
    save_fit(fit, args.out, args.overwrite)


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
