"""What ``import bulkformer_tl`` adds to ``import anndata``; the aim is less than half a second.

Namespaces are imported when they are first used, so the time of using them all is counted as well. Each import runs in
a fresh process, ``anndata`` first; files are read once before, so that the disk does not count.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

REPEATS = 5
CODE = """
import time
start = time.perf_counter()
import anndata
between = time.perf_counter()
import bulkformer_tl
bare = time.perf_counter()
bulkformer_tl.pp, bulkformer_tl.tl, bulkformer_tl.pl, bulkformer_tl.datasets, bulkformer_tl.settings
print(between - start, bare - between, time.perf_counter() - between)
"""


def measure() -> list[float]:
    """Return the seconds of anndata, of our import alone, and of our import with its namespaces, in a new process."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return [float(seconds) for seconds in done.stdout.split()]


def main() -> None:
    measure()
    names = ("import anndata", "import bulkformer_tl, after it", "the same and pp, tl, pl, datasets")
    for name, times in zip(names, zip(*(measure() for _ in range(REPEATS)), strict=True), strict=True):
        runs = "  ".join(f"{seconds:.3f}" for seconds in times)
        print(f"{name:35}{statistics.median(times):.3f} s   (median of {runs})")


if __name__ == "__main__":
    main()
