"""Peak memory of a program in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

__all__ = ["measured"]

AROUND = """
import json, sys, threading
import dask, psutil
dask.config.set(scheduler="threads", num_workers=2)
me, peak, done = psutil.Process(), [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], me.memory_info().rss)
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
{program}
done.set()
watcher.join()
print(json.dumps({{"peak": peak[0], **found}}))
"""


def measured(program: str, *given: object) -> dict[str, int]:
    """The peak of resident memory in bytes, and what the program calls `found`; it sees what is given in sys.argv."""
    command = [sys.executable, "-W", "ignore", "-c", AROUND.format(program=program), *map(str, given)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, int] = json.loads(ran.stdout)
    return found
