"""Speed and faith of the first-order screen of all genes beside exact effects, of one call and one by one.

Deletes genes of simulated samples of one tissue with the embedded checkpoint and reads how far this brings their
vectors toward another tissue. The screen runs over all genes and ``--samples`` samples. Exact passes run over
``--genes`` genes, drawn with a seed, and the ``--top`` ones of the screen, on ``--exact-samples`` samples: by
:func:`bulkformer_tl.tl.perturb`, and in a loop that deletes one gene of one sample, embeds it and takes the cosine
(``--loop`` passes of it). Times are divided by genes and samples, so that they compare although the numbers of both
differ. The rank correlation of estimates and effects is taken over the screen's top genes and over all that were passed
exactly. Processor time; with one thread it is what a quiet core takes.

The vector ``scores`` is the checkpoint's own; it is linear in the values. ``mean`` averages its gene vectors, which run
through graph and attention.

    OMP_NUM_THREADS=1 python benchmarks/perturbation.py
    OMP_NUM_THREADS=1 python benchmarks/perturbation.py --vector mean --samples 8 --genes 50 --top 50 \\
        --exact-samples 1 --loop 10
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import bulkformer_tl as bf

if TYPE_CHECKING:
    import anndata as ad


def make_samples(count: int) -> ad.AnnData:
    """Simulate samples; the first ``count`` of one tissue stand for those to perturb."""
    adata = bf.datasets.toy(8 * count)
    bf.pp.log_tpm(adata)
    tissue = adata.obs["tissue"].astype(str)
    start, goal = tissue.value_counts().index[:2]
    rows = [*np.flatnonzero(tissue == start)[:count], *np.flatnonzero(tissue == goal)[:count]]
    adata = adata[rows].copy()
    adata.obs["way"] = np.repeat(["start", "goal"], [len(rows) - count, count])
    return adata


def few(adata: ad.AnnData, count: int) -> ad.AnnData:
    """Keep some samples of the start; the goal stays, so that the way stays the same."""
    start = np.flatnonzero(adata.obs["way"] == "start")[:count]
    return adata[[*start, *np.flatnonzero(adata.obs["way"] == "goal")]].copy()


def one_by_one(adata: ad.AnnData, genes: list[str], pooling: str | None, count: int) -> tuple[float, dict[str, float]]:
    """Embed one deletion after the other; seconds per pass, and effects on the first sample."""
    model = bf.models.load("bulkformer-mini", device="cpu")
    match = {gene: place for place, gene in enumerate(model.vocabulary.ids.tolist())}
    aligned = bf.pp.align_genes(adata).layers["log_tpm"]
    values = np.asarray(aligned, dtype=np.float32)

    def vector(rows: np.ndarray) -> np.ndarray:
        return model.encode(rows, pooling=pooling).pooled.double().numpy()

    goal = vector(values[(adata.obs["way"] == "goal").to_numpy()]).mean(axis=0)
    goal /= np.linalg.norm(goal)
    base = vector(values[:1])[0]
    effects, seconds = {}, 0.0
    for gene in genes[:count]:
        start = time.process_time()
        changed = values[:1].copy()
        changed[0, match[gene]] = 0
        after = vector(changed)[0]
        effects[gene] = after @ goal / np.linalg.norm(after) - base @ goal / np.linalg.norm(base)
        seconds += time.process_time() - start
    return seconds / len(effects), effects


def effects_of(
    adata: ad.AnnData, genes: list[str] | None, pooling: str | None, **options: object
) -> tuple[float, pd.DataFrame]:
    """Perturb; seconds in all, and the table of the way toward the goal."""
    states = bf.tl.States("way", start="start", goal="goal")
    start = time.process_time()
    bf.tl.perturb(adata, genes, readout=states, layer="log_tpm", pooling=pooling, n_null=0, per_sample=True, **options)
    seconds = time.process_time() - start
    table = adata.uns["perturb"]["table"]
    return seconds, table[table["output"] == "toward goal"].set_index("perturbation")


def compare(options: argparse.Namespace) -> None:
    pooling = None if options.vector == "scores" else options.vector
    adata = make_samples(options.samples)
    n_genes = int(bf.pp.align_genes(adata).var["measured"].sum())
    # the model is loaded and its constants are made before anything is timed
    effects_of(few(adata, 1), ["ACTB"], pooling)
    screened, estimates = effects_of(adata, None, pooling, screen=0)
    screen = screened / n_genes / options.samples
    known = estimates[estimates["first_order"].notna()]
    top = known["first_order"].abs().nlargest(options.top).index.tolist()
    subset = few(adata, options.exact_samples)
    everywhere = known.index[known.index.isin(_expressed(subset))]
    top = [gene for gene in top if gene in set(everywhere)]
    drawn = np.random.default_rng(0).choice(everywhere, min(options.genes, len(everywhere)), replace=False).tolist()
    genes = list(dict.fromkeys([*top, *drawn]))
    _, own = effects_of(subset, None, pooling, screen=0)
    passed, exact = effects_of(subset, genes, pooling)
    batched = passed / len(genes) / options.exact_samples
    single, effects = one_by_one(subset, genes, pooling, options.loop)
    alone = subset.obsm["perturb"][0, ::2]
    at = [genes.index(gene) for gene in effects]
    gap = np.abs(alone[at] - np.array(list(effects.values()))).max() / np.abs(alone).max()
    both = pd.DataFrame({"estimate": own["first_order"], "effect": exact["effect"]}).dropna()
    sizes = f"({len(genes):,} genes x {options.exact_samples} samples, {passed:.1f} s)"
    told = f"({len(effects):,} passes; effects differ by {gap:.1e} of the largest)"
    print(
        f"vector {options.vector}: {n_genes:,} genes; microseconds per gene and sample\n"
        f"  screen          {1e6 * screen:10.2f}   ({n_genes:,} genes x {options.samples} samples, {screened:.1f} s)\n"
        f"  exact, one call {1e6 * batched:10.2f}   {sizes}\n"
        f"  exact, loop     {1e6 * single:10.2f}   {told}\n"
        f"  screen {single / screen:,.0f}x the loop and {batched / screen:,.1f}x one call; "
        f"one call {single / batched:,.1f}x the loop\n"
        f"  Spearman of estimates and effects: {_spearman(both.loc[top]):.4f} over the screen's top {len(top):,}, "
        f"{_spearman(both):.4f} over all {len(both):,}"
    )


def _spearman(table: pd.DataFrame) -> float:
    return float(table["estimate"].corr(table["effect"], method="spearman"))


def _expressed(adata: ad.AnnData) -> list[str]:
    """Genes that no sample of the start lacks."""
    values = adata.layers["log_tpm"][(adata.obs["way"] == "start").to_numpy()]
    dense = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    return adata.var_names[(dense > 0).all(axis=0)].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vector", choices=["scores", "mean", "max", "median"], default="scores")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--exact-samples", type=int, default=4)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--top", type=int, default=500)
    parser.add_argument("--loop", type=int, default=500)
    options = parser.parse_args()
    bf.settings.progress = False
    compare(options)


if __name__ == "__main__":
    main()
