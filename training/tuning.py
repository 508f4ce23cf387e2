"""Chooses, on studies that the network was not trained on, what training leaves open."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mini import Workshop
    from numpy.typing import NDArray

    from bulkformer_tl.models._mini import MiniNetwork

    Floats = NDArray[np.floating]

RATES = (0.15, 0.5, 0.9)
#: Samples of each left-out file.
PER_FILE = 4
#: Two-sided 90 % interval of the normal distribution, in standard deviations.
Z90 = 1.6449
SEED = 1


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


def tuning_without(workshop: Workshop, fold: int) -> Tuning:
    """Return what the network that was trained without a fold needs there; kept in the folder of stages."""
    path = workshop.stage("tuning", [fold], ".json")
    if not path.exists():
        found = tune(list(_hidden_entries(workshop, workshop.network(fold), fold)))
        path.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return Tuning(**json.loads(path.read_text(encoding="utf-8")))


def apply(network: MiniNetwork, chosen: Sequence[Tuning]) -> None:
    """Give a network the mean of what was chosen on several folds."""
    network.shrinkage.fill_(np.mean([tuning.shrinkage for tuning in chosen]))
    network.calibration.fill_(np.mean([tuning.calibration for tuning in chosen]))


def tune(entries: Sequence[tuple[Floats, ...]]) -> Tuning:
    """Choose shrinkage by least squares and calibration by the 90 % quantile.

    Parameters
    ----------
    entries
        For each file and rate, which weigh alike: measured values, means of the linear models, corrections of the
        encoder and deviations before calibration at hidden entries, each of one length.

    Returns
    -------
    What was chosen.
    """
    above = sum(float(((value - mean) * step).mean()) for value, mean, step, _ in entries)
    below = sum(float((step**2).mean()) for _, _, step, _ in entries)
    shrinkage = float(np.clip(above / max(below, 1e-12), 0, 1))
    ratios = [
        np.quantile(np.abs(value - np.maximum(mean + shrinkage * step, 0)) / deviation, np.linspace(0.005, 0.995, 100))
        for value, mean, step, deviation in entries
    ]
    return Tuning(shrinkage, float(np.quantile(np.concatenate(ratios), 0.9) / Z90))


@torch.inference_mode()
def _hidden_entries(workshop: Workshop, network: MiniNetwork, fold: int) -> Iterator[tuple[Floats, ...]]:
    own = np.flatnonzero(workshop.folds == fold)
    for place, file in enumerate(np.unique(workshop.files[own])):
        rows = np.random.default_rng([SEED, place]).permutation(own[workshop.files[own] == file])[:PER_FILE]
        values = torch.from_numpy(workshop.expression[rows])
        for rate in RATES:
            rng = np.random.default_rng([SEED, place, int(1000 * rate)])
            chosen = torch.from_numpy(rng.random(values.shape[1]) < rate)
            observed = ~values.isnan() & ~chosen
            # sample by sample, as the model runs
            parts = [_predict(network, row[None], mask[None]) for row, mask in zip(values, observed, strict=True)]
            hidden = ~values.isnan() & chosen
            yield values[hidden].numpy(), *(torch.cat(part)[hidden].numpy() for part in zip(*parts, strict=True))


def _predict(network: MiniNetwork, values: torch.Tensor, observed: torch.Tensor) -> tuple[torch.Tensor, ...]:
    vectors = network(values.nan_to_num(), observed)
    correction, log_scale = network.correct(vectors)
    return vectors[..., 0], correction, (vectors[..., 1] + log_scale).exp()
