"""Small networks, trained on the cohorts that benchmarks of encodings do not score; run by itself it does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
from sklearn.decomposition import PCA

import bulkformer_tl as bf

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Labels that cohorts are scored by; these cohorts are not trained on.
SCORED = {
    "tcga_six_cohorts_rsem_norm": "cancer_type",
    "tcga_brca_lgg_gbm_rsem_counts": "cancer_type",
    "gtex_skin_bladder31_counts": "tissue_detail",
    "brain_mdd_gse102556_counts": "tissue",
    "tcga_crc_cms_counts": "cms",
    "tb_gse107991_counts": "disease",
    "perturb_macrophage_counts": "treatment",
}
#: Cohorts that say when training has gone far enough.
VALIDATION = ("tb_gse84076_counts", "perturb_t47d_e2_gse89888_counts", "tcga_gbm_htseq_counts")
#: Samples that are taken of one file, so that none outvotes the others.
PER_FILE = 40
N_GENES = 300
#: Ranks of a sample, as many as the second version of Geneformer reads.
N_RANKS = 4096
#: How networks make one vector of a sample; nothing that they are trained for says what ``<cls>`` is.
POOLINGS = ("cls", "mean", "max")
#: What reads counts in which encoding; sizes that two cores train in minutes.
CONFIGS: dict[str, dict[str, Any]] = {
    "bins": {
        "family": "bioformer",
        "network": {"dim": 64, "layers": 2, "heads": 4, "feed_forward": 256, "n_bins": 40, "dropout": 0.0},
        # the mean library would be that of the few files of coverage sums
        "binning": {"rna": {"bin_size": 0.5, "target_sum": 1e6}},
        "masking": bf.train.Masking(fraction=0.15, kinds={"balanced": 1.0}),
        "optimizer": bf.train.Optimizer(learning_rate=2e-3),
    },
    "ranks": {
        "family": "geneformer",
        "network": {
            **{"version": "V2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
            # all genes of a sample, and <cls> and <eos>
            **{"intermediate_size": 256, "max_position_embeddings": N_GENES + 2},
        },
        "optimizer": bf.train.Optimizer(learning_rate=2e-3),
    },
}


def corpus(folder: Path, left_out: Iterable[str] = SCORED) -> list[ad.AnnData]:
    """Read all files of counts but some, at most ``PER_FILE`` samples of each."""
    found = []
    for path in sorted(folder.glob("*_counts.h5ad")):
        if path.stem in left_out:
            continue
        adata = ad.read_h5ad(path)
        rows = np.random.default_rng(0).permutation(adata.n_obs)[:PER_FILE]
        adata = adata[np.sort(rows)].copy()
        adata.obs = adata.obs[[]].assign(study=path.stem)
        found.append(adata)
    return found


def variable_genes(parts: list[ad.AnnData], n_genes: int = N_GENES) -> list[str]:
    """Return the genes that vary most, as log2 of counts per million, among those that all files measure."""
    both = ad.concat([part for part in parts if part.obs["study"].iloc[0] not in VALIDATION], join="inner")
    counts = np.asarray(both.X, dtype=np.float64)
    scaled = np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1)
    chosen = np.sort(np.argsort(-scaled.var(axis=0), kind="stable")[:n_genes])
    return [str(name) for name in both.var_names[chosen]]


def train(name: str, parts: list[ad.AnnData], genes: list[str], out: Path, *, epochs: float) -> Any:
    """Train one network, or read it where an earlier call has; returns the model."""
    config = bf.train.PretrainConfig(
        **CONFIGS[name], epochs=epochs, batch_size=16, checkpoint_every=100, validation=VALIDATION
    )
    sources = [bf.train.Source(part, study="study", name=part.obs["study"].iloc[0]) for part in parts]
    return bf.train.pretrain(sources, config, out=out / name, vocabulary=genes)


def read_scored(folder: Path, name: str) -> ad.AnnData:
    """Read a cohort with its label in ``obs["label"]``, ln(TPM+1) in ``layers["log_tpm"]``; the rest is left out."""
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    labels = adata.obs[SCORED[name]].astype(object).replace("", np.nan)
    counts = labels.value_counts()
    keep = labels.isin(counts.index[counts >= 4]).to_numpy()
    adata.obs = adata.obs.assign(label=labels.astype("category"))
    adata = adata[keep].copy()
    adata.obs["label"] = adata.obs["label"].cat.remove_unused_categories()
    bf.pp.log_tpm(adata)
    return adata


def represent(adata: ad.AnnData, networks: dict[str, Any], vocabulary: Any) -> dict[str, str]:
    """Write what a cohort looks like in each encoding, and to the network that reads it; returns names and keys.

    Each encoding by itself is given as the cohort's own principal components over all genes.
    """
    adata.obsm["X_pca_magnitude"] = components(adata.layers["log_tpm"])
    bf.pp.bin_expression(adata)
    adata.obsm["X_pca_bins"] = components(adata.layers["binned"])
    bf.pp.rank_value_encode(adata, medians=vocabulary, version="V1", max_length=N_RANKS)
    adata.obsm["X_pca_ranks"] = components(rank_shares(adata))
    bf.tl.embed(adata, model="bulkformer-mini", layer="log_tpm", key_added="magnitude_network")
    found = {f"{name}, PCA": f"X_pca_{name}" for name in ("magnitude", "bins", "ranks")}
    found["magnitude, bulkformer-mini"] = "X_magnitude_network"
    for name, model in networks.items():
        for pooling in POOLINGS:
            chosen = None if pooling == model.default_pooling else pooling
            bf.tl.embed(adata, model=model, pooling=chosen, key_added=f"{name}_{pooling}")
            found[f"{name}, network, {pooling}"] = f"X_{name}_{pooling}"
    return found


def components(values: Any) -> np.ndarray:
    matrix = np.asarray(values, dtype=np.float64)
    return PCA(min(50, len(matrix) - 1), random_state=0).fit_transform(np.nan_to_num(matrix))


def rank_shares(adata: ad.AnnData) -> np.ndarray:
    """Return how far up each gene stands, 1 for the first of a sample and 0 for those that it does not list."""
    tokens, lengths = adata.obsm["rank_tokens"], adata.obs["rank_length"].to_numpy()
    shares = np.zeros((adata.n_obs, int(tokens.max()) + 1), dtype=np.float32)
    for row, own, n in zip(shares, tokens, lengths, strict=True):
        row[own[:n]] = 1 - np.arange(n) / n
    return shares
