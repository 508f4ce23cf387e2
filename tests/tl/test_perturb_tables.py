"""Statistics of in-silico perturbations: the mixture of small and large effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bulkformer_tl.tl._perturb_sets import Perturbation
from bulkformer_tl.tl._perturb_tables import LEAST_FOR_MIXTURE, effect_table

if TYPE_CHECKING:
    import pandas as pd

N, P = 4, 60


def table_of(values: np.ndarray) -> pd.DataFrame:
    items = [Perturbation(f"gene {i}", "gene", (i,)) for i in range(values.shape[1])]
    options = {"signed": True, "rng": np.random.default_rng(0)}
    return effect_table(items, values, np.full(values.shape, np.nan), None, None, **options)


@pytest.fixture
def values() -> np.ndarray:
    """Effects of either sign, of which the first 15 are a hundred times as large."""
    rng = np.random.default_rng(0)
    size = 10.0 ** (rng.normal(0, 0.2, P) - np.where(np.arange(P) < 15, 1, 3))
    return size * rng.choice([-1, 1], P) * (1 + 0.01 * rng.normal(size=(N, P)))


def test_two_sizes_of_effects_are_told_apart(values):
    values[:, -1] = np.nan
    found = table_of(values)["impact"]
    assert (found[:15] > 0.95).all()
    assert (found[15:-1] < 0.05).all()
    assert np.isnan(found.iloc[-1])


def test_an_effect_of_zero_is_of_the_lower_size(values):
    values[:, -1] = 0
    assert table_of(values)["impact"].iloc[-1] < 0.05


@pytest.mark.parametrize("effect", [0.0, 0.3])
def test_equal_effects_have_no_sizes_to_tell_apart(effect):
    assert table_of(np.full((N, P), effect))["impact"].isna().all()


def test_few_effects_get_no_mixture(values):
    few = values.copy()
    few[:, LEAST_FOR_MIXTURE - 1 :] = np.nan
    assert "impact" not in table_of(few)
    few[:, P - 1] = values[:, P - 1]
    assert table_of(few)["impact"].notna().sum() == LEAST_FOR_MIXTURE
