"""Many random cases of each kind: `python -m tests.fuzz [KIND ...] [--cases 5000] [--seed 0]`.

Every case has its own seed, which is printed with what it found and makes it again: `--only SEED`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.campaign import KINDS, outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"some of {', '.join(KINDS)}; by default all")
    parser.add_argument("--cases", type=int, default=5000, help="of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop each kind after so long")
    parser.add_argument("--only", type=int, help="this case alone")
    args = parser.parse_args()
    seeds = range(args.seed, args.seed + args.cases) if args.only is None else [args.only]
    failed = 0
    for kind in args.kinds or KINDS:
        counts, begun = Counter(), time.monotonic()
        for seed in seeds:
            ended = outcome(kind, seed)
            counts[ended.partition("\n")[0] if ended in ("right", "refused") else "found"] += 1
            if ended not in ("right", "refused"):
                print(f"{kind} {seed}: {ended}", flush=True)
            if time.monotonic() - begun > args.seconds:
                break
        print(f"{kind}: {dict(counts)} in {time.monotonic() - begun:.0f} s", flush=True)
        failed += counts["found"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
