"""Networks beside which the embedded checkpoint stands: an autoencoder of equal size, an untrained encoder, itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import torch
from methods import by_pattern, inner_trial
from torch import nn

import bulkformer_tl as bf
from bulkformer_tl.tl._untrained import untrained

if TYPE_CHECKING:
    from evaluation import Workshop
    from methods import Floats, Genes, Predictor, Training

    from bulkformer_tl.models import BulkFormer

#: Hidden units of the autoencoder: in and out together as many weights as 500 factors have loadings, twice.
WIDTH = 500
STEPS, BATCH, LEARNING_RATE, CHECK_EVERY = 400, 64, 1e-3, 25
#: Shares hidden in training: between these.
LOW, HIGH = 0.05, 0.9
#: Training samples that fit the read-out of the untrained encoder, and the penalties it chooses from.
READ_OUT, PENALTIES = 128, (1.0, 10.0, 100.0, 1000.0)


def checkpoint(workshop: Workshop, fold: int, seed: int) -> Predictor:
    """Predict by the network that was trained without a fold."""
    return by_pattern(lambda values, visible: workshop.predict(fold, values, visible, seed=seed))


def imputed(model: BulkFormer) -> Predictor:
    """Predict as a user does, by ``bulkformer_tl.tl.impute`` on the samples as one cohort."""

    def predict(values: Floats, genes: Genes) -> tuple[Floats, Floats]:
        obs = pd.DataFrame(index=[f"sample {row}" for row in range(len(values))])
        adata = ad.AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=model.vocabulary.ids))
        bf.tl.impute(adata, model=model, min_coverage=0.0)
        return adata.layers["imputed"][:, genes], adata.layers["imputed_sd"][:, genes]

    return predict


def autoencoder(training: Training) -> Predictor:
    """Train a denoising autoencoder: a fresh random share hidden in each sample, squared error at measured entries.

    400 steps of 64 samples on all but the inner studies; of the states after every 25 steps the one that predicts the
    inner studies best is kept.
    """
    mean = torch.from_numpy(training.mean.astype(np.float32))
    values = torch.from_numpy(training.expression[~training.inner].astype(np.float32))
    n_genes = values.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(n_genes + 1, WIDTH), nn.GELU(), nn.Linear(WIDTH, n_genes))
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=STEPS)

    @torch.no_grad()
    def predict(shown: Floats, genes: Genes) -> tuple[Floats, None]:
        given = torch.from_numpy(shown.astype(np.float32))
        return (mean + network(_given(given - mean)))[:, genes].numpy(), None

    shown, genes, truth = inner_trial(training)
    draws, best, kept = torch.Generator().manual_seed(0), np.inf, {}
    for step in range(STEPS):
        rows = torch.randint(len(values), (BATCH,), generator=draws)
        centred = values[rows] - mean
        share = LOW + (HIGH - LOW) * torch.rand(BATCH, 1, generator=draws)
        hidden = torch.rand(centred.shape, generator=draws) < share
        error = (network(_given(centred.masked_fill(hidden, torch.nan))) - centred)[~centred.isnan()]
        optimiser.zero_grad()
        error.square().mean().backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % CHECK_EVERY == 0:
            found = float(np.nanmean((predict(shown, genes)[0] - truth) ** 2))
            if found < best:
                best, kept = found, {name: part.clone() for name, part in network.state_dict().items()}
    network.load_state_dict(kept)
    return predict


def _given(centred: torch.Tensor) -> torch.Tensor:
    """Return the network's input: zero where not visible, scaled up by the share that is, and that share."""
    share = (~centred.isnan()).float().mean(dim=1, keepdim=True)
    # at their own size, thousands of inputs make steps that unseen studies pay for
    size = centred.shape[1] ** 0.5 / 8
    return torch.cat([centred.nan_to_num() / (size * share.clamp(min=1e-3)), share], dim=1)


def untrained_encoder(model: BulkFormer, training: Training) -> Predictor:
    """Predict from sample vectors of a network of the same shape with random weights.

    A ridge regression reads all genes out of them. It is fitted on 128 training samples with 5 to 90 % hidden; its
    penalty comes from leaving out single samples.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random, rng = untrained(model), np.random.default_rng(0)
    rows = rng.permutation(len(training.expression))[:READ_OUT]
    hidden = rng.random((len(rows), training.expression.shape[1])) < rng.uniform(LOW, HIGH, (len(rows), 1))
    vectors = _vectors(random, np.where(hidden, np.nan, training.expression[rows]))
    if not np.ptp(vectors, axis=0).any():
        message = f"{random.name} gives all samples the same vector; bulkformer_tl.tl._untrained leaves a table at zero"
        raise ValueError(message)
    reader = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(vectors, training.filled[rows])

    def predict(values: Floats, genes: Genes) -> tuple[Floats, None]:
        return reader.predict(_vectors(random, values))[:, genes], None

    return predict


def _vectors(model: BulkFormer, values: Floats) -> Floats:
    return model.encode(values.astype(np.float32), outputs=("pooled",)).pooled.numpy()
