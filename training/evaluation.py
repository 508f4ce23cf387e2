"""Scores of the embedded checkpoint on left-out studies, beside simple methods."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from bank import Bank, Block, make_bank

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from factors import Factors
    from mini import Workshop
    from numpy.typing import NDArray

    from bulkformer_tl.models._mini import MiniNetwork

    Floats = NDArray[np.floating]

logger = logging.getLogger("mini")

RATES = (0.15, 0.5, 0.9)
PER_FILE = 25
NEIGHBOURS = 10
#: Two-sided 90 % interval of the normal distribution, in standard deviations.
Z90 = 1.6449


@dataclass(frozen=True)
class Tuning:
    """Two numbers of the network that are chosen on studies it was not trained on.

    Parameters
    ----------
    shrinkage
        Share of the encoder's correction that lowers the squared error most, between 0 and 1.
    calibration
        Factor that makes 90 % intervals cover 90 %.
    """

    shrinkage: float
    calibration: float


def held_out(workshop: Workshop, fold: int) -> Bank:
    """Return at most 25 samples of each file of a fold, hidden at three rates, predicted by the model without it."""
    rng = np.random.default_rng(fold)
    own = np.flatnonzero(workshop.folds == fold)
    rows = [rng.permutation(own[workshop.files[own] == file])[:PER_FILE] for file in np.unique(workshop.files[own])]
    chosen = np.sort(np.concatenate(rows))
    return make_bank(workshop.expression, chosen, workshop.files, workshop.factors(fold), RATES, seed=1)


@torch.inference_mode()
def corrections(network: MiniNetwork, bank: Bank, block: Block) -> tuple[Floats, Floats]:
    """Return the encoder's correction and the deviation before calibration, both (n, G)."""
    parts = []
    visible, spread = torch.from_numpy(block.visible)[None], torch.from_numpy(block.spread)[None]
    for row, mean in zip(block.rows, block.mean, strict=True):
        values = torch.from_numpy(np.nan_to_num(bank.expression[row]))[None]
        hidden = network.contextualise(values, visible, torch.from_numpy(mean.astype(np.float32))[None], spread)
        correction, log_scale = network.correct(hidden)
        parts.append((correction[0].numpy(), (hidden[0, :, 1] + log_scale[0]).exp().numpy()))
    return np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts])


def tune(bank: Bank, corrected: Sequence[tuple[Floats, Floats]]) -> Tuning:
    """Choose shrinkage by least squares and calibration by the 90 % quantile; files and rates weigh alike."""
    above, below, ratios = 0.0, 0.0, []
    for block, (correction, _) in zip(bank.blocks, corrected, strict=True):
        error = (bank.expression[block.rows] - block.mean)[:, block.hidden]
        step = correction[:, block.hidden]
        above += float((step * error).mean())
        below += float((step**2).mean())
    shrinkage = float(np.clip(above / max(below, 1e-12), 0, 1))
    for block, (correction, deviation) in zip(bank.blocks, corrected, strict=True):
        predicted = np.maximum(block.mean + shrinkage * correction, 0)
        ratio = (np.abs(bank.expression[block.rows] - predicted) / deviation)[:, block.hidden].ravel()
        ratios.append(np.quantile(ratio, np.linspace(0.005, 0.995, 100)))
    return Tuning(shrinkage, float(np.quantile(np.concatenate(ratios), 0.9) / Z90))


def tuning_without(workshop: Workshop, fold: int) -> Tuning:
    """Return what the network that was trained without a fold needs there; kept in the folder of stages."""
    path = workshop.stage("tuning", [fold], ".json")
    if not path.exists():
        bank, network = held_out(workshop, fold), workshop.network(fold)
        _keep(tune(bank, [corrections(network, bank, block) for block in bank.blocks]), path)
    return Tuning(**json.loads(path.read_text(encoding="utf-8")))


def _keep(tuning: Tuning, path: Path) -> None:
    path.write_text(json.dumps(asdict(tuning)), encoding="utf-8")


def evaluate(workshop: Workshop, folds: Sequence[int]) -> pd.DataFrame:
    """Score all methods on left-out folds.

    Parameters
    ----------
    workshop
        Corpus and stages.
    folds
        Folds to leave out, two or more; shrinkage and calibration of each come from the others.

    Returns
    -------
    One row per fold, share hidden and method: mean correlation per sample, mean correlation per gene, correlation over
    all entries, RMSE in ln(TPM+1) and, where the method has one, the coverage of 90 % intervals.
    """
    banks = {fold: held_out(workshop, fold) for fold in folds}
    corrected, tunings, unseen = {}, {}, {}
    for fold in folds:
        network = workshop.network(fold)
        unseen[fold] = network.unseen.numpy()
        corrected[fold] = [corrections(network, banks[fold], block) for block in banks[fold].blocks]
        tunings[fold] = tune(banks[fold], corrected[fold])
        _keep(tunings[fold], workshop.stage("tuning", [fold], ".json"))
        logger.info("fold %d: %s", fold, tunings[fold])
    rows = []
    for fold in folds:
        others = [tunings[other] for other in folds if other != fold]
        tuning = Tuning(*np.mean([[other.shrinkage, other.calibration] for other in others], axis=0))
        rows += _score_fold(
            workshop, fold, bank=banks[fold], corrected=corrected[fold], tuning=tuning, unseen=unseen[fold]
        )
    return pd.DataFrame(rows)


def _score_fold(
    workshop: Workshop,
    fold: int,
    *,
    bank: Bank,
    corrected: Sequence[tuple[Floats, Floats]],
    tuning: Tuning,
    unseen: Floats,
) -> list[dict[str, object]]:
    factors, train = workshop.factors(fold), workshop.expression[workshop.rows([fold])]
    rows = []
    for rate in RATES:
        found: dict[str, list[Floats]] = {}
        truth, deviations = [], {"factor model": [], "mini": []}
        for block, (correction, deviation) in zip(bank.blocks, corrected, strict=True):
            if block.rate != rate:
                continue
            values = bank.expression[block.rows]
            truth.append(np.where(block.hidden, values, np.nan))
            for name, predicted in _simple(train, factors, values, block).items():
                found.setdefault(name, []).append(np.maximum(predicted, 0))
            mean = block.mean.astype(np.float32)
            found.setdefault("factor model", []).append(np.maximum(mean, 0))
            found.setdefault("mini", []).append(np.maximum(mean + tuning.shrinkage * correction, 0))
            deviations["factor model"].append(np.sqrt(unseen + block.spread)[None].repeat(len(values), axis=0))
            deviations["mini"].append(tuning.calibration * deviation)
        true = np.concatenate(truth)
        for name, parts in found.items():
            deviation = np.concatenate(deviations[name]) if name in deviations else None
            scores = _scores(true, np.concatenate(parts), deviation)
            rows.append({"fold": fold, "hidden": rate, "samples": len(true), "method": name, **scores})
    return rows


def _simple(train: Floats, factors: Factors, values: Floats, block: Block) -> dict[str, Floats]:
    visible = block.visible
    predicted = {"gene mean": np.broadcast_to(factors.mean, values.shape)}
    filled = np.where(np.isnan(train), factors.mean, train)[:, visible]
    shown = values[:, visible]
    distance = (filled**2).sum(axis=1) - 2 * shown @ filled.T
    nearest = np.argpartition(distance, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        means = np.nanmean(train[nearest], axis=1)
    predicted["kNN 10"] = np.where(np.isnan(means), factors.mean, means)
    for k in (60, 250):
        loadings = factors.loadings[:, :k]
        seen = loadings[visible]
        scores = np.linalg.solve(seen.T @ seen + 1e-6 * np.eye(k), seen.T @ (shown - factors.mean[visible]).T)
        predicted[f"PCA {k}"] = factors.mean + (loadings @ scores).T
    return predicted


def _scores(true: Floats, predicted: Floats, deviation: Floats | None) -> dict[str, float]:
    known = ~np.isnan(true)
    error = np.where(known, predicted - true, 0)
    result = {
        "r_sample": float(np.mean(_correlations(true, predicted, known))),
        "r_gene": float(np.nanmean(_correlations(true.T, predicted.T, known.T))),
        "r_global": float(np.corrcoef(true[known], predicted[known])[0, 1]),
        "rmse": float(np.sqrt((error**2).sum() / known.sum())),
    }
    if deviation is not None:
        result["coverage90"] = float((np.abs(error) <= Z90 * deviation)[known].mean())
    return {name: round(score, 4) + 0.0 for name, score in result.items()}


def _correlations(true: Floats, predicted: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return the correlation within each row over known entries; ``NaN`` with fewer than 10 or without spread."""
    count = known.sum(axis=1, keepdims=True)
    a, b = np.where(known, true, 0), np.where(known, predicted, 0)
    a = np.where(known, a - a.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0)
    b = np.where(known, b - b.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0)
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    usable = (count[:, 0] >= 10) & (norm > 1e-6)
    return np.divide((a * b).sum(axis=1), norm, out=np.full(len(a), np.nan), where=usable)
