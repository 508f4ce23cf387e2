"""How often ``pp.diagnose`` is right: confusion tables over real cohorts, changed in known ways, and simulated data.

``python benchmarks/diagnose_confusion.py`` prints Markdown; ``--write docs/user-guide/diagnose.md`` puts it between the
markers of that page. The cohorts lie in the folder ``$BULKFORMER_TL_DATA``. Half A are the cohorts at even places of
the sorted list, half B the others; simulations from HPA tissues are A, those from GTEx tissues B. For the sex, A are
the six cohorts whose males gave the typical level of each gene. The page says which thresholds saw which half.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import gene_table, strip_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bulkformer_tl.pp._report import Report

START, END = "<!-- confusion: begin -->", "<!-- confusion: end -->"
N_SAMPLES = 10
LABELLED = {
    "brain_age9_counts": ("sex", "B"),
    "brain_mdd_gse102556_counts": ("sex", "A"),
    "cardiomyopathy_hcm_gse206978_counts": ("sex", "B"),
    "crohns_colon_gse66207_counts": ("sex", "B"),
    "gtex_brain40_counts": ("sex", "A"),
    "gtex_skin_bladder31_counts": ("sex", "A"),
    "lcl170_counts": ("sex", "B"),
    "perturb_strain_chondrocytes_counts": ("sex", "B"),
    "roadmap57_counts": ("sex", "A"),
    "tb_gse107993_counts": ("Gender", "A"),
    "tcga_brca_male_htseq_counts": ("sex", "B"),
    "tcga_crc_cms_counts": ("gender", "A"),
}
#: Not read counts: their own unit is the truth.
STATED = {"_tpm": "tpm_or_fpkm", "_fpkm": "tpm_or_fpkm", "_nx": "tpm_or_fpkm"}

Table = Counter[tuple[str, str, str]]


def read(path: Path, n: int | None = N_SAMPLES) -> ad.AnnData:
    """Return some samples of a cohort, dense, with Ensembl ids and symbols."""
    adata = ad.read_h5ad(path)
    adata = adata[: n or adata.n_obs].copy()
    obs: Any = adata.obs
    return make(dense(adata), strip_version(adata.var_names), obs)


def dense(adata: ad.AnnData) -> NDArray[np.float64]:
    """Return X as a dense array."""
    matrix: Any = adata.X
    return np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix, dtype=np.float64)


def make(values: NDArray[np.float64], names: NDArray[np.str_], obs: pd.DataFrame | None = None) -> ad.AnnData:
    """Return an AnnData of values and names alone."""
    obs = pd.DataFrame(index=pd.Index([f"s{i}" for i in range(len(values))])) if obs is None else obs.copy()
    return ad.AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=pd.Index(names.astype(object))))


def units(adata: ad.AnnData, stated: str) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the values in every unit that they can be turned into, with its name."""
    values = dense(adata)
    linear = {stated: values}
    if stated == "counts":
        lengths = gene_table()["length"].reindex(adata.var_names).fillna(1000).to_numpy()
        rate, total = values / lengths, values.sum(axis=1, keepdims=True)
        linear["cpm"] = values / total * 1e6
        linear["tpm"] = rate / rate.sum(axis=1, keepdims=True) * 1e6
        # beyond a million FPKM cannot be TPM, below nothing tells
        fpkm = rate / total * 1e9
        linear["fpkm" if fpkm.sum(axis=1).max() > 1.05e6 else "tpm_or_fpkm"] = fpkm
        linear["scaled_counts"] = values / total * np.median(total)
    for name, made in linear.items():
        yield name, made
        yield f"log_{name}", np.log1p(made)
        yield f"log2_{name}", np.log2(made + 1)
        yield f"log10_{name}", np.log10(made + 1)


def scalings(adata: ad.AnnData) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield values after steps that nothing undoes."""
    log = np.log2(dense(adata) + 1)
    deviation = log.std(axis=0)
    centred = log - log.mean(axis=0)
    batch = np.random.default_rng(0).normal(0, 0.5, (2, log.shape[1]))
    yield "z-scores", centred / np.where(deviation > 0, deviation, 1)
    yield "centred", centred
    yield "batch-corrected", log + batch[np.arange(len(log)) % 2]


def scaling_of(report: Report) -> str:
    found = report.findings.query("check == 'unit'")["found"].iloc[0]
    phrases = {"as z-scores are": "z-scores", "to the cohort's mean": "centred", "batch-corrected": "batch-corrected"}
    return next((name for phrase, name in phrases.items() if phrase in found), report.unit)


def cells(tpm: ad.AnnData, reads: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return counts of 60 cells: profiles of tissues, gamma noise per gene and cell, Poisson reads."""
    profiles = dense(tpm)[rng.integers(0, tpm.n_obs, 60)]
    profiles = profiles * rng.gamma(1.0, 1.0, profiles.shape)
    depth = reads * np.exp(rng.normal(0, 0.3, (60, 1)))
    return np.asarray(rng.poisson(profiles / profiles.sum(axis=1, keepdims=True) * depth), dtype=np.float64)


def arrays(tpm: ad.AnnData, background: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return intensities: probes saturate (power 0.7), background is added, noise is multiplied."""
    profiles = dense(tpm)
    gain = np.exp(rng.normal(0, 0.7, profiles.shape[1]))
    signal = 20 * gain * (profiles + 0.1) ** 0.7 + background * np.exp(rng.normal(0, 0.3, profiles.shape))
    return np.asarray(signal * np.exp(rng.normal(0, 0.1, profiles.shape)))


def quantile_normalise(values: NDArray[np.float64]) -> NDArray[np.float64]:
    target = np.sort(values, axis=1).mean(axis=0)
    return np.asarray(target[np.argsort(np.argsort(values, axis=1), axis=1)])


def names_of(adata: ad.AnnData) -> Iterator[tuple[str, NDArray[np.str_]]]:
    """Yield the same genes under other names; unknown ones keep their Ensembl id."""
    known = gene_table().reindex(adata.var_names)
    ids = np.asarray(adata.var_names, dtype=str)
    symbols = known["symbol"].fillna("").to_numpy(dtype=str)
    entrez = known["entrez"].fillna("").to_numpy(dtype=str)
    yield "ensembl", ids
    yield "ensembl (versions)", np.array([f"{name}.{i % 17 + 1}" for i, name in enumerate(ids)])
    yield "symbol", np.where(symbols == "", ids, symbols)
    yield "entrez", np.where(entrez == "", ids, entrez)
    yield "mouse ids", np.array([name.replace("ENSG", "ENSMUSG") for name in ids])
    yield "mouse symbols", np.array([name.capitalize() for name in np.where(symbols == "", ids, symbols)])


def count(paths: list[Path]) -> dict[str, Table]:
    """Return what was made, what was found, and how often, by kind of question."""
    tables: dict[str, Table] = {key: Counter() for key in ("unit", "scaling", "names", "platform", "samples", "sex")}
    for i, path in enumerate(paths):
        split = "A" if i % 2 == 0 else "B"
        adata = read(path)
        stated = next((unit for suffix, unit in STATED.items() if path.stem.endswith(suffix)), "counts")
        for name, values in units(adata, stated):
            report = bf.pp.diagnose(make(values, adata.var_names.to_numpy(dtype=str)))
            tables["unit"][split, name, report.unit] += 1
            tables["platform"][split, "bulk, any unit", report.platform] += 1
        for name, values in scalings(adata):
            report = bf.pp.diagnose(make(values, adata.var_names.to_numpy(dtype=str)))
            tables["scaling"][split, name, scaling_of(report)] += 1
        count_names(tables, split, adata)
        count_panels(tables, split, adata)
        count_copies(tables, split, adata)
        if path.stem in LABELLED:
            column, half = LABELLED[path.stem]
            count_sex(tables, half, read(path, None), column)
    count_simulated(tables, [path for path in paths if path.stem.startswith("tissue") and path.stem.endswith("_tpm")])
    return tables


def count_names(tables: dict[str, Table], split: str, adata: ad.AnnData) -> None:
    """Rename the genes, and turn the table."""
    values = dense(adata)
    for name, names in names_of(adata):
        for turned in (False, True) if name in {"ensembl", "symbol"} else (False,):
            unique = ~pd.Index(names).duplicated()
            renamed = make(values[:, unique], names[unique])
            report = bf.pp.diagnose(renamed.T if turned else renamed)
            found = report.identifiers or f"{report.species or 'no'} genes"
            right = found + (", genes in rows" if report.calls[:1] == ["adata = adata.T"] else "")
            tables["names"][split, name + (", genes in rows" if turned else ""), right] += 1


def count_panels(tables: dict[str, Table], split: str, adata: ad.AnnData) -> None:
    """Keep 500 or 1,000 genes: the highest, as panels choose them, or any."""
    values = dense(adata)
    rng = np.random.default_rng(0)
    highest = np.argsort(-np.median(values, axis=0))
    for n in (500, 1000):
        for name, genes in {"high": highest[:n], "random": rng.choice(adata.n_vars, n, replace=False)}.items():
            report = bf.pp.diagnose(make(values[:, genes], adata.var_names[genes].to_numpy(dtype=str)))
            tables["platform"][split, f"panel, {n:,} {name} genes", report.platform] += 1


def count_copies(tables: dict[str, Table], split: str, adata: ad.AnnData) -> None:
    """Append a copy of a sample, one that differs by rounding and depth, and a constant one."""
    values = dense(adata)
    made = {
        "as it is": values,
        "a copy": np.vstack([values, values[:1]]),
        "a copy times 1.5, rounded": np.vstack([values, np.round(values[:1] * 1.5)]),
        "a constant sample": np.vstack([values, np.full((1, adata.n_vars), 7.0)]),
    }
    checks = {"duplicated samples": "a copy", "similar samples": "similar", "constant samples": "a constant sample"}
    for name, matrix in made.items():
        found = bf.pp.diagnose(make(matrix, adata.var_names.to_numpy(dtype=str))).findings["check"]
        tables["samples"][split, name, " and ".join(v for k, v in checks.items() if k in set(found)) or "nothing"] += 1


def count_sex(tables: dict[str, Table], split: str, adata: ad.AnnData, column: str) -> None:
    """Compare every sample with its label in counts, log2 CPM and z-scores, as labelled and with labels swapped."""
    counts = dense(adata)
    log = np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1)
    scaled = (log - log.mean(axis=0)) / np.where(log.std(axis=0) > 0, log.std(axis=0), 1)
    labels = {"f": "female", "m": "male", "female": "female", "male": "male"}
    truth = adata.obs[column].astype(str).str.lower().map(labels)
    swapped = truth.map({"female": "male", "male": "female"})
    for unit, values in {"counts": counts, "log2 CPM": log, "z-scores": scaled}.items():
        table = make(values, adata.var_names.to_numpy(dtype=str), pd.DataFrame({"sex": swapped}, index=adata.obs_names))
        called = bf.pp.diagnose(table, sex="sex").sex
        assert called is not None
        for label, sex in zip(truth, called, strict=True):
            if isinstance(label, str):
                tables["sex"][split, f"{label}, {unit}", sex] += 1


def count_simulated(tables: dict[str, Table], paths: list[Path]) -> None:
    """Simulate what no cohort here is; half A starts from HPA tissues, half B from GTEx tissues."""
    transforms: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "counts": lambda x: x,
        "log1p": lambda x: np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4),
        "z-scores": lambda x: (np.log1p(x) - np.log1p(x).mean(axis=0)) / (np.log1p(x).std(axis=0) + 1e-9),
    }
    for split, path in zip(("B", "A"), sorted(paths), strict=True):
        rng = np.random.default_rng(0)
        tpm = read(path, None)
        names = tpm.var_names.to_numpy(dtype=str)
        for reads in (1_000, 3_000, 10_000, 30_000, 100_000):
            counts = cells(tpm, reads, rng)
            for transform in transforms.values():
                report = bf.pp.diagnose(make(transform(counts), names))
                tables["platform"][split, f"simulated cells, {reads:,} reads", report.platform] += 1
        for background in (5.0, 30.0, 100.0):
            signal = arrays(tpm, background, rng)
            log = np.log2(signal)
            scales = {"log2": log, "log2, quantiles normalised": quantile_normalise(log), "no logarithm": signal}
            for scale, values in scales.items():
                report = bf.pp.diagnose(make(values, names))
                tables["platform"][split, f"simulated array, {scale}", report.platform] += 1
    import scanpy as sc

    reduced = sc.datasets.pbmc68k_reduced()
    tables["platform"]["B", "pbmc68k_reduced, raw", bf.pp.diagnose(reduced).platform] += 1
    del reduced.raw
    tables["platform"]["B", "pbmc68k_reduced, z-scores", bf.pp.diagnose(reduced).platform] += 1


HEADS = {
    "unit": "Unit",
    "scaling": "Steps that nothing undoes",
    "names": "Names and orientation",
    "platform": "Platform",
    "samples": "Copies of samples",
    "sex": "Sex, label by label",
}


def markdown(tables: dict[str, Table]) -> str:
    """Return one table per question: made, found, and how often on either half of the cohorts."""
    lines = []
    for key, table in tables.items():
        lines += [f"### {HEADS[key]}", "", "| made | found | half A | half B |", "| --- | --- | --: | --: |"]
        pairs = list(dict.fromkeys((made, found) for _, made, found in table))
        pairs.sort(key=lambda pair: [made for _, made, _ in table].index(pair[0]))
        lines += [f"| {m} | {f} | {table['A', m, f]:,} | {table['B', m, f]:,} |" for m, f in pairs]
        lines.append("")
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Replace what stands between the markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    temporary = page.with_suffix(".tmp")
    temporary.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")
    temporary.replace(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="page whose tables are replaced")
    parser.add_argument("--cohorts", type=int, help="only the first cohorts, for a trial")
    arguments = parser.parse_args()
    # anndata 0.13 sets a pandas option that pandas 3.1 deprecates
    warnings.simplefilter("ignore")
    paths = sorted(Path(os.environ["BULKFORMER_TL_DATA"]).glob("*.h5ad"))
    simulated = [path for path in paths if path.stem.startswith("tissue") and path.stem.endswith("_tpm")]
    paths = paths[: arguments.cohorts] + simulated if arguments.cohorts else paths
    text = markdown(count(paths))
    print(text)
    if arguments.write:
        write(arguments.write, text)


if __name__ == "__main__":
    main()
