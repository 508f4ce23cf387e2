"""Do labels of the nearest samples of other studies hold, and are samples recognised that no other study holds?

``python benchmarks/transfer.py`` prints Markdown tables, ``--write`` puts them into ``docs/benchmarks/transfer.md``,
``--cache <folder>`` keeps the embeddings. Needs the cohorts: set ``BULKFORMER_TL_DATA`` to their folder.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from probes import MODEL, embed, read, tissues

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol, auroc

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "transfer.md"
#: Whole blood of tuberculosis studies, and how each is called in the table.
STUDIES = {
    "tb_gse107991_counts": "GSE107991 (London)",
    "tb_gse107992_counts": "GSE107992 (South Africa)",
    "tb_gse84076_counts": "GSE84076 (Brazil)",
    "tb_hiv_gse107104_counts": "GSE107104 (Uganda, all HIV-positive)",
}
HEADER = f"""# Transfer of labels between studies

Made by `nox -s bench -- benchmarks/transfer.py`. Each study in turn is given the labels of its nearest samples in all
other studies (`bf.tl.transfer` with its defaults: five neighbours by cosine), among vectors of `{MODEL}`, among
genes scaled to unit variance (*raw*) and among 50 principal components of the reference (*pca*). A cell is the mean
recall of the classes of that study. *unlike* is the share of samples that the task marks as far from the reference, by
vectors of the model.

**What the model had seen.** `{MODEL}` was pretrained, without labels, on these very cohorts (`training/corpus.yaml`),
also on the study that is left out. That favours it over *raw* and *pca*, which see the reference only.

Cosine and five neighbours were chosen as the task's defaults on these very tables (among two distances, and 5 or 15
neighbours), so that they flatter all three columns; means over 4 and 11 studies carry no interval.
"""
RECOGNISED = """An AUROC below 0.5 says that the organ's samples are nearer to the reference than others are. Where
`p < 0.05` finds none of an organ's samples, studies of the organs in the reference are as far from each other as that
organ is from them: with so few and so different studies, the p-value can hardly say more."""
NAMES = {"X_bulkformer (knn)": MODEL, "raw (knn)": "*raw*", "pca (knn)": "*pca*"}
QUICK = Protocol(n_bootstrap=100)
SILENT = Protocol(n_bootstrap=100, baselines=())
UNSEEN = """## Samples that the reference holds nothing like

Each study in turn is held against all others, from which one organ is taken out. AUROC of the distance to the
neighbours (`_ood_ratio`) between samples of that organ and those of organs that the reference holds, and the share of
each with `_ood_p` below 0.05, which for a calibrated p-value of samples like the reference is 0.05.
"""


def tuberculosis(folder: Path) -> ad.AnnData:
    parts = []
    for name, title in STUDIES.items():
        part = read(folder, name)
        active = part.obs["disease"].astype(str) == "active TB"
        part.obs = pd.DataFrame(
            {"answer": np.where(active, "active", "latent or control"), "group": title}, part.obs_names
        )
        parts.append(part)
    return ad.concat(parts)


def transfer(reference: ad.AnnData, new: ad.AnnData, use_rep: str | None, protocol: Protocol) -> None:
    bf.tl.transfer(
        new,
        "answer",
        reference=reference,
        use_rep=use_rep,
        layer="log_tpm",
        groups="group",
        protocol=protocol,
    )


def each_study(adata: ad.AnnData) -> pd.DataFrame:
    """Leave out each study whose classes others hold, and return its recall under each representation."""
    rows = []
    for study in adata.obs["group"].unique():
        here = (adata.obs["group"] == study).to_numpy()
        reference, new = adata[~here].copy(), adata[here].copy()
        new = new[new.obs["answer"].isin(reference.obs["answer"].unique())].copy()
        if not new.n_obs:
            continue
        transfer(reference, new, "X_bulkformer", QUICK)
        table = new.uns["transfer_answer"]["scores"]
        recall = table[table["metric"] == "balanced_accuracy"].set_index("representation")["mean"]
        counts = new.obs["answer"].value_counts()
        rows.append(
            {
                "study left out": study,
                "samples": new.n_obs,
                "classes": ", ".join(f"{name} {n}" for name, n in counts[counts > 0].items()),
                **{NAMES[name]: recall[name] for name in NAMES},
                "unlike": new.obs["transfer_answer_out_of_distribution"].mean(),
            }
        )
    return pd.DataFrame(rows)


def unseen_organs(adata: ad.AnnData) -> pd.DataFrame:
    """Take an organ out of the reference and ask whether its samples are told from those of organs that it holds."""
    rows = []
    answer, study = adata.obs["answer"].astype(str), adata.obs["group"].astype(str)
    for organ in sorted(answer.unique()):
        row: dict[str, object] = {"organ taken out": organ}
        for use_rep, name in (("X_bulkformer", MODEL), (None, "*raw*")):
            parts = []
            for left_out in study.unique():
                reference = adata[((study != left_out) & (answer != organ)).to_numpy()].copy()
                asked = (study == left_out) & answer.isin([organ, *reference.obs["answer"].unique()])
                new = adata[asked.to_numpy()].copy()
                new.obs = new.obs.rename(columns={"answer": "organ"})
                transfer(reference, new, use_rep, SILENT)
                parts.append(new.obs)
            table = pd.concat(parts)
            absent = (table["organ"] == organ).to_numpy()
            row |= {"its samples": int(absent.sum()), "others": int((~absent).sum())}
            row[name] = auroc(absent, table["transfer_answer_ood_ratio"].to_numpy())
            low = (table["transfer_answer_ood_p"] < 0.05).to_numpy()
            row[f"{name}: p < 0.05 of its / others"] = f"{low[absent].mean():.2f} / {low[~absent].mean():.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> list[str]:
    cells = table.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    head = [f"| {' | '.join(table.columns)} |", f"|{' --- |' * table.shape[1]}"]
    return [*head, *(f"| {' | '.join(row)} |" for row in cells.to_numpy().tolist())]


def verdict(table: pd.DataFrame) -> str:
    """Say whose mean over studies is the best, and how often the model is ahead."""
    means = table[list(NAMES.values())].mean()
    best = str(means.idxmax())
    better = {name: int((table[MODEL] > table[name]).sum()) for name in means.index[1:]}
    equal = {name: int((table[MODEL] == table[name]).sum()) for name in means.index[1:]}
    counts = {name: f"better in {better[name]}, equal in {equal[name]}" for name in better}
    said = "; ".join(f"than {name} it is {text} of {len(table)} studies" for name, text in counts.items())
    won = f"The model's mean recall is the highest ({means[MODEL]:.3f})"
    lost = f"**The baseline {best} wins: {means[best]:.3f} against {means[MODEL]:.3f} of the model**"
    others = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
    return f"{won if best == MODEL else lost}, over studies ({others}); {said}."


def answers(folder: Path, cache: Path | None) -> list[str]:
    page = [HEADER]
    for make, title, what in (
        (tuberculosis, "Active tuberculosis from blood", "active against latent or none"),
        (
            tissues,
            "Organ",
            "seven organs of fourteen files, at most 12 samples of each, groups of `training/splits.yaml`",
        ),
    ):
        adata = make(folder)
        embed(adata, cache)
        # genes that every study measured
        adata = adata[:, ~np.isnan(adata.layers["log_tpm"]).any(axis=0)].copy()
        table = each_study(adata)
        size = f"{adata.n_obs} samples, {adata.obs['group'].nunique()} studies or groups of them, {adata.n_vars} genes"
        page += [f"## {title}", "", f"{size}; {what}.", "", *as_markdown(table), "", verdict(table), ""]
        print("\n".join(page[-6:]), flush=True)
    table = unseen_organs(adata)
    page += [UNSEEN, *as_markdown(table), ""]
    means = table[[MODEL, "*raw*"]].mean()
    ahead = MODEL if means[MODEL] > means["*raw*"] else "the baseline *raw*"
    page += [
        f"Mean AUROC: {MODEL} {means[MODEL]:.3f}, *raw* {means['*raw*']:.3f}; {ahead} tells unseen organs better.",
        "",
    ]
    print("\n".join(page[-len(table) - 4 :]), flush=True)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings")
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("transfer: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    logging.disable(logging.WARNING)
    page = answers(Path(folder), options.cache)
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
