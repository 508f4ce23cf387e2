"""Do attention and gene vectors recover known targets of transcription factors better than co-expression does?

``python benchmarks/networks.py`` prints Markdown tables, ``--write`` puts them into ``docs/benchmarks/networks.md``.
Needs the cohorts and CollecTRI: set ``BULKFORMER_TL_DATA`` to their folder.
"""

from __future__ import annotations

import argparse
import os
import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from probes import MODEL, ROOT, read

import bulkformer_tl as bf

if TYPE_CHECKING:
    import anndata as ad

PAGE = ROOT / "docs" / "benchmarks" / "networks.md"
#: Files, their unit, and what they are.
COHORTS = {
    "tcga_crc_cms_counts": ("counts", "colorectal cancer (TCGA)"),
    "brain_mdd_gse102556_counts": ("counts", "brain, depression (GSE102556)"),
    "tb_gse107991_counts": ("counts", "blood, tuberculosis (GSE107991)"),
    "tissue_gtex_hpa21_tpm": ("tpm", "tissues (GTEx)"),
}
#: Samples of a cohort, genes that are targets, edges of each, halves of the samples, and networks of the null.
N_SAMPLES, N_GENES, N_EDGES, N_HALVES, N_NULL = 60, 1000, 10, 4, 50
HEADER = """# Networks

Made by `nox -s bench -- benchmarks/networks.py`. {{func}}`~bulkformer_tl.tl.network` joins {n_genes:,} genes, the most
variable ones of each cohort, to the transcription factors of CollecTRI ({n_pairs:,} pairs), and asks whether known
targets come first: by the attention of `{model}` (one layer); by the attention of the same network with random weights
in its block of graph convolution and attention; by the cosine of the model's static gene vectors; by co-expression
(Pearson's |r| over the same samples); and by expression level alone (the sum of both ranks). At most {n_samples}
samples of a cohort.

- **per factor**: mean AUROC over factors with five known targets or more, with a 95 % bootstrap interval over factors,
  and its paired difference to co-expression. It does not depend on how many targets a factor has.
- **all pairs**: AUROC over all pairs, which rises where genes with many known pairs score higher as a whole.
- **edges**: of the {n_edges} strongest factors of each gene, odds ratio for known pairs, and how far their number lies
  above that of networks in which every gene has as many edges, in standard deviations ({n_null} of them).
- **again**: mean share of {n_halves} random halves of the samples in which an edge is among the strongest again.

Published weights of Geneformer and of the larger BulkFormers were not at hand, and are not part of this table.
`{model}` was pretrained, without labels, on these very cohorts. CollecTRI is a collection from the literature, in which
well-studied genes have more pairs.
"""


def read_cohort(folder: Path, name: str, unit: str) -> ad.AnnData:
    adata = read(folder, name, unit)
    adata = adata[:, ~np.isnan(adata.layers["log_tpm"]).any(axis=0)]
    rows = np.random.default_rng(0).permutation(adata.n_obs)[:N_SAMPLES]
    return adata[np.sort(rows)].copy()


def forget(model: Any) -> Any:
    """Return the model with random weights in the block of graph convolution and attention."""
    other = deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in other.network.block.modules():
            if isinstance(module, torch.nn.Linear):
                module.reset_parameters()
    return other


def ask(adata: ad.AnnData, table: Path) -> tuple[list[str], pd.Series, pd.Series]:
    """Return rows of the table, areas per factor, and what the model's layer attends to."""
    bf.tl.gene_embeddings(adata, model=MODEL)
    model = bf.models.load(MODEL)
    common: dict[str, Any] = {"regulators": table, "layer": "log_tpm", "n_edges": N_EDGES, "n_null": N_NULL}
    runs: dict[str, dict[str, Any]] = {
        f"attention of {MODEL}": {"model": model, "resamples": N_HALVES},
        "attention, random weights": {"model": forget(model), "resamples": N_HALVES},
        f"gene vectors of {MODEL}": {"method": "cosine"},
        "coexpression": {"method": "coexpression", "resamples": N_HALVES},
    }
    genes = None
    lines, areas = [], {}
    for title, options in runs.items():
        start = time.perf_counter()
        bf.tl.network(adata, genes, **{**common, **options})
        seconds = time.perf_counter() - start
        found = adata.uns["network"]
        # the same genes for all, those of the most variable that the model knows
        genes = genes or sorted(found["edges"]["target"].unique())
        if not lines:
            layers = found["layers"].iloc[0]
        method = found["params"]["method"]
        names = {method: title} | ({"level": "expression level"} if method == "coexpression" else {})
        for name, shown in names.items():
            lines.append(row(found, name, shown, seconds))
            areas[shown] = score(found["scores"], name)["mean"]
    return lines, pd.Series(areas), layers


def score(table: pd.DataFrame, name: str) -> pd.Series:
    return table[table["representation"] == name].iloc[0]


def row(found: dict[str, Any], name: str, shown: str, seconds: float) -> str:
    own, whole = score(found["scores"], name), found["recovery"].set_index("edges").loc[name]
    gaps = found["differences"]
    gaps = gaps[(gaps["representation"] == name) & (gaps["baseline"] == "coexpression")]
    gap = "" if gaps.empty else "{difference:+.3f} ({low:+.3f} to {high:+.3f})".format(**gaps.iloc[0])
    again = f"{found['edges']['frequency'].mean():.2f}" if "frequency" in found["edges"] and name != "level" else ""
    z = "" if np.isnan(whole["null_z"]) else f"{whole['null_z']:+.1f}"
    cells = [
        shown,
        f"{own['mean']:.3f} ({own['low']:.3f} to {own['high']:.3f})",
        gap,
        f"{whole['auroc']:.3f}",
        f"{whole['odds_ratio']:.2f}",
        z,
        again,
        "" if name == "level" else f"{seconds:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    given = os.environ.get("BULKFORMER_TL_DATA")
    if not given:
        print("networks: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    folder = Path(given)
    table = folder / "resources" / "collectri_human.csv.gz"
    sizes = {"n_genes": N_GENES, "n_samples": N_SAMPLES, "n_edges": N_EDGES, "n_null": N_NULL, "n_halves": N_HALVES}
    page = [HEADER.format(model=MODEL, n_pairs=len(pd.read_csv(table)), **sizes)]
    for name, (unit, what) in COHORTS.items():
        adata = read_cohort(folder, name, unit)
        page.append("\n".join(section(what, adata.n_obs, *ask(adata, table))))
        print(page[-1], flush=True)
    if options.write:
        PAGE.write_text("\n".join(page), encoding="utf-8")


def section(what: str, n_obs: int, rows: list[str], areas: pd.Series, layer: pd.Series) -> list[str]:
    best = areas.idxmax()
    said = [
        f"{n_obs} samples. Attention follows the rank of expression with r = {layer['rank_correlation']:.2f} "
        f"(Spearman, over genes); factors receive {layer['regulator_share'] / layer['uniform_share']:.2f} times the "
        f"uniform share. The highest area per factor is that of *{best}*."
    ]
    head = ["per factor", "to co-expression", "all pairs", "edges: odds ratio", "edges: z", "again", "seconds"]
    return [
        f"## {what[0].upper()}{what[1:]}",
        "",
        *said,
        "",
        f"| | {' | '.join(head)} |",
        "| --- |" + " --- |" * len(head),
        *rows,
        "",
    ]


if __name__ == "__main__":
    main()
