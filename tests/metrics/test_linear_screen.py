from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from bulkformer_tl.metrics._linear_screen import linear_screen, moderate


def test_coefficients_equal_statsmodels():
    rng = np.random.default_rng(0)
    values, design = rng.normal(size=(20, 4)), np.column_stack([np.arange(20) < 9, np.ones(20), rng.normal(size=20)])
    coefficient, variance, factor, df = linear_screen(values, design)
    for gene in range(4):
        fit = sm.OLS(values[:, gene], design).fit()
        assert coefficient[gene] == pytest.approx(fit.params[0])
        assert np.sqrt(variance[gene] * factor) == pytest.approx(fit.bse[0])
        assert df == fit.df_resid


def test_a_column_that_follows_from_others_is_unknown():
    values = np.random.default_rng(0).normal(size=(6, 3))
    coefficient, _, _, df = linear_screen(values, np.column_stack([np.arange(6) < 3, np.arange(6) >= 3, np.ones(6)]))
    assert np.isnan(coefficient).all()
    assert df == 0


def test_moderated_statistics_equal_limma():
    """The expected numbers are those that limma (its port in inmoose 0.9.1) makes of the same values."""
    rng = np.random.default_rng(0)
    spread = 0.5 * 6 / rng.chisquare(6, 200)
    values = rng.normal(size=(10, 200)) * np.sqrt(spread)
    case = (np.arange(10) < 5) * 1.0
    values[:5, :20] += 2
    coefficient, variance, factor, df = linear_screen(values, np.column_stack([case, np.ones(10)]))
    posterior, total = moderate(variance, np.full(200, float(df)))
    statistic = coefficient / np.sqrt(factor * posterior)
    np.testing.assert_allclose(statistic[:3], [5.18230105, 5.27981178, 2.80657273], rtol=1e-8)
    np.testing.assert_allclose(
        2 * stats.t.sf(np.abs(statistic[:3]), total[:3]), [1.28105662e-04, 1.06903854e-04, 1.37261867e-02], rtol=1e-8
    )
    assert total[0] - df == pytest.approx(6.361377734196083)


def test_equal_variances_are_pooled_completely():
    rng = np.random.default_rng(1)
    variance = rng.chisquare(10, 500) / 10
    posterior, total = moderate(variance, np.full(500, 10.0))
    assert np.ptp(posterior) < 0.05
    assert total[0] > 100
    posterior, total = moderate(np.array([2.0]), np.array([5.0]))
    np.testing.assert_allclose([posterior[0], total[0]], [posterior[0], 5])


def test_unknown_variances_stay_unknown():
    posterior, _ = moderate(np.array([np.nan, 1.0, 2.0, 0.1, 5.0]), np.array([0.0, 4, 4, 4, 4]))
    assert np.isnan(posterior[0])
    assert np.isfinite(posterior[1:]).all()
