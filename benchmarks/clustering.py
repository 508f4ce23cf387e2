"""How well clusters of embedded samples agree with labels: AvgBIO beside highly variable genes, as BioFormers do.

Samples of cohorts that the networks of this benchmark were not trained on are clustered by Leiden on 15 nearest
neighbours. AvgBIO is the mean of NMI and ARI with the labels and of the labels' silhouette width, moved to 0 to 1. The
resolution is the one with the best NMI, as in scIB, which looks at the labels; and 1, which does not.

    BULKFORMER_TL_DATA=... OMP_NUM_THREADS=1 python benchmarks/clustering.py

Needs ``scanpy[leiden]``. ``--networks <folder>`` keeps the networks; ``--write`` puts the tables into
``docs/benchmarks/clustering.md``.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from small_networks import CONFIGS, N_GENES, SCORED, components, corpus, read_scored, represent, train, variable_genes

import bulkformer_tl as bf

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "clustering.md"
RESOLUTIONS = np.arange(1, 21) / 10
N_VARIABLE = 2000
HEADER = """# Clusters and labels, as BioFormers scores them

Made by `python benchmarks/clustering.py --write`. Seven cohorts of counts, clustered by Leiden on 15 nearest
neighbours; AvgBIO is the mean of NMI, ARI and the labels' silhouette width, moved to 0 to 1. The resolution is the one
with the best NMI, as in scIB, of which the paper's scores are; it looks at the labels, and the last column does not.
*HVG* are the 2,000 most variable genes of the cohort, logarithms of counts per 10,000, *HVG, PCA* their 50 principal
components. *PCA* of an encoding are 50 components of it over all genes: ln(TPM+1), bins, ranks of the first 4,096
genes. *bins, network* and *ranks, network* are a small BioFormer and a small Geneformer of this package (two layers of
width 64 each) that were trained on the other {n_files} cohorts of counts ({n_samples} samples, {n_genes} genes; three
of the cohorts tell when to stop), and *{n_genes} genes, PCA* are ln(TPM+1) of the very genes that they read.
`bulkformer-mini` was pretrained, without labels, on the scored cohorts too.

{shows}
"""
SHOWS = """\
**What this shows.** No network beats highly variable genes on average: over the seven cohorts they come within 0.011
of the best, the components of ranks and of magnitudes over all genes. The three encodings by themselves differ by less
than cohorts do. The small BioFormer comes first in one cohort of seven and makes less of its genes than their own
components do in the others; the small Geneformer comes first in none, and makes more of its genes in one, by `<cls>`.
`<cls>` is nothing that masked cross-entropy trains, and some nine hundred samples of other studies teach them
little of these, by whatever pooling. The network of bins is the second of two
that were scored on these cohorts; the first, with another scale of its bins, had .392 by `<cls>`."""


def highly_variable(adata: ad.AnnData) -> np.ndarray:
    counts = ad.AnnData(np.asarray(adata.X, dtype=np.float32), obs=adata.obs[[]], var=adata.var[[]])
    sc.pp.normalize_total(counts, target_sum=1e4)
    sc.pp.log1p(counts)
    sc.pp.highly_variable_genes(counts, n_top_genes=N_VARIABLE)
    return np.asarray(counts.X[:, counts.var["highly_variable"].to_numpy()])


def clusters(points: np.ndarray) -> list[np.ndarray]:
    """Return the clusters at each resolution."""
    adata = ad.AnnData(np.asarray(points, dtype=np.float32))
    sc.pp.neighbors(adata, n_neighbors=min(15, adata.n_obs - 1), use_rep="X", random_state=0)
    found = []
    for resolution in RESOLUTIONS:
        sc.tl.leiden(adata, resolution=resolution, flavor="igraph", n_iterations=2, directed=False, random_state=0)
        found.append(adata.obs["leiden"].astype(str).to_numpy())
    return found


def score(points: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    found = clusters(points)
    agreement = [bf.metrics.nmi(labels, own) for own in found]
    best = found[int(np.argmax(agreement))]
    return {
        "AvgBIO": bf.metrics.avg_bio(points, labels, clusters=best),
        "NMI": bf.metrics.nmi(labels, best),
        "ARI": bf.metrics.ari(labels, best),
        "ASW": bf.metrics.asw(points, labels),
        "AvgBIO, resolution 1": bf.metrics.avg_bio(
            points, labels, clusters=found[int(np.argmin(np.abs(RESOLUTIONS - 1)))]
        ),
    }


def score_cohort(adata: ad.AnnData, networks: dict[str, Any], vocabulary: Any, genes: list[str]) -> pd.DataFrame:
    keys = represent(adata, networks, vocabulary)
    variable, labels = highly_variable(adata), adata.obs["label"].astype(str).to_numpy()
    known = adata.var_names.isin(genes)
    points = {
        "HVG": variable,
        "HVG, PCA": components(variable),
        f"{len(genes)} genes, PCA": components(adata.layers["log_tpm"][:, known]),
        **{name: np.asarray(adata.obsm[key]) for name, key in keys.items()},
    }
    return pd.DataFrame({name: score(own, labels) for name, own in points.items()}).T


def markdown(table: pd.DataFrame) -> list[str]:
    """Lay out numbers with the best of each column in bold."""
    best = table.round(3) == table.round(3).max()
    cells = table.map("{:.3f}".format).where(~best, table.map("**{:.3f}**".format))
    lines = [f"| | {' | '.join(map(str, table.columns))} |", "| --- |" + " --: |" * table.shape[1]]
    return [
        *lines,
        *(f"| {name} | {' | '.join(row)} |" for name, row in zip(table.index, cells.to_numpy(), strict=True)),
    ]


def answer(folder: Path, out: Path, epochs: float) -> list[str]:
    parts = corpus(folder)
    genes, vocabulary = variable_genes(parts), bf.pp.build_vocabulary(parts)
    networks = {name: train(name, parts, genes, out, epochs=epochs) for name in CONFIGS}
    page = [
        HEADER.format(n_files=len(parts), n_samples=sum(part.n_obs for part in parts), n_genes=N_GENES, shows=SHOWS)
    ]
    tables, named = {}, []
    for name in SCORED:
        adata = read_scored(folder, name)
        tables[name] = score_cohort(adata, networks, vocabulary, genes)
        counts = adata.obs["label"].value_counts()
        named.append(f"- `{name}`, {SCORED[name]}: " + ", ".join(f"{label} {n}" for label, n in counts.items()))
        print(name, tables[name].round(3).to_string(), sep="\n", flush=True)
    short = {name: "_".join(name.split("_")[:3]).removesuffix("_counts") for name in tables}
    each = pd.DataFrame({short[name]: table["AvgBIO"] for name, table in tables.items()})
    means = sum(tables.values()) / len(tables)
    page += ["## AvgBIO of each cohort", "", *markdown(each), ""]
    page += ["## Means over cohorts", "", *markdown(means), "", "## Cohorts", "", *named, ""]
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--networks", type=Path, help="folder in which trained networks are kept")
    parser.add_argument("--epochs", type=float, default=20)
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("clustering: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    logging.disable(logging.WARNING)
    bf.settings.progress = False
    with tempfile.TemporaryDirectory() as temporary:
        page = answer(Path(folder), options.networks or Path(temporary), options.epochs)
    print("\n".join(page))
    if options.write:
        PAGE.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
