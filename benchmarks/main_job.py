"""The main job on real cohorts: shapes, coverage, seconds, peak memory, and how well hidden values are predicted.

``python benchmarks/main_job.py [--figures FOLDER]`` with the cohorts' folder in ``BULKFORMER_TL_DATA``. Each cohort
runs in a process of its own, so that peak memory is its own. These cohorts are in the corpus of bulkformer-mini: its
card has the errors on studies that were left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

#: File, how it is handed over, the column that colours the figures.
COHORTS = {
    "tb_gse107993_counts.h5ad": ("counts, Ensembl ids", "disease"),
    "tcga_crc_cms_counts.h5ad": ("counts, symbols", "cms"),
    "tissue_hpa21_tpm.h5ad": ("TPM, Ensembl ids", "tissue"),
    "crc_metastasis_gse50760_fpkm.h5ad": ("FPKM, Ensembl ids", "disease"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help="run this cohort only, in this process")
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    arguments = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        sys.exit("set BULKFORMER_TL_DATA to the folder of the cohorts")
    if arguments.one:
        run(Path(folder) / arguments.one, *COHORTS[arguments.one], arguments.figures)
        return
    print("| cohort | handed over as | samples x genes | coverage | s | peak GiB | r | RMSE | in 90 % interval |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    figures = ["--figures", str(arguments.figures)] if arguments.figures else []
    for name in COHORTS:
        subprocess.run([sys.executable, __file__, "--one", name, *figures], check=True)


def run(path: Path, kind: str, color: str, figures: Path | None) -> None:
    import anndata as ad
    import matplotlib as mpl
    import numpy as np
    import scanpy as sc

    import bulkformer_tl as bf
    from bulkformer_tl._progress import peak_memory

    mpl.use("agg")
    adata = ad.read_h5ad(path)
    unit, names = kind.split(", ")
    identifiers = "symbol" if names == "symbols" else "ensembl"
    if identifiers == "symbol":
        adata.var_names = adata.var["gene_symbol"].astype(str)
        adata.var_names_make_unique()
    with bf.settings.override(progress=False):
        start = time.perf_counter()
        if unit == "counts":
            bf.pp.log_tpm(adata, identifiers=identifiers)
        else:
            bf.pp.to_log_tpm(adata, unit=unit.lower(), identifiers=identifiers)
        bf.tl.embed(adata, layer="log_tpm")
        bf.pp.hide(adata, layer="log_tpm")
        bf.tl.impute(adata, layer="log_tpm", mask="hidden")
        sc.pp.neighbors(adata, use_rep="X_bulkformer", n_neighbors=min(15, adata.n_obs - 1))
        sc.tl.umap(adata)
        seconds = time.perf_counter() - start
    hidden = adata.layers["hidden"] & ~np.isnan(adata.layers["imputed"])
    measured, predicted = adata.layers["log_tpm"][hidden], adata.layers["imputed"][hidden]
    inside = np.abs(measured - predicted) < 1.645 * adata.layers["imputed_sd"][hidden]
    coverage = adata.uns["imputed"]["params"]["coverage"]
    print(
        f"| {path.stem} | {kind} | {adata.n_obs} x {adata.n_vars} | {coverage:.1%} | {seconds:.0f} | "
        f"{peak_memory() / 2**30:.1f} | {np.corrcoef(measured, predicted)[0, 1]:.3f} | "
        f"{np.sqrt(np.mean((measured - predicted) ** 2)):.3f} | {inside.mean():.1%} |",
        flush=True,
    )
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        label = color if color in adata.obs else None
        if label is not None:
            adata.obs[label] = adata.obs[label].astype(str).astype("category")
            adata.uns[f"{label}_colors"] = list(bf.pl.palette(adata, label).values())
        drawn = {
            "umap": sc.pl.umap(adata, color=label, show=False),
            "coverage": bf.pl.coverage(adata, groupby=label),
            "imputation": bf.pl.imputation(adata),
        }
        for name, axes in drawn.items():
            axes.figure.savefig(figures / f"{path.stem}_{name}.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
