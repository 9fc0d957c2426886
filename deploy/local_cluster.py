"""Simulate a store, fit it on a Dask cluster of several local processes, print the fit and what it cost.

    python deploy/local_cluster.py --workers 2 --gb 0.2 --out /tmp/lrgls-cluster.zarr

The cluster listens on 127.0.0.1 only and has no dashboard. With --scheduler ADDRESS a running cluster is used instead.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from distributed import Client, LocalCluster

from lrgls_dask import LowRankGLS, System
from lrgls_dask.simulate import rows_for_bytes, simulate_to_zarr

SHAPE = {"n_equations": 20, "n_regressors": 4}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("simulated.zarr"), help="the store (default %(default)s)")
    parser.add_argument("--gb", type=float, default=0.05, help="its size in GB (default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each (default %(default)s)")
    parser.add_argument("--memory-limit", default="1GB", help="of each worker (default %(default)s)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="use this running scheduler instead of starting one")
    parser.add_argument("--overwrite", action="store_true", help="replace the store if it exists")
    return parser.parse_args()


@contextlib.contextmanager
def connect(args: argparse.Namespace) -> Iterator[Client]:
    """A client of the running scheduler, or of a new local cluster that ends with it."""
    if args.scheduler:
        with Client(args.scheduler) as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=args.workers,
            threads_per_worker=1,
            memory_limit=args.memory_limit,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def main() -> None:
    args = arguments()
    n_obs = rows_for_bytes(args.gb * 1e9, **SHAPE)
    simulate_to_zarr(args.out, n_obs=n_obs, rank=2, overwrite=args.overwrite, **SHAPE)
    with connect(args) as client:
        print(client)
        system = System.from_zarr(args.out)
        model = LowRankGLS(rank="bic")
        print(model.plan(system))
        fit = model.fit(system).result_
        print(fit.summary())
        print(fit.trace)


if __name__ == "__main__":
    main()
