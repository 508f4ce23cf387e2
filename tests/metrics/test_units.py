from __future__ import annotations

import numpy as np
import pytest

from bulkformer_tl.metrics import Protocol, resample
from bulkformer_tl.metrics._units import compare_units

PROTOCOL = Protocol(n_bootstrap=200, rng=3)


def test_units_are_averaged_and_resampled_together():
    rng = np.random.default_rng(0)
    model, base = rng.normal(0.6, 0.1, 9), rng.normal(0.5, 0.1, 9)
    folds = np.repeat([0, 1, 2], 3)
    scores, differences = compare_units(
        {"model": {"r": model}, "base": {"r": base}, "blank": {"r": np.full(9, np.nan)}},
        axis="per_perturbation",
        folds=folds,
        n_samples=40,
        baselines=["base", "blank"],
        protocol=PROTOCOL,
    )
    weights = resample(9, n_bootstrap=200, rng=3)
    draws = (weights @ model) / weights.sum(axis=1)
    own = scores.set_index("representation").loc["model"]
    assert own["mean"] == pytest.approx(model.mean())
    assert [own["low"], own["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert own["fold_sd"] == pytest.approx(model.reshape(3, 3).mean(axis=1).std(ddof=1))
    assert (own["axis"], own["n"]) == ("per_perturbation", 40)
    gap = differences.set_index("baseline").loc["base"]
    assert gap["difference"] == pytest.approx((model - base).mean())
    # two baselines: the interval of each holds at 97.5 %
    both = (weights @ (model - base)) / weights.sum(axis=1)
    assert [gap["low"], gap["high"]] == pytest.approx(np.quantile(both, [0.0125, 0.9875]))
    assert np.isnan(differences.set_index("baseline").loc["blank", "difference"])
    assert np.isnan(scores.set_index("representation").loc["blank", "mean"])


def test_undefined_units_are_left_out():
    values = np.array([0.5, np.nan, 0.7])
    scores, _ = compare_units(
        {"model": {"r": values}},
        axis="per_drug",
        folds=np.zeros(3, dtype=np.intp),
        n_samples=3,
        baselines=[],
        protocol=PROTOCOL,
    )
    assert scores["mean"].tolist() == pytest.approx([0.6])
