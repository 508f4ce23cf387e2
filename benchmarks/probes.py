"""Does the embedded model beat simple methods at telling tissue, tuberculosis, subtype and age?

``python benchmarks/probes.py`` prints Markdown tables, ``--write`` puts them into ``docs/benchmarks/probes.md``, and
``--cache <folder>`` keeps the embeddings. Needs the cohorts: set ``BULKFORMER_TL_DATA`` to their folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import yaml

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "probes.md"
MODEL = "bulkformer-mini"
#: Samples that are taken of one file for the tissues.
PER_FILE = 12
METRICS = {"classification": ("auroc", "balanced_accuracy", "brier"), "regression": ("r2", "rmse", "pearson")}
HEADER = """# Probes: tissue, tuberculosis, subtype, age

Made by `nox -s bench -- benchmarks/probes.py`. A linear head on each representation, on expression itself (scaled to
unit variance) and on 50 principal components, on the same folds, its penalty chosen by inner folds; everything is
fitted inside the folds, near-duplicate profiles stay together, and probabilities of all are calibrated alike. Intervals
are 95 % bootstrap intervals over whole groups. Where scores are pooled, *majority* falls below chance, because
leaving a group out makes its own classes rarer in training.

**What the model had seen.** `bulkformer-mini` was pretrained, without labels, on these very cohorts, also on the
samples that a fold holds out. That favours it over the baselines, which see training samples only; nothing below says
how it does on a study that is new to it.
"""
#: Names of one organ in the files' columns.
ORGANS = {
    "cerebral cortex": "brain",
    "brain": "brain",
    "heart muscle": "heart",
    "heart": "heart",
    "thyroid gland": "thyroid",
    "lung": "lung",
    "breast": "breast",
    "colon": "colon",
}
FILES: dict[str, tuple[str, str | None]] = {
    "brain_mdd_gse102556_counts": ("counts", "brain"),
    "gtex_brain40_counts": ("counts", "brain"),
    "tb_gse107991_counts": ("counts", "blood"),
    "covid_pregnancy_gse185557_counts": ("counts", "blood"),
    "crohns_colon_gse66207_counts": ("counts", "colon"),
    "crc_metastasis_gse50760_fpkm": ("fpkm", None),
    "tcga_crc_cms_counts": ("counts", "colon"),
    "breast_cancer_gse183947_fpkm": ("fpkm", "breast"),
    "lung_adenocarcinoma_gse40419_counts": ("counts", "lung"),
    "thyroid_ptc_gse63511_counts": ("counts", "thyroid"),
    "cardiomyopathy_hcm_gse206978_counts": ("counts", "heart"),
    "tissue_hpa21_tpm": ("tpm", None),
    "tissue_gtex_hpa21_tpm": ("tpm", None),
    "tissue_three_studies8_counts": ("counts", None),
}


@dataclass(frozen=True)
class Question:
    """What is asked of which samples.

    Parameters
    ----------
    title
        Headline.
    what
        What is split how.
    task
        ``"classification"`` or ``"regression"``.
    make
        Reads the samples; the answer is in ``obs["answer"]``, what stays together in ``obs["group"]``.
    scheme
        How it is split.
    """

    title: str
    what: str
    task: str
    make: Callable[[Path], ad.AnnData]
    scheme: Any = "k_fold"


def read(folder: Path, name: str, unit: str = "counts") -> ad.AnnData:
    """Read a file on the model's genes, ln(TPM+1) in ``layers["log_tpm"]``."""
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    if unit == "counts":
        bf.pp.log_tpm(adata)
    else:
        bf.pp.to_log_tpm(adata, unit=unit)
    aligned = bf.pp.align_genes(adata)
    aligned.obs_names = [f"{name}:{sample}" for sample in aligned.obs_names]
    return aligned


def tissues(folder: Path) -> ad.AnnData:
    groups = {entry["file"]: entry["group"] for entry in yaml.safe_load((ROOT / "training/splits.yaml").read_text())}
    parts = []
    for name, (unit, organ) in FILES.items():
        part = read(folder, name, unit)
        part.obs["answer"] = organ or part.obs["tissue"].astype(str).map(ORGANS)
        part = part[part.obs["answer"].notna()]
        rows = np.random.default_rng(0).permutation(part.n_obs)[:PER_FILE]
        part = part[np.sort(rows)].copy()
        part.obs = part.obs[["answer"]].assign(group=groups[f"{name}.h5ad"])
        parts.append(part)
    return ad.concat(parts)


def tuberculosis(folder: Path) -> ad.AnnData:
    parts = [read(folder, f"tb_gse{number}_counts") for number in (107991, 107992)]
    both = ad.concat(parts)
    both.obs["answer"] = np.where(both.obs["disease"] == "active TB", "active", "latent or control")
    both.obs["group"] = both.obs["PatientID"].astype(str)
    return both


def one_file(name: str, column: str) -> Callable[[Path], ad.AnnData]:
    def make(folder: Path) -> ad.AnnData:
        adata = read(folder, name)
        values = adata.obs[column].astype(object).replace("", np.nan)
        adata.obs["answer"] = pd.to_numeric(values) if column.lower() == "age" else values
        adata = adata[adata.obs["answer"].notna()].copy()
        adata.obs["group"] = adata.obs["PatientID" if "PatientID" in adata.obs else "patient"].astype(str)
        return adata

    return make


QUESTIONS = [
    Question(
        "Organ, leaving out whole studies",
        "seven organs of fourteen files, at most 12 samples of each, groups of `training/splits.yaml` left out in turn",
        "classification",
        tissues,
        "leave_one_group_out",
    ),
    Question(
        "Active tuberculosis from blood",
        "GSE107991 (London) and GSE107992 (South Africa), active against latent or none, five folds by patient",
        "classification",
        tuberculosis,
    ),
    Question(
        "Consensus molecular subtype of colorectal cancer",
        "TCGA, CMS1 to CMS4, five folds by patient",
        "classification",
        one_file("tcga_crc_cms_counts", "cms"),
    ),
    Question(
        "Subtype of glioblastoma",
        "TCGA, four subtypes of Verhaak, five folds by patient",
        "classification",
        one_file("tcga_gbm_htseq_counts", "subtype"),
    ),
    Question(
        "Age from blood",
        "GSE107993 (Leicester, repeated visits), five folds by patient",
        "regression",
        one_file("tb_gse107993_counts", "Age"),
    ),
]


def embed(adata: ad.AnnData, cache: Path | None) -> None:
    """Embed, or read the embedding of the same samples and values from the cache."""
    values = np.ascontiguousarray(adata.layers["log_tpm"])
    model = bf.models.load(MODEL)
    mark = hashlib.sha256(values.tobytes() + model.checksum.encode()).hexdigest()[:16]
    path = None if cache is None else cache / f"{mark}.npy"
    if path is not None and path.exists():
        adata.obsm["X_bulkformer"] = np.load(path, allow_pickle=False)
        return
    bf.tl.embed(adata, model=model, layer="log_tpm")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, adata.obsm["X_bulkformer"], allow_pickle=False)


def ask(question: Question, folder: Path, cache: Path | None) -> str:
    """Answer one question as Markdown."""
    adata = question.make(folder)
    embed(adata, cache)
    common = ~np.isnan(adata.layers["log_tpm"]).any(axis=0)
    adata = adata[:, common].copy()
    protocol = Protocol(scheme=question.scheme, n_inner=3)
    run = bf.tl.classify if question.task == "classification" else bf.tl.regress
    run(adata, "answer", layer="log_tpm", groups="group", protocol=protocol, key_added="probe")
    result = adata.uns["probe"]
    counts = adata.obs["answer"].value_counts()
    classes = ", ".join(f"{name} {n}" for name, n in counts.items()) if question.task == "classification" else ""
    lines = [
        f"## {question.title}",
        "",
        f"{adata.n_obs} samples, {adata.obs['group'].nunique()} groups; {question.what}."
        + (f" Classes: {classes}." if classes else ""),
        "",
        *table(result, METRICS[question.task]),
        "",
        verdict(result, METRICS[question.task][0]),
        "",
    ]
    return "\n".join(lines)


def table(result: dict[str, Any], metrics: tuple[str, ...]) -> list[str]:
    scores = result["scores"]
    axis = scores["axis"].iloc[0]
    names = list(dict.fromkeys(scores["representation"]))
    shown = {name: MODEL if name == "X_bulkformer" else f"*{name}*" for name in names}
    lines = [f"| representation | {' | '.join(f'{metric} ({axis})' for metric in metrics)} |"]
    lines.append("| --- |" + " --- |" * len(metrics))
    for name in names:
        own = scores[scores["representation"] == name].set_index("metric")
        cells = [f"{own.loc[m, 'mean']:.3f} ({own.loc[m, 'low']:.3f} to {own.loc[m, 'high']:.3f})" for m in metrics]
        lines.append(f"| {shown[name]} | {' | '.join(cells)} |".replace("nan (nan to nan)", "undefined"))
    return lines


def verdict(result: dict[str, Any], metric: str) -> str:
    """Say in one sentence each how the model stands to every baseline."""
    differences = result["differences"]
    said = []
    for row in differences[differences["metric"] == metric].to_dict("records"):
        gap = f"{row['difference']:+.3f}, {row['low']:+.3f} to {row['high']:+.3f}"
        how = {"X_bulkformer": "the model is better than", row["baseline"]: "**the model is worse than**"}
        said.append(f"{how.get(row['better'], 'cannot be told apart from')} *{row['baseline']}* ({gap})")
    own = result["scores"][result["scores"]["metric"] == metric].dropna(subset="mean")
    best = own.sort_values("mean").iloc[-1]["representation"]
    won = "" if best == "X_bulkformer" else f" **The best score is that of the baseline *{best}*.**"
    return f"By {metric}: {'; '.join(said)}.{won}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings")
    parser.add_argument("--only", help="part of a title")
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("probes: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    asked = [question for question in QUESTIONS if options.only is None or options.only in question.title]
    page = [HEADER]
    for question in asked:
        page.append(ask(question, Path(folder), options.cache))
        print(page[-1], flush=True)
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
