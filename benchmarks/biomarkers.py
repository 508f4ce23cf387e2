"""Do genes that screens find hold elsewhere, and what are genes worth that imputation adds?

``python benchmarks/biomarkers.py`` prints Markdown tables, ``--write`` puts them into
``docs/benchmarks/biomarkers.md``. Needs the cohorts: set ``BULKFORMER_TL_DATA`` to their folder.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

import bulkformer_tl as bf

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "biomarkers.md"
TUBERCULOSIS = {
    "London": "tb_gse107991_counts",
    "South Africa": "tb_gse107992_counts",
    "Brazil": "tb_gse84076_counts",
    "Uganda": "tb_hiv_gse107104_counts",
}
SURVIVAL = {
    "six": "tcga_six_cohorts_rsem_norm",
    "gbm": "tcga_gbm_htseq_counts",
    "brain and breast": "tcga_brca_lgg_gbm_rsem_counts",
    "colon": "tcga_crc_cms_counts",
}
#: Share of the genes that a panel lacks, and of the samples that it was used on.
ABSENT, ON_PANEL = 0.5, 0.75
TOP = 100
ALPHA = 0.05
#: Permutations of the outcome, and genes that each is screened with.
DRAWS, SOME_GENES = 10, 2000


def read(folder: Path, name: str) -> ad.AnnData:
    """Read a file on the model's genes, ln(TPM+1) in ``layers["log_tpm"]``."""
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    bf.pp.log_tpm(adata)
    aligned = bf.pp.align_genes(adata)
    aligned.obs_names = [f"{name}:{sample}" for sample in aligned.obs_names]
    return aligned


def read_tuberculosis(folder: Path) -> dict[str, ad.AnnData]:
    found = {place: read(folder, name) for place, name in TUBERCULOSIS.items()}
    for adata in found.values():
        adata.obs["answer"] = np.where(adata.obs["disease"] == "active TB", "active", "other")
    return found


def read_survival(folder: Path) -> tuple[ad.AnnData, ad.AnnData]:
    """Return tumours of six cancers, and tumours of other files, in days above 0."""
    parts = {}
    for name, file in SURVIVAL.items():
        adata = read(folder, file)
        tumour = ~adata.obs["sample_type"].astype(str).str.contains("normal")
        adata = adata[tumour & (adata.obs["OS_time"] > 0) & adata.obs["OS"].notna()].copy()
        adata.obs = adata.obs[["patient", "cancer_type", "OS", "OS_time"]]
        parts[name] = adata
    return parts["six"], ad.concat([parts[name] for name in list(SURVIVAL)[1:]])


def screen_label(adata: ad.AnnData, **options: Any) -> dict[str, Any]:
    options = {"layer": "log_tpm"} | options
    bf.tl.differential_expression(adata, "answer", case="active", alpha=ALPHA, key_added="screen", **options)
    return dict(adata.uns["screen"])


def screen_survival(adata: ad.AnnData, **options: Any) -> dict[str, Any]:
    options = {"layer": "log_tpm", "strata": "cancer_type"} | options
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="split=.optimal.")
        bf.tl.biomarkers(adata, "OS_time", event="OS", groups="patient", alpha=ALPHA, key_added="screen", **options)
    return dict(adata.uns["screen"])


def holds(genes: pd.Index, here: pd.DataFrame, there: pd.DataFrame) -> float:
    """Return the share of genes, tested in both, with the same sign and p < 0.05 there."""
    both = [gene for gene in genes if not np.isnan(here.loc[gene, "p"]) and not np.isnan(there.loc[gene, "p"])]
    if not both:
        return np.nan
    same = np.sign(here.loc[both, "statistic"]) == np.sign(there.loc[both, "statistic"])
    return float((same & (there.loc[both, "p"] < 0.05)).mean())


def row(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def head(names: list[str]) -> list[str]:
    return [row(names), row(["---"] + ["--:"] * (len(names) - 1))]


def percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.0f} %"


def replication(cohorts: dict[str, ad.AnnData]) -> list[str]:
    """Screen each cohort, and look its first genes up in the others."""
    tables = {place: screen_label(adata)["genes"] for place, adata in cohorts.items()}
    lines = head(["found in", "active / other", "genes at FDR 5 %", *(f"top {TOP} in {place}" for place in cohorts)])
    for place, table in tables.items():
        top = table["p"].nsmallest(TOP).index
        counts = cohorts[place].obs["answer"].value_counts()
        cells = ["" if place == other else percent(holds(top, table, tables[other])) for other in tables]
        found = int((table["fdr"] <= ALPHA).sum())
        lines.append(row([place, f"{counts['active']} / {counts['other']}", f"{found:,}", *cells]))
    lines.append(row(["*any gene*", "", "", *(percent(_base(tables, place)) for place in tables)]))
    return lines


def _base(tables: dict[str, pd.DataFrame], place: str) -> float:
    """How often any gene of another cohort holds here, whatever its p-value there."""
    return float(np.nanmean([holds(t.index, t, tables[place]) for other, t in tables.items() if other != place]))


def panel(adata: ad.AnnData, *, everyone: bool) -> tuple[pd.Index, ad.AnnData]:
    """Take half of the measured genes away, from three quarters of the samples or from all."""
    rng = np.random.default_rng(0)
    values = np.asarray(adata.layers["log_tpm"], dtype=np.float32).copy()
    measured = np.flatnonzero(~np.isnan(values).any(axis=0) & (values.max(axis=0) > 0))
    genes = np.sort(rng.choice(measured, int(ABSENT * len(measured)), replace=False))
    rows = rng.permutation(adata.n_obs)[: adata.n_obs if everyone else int(ON_PANEL * adata.n_obs)]
    values[np.ix_(np.sort(rows), genes)] = np.nan
    hidden = adata.copy()
    hidden.layers["panel"] = values
    return adata.var_names[genes], hidden


def fill(hidden: ad.AnnData) -> None:
    """Fill by the package, and by the mean of the gene in this cohort."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*outside what .* was trained with")
        bf.tl.impute(hidden, layer="panel")
    values = hidden.layers["panel"]
    known = (~np.isnan(values)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        means = np.where(known > 0, np.nansum(values, axis=0) / known, np.nan)
    hidden.layers["mean"] = np.where(np.isnan(values), means, values).astype(np.float32)


def imputation(adata: ad.AnnData, others: list[pd.DataFrame], *, everyone: bool) -> list[str]:
    """Compare screens of the genes that a panel lacks with the screen of what was measured."""
    truth = screen_label(adata)["genes"]
    genes, hidden = panel(adata, everyone=everyone)
    fill(hidden)
    tables = {"all measured": truth, "left of them": screen_label(hidden, layer="panel")["genes"]}
    imputed = screen_label(hidden, layer="panel", imputed="imputed", n_permutations=10)
    tables |= {"`tl.impute`": imputed["imputed"], "gene mean": screen_label(hidden, layer="mean")["genes"]}
    lines = head(
        ["genes of the panel's gap", "found at FDR 5 %", "also in all measured", "of those there", "hold elsewhere"]
    )
    real = truth.loc[genes].query("fdr <= @ALPHA")
    for name, table in tables.items():
        found = table.loc[genes].query("fdr <= @ALPHA")
        right = [
            g
            for g in found.index.intersection(real.index)
            if np.sign(found.loc[g, "statistic"]) == np.sign(real.loc[g, "statistic"])
        ]
        precision = percent(len(right) / len(found)) if len(found) else "-"
        recall = percent(len(right) / len(real)) if len(real) else "-"
        elsewhere = (
            percent(float(np.mean([holds(found.index, found, other) for other in others]))) if len(found) else "-"
        )
        lines.append(row([name, f"{len(found):,}", precision, recall, elsewhere]))
    elsewhere = percent(float(np.mean([holds(genes, truth, other) for other in others])))
    lines.append(row(["*any gene*", f"{len(genes):,}", percent(len(real) / len(genes)), "", elsewhere]))
    gained, lost, _ = imputed["changes"].to_dict("records")
    lines += [
        "",
        f"Gained by `tl.impute` over what is left: **{gained['n']:,}** genes, lost {lost['n']:,}. Permuted imputation "
        f"gains {gained['null_mean']:.0f} on average (95 % of draws up to {gained['null_high']:.0f}).",
        "",
    ]
    return lines


def halves(adata: ad.AnnData) -> list[str]:
    """Screen half of the patients of each cancer, and look the first genes up in the other half."""
    rng = np.random.default_rng(0)
    part = np.zeros(adata.n_obs, dtype=bool)
    for cancer in adata.obs["cancer_type"].unique():
        rows = np.flatnonzero(adata.obs["cancer_type"] == cancer)
        part[rng.permutation(rows)[: len(rows) // 2]] = True
    one, other = adata[part].copy(), adata[~part].copy()
    lines = head(["screen of half A", "genes at FDR 5 %", f"top {TOP} hold in half B", "any gene holds"])
    there = screen_survival(other)["genes"]
    for name, options in {"Cox on expression": {}, "median split": {"split": "median"}}.items():
        here = screen_survival(one, **options)["genes"]
        top = here["p"].nsmallest(TOP).index
        shares = (holds(top, here, there), holds(here.index, here, there))
        lines.append(row([name, f"{int((here['fdr'] <= ALPHA).sum()):,}", *map(percent, shares)]))
    return lines


def calibration(adata: ad.AnnData) -> list[str]:
    """Permute outcomes, so that every gene that is found is found by mistake."""
    from scipy.stats import norm

    names = {None: "Cox on expression", "median": "median split", "optimal": "optimal cut, corrected"}
    shares: dict[str, list[float]] = {name: [] for name in (*names.values(), "*optimal cut, not corrected*")}
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        some = adata[:, rng.choice(adata.n_vars, SOME_GENES, replace=False)].copy()
        some.obs[["OS", "OS_time"]] = some.obs[["OS", "OS_time"]].to_numpy()[rng.permutation(some.n_obs)]
        for split, name in names.items():
            table = screen_survival(some, split=split, strata=None)["genes"].dropna(subset="p")
            shares[name].append(float((table["p"] < 0.05).mean()))
        naive = 2 * norm.sf(table["statistic"].abs())
        shares["*optimal cut, not corrected*"].append(float((naive < 0.05).mean()))
    lines = head([f"screen of permuted outcomes, {DRAWS} draws", "genes with p < 0.05"])
    return lines + [row([name, f"{100 * np.mean(found):.1f} %"]) for name, found in shares.items()]


def speed(adata: ad.AnnData) -> str:
    """Compare with lifelines, one gene after the other."""
    try:
        from lifelines import CoxPHFitter
    except ImportError:
        return "lifelines is not installed here."
    start = time.perf_counter()
    table = screen_survival(adata)["genes"]
    ours = time.perf_counter() - start
    some = table["p"].dropna().index[:40]
    frame = adata.obs[["OS", "OS_time"]].assign(cancer_type=adata.obs["cancer_type"].astype(str))
    start = time.perf_counter()
    for gene in some:
        values = np.asarray(adata[:, gene].layers["log_tpm"]).ravel()
        CoxPHFitter().fit(frame.assign(gene=values), "OS_time", "OS", strata=["cancer_type"])
    theirs = (time.perf_counter() - start) / len(some)
    n = int(table["p"].notna().sum())
    return (
        f"{n:,} stratified Cox regressions of {adata.n_obs} samples take {ours:.1f} s in all; lifelines takes "
        f"{1000 * theirs:.0f} ms for each, {theirs * n / ours:.0f} times as long."
    )


HEADER = """# Biomarkers: what screens of genes find, and what imputation adds

Made by `nox -s bench -- benchmarks/biomarkers.py`, from ln(TPM+1) on the genes of `bulkformer-mini`. A gene *holds*
elsewhere if its effect has the same sign there and p < 0.05. *Any gene* says how often one does that nobody chose.
What is gained counts all genes of the model, also those that a study lacks. Times are those of a core shared with other
work.

**What the model had seen.** `bulkformer-mini` was pretrained, without labels or outcomes, on these very cohorts, also
on values that are hidden here. That favours `tl.impute` over the gene mean; nothing below says how it does on a study
that is new to it.

**What to take from it.**

- The first genes of one tuberculosis study hold in another one where both are large enough. The study from Brazil,
  with eight cases, finds nothing at a false discovery rate of 5 % and confirms little.
- Where three quarters of the samples lack a gene, `tl.impute` brings back nearly all genes that the complete data
  find, and the gene mean loses most of those that were left. **But its list is longer than it should be**: more of its
  genes are missing from the complete data's list than among those found in what was left, and fewer hold elsewhere,
  although both are held to 5 %. The complete data are no perfect truth either, since they too miss genes; but a test
  takes imputed values for measured ones, and they vary less.
- Permuted imputation gains next to nothing in the same place. It refutes only that imputed values are unrelated to the
  class. Most genes that imputation adds are right, many are not, and the null cannot tell which.
- A gene that nobody measured is found by its neighbours' signal alone. Take such a gene as a guess to be measured.
- Optimal cut-points that are not corrected find more than a third of all genes where nothing is to be found.
- What goes with survival in some cancers does not carry over to others: the first genes hold no more often there than
  any. Within the same cancers they do, in other patients.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("biomarkers: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    page: list[str] = []

    def say(*lines: str) -> None:
        page.extend(lines)
        print("\n".join(lines), flush=True)

    say(HEADER)
    label_page(Path(folder), say)
    survival_page(Path(folder), say)
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")


def label_page(folder: Path, say: Callable[..., None]) -> None:
    cohorts = read_tuberculosis(folder)
    say("## Active tuberculosis in blood: four studies", "")
    say("Moderated t between active disease and all others (latent infection, controls; in Uganda all have HIV).", "")
    say(*replication(cohorts), "")
    others = {place: screen_label(adata)["genes"] for place, adata in cohorts.items()}
    for place in ("South Africa", "London"):
        rest = [table for other, table in others.items() if other != place]
        for everyone in (False, True):
            who = "all samples" if everyone else "three quarters of the samples"
            say(f"### {place}: half of the genes taken from {who}", "")
            say(*imputation(cohorts[place], rest, everyone=everyone))


def survival_page(folder: Path, say: Callable[..., None]) -> None:
    six, rest = read_survival(folder)
    for adata in (six, rest):
        cancers = ", ".join(f"{name} {n}" for name, n in adata.obs["cancer_type"].value_counts().items())
        events = int(adata.obs["OS"].sum())
        if adata is six:
            say("## Overall survival in TCGA", "")
        say(f"{adata.n_obs} tumours, {adata.obs['patient'].nunique()} patients, {events} deaths: {cancers}.", "")
    say("Screens are stratified by cancer type; the first set is screened, the second only looked up.", "")
    say(*halves(six), "")
    there = screen_survival(rest)["genes"]
    here = screen_survival(six)["genes"]
    top = here["p"].nsmallest(TOP).index
    say(
        f"Of the top {TOP} genes of all tumours of the first set {percent(holds(top, here, there))} hold in the other "
        f"cancers of the second; of any genes {percent(holds(here.index, here, there))}.",
        "",
    )
    say(*calibration(six), "")
    say(speed(six), "")


if __name__ == "__main__":
    main()
