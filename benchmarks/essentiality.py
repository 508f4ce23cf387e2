"""Is a planted dependency of lines on genes found, and where none was planted, none? What do gene vectors know?

``python benchmarks/essentiality.py`` prints Markdown tables and ``--write`` puts them into
``docs/benchmarks/essentiality.md``. The effects are simulated. The last table needs the lists of essential genes of
Hart et al.: set ``BULKFORMER_TL_DATA`` to the folder of the cohorts; it is left out otherwise.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from pairs import scores_table, verdict
from probes import MODEL, ROOT

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, cross_validate

PAGE = ROOT / "docs" / "benchmarks" / "essentiality.md"
#: Lines, and genes that are screened.
N_LINES, N_GENES = 96, 300
#: Genes that one tissue alone depends on, and by how much (in standard deviations of the noise).
N_SELECTIVE, SELECTIVE = 15, 2.0
METRICS = (("pearson", "per_gene"), ("rmse", "per_gene"), ("pearson", "per_line"), ("pearson", "global"))
HEADER = """# Essentiality

Made by `nox -s bench -- benchmarks/essentiality.py`. **The effects are simulated**: no screen of real lines is at hand,
so that these tables show what the function finds and does not find, and nothing of what the model knows of real
dependencies.

{lines} simulated samples (`bf.datasets.toy`, four tissues) are the lines, embedded by `bulkformer-mini`; {genes} genes
are screened. An effect is the mean of the gene, which follows a random direction of the gene vectors, plus what is
planted, plus noise of the same size for every pair. Planted is nothing; or what the first components of expression
decide, line by line; or the expression of the gene itself; and, with either, {selective} genes that one tissue alone
depends on. See {{doc}}`../user-guide/drugs-and-genes` for the axes. Five folds; intervals are 95 % bootstrap intervals
over what is new.
"""


@dataclass(frozen=True)
class Question:
    """What is planted, and what is new.

    Parameters
    ----------
    title
        Headline.
    what
        What is planted.
    line
        Standard deviation of what the line decides, in that of the noise.
    own
        The same of the gene's own expression.
    unseen
        What is new where a pair is tested.
    """

    title: str
    what: str
    line: float = 0.0
    own: float = 0.0
    unseen: str = "line"


QUESTIONS = [
    Question("Nothing planted", "No line differs from another but by noise; the genes' means differ, as always."),
    Question("Lines differ by their state", "Components of expression decide how lines differ.", line=1.0),
    Question("Lines differ by the expression of the gene", "The gene's own expression decides.", own=1.0),
    Question("Genes that were not screened", "Components of expression decide.", line=1.0, unseen="gene"),
]


def cohort() -> ad.AnnData:
    """Make lines, their embedding and the vectors of genes."""
    adata = bf.datasets.toy(N_LINES)
    bf.pp.log_tpm(adata)
    bf.tl.embed(adata, layer="log_tpm", model=MODEL)
    bf.tl.gene_embeddings(adata, model=MODEL)
    return adata


def plant(adata: ad.AnnData, question: Question) -> tuple[pd.DataFrame, list[str]]:
    """Return effects, and the genes that the tissue "liver" alone depends on."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    values = np.asarray(adata.layers["log_tpm"])
    vectors = adata.varm["bulkformer_genes"]
    variable = np.isfinite(vectors).all(axis=1) & (values.std(axis=0) > 0.1)
    genes = np.sort(rng.choice(np.flatnonzero(variable), N_GENES, replace=False))
    mean = standard(vectors[genes] @ rng.normal(size=vectors.shape[1])) * 4
    states = standard(PCA(5, random_state=0).fit_transform(values[:, variable]))
    loadings = standard(vectors[genes] @ rng.normal(size=(vectors.shape[1], 5)))
    line = standard(states @ loadings.T)
    own = -standard(values[:, genes])
    effect = mean + question.line * line + question.own * own + rng.normal(size=(N_LINES, N_GENES))
    chosen = rng.choice(N_GENES, N_SELECTIVE, replace=False)
    if question.line or question.own:
        effect[np.ix_((adata.obs["tissue"] == "liver").to_numpy(), chosen)] -= SELECTIVE
    names = adata.var_names[genes]
    return pd.DataFrame(effect, index=adata.obs_names, columns=names), names[chosen].tolist()


def standard(values: Any) -> Any:
    return (values - values.mean(axis=0)) / values.std(axis=0)


def ask(adata: ad.AnnData, question: Question) -> str:
    """Answer one question as Markdown."""
    effect, planted = plant(adata, question)
    options: dict[str, Any] = {"gene_vectors": "bulkformer_genes", "groups": "donor", "layer": "log_tpm"}
    bf.tl.essentiality(adata, effect, unseen=question.unseen, selective="tissue", **options)
    result = adata.uns["essentiality"]
    counts = f"{result['params']['n_lines']} lines of {result['params']['n_groups']} donors, {N_GENES} genes"
    lines = [f"## {question.title}", "", f"{question.what} {counts}, {question.unseen}s unseen.", ""]
    lines += [*scores_table(result, METRICS), "", verdict(result, "pearson", "per_gene"), ""]
    lines += [
        verdict(result, "rmse", "per_gene"),
        "",
        selected(result, planted if question.line or question.own else []),
        "",
    ]
    return "\n".join(lines)


def selected(result: dict[str, Any], planted: list[str]) -> str:
    """Count the selective genes of the liver that were found, and how many of them the predictions agree with."""
    table = result["selective"]
    found = table[(table["fdr"] < 0.05) & (table["difference"] < 0) & (table["group"] == "liver")]
    right = int(found["gene"].isin(planted).sum())
    agree = int((found["predicted_difference"] < 0).sum())
    return (
        f"Genes that the liver depends on more than other tissues (FDR 0.05): {len(found)}, {right} of them among the "
        f"{len(planted)} planted ones; out of fold, {agree} are predicted to differ in this direction."
    )


def hart(adata: ad.AnnData, folder: Path) -> str:
    """Tell core essential from non-essential genes by their vectors, and by their expression."""
    table = pd.read_csv(folder / "resources" / "essential_genes_hart.csv").drop_duplicates("ensembl_id")
    table = table.set_index("ensembl_id")
    vectors = pd.DataFrame(adata.varm["bulkformer_genes"], index=adata.var_names).dropna()
    lines = ad.read_h5ad(folder / "cellline_hpa21_tpm.h5ad")
    level = np.log1p(pd.DataFrame(np.asarray(lines.X), columns=lines.var_names))
    both = table.index.intersection(vectors.index).intersection(level.columns)
    expression = level[both].describe().loc[["mean", "std", "min", "max"]].T.to_numpy()
    protocol = Protocol(baselines=("majority",), n_inner=3)
    labels = table.loc[both, "label"].to_numpy()
    representations = {f"vectors of {MODEL}": vectors.loc[both].to_numpy(), "expression in 64 cell lines": expression}
    found = cross_validate(representations, labels, protocol=protocol)
    rows = found.scores[found.scores["metric"].isin(["auroc", "auprc"])]
    counts = ", ".join(f"{n} {name}" for name, n in pd.Series(labels).value_counts().items())
    lines_ = [
        "## Core essential genes by their vectors",
        "",
        f"Real genes: {counts} (CEGv2 and NEGv1 of Hart et al.), five folds over genes, a logistic regression on the "
        "model's static gene vectors, and on mean, spread and range of the gene's expression in 64 cell lines (HPA). "
        "One label per gene: this says which genes are essential at all, and nothing of lines.",
        "",
        "| representation | AUROC | AUPRC |",
        "| --- | --- | --- |",
    ]
    for name in dict.fromkeys(rows["representation"]):
        own = rows[rows["representation"] == name].set_index("metric")
        cells = [
            f"{own.loc[m, 'mean']:.3f} ({own.loc[m, 'low']:.3f} to {own.loc[m, 'high']:.3f})"
            for m in ("auroc", "auprc")
        ]
        lines_.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines_, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    adata = cohort()
    page = [HEADER.format(lines=N_LINES, genes=N_GENES, selective=N_SELECTIVE)]
    for question in QUESTIONS:
        page.append(ask(adata, question))
        print(page[-1], flush=True)
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if folder:
        page.append(hart(adata, Path(folder)))
        print(page[-1], flush=True)
    if options.write:
        PAGE.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
