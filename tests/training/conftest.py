from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from bulkformer_tl import models
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._mini import MiniConfig, MiniNetwork

TRAINING = Path(__file__).parents[2] / "training"
N_GENES, N_FACTORS = 80, 5


@pytest.fixture(scope="session")
def script():
    """Import a script of ``training/``, whose scripts import each other by their bare names."""
    sys.path.insert(0, str(TRAINING))
    yield import_module
    sys.path.remove(str(TRAINING))


@pytest.fixture(scope="session")
def corpus():
    """Samples of six files in three folds that share five factors; some genes are missing in one file."""
    rng = np.random.default_rng(0)
    files = np.repeat([f"{letter}.h5ad" for letter in "abcdef"], 16).astype(object)
    loadings = rng.normal(size=(N_GENES, N_FACTORS))
    offsets = 0.3 * rng.normal(size=(6, N_GENES)).repeat(16, axis=0)
    values = 5 + rng.normal(size=(96, N_FACTORS)) @ loadings.T / 2 + offsets + 0.2 * rng.normal(size=(96, N_GENES))
    values = np.maximum(values, 0).astype(np.float32)
    values[files == "b.h5ad", :10] = np.nan
    return SimpleNamespace(expression=values, files=files, folds=np.repeat([0, 0, 1, 1, 2, 2], 16))


@pytest.fixture
def workshop(corpus, tmp_path):
    """The corpus with a network that has learnt nothing; its predictions are the gene means of the other folds."""

    def predict(fold, values, visible, *, seed=0):
        mean = np.nanmean(corpus.expression[corpus.folds != fold], axis=0)
        return np.tile(mean, (len(values), 1)), np.ones(values.shape)

    def model(fold):
        torch.manual_seed(fold)
        network = MiniNetwork(MiniConfig(n_genes=N_GENES, n_factors=6, n_scores=4, context=8, n_global=3, heads=2))
        network.loadings.copy_(torch.linalg.qr(torch.randn(N_GENES, 6)).Q)
        network.mean.copy_(torch.from_numpy(np.nanmean(corpus.expression[corpus.folds != fold], axis=0)))
        edges, weights = torch.randint(0, N_GENES, (2, 5 * N_GENES), dtype=torch.int32), torch.rand(5 * N_GENES)
        network.set_graph(edges, weights.half())
        facts = {"name": "tiny", "family": "mini", "denominator": "vocabulary", "default_pooling": "scores"}
        vocabulary = GeneVocabulary(ids=np.array([f"ENSG{i:011d}" for i in range(N_GENES)]))
        return models.BulkFormer(network.eval(), vocabulary, graph=(edges, weights), **facts)

    table = pd.DataFrame({"group": [file[0] for file in corpus.files]})
    return SimpleNamespace(**vars(corpus), table=table, out=tmp_path, predict=predict, model=model)
