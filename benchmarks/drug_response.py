"""Does the embedded model tell which lines respond to a drug, and what do the published numbers measure?

``python benchmarks/drug_response.py`` prints Markdown tables, ``--write`` puts them into
``docs/benchmarks/drug_response.md``, and ``--cache <folder>`` keeps the embeddings. Needs the cohorts and the response
tables: set ``BULKFORMER_TL_DATA`` to their folder.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pairs import scores_table, verdict
from probes import ROOT, embed, read

import bulkformer_tl as bf

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

PAGE = ROOT / "docs" / "benchmarks" / "drug_response.md"
#: Lines that a drug or treatment must have been tested in.
MIN_LINES = {"gdsc": 15, "pdxe": 25}
NUMBERS = (("pearson", "per_drug"), ("rmse", "per_drug"), ("pearson", "per_line"), ("pearson", "global"))
CLASSES = (("auroc", "per_drug"), ("brier", "per_drug"), ("auroc", "per_line"), ("auroc", "global"))
HEADER = """# Drug response

Made by `nox -s bench -- benchmarks/drug_response.py`. A ridge regression per drug on each representation, on all genes
(*raw*), on 50 principal components (*pca*) and, of xenografts, on the type of the tumour (*covariates*), and for new
drugs a second one on their Morgan fingerprints; everything is fitted inside the folds. Intervals are 95 % bootstrap
intervals over what is new: lines, drugs, or both.

**Read the first column.** Scores *per drug* compare lines under one drug; *per line* and *global* ones mostly say that
potent drugs are potent, which the mean of each drug over other lines (*drug_mean*) knows without looking at the line.
It has no correlation per drug, being the same for every line of a fold. See {doc}`../user-guide/drugs-and-genes`.

**What the model had seen.** `bulkformer-mini` was pretrained, without labels and without any response, on the
expression of these lines and xenografts, also of those that a fold holds out.

**How much these tables can tell.** 21 of the lines with public expression are in the screen: some fifteen lines train
each drug, so that the intervals are wide and the components are no fewer than the lines (*raw* and *pca* then are the
same regression). The published numbers rest on some 700 lines.
"""


@dataclass(frozen=True)
class Question:
    """What is asked of which table.

    Parameters
    ----------
    title
        Headline.
    what
        What is split how.
    make
        Reads samples, responses and, where drugs are new, their SMILES.
    options
        Of :func:`bulkformer_tl.tl.drug_response`.
    metrics
        Scores and their axes.
    """

    title: str
    what: str
    make: Callable[[Path], tuple[ad.AnnData, pd.DataFrame, Any]]
    options: dict[str, Any]
    metrics: tuple[tuple[str, str], ...] = NUMBERS


def wide(long: pd.DataFrame, line: str, drug: str, value: str) -> pd.DataFrame:
    """Make lines by drugs of a long table."""
    return long.set_index([line, drug])[value].unstack()  # noqa: PD010 - a pivot table would average what is listed twice


def gdsc(folder: Path) -> tuple[ad.AnnData, pd.DataFrame, None]:
    """Read 21 cell lines and ln(IC50) of the drugs that were tested in most of them."""
    long = pd.read_csv(folder / "gdsc_ic50_hpa_celllines.csv.gz")
    table = wide(long, "cell_line", "gdsc_drug", "ln_ic50_uM")
    adata = read(folder, "cellline_hpa21_tpm", "tpm")
    adata.obs_names = [name.split(":", 1)[1] for name in adata.obs_names]
    adata = adata[adata.obs_names.isin(table.index)].copy()
    return adata, table.loc[:, table.notna().sum() >= MIN_LINES["gdsc"]], None


def gdsc_smiles(folder: Path) -> tuple[ad.AnnData, pd.DataFrame, pd.Series]:
    """Keep the drugs with a SMILES."""
    adata, table, _ = gdsc(folder)
    drugs = pd.read_csv(folder / "gdsc_drugs_smiles.csv.gz").dropna(subset="smiles")
    smiles = drugs.drop_duplicates("gdsc_drug").set_index("gdsc_drug")["smiles"]
    table = table.loc[:, table.columns.isin(smiles.index)]
    return adata, table, smiles.loc[table.columns]


def pdxe(folder: Path, value: str) -> tuple[ad.AnnData, pd.DataFrame, None]:
    """Read xenografts of four cancers, and whether a treatment stopped their growth, or how far they shrank."""
    long = pd.read_csv(folder / "pdxe_drug_response.csv.gz")
    long = long[long["drug"] != "untreated"]
    long["controlled"] = ~long["mRECIST_published"].str.startswith("PD").astype(bool)
    table = wide(long.dropna(subset=value), "sample", "drug", value)
    adata = read(folder, "pdxe_fpkm", "fpkm")
    adata.obs_names = [name.split(":", 1)[1] for name in adata.obs_names]
    return adata, table.loc[:, table.notna().sum() >= MIN_LINES["pdxe"]], None


QUESTIONS = [
    Question(
        "Unseen cell lines",
        "ln(IC50 in µM) of GDSC, five folds over lines",
        gdsc,
        {"unseen": "line"},
    ),
    Question(
        "Unseen drugs",
        "ln(IC50 in µM) of GDSC, drugs with a SMILES, five folds over compounds",
        gdsc_smiles,
        {"unseen": "drug"},
    ),
    Question(
        "Both unseen",
        "ln(IC50 in µM) of GDSC, drugs with a SMILES, five parts of the lines by five of the compounds",
        gdsc_smiles,
        {"unseen": "both"},
    ),
    Question(
        "The paper's protocol",
        "the same pairs in ten random folds, a network on embedding and fingerprint (protocol='paper'); both partners "
        "of every tested pair were trained on with others",
        gdsc_smiles,
        {"protocol": "paper"},
    ),
    Question(
        "Xenografts: is growth controlled?",
        "PDX Encyclopedia, published mRECIST other than progressive disease from the start, five folds over models",
        lambda folder: pdxe(folder, "controlled"),
        {"unseen": "line", "covariates": ["tumor_type"]},
        CLASSES,
    ),
    Question(
        "Xenografts: best average response",
        "PDX Encyclopedia, change of the tumour's volume in per cent (published), five folds over models",
        lambda folder: pdxe(folder, "best_avg_response_published"),
        {"unseen": "line", "covariates": ["tumor_type"]},
    ),
]


def ask(question: Question, folder: Path, cache: Path | None) -> str:
    """Answer one question as Markdown."""
    adata, table, drugs = question.make(folder)
    embed(adata, cache)
    common = ~np.isnan(adata.layers["log_tpm"]).any(axis=0)
    adata = adata[:, common].copy()
    bf.tl.drug_response(adata, table, drugs=drugs, layer="log_tpm", key_added="r", **question.options)
    result = adata.uns["r"]
    params = result["params"]
    shares = f", {np.nanmean(table.to_numpy(dtype=float)):.0%} of them yes" if params["target"] == "classes" else ""
    counts = (
        f"{params['n_lines']} lines in {params['n_groups']} groups, {params['n_drugs']} drugs, {params['n']:,} pairs"
    )
    main = question.metrics[0]
    lines = [f"## {question.title}", "", f"{counts}{shares}; {question.what}.", ""]
    lines += [*scores_table(result, question.metrics), "", verdict(result, *main), ""]
    if question.metrics is NUMBERS:
        lines += [verdict(result, "rmse", "per_drug"), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings")
    parser.add_argument("--only", help="part of a title")
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("drug_response: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    page = [HEADER]
    for question in QUESTIONS:
        if options.only is None or options.only in question.title:
            page.append(ask(question, Path(folder), options.cache))
            print(page[-1], flush=True)
    if options.write:
        PAGE.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
