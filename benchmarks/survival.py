"""Does the embedded model predict survival better than simple methods, within a cancer?

``python benchmarks/survival.py`` prints Markdown tables, ``--write`` puts them into ``docs/benchmarks/survival.md``.
Needs the cohorts: set ``BULKFORMER_TL_DATA`` to their folder.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "survival.md"
MODEL = "bulkformer-mini"
FILES = (
    "tcga_brca_lgg_gbm_rsem_counts",
    "tcga_brca_male_htseq_counts",
    "tcga_crc_cms_counts",
    "tcga_gbm_htseq_counts",
    "tcga_six_cohorts_rsem_norm",
    "tcga_stad_blca_htseq_counts",
)
#: Cancers with fewer events are left out.
LEAST_EVENTS = 4
METRICS = ("harrell_c_within", "harrell_c_macro", "harrell_c", "uno_c", "auc", "integrated_brier")
HEADER = f"""# Survival: overall survival of TCGA patients

Made by `nox -s bench -- benchmarks/survival.py`. A Cox model with an elastic net on each representation, on 50
principal components of expression and (ridge) on all genes, stratified by cancer, on the same five folds; everything is
fitted inside the folds. *strata* knows the cancer only. Intervals are 95 % bootstrap intervals over patients, those of
differences widened for the number of baselines. See {{doc}}`../user-guide/survival` for the scores.

**What the model had seen.** `{MODEL}` was pretrained, without outcomes, on these very cohorts, also on the samples
that a fold holds out. That favours it over the baselines; nothing below says how it does on a study that is new to it.
"""


def read(folder: Path) -> ad.AnnData:
    """Read the tumours of all files: one aliquot of each patient whose follow-up is longer than a day."""
    table = pd.read_csv(folder / "tcga_survival_outcomes.csv.gz").drop_duplicates("tcga_id").set_index("tcga_id")
    parts = []
    for name in FILES:
        part = ad.read_h5ad(folder / f"{name}.h5ad")
        tissue = part.obs.get("sample_type", pd.Series("tumor", index=part.obs_names)).astype(str)
        part = part[~tissue.str.contains("normal")].copy()
        bf.pp.log_tpm(part)
        part = bf.pp.align_genes(part)
        columns = {"patient": part.obs["patient"].astype(str), "cancer": part.obs["cancer_type"].astype(str)}
        part.obs = pd.DataFrame(columns)
        part.obs_names = [f"{name}:{sample}" for sample in part.obs_names]
        parts.append(part)
    both = ad.concat(parts)
    found = table.reindex(both.obs["patient"])
    both.obs["days"], both.obs["died"] = found["OS_time"].to_numpy(), found["OS"].to_numpy()
    known = (both.obs["days"] > 0) & both.obs["died"].notna() & ~both.obs["patient"].duplicated()
    events = both.obs[known].groupby("cancer")["died"].sum()
    kept = both[known & both.obs["cancer"].isin(events.index[events >= LEAST_EVENTS])].copy()
    bf.tl.embed(kept, model=MODEL, layer="log_tpm")
    return kept[:, ~np.isnan(kept.layers["log_tpm"]).any(axis=0)].copy()


def ask(adata: ad.AnnData, title: str, strata: str | None) -> str:
    """Answer for some samples as Markdown."""
    protocol = Protocol(n_bootstrap=1000)
    options: dict[str, Any] = {"event": "died", "strata": strata, "groups": "patient", "layer": "log_tpm"}
    for head in ("mlp", "cox"):
        bf.tl.survival(adata, "days", **options, head=head, protocol=protocol, key_added="survival")
    result = adata.uns["survival"]
    counts = adata.obs.groupby("cancer")["died"].agg(["size", "sum"]).astype(int)
    cancers = ", ".join(f"{name} {row['size']} ({row['sum']})" for name, row in counts.iterrows())
    lines = [
        f"## {title}",
        "",
        f"{adata.n_obs} patients, {int(adata.obs['died'].sum())} deaths. Patients (deaths) of each cancer: {cancers}.",
        "",
        *table_of(result),
        "",
        verdict(result),
        "",
        groups(result),
        "",
    ]
    return "\n".join(lines)


def table_of(result: dict[str, Any]) -> list[str]:
    scores = result["scores"]
    metrics = [metric for metric in METRICS if (scores["metric"] == metric).any()]
    axes = scores.drop_duplicates("metric").set_index("metric")["axis"]
    lines = [f"| representation | {' | '.join(f'{metric} ({axes[metric]})' for metric in metrics)} |"]
    lines.append("| --- |" + " --- |" * len(metrics))
    baselines = set(result["params"]["baselines"])
    for name in dict.fromkeys(scores["representation"]):
        own = scores[scores["representation"] == name].set_index("metric")
        cells = [f"{own.loc[m, 'mean']:.3f} ({own.loc[m, 'low']:.3f} to {own.loc[m, 'high']:.3f})" for m in metrics]
        shown = f"*{name}*" if name in baselines else name.replace("X_bulkformer", MODEL)
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return lines


def verdict(result: dict[str, Any]) -> str:
    """Say in one sentence each how the Cox model on the embedding stands to every baseline."""
    metric = result["scores"]["metric"].iloc[0]
    differences = result["differences"]
    own = differences[(differences["metric"] == metric) & (differences["representation"] == "X_bulkformer")]
    said = []
    for row in own.to_dict("records"):
        gap = f"{row['difference']:+.3f}, {row['low']:+.3f} to {row['high']:+.3f}"
        how = {"X_bulkformer": "the model is better than", row["baseline"]: "**the model is worse than**"}
        said.append(f"{how.get(row['better'], 'cannot be told apart from')} *{row['baseline']}* ({gap})")
    scores = result["scores"][result["scores"]["metric"] == metric].sort_values("mean")
    best = scores.iloc[-1]["representation"]
    won = f" **The best score is that of the baseline *{best}*.**" if best in result["params"]["baselines"] else ""
    return f"By {metric}: {'; '.join(said)}.{won}"


def groups(result: dict[str, Any]) -> str:
    """Say how far the risk groups are apart."""
    text = f"Log-rank test of the two risk groups: p = {result['log_rank']['p']:.2g}."
    if "hazard_ratios" in result:
        row = result["hazard_ratios"].iloc[0]
        text += f" Hazard ratio {row['hazard_ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})."
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("survival: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    adata = read(Path(folder))
    page = [HEADER, ask(adata, "All cancers, stratified", "cancer")]
    largest = adata.obs["cancer"].value_counts().index[0]
    page.append(ask(adata[adata.obs["cancer"] == largest].copy(), f"{largest} alone", None))
    print("\n".join(page))
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
