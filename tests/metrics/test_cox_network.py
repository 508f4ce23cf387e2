"""By differences, against the linear model, and on what only a network can see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from bulkformer_tl.metrics._cox import as_outcome, elastic_net_cox
from bulkformer_tl.metrics._cox_network import cox_network, penalised_loss


def cohort(effect):
    """Five columns and an outcome whose log hazard is a function of them; two strata."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 5))
    time = rng.exponential(np.exp(-effect(values)))
    return values, np.column_stack([time, rng.random(200) < 0.8, np.arange(200) % 2])


def test_gradient_is_that_of_the_loss():
    values, target = cohort(lambda x: x[:, 0])
    weights = np.random.default_rng(1).normal(size=4 * 7)
    arguments = values, as_outcome(target), 4, 0.7
    error = check_grad(lambda w: penalised_loss(w, *arguments)[0], lambda w: penalised_loss(w, *arguments)[1], weights)
    assert error < 1e-3


def test_a_linear_effect_is_found_as_by_the_linear_model():
    values, target = cohort(lambda x: x[:, 0] - x[:, 1])
    linear, network = elastic_net_cox()(l1_ratio=0).fit(values, target), cox_network()().fit(values, target)
    assert np.corrcoef(network.predict(values), linear.predict(values))[0, 1] > 0.9
    assert network.predict(values).mean() == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(cox_network()().fit(values, target).predict(values), network.predict(values))
    moved = cox_network()().fit(values * 10 + 3, target)
    assert np.corrcoef(moved.predict(values * 10 + 3), network.predict(values))[0, 1] > 0.99


def test_an_effect_that_is_not_linear_is_found_by_the_network_only():
    effect = lambda x: 3 * np.abs(x[:, 0]) - 2  # noqa: E731
    values, target = cohort(effect)
    linear, network = elastic_net_cox()().fit(values, target), cox_network()().fit(values, target)
    assert abs(np.corrcoef(linear.predict(values), effect(values))[0, 1]) < 0.4
    assert np.corrcoef(network.predict(values), effect(values))[0, 1] > 0.8
    assert network.loss(values, target) < linear.loss(values, target)


def test_a_large_penalty_leaves_nothing():
    values, target = cohort(lambda x: x[:, 0])
    assert np.ptp(cox_network()(penalty=1e6).fit(values, target).predict(values)) < 1e-6
