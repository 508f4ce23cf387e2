"""Does fusing RNA and protein find an effect that neither shows alone, and none where there is none?

``python benchmarks/modalities.py`` prints Markdown tables, ``--write`` makes ``docs/benchmarks/modalities.md`` of them.
All data are simulated, since no public cohort of this project has both modalities.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from mudata import MuData

import bulkformer_tl as bf
from bulkformer_tl.metrics import Protocol

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import muon

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks" / "modalities.md"
N_PATIENTS, N_GENES, N_PROTEINS = 60, 300, 40
PROTOCOL = Protocol(n_bootstrap=200)
HEADER = f"""# Two modalities, simulated

Made by `nox -s bench -- benchmarks/modalities.py`. {N_PATIENTS} patients with two samples each, {N_GENES} genes
(ln(TPM+1)) and {N_PROTEINS} proteins, of which a tenth is missing; proteins of six samples were never measured, and
`muon.pp.intersect_obs` leaves these out. Four classes: genes tell the first two from the last two, proteins the odd
from the even ones. Proteins share factors of the patients with the genes, and ten follow a gene each; without an effect
neither holds. Folds keep patients together. The representation of the RNA is 20 principal components, since the
genes are no real ones that a model would know; `X_fused` is `bf.tl.fuse(mdata, {{"rna": "X_pca", "protein": None}})`.
No model was trained on anything here.
"""


def simulate(*, effect: float, seed: int = 0) -> MuData:
    """Draw samples whose classes raise genes and proteins by ``effect`` standard deviations; 0 is the null."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(N_PATIENTS), 2)
    n = len(patients)
    codes = rng.permutation(np.arange(N_PATIENTS) % 4)[patients]
    factors = rng.normal(size=(N_PATIENTS, 8))[patients]
    values = 4 + factors @ rng.normal(0, 0.3, (8, N_GENES)) + rng.normal(0, 0.5, (n, N_GENES))
    values[:, :30] += 0.5 * effect * (codes // 2)[:, None]
    if not effect:
        # in the null proteins vary between patients by factors that the genes know nothing of
        factors = rng.normal(size=(N_PATIENTS, 8))[patients]
    proteins = factors[:, :3] @ rng.normal(0, 0.5, (3, N_PROTEINS)) + rng.normal(size=(n, N_PROTEINS))
    proteins[:, :6] += effect * (codes % 2)[:, None]
    # the last ten proteins follow a gene each, which RNA can predict
    proteins[:, -10:] += effect * 2 * (values[:, -10:] - 4)
    proteins *= rng.lognormal(0, 2, N_PROTEINS)
    proteins[rng.random(proteins.shape) < 0.1] = np.nan
    names = pd.Index([f"s{i}" for i in range(n)])
    rna = ad.AnnData(np.maximum(values, 0).astype(np.float32), obs=pd.DataFrame(index=names))
    rna.var_names = [f"gene{i}" for i in range(N_GENES)]
    protein = ad.AnnData(proteins[6:].astype(np.float32), obs=pd.DataFrame(index=names[6:]))
    protein.var_names = [f"protein{i}" for i in range(N_PROTEINS)]
    mdata = MuData({"rna": rna, "protein": protein})
    mdata.obs["class"] = np.array(list("abcd"))[codes]
    mdata.obs["patient"] = [f"p{k}" for k in patients]
    muon.pp.intersect_obs(mdata)
    return mdata


def components(mdata: MuData) -> None:
    from sklearn.decomposition import PCA

    values = np.asarray(mdata["rna"].X)
    mdata["rna"].obsm["X_pca"] = PCA(20, random_state=0).fit_transform(values).astype(np.float32)


def rows(table: pd.DataFrame, metrics: tuple[str, ...], axis: str | None = None) -> list[str]:
    lines = [f"| representation | {' | '.join(metrics)} |", f"|{' --- |' * (1 + len(metrics))}"]
    shown = table if axis is None else table[table["axis"] == axis]
    for name in dict.fromkeys(shown["representation"]):
        own = shown[shown["representation"] == name].set_index("metric")
        cells = [f"{own.loc[m, 'mean']:.3f} ({own.loc[m, 'low']:.3f} to {own.loc[m, 'high']:.3f})" for m in metrics]
        lines.append(f"| {name} | {' | '.join(cells)} |".replace("nan (nan to nan)", "undefined"))
    return lines


def verdict(differences: pd.DataFrame, metric: str, axis: str | None = None) -> str:
    shown = differences[(differences["metric"] == metric) & ((differences["axis"] == axis) | (axis is None))]
    said = []
    for row in shown.dropna(subset="difference").to_dict("records"):
        how = {row["representation"]: "better than", row["baseline"]: "**worse than**"}.get(
            row["better"], "not told from"
        )
        said.append(f"{how} *{row['baseline']}* ({row['difference']:+.3f}, {row['low']:+.3f} to {row['high']:+.3f})")
    return f"By {metric}, *{shown['representation'].iloc[0]}* is {'; '.join(said)}."


def answers() -> list[str]:
    page = [HEADER]
    for effect, title in ((1.5, "Planted effect"), (0.0, "No effect")):
        mdata = simulate(effect=effect)
        components(mdata)
        bf.tl.fuse(mdata, {"rna": "X_pca", "protein": None})
        bf.tl.classify(mdata, "class", use_rep="X_fused", groups="patient", protocol=PROTOCOL)
        found = mdata.uns["classify_class"]
        page += [f"## {title}: four classes from both", "", f"{mdata.n_obs} samples.", ""]
        page += [*rows(found["scores"], ("auroc", "balanced_accuracy")), "", verdict(found["differences"], "auroc"), ""]
        bf.tl.regress(mdata, "protein", use_rep="X_pca", groups="patient", protocol=PROTOCOL)
        found = mdata.uns["regress_protein"]
        page += [f"## {title}: proteins from RNA", "", "Means over 40 proteins (`per_column`).", ""]
        page += rows(found["scores"], ("pearson", "rmse"), "per_column")
        page += ["", verdict(found["differences"], "rmse", "per_column"), ""]
        each = found["per_column"].query("representation == 'X_pca'").set_index("column")["pearson"]
        planted = [f"protein{i}" for i in range(N_PROTEINS - 10, N_PROTEINS)]
        own, rest = each[planted].mean(), each.drop(planted).mean()
        page += [f"Proteins that were made to follow a gene: mean r {own:.3f}; the others {rest:.3f}.", ""]
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    page = answers()
    print("\n".join(page), flush=True)
    if options.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
