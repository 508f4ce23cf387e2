"""What ``import bulkformer_tl`` adds to ``import anndata``; the aim is less than half a second.

Each import runs in a fresh process, ``anndata`` first; files are read once before, so that the disk does not count.
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
print(between - start, time.perf_counter() - between)
"""


def measure() -> tuple[float, float]:
    """Return the seconds of both imports in a new process."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    anndata, ours = map(float, done.stdout.split())
    return anndata, ours


def main() -> None:
    measure()
    runs = [measure() for _ in range(REPEATS)]
    anndata, ours = (statistics.median(times) for times in zip(*runs, strict=True))
    print(f"import anndata              {anndata:.2f} s")
    print(f"import bulkformer_tl, after {ours:.2f} s   (median of {REPEATS}, aim < 0.5 s)")
    print("each run                    " + "  ".join(f"{own:.2f}" for _, own in runs))


if __name__ == "__main__":
    main()
