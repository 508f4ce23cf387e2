"""Time and peak memory of the co-expression graph, beside ``numpy.corrcoef`` and the same choice of neighbours.

``python benchmarks/coexpression.py`` compares both in the same run at a size where both fit, each in a process of its
own, so that peak memory is its own; files are read from disk. ``--full`` takes 20,000 genes and 50,000 samples that are
made block by block and never lie anywhere together; ``--samples`` makes that shorter: memory does not depend on it, and
time is proportional to it. ``--missing`` hides a share of the values, which takes six products instead of one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

N_GENES, N_SAMPLES = 4_000, 4_000
FULL_GENES, FULL_SAMPLES = 20_000, 50_000


@dataclass(frozen=True)
class Simulated:
    """A table of ln(TPM+1) that is made anew whenever rows of it are read."""

    n_samples: int
    n_genes: int
    missing: float

    def __iter__(self):
        loadings = np.random.default_rng(0).normal(size=(16, self.n_genes)).astype(np.float32)
        for start in range(0, self.n_samples, 1024):
            rng, rows = np.random.default_rng([1, start]), min(1024, self.n_samples - start)
            block = rng.standard_normal((rows, 16), dtype=np.float32) @ loadings
            block += 2 * rng.standard_normal(block.shape, dtype=np.float32)
            if self.missing:
                block[rng.random(block.shape, dtype=np.float32) < self.missing] = np.nan
            yield block.astype(np.float64)


def ours(path: Path) -> object:
    import anndata as ad

    import bulkformer_tl as bf

    adata = ad.read_h5ad(path, backed="r")
    return bf.pp.coexpression_graph(adata, copy=True).varp["coexpression"]


def dense(path: Path) -> object:
    import anndata as ad
    import scipy.sparse as sp

    strength = np.abs(np.corrcoef(ad.read_h5ad(path).X, rowvar=False))
    np.fill_diagonal(strength, 0)
    strength[strength < 0.4] = 0
    worse = np.argpartition(-strength, 20, axis=1)[:, 20:]
    np.put_along_axis(strength, worse, 0, axis=1)
    return sp.csr_matrix(strength)


def full(samples: int, missing: float) -> object:
    from bulkformer_tl.encodings import correlate, nearest_genes

    return nearest_genes(correlate([Simulated(samples, FULL_GENES, missing)]))


def measure(name: str, work) -> None:
    from bulkformer_tl import settings
    from bulkformer_tl._progress import peak_memory

    start = time.perf_counter()
    with settings.override(progress=False):
        graph = work()
    seconds = time.perf_counter() - start
    print(f"{name},{seconds},{peak_memory()},{graph.nnz}", flush=True)


def compare() -> None:
    import anndata as ad

    with TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.h5ad"
        values = np.concatenate(list(Simulated(N_SAMPLES, N_GENES, 0.0))).astype(np.float32)
        ad.AnnData(values).write_h5ad(path)
        print(f"{N_GENES:,} genes x {N_SAMPLES:,} samples   seconds   peak GiB   edges")
        found = []
        for name in ("dense", "ours"):
            command = [sys.executable, __file__, "--one", name, str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            _, seconds, peak, edges = done.stdout.strip().split(",")
            found.append((float(seconds), int(peak)))
            print(f"{name:32} {float(seconds):7.1f}   {int(peak) / 2**30:8.2f}   {int(edges):,}")
        print(f"{'ours / dense':32} {found[1][0] / found[0][0]:7.2f}   {found[1][1] / found[0][1]:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="20,000 genes, made block by block")
    parser.add_argument("--samples", type=int, default=FULL_SAMPLES, help="of --full")
    parser.add_argument("--missing", type=float, default=0.0, help="share of missing values, of --full")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, path = arguments.one
        measure(name, lambda: {"ours": ours, "dense": dense}[name](Path(path)))
    elif arguments.full:
        print("genes x samples,seconds,peak bytes,edges")
        name = f"{FULL_GENES} x {arguments.samples}"
        measure(name, lambda: full(arguments.samples, arguments.missing))
    else:
        compare()


if __name__ == "__main__":
    main()
