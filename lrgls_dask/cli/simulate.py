"""`lrgls simulate`: a store drawn from known parameters."""

from __future__ import annotations

import argparse

from lrgls_dask.cli.arguments import add_overwrite, positive
from lrgls_dask.simulate import rows_for_bytes, simulate_to_zarr


def add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("simulate", help="write a store drawn from known parameters")
    parser.add_argument("out", metavar="OUT.zarr")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--n-obs", type=int, help="rows")
    size.add_argument("--gb", type=positive, help="size on disk in GB, instead of --n-obs")
    parser.add_argument("--n-equations", type=int, default=50, help="default %(default)s")
    parser.add_argument(
        "--p", type=int, default=5, help="regressors of its own for each equation (default %(default)s)"
    )
    parser.add_argument(
        "--n-shared", type=int, default=0, help="regressors used by all equations (default %(default)s)"
    )
    parser.add_argument("--rank", type=int, default=3, help="factors in the errors (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--row-chunk", type=int, help="rows per chunk (default: about 16 MB of all columns)")
    add_overwrite(parser)
    parser.set_defaults(run=_simulate)


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
