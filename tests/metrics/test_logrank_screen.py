from __future__ import annotations

import numpy as np
import pytest
from statsmodels.duration.survfunc import survdiff

from bulkformer_tl.metrics._logrank_screen import best_cut, logrank_screen, martingale_residuals


def simulate(n: int = 80, genes: int = 6, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, genes))
    time = np.ceil(rng.exponential(15 * np.exp(-values[:, 0])))
    return time, rng.random(n) < 0.6, values, rng.integers(0, 2, n)


@pytest.mark.parametrize("stratified", [False, True])
def test_statistic_equals_statsmodels(stratified):
    time, event, values, strata = simulate()
    found = logrank_screen(time, event, values > 0, strata=strata if stratified else None)
    for gene in range(values.shape[1]):
        chi2, _ = survdiff(time, event.astype(int), values[:, gene] > 0, strata=strata if stratified else None)
        assert found[gene] ** 2 == pytest.approx(chi2, rel=1e-9)
    assert found[0] > 2, "the gene that shortens survival has more events than expected where it is high"


def test_statistic_equals_lifelines():
    statistics = pytest.importorskip("lifelines.statistics", reason="lifelines needs pandas 2")
    time, event, values, _ = simulate()
    found = logrank_screen(time, event, values > 0)
    for gene in range(values.shape[1]):
        high = values[:, gene] > 0
        fit = statistics.logrank_test(time[high], time[~high], event[high], event[~high])
        assert found[gene] ** 2 == pytest.approx(fit.test_statistic, rel=1e-9)


def test_nothing_to_compare_is_unknown():
    time, event, values, _ = simulate(genes=1)
    assert np.isnan(logrank_screen(time, event, np.ones_like(values, dtype=bool))).all()


def test_martingale_residuals_by_hand():
    time, event = np.array([2.0, 1, 3, 2]), np.array([True, True, False, False])
    # hazard 1/4 at 1, 1/3 at 2
    expected = [1 - (1 / 4 + 1 / 3), 1 - 1 / 4, -(1 / 4 + 1 / 3), -(1 / 4 + 1 / 3)]
    np.testing.assert_allclose(martingale_residuals(time, event), expected)
    twice = martingale_residuals(np.tile(time, 2), np.tile(event, 2), np.repeat([0, 1], 4))
    np.testing.assert_allclose(twice, np.tile(expected, 2))


def slow_best(time: np.ndarray, event: np.ndarray, gene: np.ndarray) -> tuple[float, float]:
    """Try every cut-point in turn."""
    scores = martingale_residuals(time, event)
    n, best = len(gene), (np.nan, 0.0)
    for cut in np.unique(gene)[:-1]:
        high = gene > cut
        if min(high.sum(), (~high).sum()) >= 0.1 * n:
            spread = np.sqrt(high.sum() * (~high).sum() / (n * (n - 1)) * (scores**2).sum())
            statistic = scores[high].sum() / spread
            best = (cut, statistic) if abs(statistic) > abs(best[1]) + 1e-12 else best
    return best


def test_best_cut_equals_trying_all():
    time, event, values, _ = simulate()
    values = np.round(values, 1)  # ties
    cut, statistic, _ = best_cut(time, event, values)
    expected = [slow_best(time, event, values[:, gene]) for gene in range(values.shape[1])]
    np.testing.assert_allclose(statistic, [s for _, s in expected])
    np.testing.assert_allclose(cut, [c for c, _ in expected])


def test_correction_for_the_search_equals_permutation():
    time, event, values, _ = simulate(genes=1, seed=3)
    rng = np.random.default_rng(0)
    permuted = np.column_stack([rng.permutation(values[:, 0]) for _ in range(4000)])
    _, null, p = best_cut(time, event, permuted)
    for level in (0.1, 0.05, 0.01):
        assert (p <= level).mean() == pytest.approx(level, abs=0.35 * level + 0.003)
    assert (np.abs(null) > 1.959964).mean() > 0.25, "without correction more than a quarter look significant"


def test_a_gene_that_cannot_be_cut_is_unknown():
    time, event, values, _ = simulate(genes=2)
    values[:, 1] = 0
    values[:5, 1] = 1  # 5 of 80 on one side
    cut, statistic, p = best_cut(time, event, values)
    assert np.isnan([cut[1], statistic[1], p[1]]).all()
    assert np.isfinite([cut[0], statistic[0], p[0]]).all()
