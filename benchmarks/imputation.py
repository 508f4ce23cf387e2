"""Is the blend of ``tl.impute`` worse than the best simple method on real cohorts?

``python benchmarks/imputation.py`` prints Markdown tables; ``--left-out <folder>`` takes, instead of the model that
ships, the models that ``training/mini.py --evaluate`` made without each cohort's fold. ``--family g1``, ``g2`` or
``g3`` takes a small network of an authors' type with random weights, the worst that can be blended in: their
checkpoints must be downloaded, and no claim is made about them. Needs the cohorts: set ``BULKFORMER_TL_DATA`` to their
folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import yaml

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).parents[1]
COHORTS = ("crohns_colon_gse66207_counts", "tb_gse107991_counts", "tcga_crc_cms_counts", "hematopoiesis16_counts")
MAX_SAMPLES, PANEL = 40, 1000
RATES = (0.15, 0.5, 0.9)
SIMPLE = ("gene_mean", "knn", "pca", "factor_analysis")
SEEN = "`bulkformer-mini` was pretrained on these very cohorts, which favours it, blended or alone."
UNTRAINED = (
    "The encoder has random weights; the low-rank part of `bulkformer-mini`, which knows these cohorts, is blended in."
)
SMALL = {
    "g1": {"dim": 32, "protein_dim": 32, "heads": 4, "n_performers": 1, "n_blocks": 1},
    "g2": {"dim": 32, "heads": 4},
    "g3": {"dim": 32, "depth": 1, "heads": 4, "dim_head": 8},
}
LEFT_OUT = "`bulkformer-mini` was made anew without the cohort's fold of `training/splits.yaml`."


def read(folder: Path, name: str) -> ad.AnnData:
    """Read at most 40 samples of a cohort on the model's genes, those that none measures left out."""
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    rows = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:MAX_SAMPLES])
    adata = adata[rows].copy()
    bf.pp.log_tpm(adata)
    aligned = bf.pp.align_genes(adata)
    measured = ~np.isnan(aligned.layers["log_tpm"]).all(axis=0)
    aligned = aligned[:, measured].copy()
    panel = np.random.default_rng(0).choice(aligned.n_vars, size=PANEL, replace=False)
    aligned.var["panel"] = np.isin(np.arange(aligned.n_vars), panel)
    return aligned


def left_out(folder: Path, stages: Path, fold: int) -> bf.models.BulkFormer:
    """Return the model that was made without a fold."""
    sys.path.insert(0, str(ROOT / "training"))
    from mini import Workshop

    return Workshop(folder, stages).model(fold)


def untrained(family: str) -> bf.models.BulkFormer:
    """Return a small network of an authors' type with random weights, on the genes and graph of what ships."""
    import torch

    from bulkformer_tl.models._families import PUBLISHED, family_classes

    mini = bf.models.load("bulkformer-mini")
    config, network = family_classes(family)
    torch.manual_seed(0)
    small = network(config(n_genes=len(mini.vocabulary), **SMALL[family])).eval()
    edges, weights = mini.graph
    return bf.models.BulkFormer(
        small, mini.vocabulary, graph=(edges, weights), name=f"untrained {family}", family=family, **PUBLISHED[family]
    )


def score(adata: ad.AnnData, model: Any) -> dict[str, pd.DataFrame]:
    """Hide entries, whole genes and all but a panel, and score all methods."""
    protocol = Protocol(baselines=SIMPLE, n_splits=3)
    options: dict[str, Any] = {"model": model, "layer": "log_tpm", "protocol": protocol}
    bf.tl.score_imputation(adata, rates=RATES, **options)
    bf.tl.score_imputation(adata, rates=(0.5,), by="gene", **options)
    bf.tl.score_imputation(adata, by="panel", mask_var="panel", **options)
    return adata.uns["score_imputation"]


def report(name: str, adata: ad.AnnData, result: dict[str, pd.DataFrame], seconds: float) -> tuple[str, int]:
    """Return a Markdown table, and at how many settings a simple method is better than the blend."""
    scores, gaps = result["scores"], result["differences"]
    model = gaps["method"].iloc[0]
    lines = [
        f"## {name}",
        "",
        f"{adata.n_obs} samples, {adata.n_vars:,} genes, {seconds:.0f} s. Global RMSE in ln(TPM+1).",
        "",
        f"| hidden | blend | covered | alone | {' | '.join(SIMPLE)} | difference from the best of them |",
        "| --- |" + " --- |" * (len(SIMPLE) + 4),
    ]
    lost = 0
    for (by, rate), own in gaps[gaps["method"] == model].groupby(["by", "rate"], sort=False):
        here = scores[(scores["by"] == by) & (scores["rate"] == rate)]
        error = here[(here["metric"] == "rmse") & (here["axis"] == "global")].set_index("method")["mean"]
        covered = here[here["metric"] == "coverage_90"].set_index("method")["mean"]
        best = own.loc[own["difference"].idxmax()]
        lost += int((own["better"] == own["baseline"]).any())
        errors = " | ".join(f"{error[method]:.3f}" for method in (f"{model}, encoder alone", *SIMPLE))
        gap = f"{best['baseline']}, {best['difference']:+.3f} ({best['low']:+.3f} to {best['high']:+.3f})"
        lines.append(f"| {by}, {rate:.2f} | {error[model]:.3f} | {covered[model]:.1%} | {errors} | {gap} |")
    return "\n".join([*lines, ""]), lost


def main() -> None:
    """Print a table of each cohort and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohorts", nargs="*", default=COHORTS, help="file names without suffix")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--left-out", type=Path, help="folder of the stages of training/mini.py")
    models.add_argument("--family", choices=SMALL, help="an authors' type of network, random weights")
    arguments = parser.parse_args()
    folder = Path(os.environ["BULKFORMER_TL_DATA"])
    splits = yaml.safe_load((ROOT / "training" / "splits.yaml").read_text(encoding="utf-8"))
    folds = {entry["file"].removesuffix(".h5ad"): entry["fold"] for entry in splits}
    note = UNTRAINED if arguments.family else LEFT_OUT if arguments.left_out else SEEN
    print(f"# Imputation\n\n{note}\n")
    lost = 0
    for name in arguments.cohorts:
        start = time.perf_counter()
        adata = read(folder, name)
        model: Any = untrained(arguments.family) if arguments.family else "bulkformer-mini"
        if arguments.left_out:
            model = left_out(folder, arguments.left_out, folds[name])
        text, here = report(name, adata, score(adata, model), time.perf_counter() - start)
        lost += here
        print(text, flush=True)
    print(f"Settings at which a simple method is better than the blend, beyond the interval: {lost}.")


if __name__ == "__main__":
    main()
