"""`lrgls fit` and `lrgls plan`: a store or Parquet files fitted and the result saved, or what that would cost."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from distributed import Client, LocalCluster

from lrgls_dask.cli.arguments import AnyFit, add_overwrite, check_output, exit_code, positive, save_fit
from lrgls_dask.cli.cost import print_cost, watched
from lrgls_dask.cli.flags import add_cov, add_model, cov_of, model_of
from lrgls_dask.cli.log import add_log, logged, reported
from lrgls_dask.cli.sources import add_data, local_files, system_of
from lrgls_dask.results.cov.kind import CovKind


def add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("plan", help="what a fit would read and need, without reading it")
    add_data(parser)
    where = parser.add_argument_group("a cluster that need not be there")
    where.add_argument("--workers", type=int, metavar="N", help="plan for so many worker processes")
    where.add_argument("--threads", type=int, default=1, metavar="N", help="of each worker (default %(default)s)")
    where.add_argument("--worker-memory", default="4GB", metavar="SIZE", help="of each worker (default %(default)s)")
    rate = "10^9 bytes a second of decoded rows that storage gives to each process (default: this machine's disk)"
    where.add_argument("--gb-per-s", type=positive, metavar="X", help=rate)
    usual = "seconds of threads that do 35 Gflop/s, wherever they are asked for, and not of this machine's"
    where.add_argument("--usual-machine", action="store_true", help=usual)
    add_model(parser)
    parser.set_defaults(run=_plan)


def add_fit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("fit", help="fit a store or Parquet files and save the result")
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="FIT.zarr")
    add_model(parser)
    add_cov(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, such as tcp://127.0.0.1:8786")
    where.add_argument("--workers", type=int, metavar="N", help="start this many local processes, one thread each")
    add_log(parser)
    add_overwrite(parser)
    parser.set_defaults(run=_fit)


def _plan(args: argparse.Namespace) -> None:
    system = system_of(args, priced=True)
    where = {name: getattr(args, name) for name in ("workers", "threads", "worker_memory", "gb_per_s", "usual_machine")}
    print(model_of(args).plan(system, **where))


def _fit(args: argparse.Namespace) -> int:
    read = [path for each in args.data for path in local_files(each)]
    with logged(args.log, read):
        return _fitted(args, read)


def _fitted(args: argparse.Namespace, read: list[str]) -> int:
    check_output(args.out, args.overwrite, [*read, getattr(args, "checkpoint", None)])
    model, cov = model_of(args), cov_of(args)
    on_cluster = args.scheduler is not None or args.workers is not None
    with _cluster(args.scheduler, args.workers), reported(args.performance_report, on_cluster, args.overwrite, read):
        with watched() as cost:
            fit: AnyFit = model.fit(system_of(args)).result_
        if cov is not None:
            fit = _with_cov(fit, cov, args)
        print(fit.summary())
        print_cost(fit, cost)
        save_fit(fit, args.out, args.overwrite)
    return exit_code(fit)


# ------------------------------------------------------------------------------------------------------- pieces


def _with_cov(fit: AnyFit, cov: CovKind, args: argparse.Namespace) -> AnyFit:
    """The fit with these standard errors; where they cannot be had it is saved as it is, which took the work."""
    try:
        return fit.with_cov(cov)
    except Exception:
        save_fit(fit, args.out, args.overwrite)
        raise


@contextlib.contextmanager
def _cluster(scheduler: str | None, workers: int | None) -> Iterator[None]:
    """Fits inside run on this scheduler, on this many new local processes, or on threads."""
    if scheduler is not None:
        with Client(scheduler):
            yield
    elif workers is not None:
        # an address all the same: without one Dask opens a port for its pages that others may have, dashboard or not
        closed = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
        with LocalCluster(n_workers=workers, threads_per_worker=1, **closed) as local, Client(local):
            yield
    else:
        yield
