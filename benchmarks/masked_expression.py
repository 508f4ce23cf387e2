"""Masked expression as the BioFormers paper scores it, beside linear regression and simpler predictions.

Trains BioFormers on all but the last of some studies of counts, hides a share of the genes of each sample of that one
(half of them zeros, as far as there are as many), and scores predicted bins: Sensitivity, HEL Sensitivity, NPV-50. The
peers are the paper's linear regression on the 300 genes that correlate most (a ridge, since there are fewer samples
than that; hidden predictors stand at their mean), the gene's mean, and the bin that a gene has most often. Half of the
genes are the most variable ones, half the most variable among those that are zero in a fifth to four fifths of the
samples.

    BULKFORMER_TL_DATA=... OMP_NUM_THREADS=1 python benchmarks/masked_expression.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import match_genes
from bulkformer_tl.encodings import correlate, hide_balanced, value_bins

STUDIES = "tb_gse107991 tb_gse107992 tb_gse107993 tb_hiv_gse107104 tb_gse84076"
NEIGHBOURS = 300


def read_studies(folder: Path, names: list[str]) -> ad.AnnData:
    parts = {name: ad.read_h5ad(folder / f"{name}_counts.h5ad") for name in names}
    for part in parts.values():
        part.obs = pd.DataFrame(index=part.obs_names)
    return ad.concat(parts, label="study", index_unique="-", join="inner")


def choose_genes(counts: np.ndarray, n_genes: int) -> np.ndarray:
    scaled = np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1)
    order = np.argsort(-scaled.var(axis=0), kind="stable")
    zeros = (counts == 0).mean(axis=0)
    mixed = order[(zeros[order] > 0.2) & (zeros[order] < 0.8)][: n_genes // 2]
    rest = order[~np.isin(order, mixed)][: n_genes - len(mixed)]
    return np.sort(np.concatenate([mixed, rest]))


def train(adata: ad.AnnData, genes: list[str], left_out: str, options: argparse.Namespace, **network: Any) -> Any:
    config = bf.train.PretrainConfig(
        family="bioformer",
        network={
            **{"dim": options.dim, "layers": options.layers, "heads": 4, "feed_forward": 4 * options.dim},
            **{"n_bins": 40, "dropout": 0.0, **network},
        },
        binning={"rna": {"bin_size": options.bin_size}},
        masking=bf.train.Masking(fraction=options.fraction, kinds={"balanced": 1.0}),
        optimizer=bf.train.Optimizer(learning_rate=options.learning_rate),
        epochs=options.epochs,
        batch_size=16,
        checkpoint_every=100,
        validation=(left_out,),
    )
    with tempfile.TemporaryDirectory() as folder:
        source = bf.train.Source(adata, study="study", name="studies")
        return bf.train.pretrain(source, config, out=Path(folder) / "run", vocabulary=genes)


def linear(known: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Predict each gene from those that correlate most with it; ``NaN`` in ``shown`` is hidden."""
    mean, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-6)
    own, given = (known - mean) / scale, np.nan_to_num((shown - mean) / scale)
    related = np.abs(np.nan_to_num(correlate([[own]])))
    np.fill_diagonal(related, -1)
    found = np.empty_like(given)
    for gene in range(known.shape[1]):
        nearest = np.argsort(-related[gene], kind="stable")[:NEIGHBOURS]
        found[:, gene] = Ridge(alpha=10.0).fit(own[:, nearest], own[:, gene]).predict(given[:, nearest])
    return found * scale + mean


def table_of(truth: np.ndarray, predictions: dict[str, np.ndarray], mask: np.ndarray, cutoff: int) -> pd.DataFrame:
    rows = {
        name: {
            "Sensitivity": bf.metrics.sensitivity(truth, predicted, mask=mask),
            "HEL Sensitivity": bf.metrics.hel_sensitivity(truth, predicted, mask=mask, cutoff=cutoff),
            # a method that predicts no zero has no predictive value
            "NPV-50": bf.metrics.npv_50(truth, predicted, mask=mask) if (predicted[mask] == 0).any() else np.nan,
            "zeros found": (predicted[mask & (truth == 0)] == 0).mean(),
        }
        for name, predicted in predictions.items()
    }
    return pd.DataFrame(rows).T


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--studies", nargs="+", default=STUDIES.split(), help="files without _counts.h5ad, last left out"
    )
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--fraction", type=float, default=0.15)
    parser.add_argument("--bin-size", type=float, default=1.0)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    adata = read_studies(Path(os.environ["BULKFORMER_TL_DATA"]), options.studies)
    left_out = options.studies[-1]
    test = (adata.obs["study"] == left_out).to_numpy()
    counts = np.asarray(adata.X, dtype=np.float64)
    columns = choose_genes(counts[~test], options.genes)
    genes = [str(name) for name in adata.var_names[columns]]
    models = {}
    for name, network in (("BioFormers, encoder", {}), ("BioFormers, decoder", {"decoder": True})):
        begin = time.perf_counter()
        models[name] = train(adata, genes, left_out, options, **network)
        known = models[name].provenance["training"]
        print(
            f"{name}: cross-entropy {known['validation_loss']:.3f}, of how often bins occur "
            f"{known['baseline_loss']:.3f}; {time.perf_counter() - begin:.0f} s"
        )
    model = models["BioFormers, encoder"]
    read = model.reader(adata.var_names, match_genes(adata.var_names, model.vocabulary))
    bins = read(counts)
    binning = model.binnings["rna"]
    scaled = counts[:, columns] / counts.sum(axis=1, keepdims=True) * binning.target_sum
    logs = np.log2(scaled + 1)
    generator = np.random.default_rng(0)
    mask = np.stack([hide_balanced(sample, options.fraction, 0.5, generator) for sample in bins[test]])
    shown = np.where(mask, np.nan, bins[test])

    def cut(values: np.ndarray) -> np.ndarray:
        found = value_bins(np.maximum(np.exp2(values) - 1, 0), bin_size=binning.bin_size, cutoff=binning.cutoff)
        # what rounds to nothing is nothing, where measured values above zero never are
        return np.where(np.exp2(values) - 1 < 0.5, 0, np.minimum(found, model.config.n_bins - 1))

    often = np.array([np.bincount(gene.astype(int)).argmax() for gene in bins[~test].T])
    predictions = {
        f"linear regression, k = {NEIGHBOURS}": cut(linear(logs[~test], np.where(mask, np.nan, logs[test]))),
        "gene mean": cut(np.broadcast_to(logs[~test].mean(axis=0), mask.shape)),
        "most frequent bin": np.broadcast_to(often, mask.shape),
        **{name: made.predict_bins(shown, rounds=1)[0] for name, made in models.items()},
        "BioFormers, decoder, 8 rounds": models["BioFormers, decoder"].predict_bins(shown)[0],
    }
    zeros = (bins[test][mask] == 0).mean()
    print(
        f"{left_out}: {test.sum()} samples, {mask.sum()} hidden bins of {len(genes)} genes, {zeros:.0%} of them zero;"
    )
    print(f"trained on {(~test).sum()} samples of {len(options.studies) - 1} studies\n")
    print(table_of(bins[test], predictions, mask, round(binning.cutoff)).round(3).to_string())


if __name__ == "__main__":
    main()
