"""One adaptation from prepared samples to an adapter."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from bulkformer_tl.train._adapter import ENCODER, HEADS, Adapter, as_arrays, held_in
from bulkformer_tl.train._backbones import take
from bulkformer_tl.train._check import refuse_unless
from bulkformer_tl.train._finetune_heads import Heads, Losses, Scale
from bulkformer_tl.train._finetune_loop import Loop
from bulkformer_tl.train._targets import check_trainable
from bulkformer_tl.train._trainable import trainable_copy, trained_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bulkformer_tl.train._cohort import Cohort
    from bulkformer_tl.train._finetune_config import FinetuneConfig
    from bulkformer_tl.train._targets import Target

    Rows = NDArray[np.intp]

logger = logging.getLogger(__name__)


def fit(
    cohort: Cohort,
    targets: Mapping[str, Target],
    train: Rows,
    held: Rows,
    *,
    config: FinetuneConfig,
    rng: int,
    progress: Callable[[int], object],
) -> Adapter:
    """Train on some samples and stop by others; see :func:`bulkformer_tl.train.finetune`.

    ``progress`` is called with numbers of samples, ``config.epochs * len(train)`` in all.
    """
    for name, target in targets.items():
        check_trainable(name, target if target.kind == "genes" else target.only(train))
    way = trainable_copy(cohort.backbone, config, seed=rng)
    weights = trained_weights(way, config.method, take(cohort.inputs, train[:1], cohort.device), cohort.genes)
    devices = [cohort.device] if cohort.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(rng)
        heads = Heads(targets, (sum(way.parts), cohort.backbone.model.width), config.hidden)
        seen = {name: target if target.kind == "genes" else target.only(train) for name, target in targets.items()}
        heads.settle(seen, *_scales(cohort, train), balanced=config.class_weights is not None)
        heads.to(cohort.device)
        losses = Losses(heads, seen, config.class_weights, config.loss_weights)
        loop = Loop(cohort, way, heads, losses=losses, targets=targets, weights=weights, config=config, seed=rng)
        loop.train_heads(train, held)
        if weights and not loop.diverged:
            loop.train_encoder(train, held, progress)
        else:
            progress(config.epochs * len(train))
    _report(loop, config)
    return _adapter(cohort, targets, heads, weights, loop, config=config, rng=rng, n=len(train))


def _scales(cohort: Cohort, train: Rows) -> tuple[Scale, Scale | None]:
    pooled, vectors = cohort.frozen
    chosen = torch.from_numpy(train)
    width = cohort.backbone.model.width
    genes = None if vectors is None else Scale.fit(vectors[chosen].flatten(0, 1), [width])
    return Scale.fit(pooled[chosen], cohort.backbone.parts), genes


def _report(loop: Loop, config: FinetuneConfig) -> None:
    refuse_unless(bool(loop.best), "no validation loss was finite, so that there are no weights to keep")
    best = loop.best
    where = f"epoch {best['epoch']} of the {'heads alone' if best['stage'] == 'heads' else 'encoder'}"
    if loop.diverged:
        logger.warning(
            "the loss was not finite, and training stopped there; the weights of %s are kept. Lower learning_rate or "
            "head_learning_rate",
            where,
        )
    elif best["stage"] == "heads" and config.method != "probe":
        logger.info(
            "training the encoder improved no validation; what is kept is the encoder as it was, with %s", where
        )


def _adapter(
    cohort: Cohort,
    targets: Mapping[str, Target],
    heads: Heads,
    weights: Mapping[str, torch.Tensor],
    loop: Loop,
    *,
    config: FinetuneConfig,
    rng: int,
    n: int,
) -> Adapter:
    model = cohort.backbone.model
    facts = {
        "model": model.name,
        "checksum": model.checksum,
        "family": model.family,
        "precision": held_in(model),
        "config": config.to_dict(),
        "targets": {
            name: {"kind": target.kind, "classes": list(target.classes), "calibration": 1.0}
            for name, target in targets.items()
        },
        "seed": rng,
        "history": loop.rows,
        "best": {name: loop.best[name] for name in ("stage", "epoch", "loss")},
        "diverged": loop.diverged,
        "n_trained": sum(weight.numel() for weight in (*weights.values(), *heads.parameters())),
        "samples": n,
    }
    return Adapter(facts, as_arrays(heads.state_dict(), HEADS) | as_arrays(weights, ENCODER))
