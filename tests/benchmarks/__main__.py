"""Every benchmark, or those that are named, one after the other: `python -m tests.benchmarks [--small] [NAME ...]`.

Each is a process of its own and writes its JSON into a folder; one table of all their figures is printed at the end and
written beside them as `all.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def scripts() -> list[str]:
    """Names of the scripts that take the options of all, in the order of the alphabet."""
    return sorted(path.stem for path in HERE.glob("*.py") if "def cli(" in path.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(scripts())}; by default all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results (default %(default)s)")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each case (default %(default)s)")
    parser.add_argument("--store", type=Path, help="folder to keep simulated stores in")
    args = parser.parse_args()
    unknown = set(args.names) - set(scripts())
    if unknown:
        parser.error(f"no benchmark is called {sorted(unknown)[0]!r}; there are {', '.join(scripts())}")
    args.out.mkdir(parents=True, exist_ok=True)
    found, failed = {}, []
    for name in args.names or scripts():
        path = args.out.resolve() / f"{name}.json"
        words = [str(HERE / f"{name}.py"), "--repeat", str(args.repeat), "--json", str(path)]
        words += ["--small"] * args.small + (["--store", str(args.store.resolve())] if args.store else [])
        if subprocess.run([sys.executable, *words], cwd=args.out, check=False).returncode == 0:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        else:
            failed.append(name)
    (args.out / "all.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print()
    for name, each in found.items():
        for figure, value in each["summary"].items():
            print(
                f"{name:22} {figure:52} {value:.4g}" if isinstance(value, float) else f"{name:22} {figure:52} {value}"
            )
    for name in failed:
        print(f"{name:22} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
