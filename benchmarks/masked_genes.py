"""Masked genes of lists in the order of rank, as Geneformer is trained, beside what the genes alone and ranks tell.

Trains a small Geneformer on all but the last of some studies of counts, with medians of the training samples, masks
15 % of each list of that one, and asks for the gene at each masked place. Its peers need no network: how often each
gene occurs in training lists; and, since a list holds each gene once, the genes that are not to be seen in the list,
with the place of each one a normal distribution around its mean place in training. The latter knows all that the order
of genes tells without any gene telling of another.

    BULKFORMER_TL_DATA=... OMP_NUM_THREADS=1 python benchmarks/masked_genes.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch

import bulkformer_tl as bf

STUDIES = "tb_gse107991 tb_gse107992 tb_gse107993 tb_hiv_gse107104 tb_gse84076"


def read_studies(folder: Path, names: list[str]) -> ad.AnnData:
    parts = {name: ad.read_h5ad(folder / f"{name}_counts.h5ad") for name in names}
    for part in parts.values():
        part.obs = pd.DataFrame(index=part.obs_names)
    return ad.concat(parts, label="study", index_unique="-", join="inner")


def choose_genes(counts: np.ndarray, n_genes: int) -> np.ndarray:
    """Return the genes whose logarithms vary most among those that most samples express."""
    scaled = np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1)
    common = (counts > 0).mean(axis=0) > 0.5
    return np.sort(np.argsort(-np.where(common, scaled.var(axis=0), -1), kind="stable")[:n_genes])


def train(adata: ad.AnnData, genes: list[str], left_out: str, options: argparse.Namespace) -> bf.models.Geneformer:
    config = bf.train.PretrainConfig(
        family="geneformer",
        network={
            **{"hidden_size": options.dim, "num_hidden_layers": options.layers, "num_attention_heads": 4},
            "max_position_embeddings": options.context,
        },
        optimizer=bf.train.Optimizer(learning_rate=options.learning_rate),
        epochs=options.epochs,
        batch_size=16,
        checkpoint_every=100,
        validation=(left_out,),
    )
    with tempfile.TemporaryDirectory() as folder:
        source = bf.train.Source(adata, study="study", name="studies")
        return bf.train.pretrain(source, config, out=Path(folder) / "run", vocabulary=genes)


def lists_of(model: bf.models.Geneformer, counts: np.ndarray) -> list[np.ndarray]:
    """Return the genes of each sample in the order of their rank."""
    return [model.gene_of[tokens] for tokens in model.tokenize(counts)]


class Places:
    """Where genes stand in lists: each at a normal distribution of places, and each once."""

    def __init__(self, lists: list[np.ndarray], n_genes: int) -> None:
        places = np.full((len(lists), n_genes), np.nan)
        for row, own in zip(places, lists, strict=True):
            row[own] = np.arange(len(own))
        count = (~np.isnan(places)).sum(axis=0)
        self.often = np.log((count + 1) / (count + 1).sum())
        # a gene that was seen once or never may stand anywhere
        everywhere = np.nanmean(places), np.nanstd(places)
        few = count < 2
        self.mean = np.where(few, everywhere[0], np.nansum(places, axis=0) / np.maximum(count, 1))
        spread = np.sqrt(np.nansum((places - self.mean) ** 2, axis=0) / np.maximum(count - 1, 1))
        self.spread = np.where(few, everywhere[1], np.maximum(spread, 1.0))

    def __call__(self, own: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """Return log probabilities of all genes at the hidden places, (K, G)."""
        place = np.flatnonzero(hidden)[:, None]
        scores = self.often - np.log(self.spread) - ((place - self.mean) / self.spread) ** 2 / 2
        return without(scores, own[~hidden])


@torch.inference_mode()
def by_network(model: bf.models.Geneformer, own: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Return log probabilities of all genes at the hidden places, (K, G); what specials get is lost."""
    tokens = model.dictionary.tokens[own].astype(np.int64)
    tokens[hidden] = model.dictionary.specials["<mask>"]
    logits = model.network(input_ids=torch.from_numpy(tokens)[None]).logits[0, torch.from_numpy(hidden)]
    return logits.log_softmax(dim=-1).double().numpy()[:, model.dictionary.tokens]


def without(scores: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Return log probabilities where some genes are impossible."""
    left = scores.copy()
    left[:, genes] = -np.inf
    return left - np.logaddexp.reduce(left, axis=1, keepdims=True)


def score(found: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float]:
    costs, first, ten = [], [], []
    for scores, genes in zip(found, truth, strict=True):
        own = scores[np.arange(len(genes)), genes][:, None]
        above, equal = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
        costs.append(-own[:, 0])
        # among equals, each is as likely to be named
        first.append(np.clip(1 - above, 0, equal) / equal)
        ten.append(np.clip(10 - above, 0, equal) / equal)
    return {
        "accuracy": np.concatenate(first).mean(),
        "among the first ten": np.concatenate(ten).mean(),
        "cross-entropy": np.concatenate(costs).mean(),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--studies", nargs="+", default=STUDIES.split(), help="files without _counts.h5ad, last left out"
    )
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--context", type=int, default=200)
    parser.add_argument("--fraction", type=float, default=0.15)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=40)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    adata = read_studies(Path(os.environ["BULKFORMER_TL_DATA"]), options.studies)
    left_out = options.studies[-1]
    test = (adata.obs["study"] == left_out).to_numpy()
    counts = np.asarray(adata.X, dtype=np.float32)
    genes = [str(name) for name in adata.var_names[choose_genes(counts[~test].astype(np.float64), options.genes)]]
    begin = time.perf_counter()
    model = train(adata, genes, left_out, options)
    known = model.provenance["training"]
    print(
        f"left-out study: cross-entropy {known['validation_loss']:.3f}, of how often genes occur "
        f"{known['baseline_loss']:.3f}; step {known['steps']}, {time.perf_counter() - begin:.0f} s"
    )
    own = counts[:, adata.var_names.get_indexer(model.vocabulary.ids)]
    trained, tested = lists_of(model, own[~test]), lists_of(model, own[test])
    places = Places(trained, len(model.vocabulary))
    generator = np.random.default_rng(0)
    hidden = [np.isin(np.arange(len(x)), generator.choice(len(x), round(options.fraction * len(x)), replace=False))
              for x in tested]  # fmt: skip
    truth = [x[marks] for x, marks in zip(tested, hidden, strict=True)]
    pairs = list(zip(tested, hidden, strict=True))
    network = [by_network(model, x, marks) for x, marks in pairs]
    seen = [without(scores, x[~marks]) for scores, (x, marks) in zip(network, pairs, strict=True)]
    rows = {
        "how often genes occur": [np.tile(places.often, (marks.sum(), 1)) for marks in hidden],
        "place of each gene, once": [places(x, marks) for x, marks in pairs],
        "Geneformer": network,
        "Geneformer, genes in sight left out": seen,
    }
    print(
        f"{left_out}: {test.sum()} lists of {min(map(len, tested))} to {max(map(len, tested))} genes, "
        f"{sum(map(len, truth)):,} hidden; trained on {(~test).sum()} samples of {len(options.studies) - 1} studies\n"
    )
    print(pd.DataFrame({name: score(found, truth) for name, found in rows.items()}).T.round(3).to_string())


if __name__ == "__main__":
    main()
