"""What does adapting the embedded model cost, and does it beat the frozen one, principal components and expression?

``python benchmarks/adaptation.py`` prints Markdown, ``--write`` puts it into ``docs/benchmarks/adaptation.md``. Each
method runs in a process of its own, whose peak memory is reported. Needs the cohorts: set ``BULKFORMER_TL_DATA``
to their folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol
from bulkformer_tl.train import FinetuneConfig

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "adaptation.md"
MODEL = "bulkformer-mini"
METHODS = ("probe", "lora", "full")
METRICS = ("auroc", "balanced_accuracy", "brier")
EPOCHS = 3
PATIENTS = 20
#: Samples of the epoch that is timed.
TIMED = 12
HEADER = f"""# Adaptation: probe, LoRA, full

Made by `python benchmarks/adaptation.py --write` with `{MODEL}` on one core of a CPU: three folds by patient, at most
{EPOCHS} epochs through the encoder. All rows of a table are scored on the same folds; intervals are 95 % bootstrap
intervals over patients. *Frozen* is a logistic regression on the published sample vector and the mean gene vector of
the encoder as it is. Seconds are those of the processor.

**What the model had seen.** `{MODEL}` was pretrained, without labels, on these very cohorts, also on the samples that a
fold holds out. That favours it over the baselines.
"""
#: What is asked.
QUESTIONS = {
    "tuberculosis": "Active tuberculosis against latent or none, from blood (GSE107991, London)",
    "melanoma": f"Before nivolumab or on it, from melanoma (GSE91061), {PATIENTS} patients with both biopsies",
}


def read(question: str, folder: Path) -> ad.AnnData:
    """Read a cohort on the model's genes, with the answer and the patient of each sample."""
    if question == "melanoma":
        adata = ad.read_h5ad(folder / "melanoma_nivolumab_gse91061_counts.h5ad")
        visits = adata.obs.groupby("patient", observed=True)["visit"].nunique()
        both = sorted(visits.index[visits == 2].astype(str))[:PATIENTS]
        adata = adata[adata.obs["patient"].astype(str).isin(both)].copy()
        adata.obs["answer"] = adata.obs["visit"].astype(str)
    else:
        adata = ad.read_h5ad(folder / "tb_gse107991_counts.h5ad")
        adata.obs["answer"] = np.where(adata.obs["disease"] == "active TB", "active", "latent or control")
        adata.obs["patient"] = adata.obs["PatientID"].astype(str)
    bf.pp.log_tpm(adata)
    adata = bf.pp.align_genes(adata)
    return adata[:, ~np.isnan(adata.layers["log_tpm"]).any(axis=0)].copy()


def run(question: str, method: str, folder: Path) -> dict[str, Any]:
    """Adapt by one method and return what it cost and scored."""
    adata = read(question, folder)
    config = FinetuneConfig(method=method, epochs=EPOCHS, patience=EPOCHS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    bf.tl.finetune(
        adata,
        {"answer": "class"},
        model=MODEL,
        layer="log_tpm",
        groups="patient",
        config=config,
        protocol=Protocol(n_splits=3),
        device="cpu",
    )
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    entry = adata.uns["finetune"]
    return {
        "method": method,
        "weights": int(entry["params"]["n_trained_weights"]),
        "adapter": int(entry["params"]["adapter_bytes"]),
        "before": before / 2**20,
        "peak": peak / 2**20,
        "total": seconds,
        "epoch": per_epoch(adata, method),
        "scores": entry["scores"].to_dict("records"),
        "differences": entry["differences"].to_dict("records"),
        "kept": entry["training"]["stage"].tolist(),
        "n": int(entry["params"]["n"]),
        "patients": int(adata.obs["patient"].nunique()),
    }


def per_epoch(adata: ad.AnnData, method: str) -> float:
    """Time one epoch for each training sample, as the difference between a longer and a shorter run."""
    model = bf.models.load(MODEL, device="cpu")
    codes = adata.obs["answer"].to_numpy() == adata.obs["answer"].iloc[0]
    rows = adata[np.sort(np.r_[np.flatnonzero(codes)[: TIMED // 2], np.flatnonzero(~codes)[: TIMED // 2]])]
    values = bf.pp.align_genes(rows.copy()).layers["log_tpm"]
    target = {"answer": bf.train.Target.of_classes(rows.obs["answer"].to_numpy())}
    held = np.arange(TIMED) % 4 == 0
    taken = []
    for epochs in (1, 3):
        # heads see the same number of steps, so that the difference is that of passes through the encoder
        config = FinetuneConfig(method=method, epochs=epochs, head_epochs=100, patience=100)
        started = time.process_time()
        bf.train.finetune(model, values, target, config=config, validation=held)
        taken.append(time.process_time() - started)
    return max(taken[1] - taken[0], 0.0) / 2 / int((~held).sum())


def costs(found: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| method | trained weights | adapter | peak memory | of which data and model | seconds per sample and epoch |"
        " whole call | kept in folds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in found:
        epoch = "none" if one["method"] == "probe" else f"{one['epoch']:.2f}"
        kept = f"{one['kept'].count('encoder')} of {len(one['kept'])} adapted"
        lines.append(
            f"| {one['method']} | {one['weights']:,} | {one['adapter'] / 1e3:,.0f} kB | {one['peak']:.1f} GB | "
            f"{one['before']:.1f} GB | {epoch} | {one['total']:.0f} s | {kept} |"
        )
    return lines


def scores(found: list[dict[str, Any]]) -> list[str]:
    lines = [f"| representation | {' | '.join(METRICS)} |", "| --- |" + " --- |" * len(METRICS)]
    shown: dict[str, dict[str, str]] = {}
    for one in found:
        for row in one["scores"]:
            cell = f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            shown.setdefault(row["representation"], {}).setdefault(row["metric"], cell)
    ours = [name for name in shown if name.startswith(MODEL)]
    for name in [*sorted(ours), *(other for other in shown if other not in ours)]:
        label = name if name in ours else f"*{name}*"
        lines.append(f"| {label} | {' | '.join(shown[name][metric] for metric in METRICS)} |")
    return lines


def verdicts(found: list[dict[str, Any]]) -> list[str]:
    """Say of each method how it stands to the frozen encoder and to every baseline."""
    said = []
    for one in found:
        parts = []
        for row in one["differences"]:
            if row["metric"] != METRICS[0] or row["baseline"] == "majority":
                continue
            gap = f"{row['difference']:+.3f}, {row['low']:+.3f} to {row['high']:+.3f}"
            how = {row["representation"]: "is better than", row["baseline"]: "**is worse than**"}
            parts.append(f"{how.get(row['better'], 'cannot be told apart from')} *{row['baseline']}* ({gap})")
        said.append(f"- `{one['method']}` by {METRICS[0]}: {'; '.join(parts)}.")
    table = {
        row["representation"]: row["mean"] for one in found for row in one["scores"] if row["metric"] == METRICS[0]
    }
    best = max(table, key=lambda name: table[name])
    said.append(f"\nThe best {METRICS[0]} is that of *{best}*, {table[best]:.3f}.")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--question", choices=list(QUESTIONS), help="ask this one alone")
    parser.add_argument("--method", choices=METHODS, help="run this one and print what it found as JSON")
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("adaptation: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    if options.method:
        print(json.dumps(run(options.question or next(iter(QUESTIONS)), options.method, Path(folder))))
        return
    asked = QUESTIONS if options.question is None else {options.question: QUESTIONS[options.question]}
    text = "\n".join([HEADER, *(section(question, title) for question, title in asked.items())])
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


def section(question: str, title: str) -> str:
    """Run all methods, each in a process of its own, and return their tables."""
    found = []
    for method in METHODS:
        command = [sys.executable, __file__, "--question", question, "--method", method]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    size = f"{found[0]['n']} samples of {found[0]['patients']} patients."
    return "\n".join([f"## {title}", "", size, "", *costs(found), "", *scores(found), "", *verdicts(found), ""])


if __name__ == "__main__":
    main()
