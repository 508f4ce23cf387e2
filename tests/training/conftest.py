from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bulkformer_tl import models

TRAINING = Path(__file__).parents[2] / "training"
#: As many genes as the tiny model has.
N_GENES, N_FACTORS = 96, 5


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


@pytest.fixture(scope="session")
def model(golden):
    """A tiny encoder of another family: the scripts ask for nothing that only one has."""
    found = models.load(golden / "bulkformer_latest" / "bundle", device="cpu")
    # the trials hide more than it was trained with, which tl.impute would warn of
    found.trained_missing = None
    return found


@pytest.fixture
def workshop(corpus, model, tmp_path):
    """The corpus, with predictions that are the gene means of the other folds."""

    def predict(fold, values, visible, *, seed=0):
        mean = np.nanmean(corpus.expression[corpus.folds != fold], axis=0)
        return np.tile(mean, (len(values), 1)), np.ones(values.shape)

    own = {"expression": corpus.expression.copy(), "files": corpus.files, "folds": corpus.folds, "out": tmp_path}
    table = pd.DataFrame({"group": [file[0] for file in corpus.files]})
    return SimpleNamespace(**own, table=table, predict=predict, model=lambda fold: model)
