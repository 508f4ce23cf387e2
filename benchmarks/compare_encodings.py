"""Ranks, bins or magnitudes: which encoding of the same counts tells labels best, on the same folds?

:func:`bulkformer_tl.tl.compare` on cohorts that the networks of this benchmark were not trained on: each encoding by
itself, as principal components, and the network that reads it, beside expression itself.

    BULKFORMER_TL_DATA=... OMP_NUM_THREADS=1 python benchmarks/compare_encodings.py

``--networks <folder>`` keeps the networks; ``--write`` puts the table and the picture into ``docs/benchmarks``.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from small_networks import CONFIGS, N_GENES, SCORED, corpus, read_scored, represent, train, variable_genes

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol

if TYPE_CHECKING:
    import anndata as ad

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "encodings.md"
PICTURE = PAGE.with_suffix(".png")
METRIC = "balanced_accuracy"
#: Cohorts of fewer samples are left to the benchmark of clusters.
LEAST = 50
#: What has to stay on one side of a fold.
GROUPS = ("PatientID", "patient")
HEADER = """# Ranks, bins or magnitudes

Made by `python benchmarks/compare_encodings.py --write`.
{{func}}`~bulkformer_tl.tl.compare` on {n} cohorts of counts: a linear
head on each representation, its penalty chosen by inner folds, all on the same five folds, by patient where patients
are named; balanced accuracy, with the 95 % bootstrap interval. *PCA* of an encoding are the cohort's own 50 components
over all genes (magnitudes ln(TPM+1), bins, ranks of the first 4,096 genes), found without labels but with the samples
of all folds; the baselines *raw* and *pca*, on ln(TPM+1), see the training samples only. *bins, network* and *ranks,
network* are a small BioFormer and a small Geneformer of this package, trained on {n_files} other cohorts ({n_samples}
samples, {n_genes} genes; three of the cohorts tell when to stop). `bulkformer-mini` was pretrained, without labels, on
these cohorts too.

{shows}

![Balanced accuracy of each encoding, by cohort](encodings.png)
"""
SHOWS = """\
**What this shows.** Ranks, bins and magnitudes by themselves cannot be told apart in any of the five cohorts, and all
of them lie within the intervals of expression itself. What the small networks make of them is worse: of bins in three
of the five cohorts, of ranks in four, by whatever pooling. On tuberculosis, where everything is poor, the network of
bins stands first, above that of ranks but not above what needs no network. Nowhere is the network of ranks told above
that of bins under the same pooling. This is one small network of each and one seed, and what they learned is little: on
the cohorts that tell when to stop, the loss of bins is 2.24 nats beside 2.73 of how often each occurs, that of ranks
5.26 beside 5.70.

*raw* and *pca* agree here, and are not the same: where a training fold has fewer than 50 samples (the last two
cohorts), 50 components are all that there are; elsewhere their probabilities differ (Brier scores by up to 0.004), and
their balanced accuracy does not."""


def compare(adata: ad.AnnData, keys: dict[str, str]) -> dict[str, Any]:
    groups = next((name for name in GROUPS if name in adata.obs and adata.obs[name].notna().all()), None)
    if groups is not None:
        adata.obs[groups] = adata.obs[groups].astype(str)
    bf.tl.compare(adata, "label", models=keys, layer="log_tpm", groups=groups, protocol=Protocol())
    found: dict[str, Any] = adata.uns["compare_label"]
    return found


def column(found: dict[str, Any]) -> pd.Series:
    scores = found["scores"]
    own = scores[scores["metric"] == METRIC].set_index("representation")
    return own.apply(lambda row: f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})", axis=1)


def told_apart(name: str, found: dict[str, Any]) -> str:
    """Say which encodings by themselves the interval of their difference tells apart."""
    encodings = [model for model in found["params"]["models"] if model.endswith(", PCA")]
    rows = found["differences"]
    rows = rows[(rows["metric"] == METRIC) & rows["representation"].isin(encodings) & rows["baseline"].isin(encodings)]
    said = set()
    for row in rows[rows["better"] != "neither"].to_dict("records"):
        worse = row["baseline"] if row["better"] == row["representation"] else row["representation"]
        said.add(f"*{row['better']}* above *{worse}* ({abs(row['difference']):.3f})")
    return f"- {name}: {'; '.join(sorted(said)) or 'none'}."


def draw(cohorts: dict[str, ad.AnnData]) -> None:
    figure, panels = plt.subplots(len(cohorts), 1, figsize=(6.4, 3.0 * len(cohorts)), sharex=True, layout="constrained")
    for (name, adata), axes in zip(cohorts.items(), np.atleast_1d(panels), strict=True):
        bf.pl.scores(adata, "compare_label", metric=METRIC, ax=axes)
        axes.set_title(f"{name}: {adata.n_obs} samples")
        if axes is not panels[-1]:
            axes.set_xlabel("")
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)} and its picture")
    parser.add_argument("--networks", type=Path, help="folder in which trained networks are kept")
    parser.add_argument("--epochs", type=float, default=20)
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("encodings: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    logging.disable(logging.WARNING)
    bf.settings.progress = False
    parts = corpus(Path(folder))
    genes, vocabulary = variable_genes(parts), bf.pp.build_vocabulary(parts)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.networks or Path(temporary)
        networks = {name: train(name, parts, genes, out, epochs=options.epochs) for name in CONFIGS}
    cohorts, columns, said = {}, {}, []
    for name, label in SCORED.items():
        adata = read_scored(Path(folder), name)
        if adata.n_obs < LEAST:
            continue
        found = compare(adata, represent(adata, networks, vocabulary))
        title = f"{'_'.join(name.split('_')[:3])}, {label}"
        cohorts[title], columns[title] = adata, column(found)
        said.append(told_apart(title, found))
        print(title, columns[title].to_string(), said[-1], sep="\n", flush=True)
    table = pd.DataFrame(columns)
    lines = [f"| | {' | '.join(table.columns)} |", "| --- |" + " --- |" * table.shape[1]]
    baselines = ("majority", "raw", "pca")
    lines += [
        f"| {f'*{row[0]}*' if row[0] in baselines else row[0]} | {' | '.join(map(str, row[1:]))} |"
        for row in table.itertuples(name=None)
    ]
    sizes = {"n": len(cohorts), "n_files": len(parts), "n_samples": sum(part.n_obs for part in parts)}
    header = HEADER.format(**sizes, n_genes=N_GENES, shows=SHOWS)
    page = [
        header,
        *lines,
        "",
        "Encodings by themselves that the interval of their difference tells apart:",
        "",
        *said,
        "",
    ]
    print("\n".join(page))
    if options.write:
        PAGE.write_text("\n".join(page), encoding="utf-8")
        draw(cohorts)


if __name__ == "__main__":
    main()
