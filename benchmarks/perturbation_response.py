"""Can the response to a treatment that was not seen be predicted from controls by the embedded model?

``python benchmarks/perturbation_response.py`` prints Markdown tables, ``--write`` puts them into
``docs/benchmarks/perturbation_response.md``. Needs the cohorts: set ``BULKFORMER_TL_DATA`` to their folder.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "perturbation_response.md"
MODEL = "bulkformer-mini"
METRICS = ("pearson_delta", "pearson_delta_top20", "pearson", "rmse", "rmse_top20")
LEAVE_ONE_OUT = Protocol(scheme="leave_one_group_out", n_inner=3)
KEY = "perturbation_response"
HEADER = """# Response to perturbations

Made by `nox -s bench -- benchmarks/perturbation_response.py`. Each treated sample is paired with the mean of its
controls (same donor, line, batch or genotype), on the genes that all files measure. A ridge regression predicts the
change, its penalty chosen by inner folds, from the representation of the controls and what is said of the treatment;
*raw* is the same on expression, *mlp* a perceptron on expression, *mean_change* that of the training treatments,
*nearest* that of the one most alike, *no_change* the control itself. Scores are computed within each treatment and
averaged; intervals are 95 % bootstrap intervals over what is held out, too narrow where that is less than ten.

**What the model had seen.** `bulkformer-mini` was pretrained, without labels, on these very files, treated samples
included.

**What this shows.** {shows}
"""
SHOWS = """The embedding is
nowhere better than plain expression by more than 0.001. An unseen treatment is not predicted better than by the
mean change of the others, and no change at all has the least error; profiles correlate by 0.97 before anything is
predicted. In an unseen donor of a treatment that was seen, the mean change of that treatment in other donors
(*nearest*) comes within 0.01 in correlation and a little behind in error. Over doses a perceptron on expression
wins. Of four perturbed genes, by correlation, the change of the nearest one wins; their intervals mean little."""


def read(folder: Path, name: str) -> ad.AnnData:
    """Read counts on the model's genes as ln(TPM+1)."""
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    bf.pp.log_tpm(adata)
    aligned = bf.pp.align_genes(adata)
    aligned.obs_names = [f"{name}:{sample}" for sample in aligned.obs_names]
    aligned.obs["context"] = name
    return aligned


@dataclass(frozen=True)
class Source:
    """Which samples of a file are what.

    Parameters
    ----------
    name
        File.
    names
        Label in the file to what it is called here; the control is ``"control"``.
    pairs
        Columns that pair treated samples with their controls.
    column
        Column of the labels.
    """

    name: str
    names: dict[str, str]
    pairs: tuple[str, ...] = ()
    column: str = "treatment"

    def read(self, folder: Path) -> ad.AnnData:
        return self.keep(read(folder, self.name))

    def keep(self, adata: ad.AnnData) -> ad.AnnData:
        """Keep the samples that are labelled, and what is needed of their labels."""
        treatment = adata.obs[self.column].astype(str).map({"control": "control", **self.names})
        context = adata.obs["context"].astype(str)
        for pair in self.pairs:
            context = context + ":" + adata.obs[pair].astype(str)
        dose = adata.obs.get("dose_uM", np.nan)
        adata.obs = pd.DataFrame({"treatment": treatment, "context": context, "dose_uM": dose}, index=adata.obs_names)
        return adata[treatment.notna().to_numpy()].copy()


AIRWAY = Source("perturb_airway_gse52778_counts", {"dexamethasone": "dexamethasone"}, ("donor",))
DOXORUBICIN = Source("perturb_doxorubicin_cardiomyocyte_counts", {"doxorubicin 1uM": "doxorubicin"}, ("donor",))
DOSES = Source("perturb_doxorubicin_doses_counts", {"doxorubicin": "doxorubicin"}, ("donor",))
MACROPHAGE = Source(
    "perturb_macrophage_counts", {"naive": "control", "IFNg": "interferon gamma", "SL1344": "Salmonella"}, ("donor",)
)
RHINOVIRUS = Source("asthma_rhinovirus_gse61141_counts", {"Vehicle": "control", "HRV16": "rhinovirus"}, ("donor",))
STRAIN = Source("perturb_strain_chondrocytes_counts", {"cyclic tensile strain": "strain"}, ("donor",))
T_CELLS = Source("perturb_tcell_activation_gse197067_counts", {"activation (CD3/CD28)": "CD3/CD28"}, ("donor",))
VIRUSES = Source(
    "perturb_respiratory_virus_gse147507_counts",
    {"SARS-CoV-2": "SARS-CoV-2", "respiratory syncytial virus": "RSV", "influenza A virus": "influenza A"},
    ("experiment",),
)
DONORS = [AIRWAY, DOXORUBICIN, MACROPHAGE, RHINOVIRUS, STRAIN, T_CELLS]
TREATMENTS = [
    *DONORS,
    DOSES,
    VIRUSES,
    Source("perturb_hypoxia_gse106305_counts", {"normoxia": "control", "hypoxia": "hypoxia"}, ("cell_line",)),
    Source("perturb_melanoma_cdk4_prmt5_counts", {"palbociclib": "palbociclib", "PRMT5 inhibitor": "PRMT5 inhibitor"}),
    Source("perturb_p53_radiation_gse100099_counts", {"ionising radiation 10 Gy": "radiation"}, ("genotype",)),
    Source("perturb_t47d_e2_gse89888_counts", {"estradiol": "estradiol"}, ("mutation",)),
    Source("tb_dendritic_infection_counts", {"Mycobacterium tuberculosis": "M. tuberculosis"}, ("tb_susceptibility",)),
]
#: What kind of treatment each is, all that its features say.
KINDS = {
    "virus": ("SARS-CoV-2", "RSV", "influenza A", "rhinovirus"),
    "bacteria": ("Salmonella", "M. tuberculosis"),
    "immune signal": ("interferon gamma", "CD3/CD28"),
    "DNA damage": ("doxorubicin", "radiation"),
    "inhibitor": ("palbociclib", "PRMT5 inhibitor"),
    "nuclear receptor": ("dexamethasone", "estradiol"),
    "physical": ("hypoxia", "strain"),
}
#: Symbols of the genes that were knocked down or, in lung carcinoma cells, over-expressed.
KNOCKED = {"SRF": -1.0, "EGR1": -1.0, "ATF3": -1.0, "EHF": 1.0}


def kinds() -> pd.DataFrame:
    marks = {name: {kind: 1.0} for kind, names in KINDS.items() for name in names}
    return pd.DataFrame.from_dict(marks, orient="index").fillna(0.0)


def gather(sources: list[Source], folder: Path) -> ad.AnnData:
    """Read files, embed the samples, and keep the genes that all of them measure."""
    parts = [source.read(folder) for source in sources]
    return embed(ad.concat(parts))


def embed(adata: ad.AnnData) -> ad.AnnData:
    bf.tl.embed(adata, model=MODEL, layer="log_tpm")
    return adata


def genes(folder: Path) -> tuple[ad.AnnData, pd.DataFrame]:
    """Knock-downs in K562 and one over-expression, each gene described by the model's own vector of it."""
    knocked = read(folder, "perturb_k562_shrna_srp009615_counts")
    target = knocked.obs["target"].astype(str)
    treated = knocked.obs["treatment"].astype(str) == "knockdown"
    knocked.obs = pd.DataFrame({"treatment": np.where(treated, target, "control"), "context": target})
    lung = read(folder, "lung_ehf_srp049988_counts")
    moved = lung.obs["perturbation"].astype(str).str.startswith("EHF")
    lung.obs = pd.DataFrame({"treatment": np.where(moved, "EHF", "control"), "context": "lung"}, index=lung.obs_names)
    adata = ad.concat([knocked, lung], merge="same")
    bf.tl.gene_embeddings(adata, model=MODEL, layer="log_tpm")
    ids = {symbol: adata.var_names[adata.var["symbol"] == symbol][0] for symbol in KNOCKED}
    signed = {symbol: {ids[symbol]: sign} for symbol, sign in KNOCKED.items()}
    return embed(adata), bf.tl.gene_features(adata, signed, varm="bulkformer_genes")


@dataclass(frozen=True)
class Question:
    """What is held out of which samples.

    Parameters
    ----------
    title
        Headline.
    what
        What is split how, and what is said of a treatment.
    options
        Of :func:`bulkformer_tl.tl.perturbation_response`.
    """

    title: str
    what: str
    options: dict[str, Any]


def of(adata: ad.AnnData, sources: list[Source]) -> ad.AnnData:
    """Take the samples of some files."""
    names = tuple(source.name for source in sources)
    return adata[adata.obs_names.str.startswith(names)].copy()


def ask(question: Question, adata: ad.AnnData) -> str:
    """Answer one question as Markdown."""
    bf.tl.perturbation_response(
        adata, "treatment", control="control", match="context", layer="log_tpm", **question.options
    )
    result = adata.uns[KEY]
    params = result["params"]
    lines = [
        f"## {question.title}",
        "",
        f"{params['n']} treated samples, {params['n_controls']} controls, {params['n_perturbations']} treatments, "
        f"{params['n_held_out']} held out in turn, {params['n_genes']:,} genes; {question.what}.",
        "",
        *table(result),
        "",
        verdict(result),
        "",
        *each(result),
    ]
    if params["n_sharing_one_control"]:
        lines.insert(3, f"{params['n_sharing_one_control']} treated samples share their only control with another")
        lines.insert(4, "treatment, which lifts every score of the change, that of the mean change too.")
    return "\n".join(lines)


def shown(name: str) -> str:
    return MODEL if name == "X_bulkformer" else f"*{name}*"


def table(result: dict[str, Any]) -> list[str]:
    scores = result["scores"]
    lines = [f"| representation | {' | '.join(METRICS)} |", "| --- |" + " --- |" * len(METRICS)]
    for name in dict.fromkeys(scores["representation"]):
        own = scores[scores["representation"] == name].set_index("metric")
        cells = [f"{own.loc[m, 'mean']:.3f} ({own.loc[m, 'low']:.3f} to {own.loc[m, 'high']:.3f})" for m in METRICS]
        lines.append(f"| {shown(name)} | {' | '.join(cells)} |".replace("nan (nan to nan)", "undefined"))
    return lines


def verdict(result: dict[str, Any]) -> str:
    """Say how the model stands to every baseline, by the change and by the error."""
    found = []
    for metric, best in (("pearson_delta", -1), ("rmse", 0)):
        differences = result["differences"]
        said = []
        for row in differences[(differences["metric"] == metric)].dropna(subset="difference").to_dict("records"):
            gap = f"{row['difference']:+.3f}, {row['low']:+.3f} to {row['high']:+.3f}"
            how = {"X_bulkformer": "the model is better than", row["baseline"]: "**the model is worse than**"}
            said.append(f"{how.get(row['better'], 'cannot be told apart from')} *{row['baseline']}* ({gap})")
        own = result["scores"][result["scores"]["metric"] == metric].dropna(subset="mean").sort_values("mean")
        winner = own.iloc[best]["representation"]
        won = "" if winner == "X_bulkformer" else f" **The best score is that of the baseline *{winner}*.**"
        found.append(f"By {metric}: {'; '.join(said)}.{won}")
    return "\n\n".join(found)


def each(result: dict[str, Any]) -> list[str]:
    """List the correlation of the change of every treatment, averaged over doses and donors."""
    found = result["perturbations"].pivot_table(
        index="perturbation", columns="representation", values="pearson_delta", sort=False
    )
    counts = result["perturbations"].query("representation == 'X_bulkformer'").groupby("perturbation")["n"].sum()
    names = [name for name in dict.fromkeys(result["perturbations"]["representation"]) if name in found]
    lines = [f"| pearson_delta | samples | {' | '.join(map(shown, names))} |", "| --- |" + " --- |" * (len(names) + 1)]
    for treatment, row in found.iterrows():
        lines.append(f"| {treatment} | {counts[treatment]} | {' | '.join(f'{row[name]:.2f}' for name in names)} |")
    return [*lines, ""]


def answer(folder: Path) -> Iterator[str]:
    """Answer every question."""
    everything = gather(TREATMENTS, folder)
    knocked, vectors = genes(folder)
    marked = ", ".join(f"{kind} ({', '.join(names)})" for kind, names in KINDS.items())
    unseen = Question(
        "A treatment that was not seen, thirteen studies",
        f"each treatment left out in turn with all its samples. Of a treatment its kind is told: {marked}",
        {"features": kinds(), "protocol": LEAVE_ONE_OUT},
    )
    yield ask(unseen, everything)
    donor = Question(
        "A donor that was not seen, six studies",
        "five folds by donor; the treatment was seen in other donors of the study. Of a treatment its name is told",
        {"groups": "context", "protocol": Protocol(n_inner=3)},
    )
    yield ask(donor, of(everything, DONORS))
    doses = Question(
        "Doxorubicin, four doses in a donor that was not seen",
        "each donor left out in turn; 0.6 to 5 uM are read as a logarithm",
        {"groups": "context", "dose": "dose_uM", "protocol": LEAVE_ONE_OUT},
    )
    yield ask(doses, of(everything, [DOSES]))
    gene = Question(
        "A gene that was not perturbed before",
        "K562 with an induced shRNA against SRF, EGR1 or ATF3, and lung carcinoma cells that over-express EHF, each "
        "gene left out in turn. Of a gene the signed vector is told that the model has of it. What the three "
        "knock-downs share is the inducer, doxycycline, and what it takes to answer it",
        {"features": vectors, "protocol": LEAVE_ONE_OUT},
    )
    yield ask(gene, knocked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    folder = os.environ.get("BULKFORMER_TL_DATA")
    if not folder:
        print("perturbation_response: skipped, set BULKFORMER_TL_DATA to the folder of the cohorts")
        return
    page = [HEADER.format(shows=SHOWS)]
    for found in answer(Path(folder)):
        print(found, flush=True)
        page.append(found)
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
