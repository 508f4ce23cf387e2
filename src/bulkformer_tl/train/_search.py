"""Several configurations tried on the same inner validation, and the best adapter kept."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bulkformer_tl._optional import require
from bulkformer_tl.train._fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bulkformer_tl.train._adapter import Adapter
    from bulkformer_tl.train._cohort import Cohort
    from bulkformer_tl.train._finetune_config import FinetuneConfig
    from bulkformer_tl.train._targets import Target

    Rows = NDArray[np.intp]

logger = logging.getLogger(__name__)


def fit_best(
    cohort: Cohort,
    targets: Mapping[str, Target],
    train: Rows,
    held: Rows,
    *,
    config: FinetuneConfig,
    rng: int,
    progress: Callable[[int], object],
) -> Adapter:
    """Fit once, or, with ``config.n_trials``, by several configurations, and return the one that validated best.

    Parameters are those of :func:`bulkformer_tl.train._fit.fit`; ``progress`` is called with ``passes(config)`` times
    as many samples.
    """
    if not config.n_trials:
        return fit(cohort, targets, train, held, config=config, rng=rng, progress=progress)
    require("optuna", extra="finetune", purpose="n_trials")
    import optuna

    best: dict[str, Any] = {}

    def attempt(trial: Any) -> float:
        chosen = {name: trial.suggest_categorical(name, list(values)) for name, values in config.space.items()}
        own = replace(config, n_trials=0, space={}, **chosen)
        found = fit(cohort, targets, train, held, config=own, rng=rng, progress=progress)
        progress((_longest(config) - own.epochs) * len(train))
        loss = float(found.facts["best"]["loss"])
        if loss < best.get("loss", float("inf")):
            best.update(loss=loss, adapter=found, chosen=chosen)
        return loss

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=rng))
        study.optimize(attempt, n_trials=config.n_trials)
    finally:
        optuna.logging.set_verbosity(level)
    logger.info("of %d trials %s validated best (loss %.4f)", config.n_trials, best["chosen"], best["loss"])
    adapter: Adapter = best["adapter"]
    return adapter


def passes(config: FinetuneConfig) -> int:
    """Return how often samples go through training, in epochs, at most."""
    return _longest(config) * max(1, config.n_trials)


def _longest(config: FinetuneConfig) -> int:
    return int(max(config.space.get("epochs", [config.epochs])))
