"""``bulkformer pretrain`` is the function of that name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

import bulkformer_tl as bf

CONFIG = """
network: {dim: 8, depth: 1, heads: 2, dim_head: 4, nb_features: 8, graph_hidden_dim: 4}
batch_size: 4
checkpoint_every: 2
optimizer: {learning_rate: 1e-3}
"""


@pytest.fixture
def corpus(folder):
    """Two studies, a genes file, a graph and a configuration."""
    adata = bf.datasets.simulate(16, n_vars=30, n_batches=2, n_differential=5, rng=0)
    bf.pp.log_tpm(adata, denominator="all")
    for name, rows in adata.obs.groupby("batch", observed=True).groups.items():
        adata[rows].copy().write_h5ad(f"{name}.h5ad")
    pd.DataFrame({"ensembl_id": adata.var_names}).to_csv("genes.csv", index=False)
    edges = np.random.default_rng(0).integers(0, 30, (2, 60))
    save_file({"edge_index": edges, "edge_weight": np.ones(60, np.float32)}, "graph.safetensors")
    (folder / "config.yaml").write_text(CONFIG)
    return ["batch_1.h5ad", "batch_2.h5ad", "--layer", "log_tpm", "-o", "mine"]


NEW = ["--vocabulary", "genes.csv", "--graph", "graph.safetensors", "--config", "config.yaml", "--device", "cpu"]


def test_trains_and_goes_on(run, corpus, folder):
    ended = run("pretrain", *corpus, *NEW, "--epochs", 1, "--validation", "batch_2", "--seed", 3, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["steps"] in {0, 2}
    model = bf.models.load(folder / "mine")
    assert ended.json["checksum"] == model.checksum
    training = model.provenance["training"]
    assert training["left_out_studies"] == ["batch_2"]
    assert (training["config"]["seed"], training["config"]["epochs"]) == (3, 1)
    assert len(pd.read_csv("mine/training/history.csv")) == 2
    assert "batch_1: " in ended.err

    assert run("embed", "batch_1.h5ad", "--layer", "log_tpm", "--model", "mine", "-o", "v.csv").code == 0
    (folder / "more.yaml").write_text("batch_size: 4\nepochs: 0.5\n")
    words = ["batch_1.h5ad", "batch_2.h5ad", "--layer", "log_tpm", "-o", "more", "--start", "mine"]
    assert run("pretrain", *words, "--config", "more.yaml", "--device", "cpu").code == 0


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (NEW[:2], 3, "a new network needs"),
        ([*NEW, "--validation", "batch_9"], 3, "are none of them"),
        ([*NEW, "--config", "absent.yaml"], 4, "absent.yaml"),
        ([*NEW, "--graph", "absent.safetensors"], 4, "the gene graph is not at"),
        ([*NEW, "--study", "lab"], 3, "no column 'lab'"),
        ([*NEW, "--strategy", "none"], 2, "'none' is not one of"),
    ],
)
def test_refusals(run, corpus, folder, words, code, text):
    ended = run("pretrain", *corpus, *words)
    assert ended.code == code
    assert text in ended.err
    assert not (folder / "mine").exists()


def test_counts_are_refused(run, corpus):
    ended = run("pretrain", *corpus[:2], "-o", "mine", *NEW)
    assert ended.code == 3
    assert "raw counts" in ended.err
    assert "--layer log_tpm" in ended.err
