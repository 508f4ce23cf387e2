"""Speed of rank-value encoding beside a loop over samples that sorts with numpy.

Makes sparse counts of bulk samples (15,000 genes above zero) and of single cells (2,500), and ranks them with
:func:`bulkformer_tl.pp.rank_value_encode` and with a loop that slices the rows of the CSR matrix, divides in double
precision and sorts with ``argsort``: stable, as the result has to be, and, for comparison, in numpy's default order,
which leaves ties to chance. All results are compared. Processor time of one thread, the best of some rounds.

    OMP_NUM_THREADS=1 python benchmarks/rank_encoding.py
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import bulkformer_tl as bf

N_GENES = 20_000


def make_counts(n_samples: int, n_above: int, rng: np.random.Generator) -> sp.csr_matrix:
    level = rng.lognormal(3, 2, N_GENES)
    columns = np.empty((n_samples, n_above), dtype=np.int32)
    counts = np.empty((n_samples, n_above), dtype=np.float32)
    for i in range(n_samples):
        columns[i] = np.sort(rng.choice(N_GENES, n_above, replace=False))
        counts[i] = 1 + rng.poisson(level[columns[i]] * rng.lognormal(0, 1, n_above))
    starts = np.arange(n_samples + 1, dtype=np.int32) * n_above
    return sp.csr_matrix((counts.ravel(), columns.ravel(), starts), shape=(n_samples, N_GENES))


def loop(counts: sp.csr_matrix, medians: np.ndarray, length: int, kind: str | None) -> list[np.ndarray]:
    known = np.isfinite(medians)
    # tokens of genes follow those of <pad> and <mask>
    tokens = np.cumsum(known).astype(np.int32) + 1
    ranked = []
    for start, end in pairwise(counts.indptr):
        values, columns = counts.data[start:end].astype(np.float64), counts.indices[start:end]
        total = values.sum()
        keep = known[columns]
        values, columns = values[keep] / total * 10_000 / medians[columns[keep]], columns[keep]
        ranked.append(tokens[columns[np.argsort(-values, kind=kind)[:length]]])
    return ranked


def compare(name: str, counts: sp.csr_matrix, medians: np.ndarray, rounds: int) -> None:
    adata = ad.AnnData(counts, var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]))
    dictionary = {gene: float(m) for gene, m in zip(adata.var_names, medians, strict=True) if np.isfinite(m)}
    seconds: dict[str, float] = {"stable": np.inf, "default": np.inf, "ours": np.inf}
    for _ in range(rounds):
        start = time.process_time()
        bf.pp.rank_value_encode(adata, medians=dictionary, version="V1")
        seconds["ours"] = min(seconds["ours"], time.process_time() - start)
        for kind in ("stable", "default"):
            start = time.process_time()
            ranked = loop(counts, medians, 2048, "stable" if kind == "stable" else None)
            seconds[kind] = min(seconds[kind], time.process_time() - start)
            if kind == "stable":
                lengths = adata.obs["rank_length"].to_numpy()
                pairs = zip(adata.obsm["rank_tokens"], lengths, ranked, strict=True)
                same = all(np.array_equal(row[:n], own) for row, n, own in pairs)
    micro = {kind: 1e6 * found / len(lengths) for kind, found in seconds.items()}
    print(
        f"{name:12s} {micro['ours']:8.1f} us/sample, loop {micro['stable']:8.1f} (stable) {micro['default']:8.1f} "
        f"(default): {micro['stable'] / micro['ours']:5.1f}x and {micro['default'] / micro['ours']:5.1f}x, "
        f"equal: {same}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    bf.settings.progress = False
    rng = np.random.default_rng(0)
    medians = rng.lognormal(0, 1.5, N_GENES)
    # one gene of ten is not in the vocabulary
    medians[rng.random(N_GENES) < 0.1] = np.inf
    for name, n_above in (("bulk", 15_000), ("single cells", 2_500)):
        compare(name, make_counts(options.samples, n_above, rng), medians, options.rounds)


if __name__ == "__main__":
    main()
