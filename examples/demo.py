"""The main job from end to end: a cohort of raw counts to embeddings, imputed expression and figures.

Run ``python examples/demo.py`` for the simulated toy cohort, or name an ``.h5ad`` file of raw counts:
``python examples/demo.py cohort.h5ad --color tissue --out demo-output``.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import numpy as np
import scanpy as sc

import bulkformer_tl as bf


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", nargs="?", type=Path, help=".h5ad of raw counts; none: the toy cohort")
    parser.add_argument("--color", help="obs column to colour the UMAP by; none: the first with 2 to 30 categories")
    parser.add_argument("--identifiers", choices=["ensembl", "symbol"], help="what var_names are; none: Ensembl")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder to write to")
    arguments = parser.parse_args()
    mpl.use("agg")
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("bulkformer_tl").setLevel(logging.INFO)
    adata = bf.datasets.toy() if arguments.cohort is None else ad.read_h5ad(arguments.cohort)
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    run(adata, identifiers=arguments.identifiers)
    color = arguments.color or first_label(adata)
    draw(adata, color, arguments.out)
    written = write(adata, arguments.out / "cohort.h5ad")
    summarise(adata, written, color, time.perf_counter() - start)


def run(adata: ad.AnnData, *, identifiers: str | None) -> None:
    """Diagnose, normalise, embed and impute, in place."""
    print(bf.pp.diagnose(adata))
    bf.pp.log_tpm(adata, identifiers=identifiers)
    bf.tl.embed(adata, layer="log_tpm")
    bf.pp.hide(adata, layer="log_tpm", fraction=0.15, rng=0)
    bf.tl.impute(adata, layer="log_tpm", mask="hidden")
    sc.pp.neighbors(adata, use_rep="X_bulkformer", n_neighbors=min(15, adata.n_obs - 1))
    sc.tl.umap(adata)


def first_label(adata: ad.AnnData) -> str | None:
    """Return the first obs column that names 2 to 30 groups."""
    for name in adata.obs:
        column = adata.obs[name]
        if not np.issubdtype(np.asarray(column).dtype, np.number) and 2 <= column.nunique() <= 30:
            return str(name)
    return None


def draw(adata: ad.AnnData, color: str | None, out: Path) -> None:
    """Write the UMAP, the coverage and the check of the imputation as PNG."""
    if color is not None:
        adata.obs[color] = adata.obs[color].astype(str).astype("category")
        adata.uns[f"{color}_colors"] = list(bf.pl.palette(adata, color).values())
    figures = {
        "umap.png": sc.pl.umap(adata, color=color, size=80, show=False, title=f"bulkformer-mini, {color or 'all'}"),
        "coverage.png": bf.pl.coverage(adata, groupby=color),
        "imputation.png": bf.pl.imputation(adata),
    }
    for name, axes in figures.items():
        axes.figure.savefig(out / name, dpi=150, bbox_inches="tight")


def write(adata: ad.AnnData, path: Path) -> Path:
    """Write the cohort to a temporary file, then rename, so that a full disk leaves nothing half-written."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        adata.write_h5ad(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def summarise(adata: ad.AnnData, path: Path, color: str | None, seconds: float) -> None:
    """Print what was made and how well hidden values were predicted."""
    params = adata.uns["imputed"]["params"]
    hidden = np.asarray(adata.layers["hidden"]) & ~np.isnan(adata.layers["imputed"])
    measured = np.asarray(adata.layers["log_tpm"])[hidden]
    predicted = np.asarray(adata.layers["imputed"])[hidden]
    error = np.abs(measured - predicted) / adata.layers["imputed_sd"][hidden]
    print(f"\n{adata.n_obs} samples x {adata.n_vars} genes, {params['model']}, coverage {params['coverage']:.1%}")
    print(f'obsm["X_bulkformer"] {adata.obsm["X_bulkformer"].shape}, coloured by {color}')
    print(
        f"hidden entries ({hidden.sum():,}, global axis): r = {np.corrcoef(measured, predicted)[0, 1]:.3f}, "
        f"RMSE = {np.sqrt(np.mean((measured - predicted) ** 2)):.3f}, "
        f"inside the 90 % interval {np.mean(error < 1.645):.1%}"
    )
    print(f"{seconds:.0f} s; written: {path} and {', '.join(sorted(p.name for p in path.parent.glob('*.png')))}")


if __name__ == "__main__":
    main()
