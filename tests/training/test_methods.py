"""The simple methods of training/methods.py and training/networks.py against plain linear algebra."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

GENES = np.arange(40, 60)


@pytest.fixture(scope="module")
def training(script, corpus):
    fit = script("factors").fit
    outside = corpus.folds != 2
    values = corpus.expression[outside]
    return script("methods").Training(values, (corpus.files == "d.h5ad")[outside], fit(values, 20))


@pytest.fixture
def shown(corpus):
    """Samples of the fold that was left out, of which ten genes, and more of the last sample, are hidden."""
    values = corpus.expression[corpus.folds == 2].copy()
    values[:, GENES] = np.nan
    values[-1, :20] = np.nan
    return values


@pytest.fixture
def error(corpus, shown):
    truth = corpus.expression[corpus.folds == 2][:, GENES]
    return lambda predictor: np.sqrt(np.mean((predictor(shown, GENES)[0] - truth) ** 2))


@pytest.mark.parametrize("name", ["knn", "pca", "factor_model", "soft_impute", "ridge"])
def test_methods_beat_the_gene_mean(script, training, error, name):
    methods = script("methods")
    options = {"n_components": 5} if name == "pca" else {}
    assert error(getattr(methods, name)(training, **options)) < 0.8 * error(methods.gene_mean(training))


def test_gene_mean(script, training, shown):
    predicted, deviation = script("methods").gene_mean(training)(shown, GENES)
    np.testing.assert_allclose(predicted, np.tile(np.nanmean(training.expression, axis=0)[GENES], (len(shown), 1)))
    assert deviation is None


def test_knn_averages_the_nearest(script, training, shown):
    visible = ~np.isnan(shown[0])
    filled = np.where(np.isnan(training.expression), np.nanmean(training.expression, axis=0), training.expression)
    nearest = np.argsort(((filled - shown[0])[:, visible] ** 2).sum(axis=1))[:10]
    expected = np.nanmean(training.expression[nearest], axis=0)[GENES]
    np.testing.assert_allclose(script("methods").knn(training)(shown, GENES)[0][0], expected, rtol=1e-5)


def test_pca_is_least_squares_on_the_visible_genes(script, training, shown):
    factors, visible = training.factors, ~np.isnan(shown[-1])
    axes = factors.loadings[:, :5].astype(np.float64)
    scores = np.linalg.lstsq(axes[visible], shown[-1, visible] - factors.mean[visible], rcond=None)[0]
    expected = factors.mean[GENES] + axes[GENES] @ scores
    np.testing.assert_allclose(script("methods").pca(training, 5)(shown, GENES)[0][-1], expected, rtol=1e-4)


def test_factor_model_gives_its_deviation(script, training, shown):
    visible = ~np.isnan(shown[0])
    mean, spread = training.factors.predict(shown[:1], visible)
    predicted, deviation = script("methods").factor_model(training)(shown, GENES)
    np.testing.assert_allclose(predicted[0], mean[0, GENES], rtol=1e-6)
    np.testing.assert_allclose(deviation[0], np.sqrt(training.factors.noise + spread)[GENES], rtol=1e-6)


def test_ridge_is_that_of_scikit_learn(script, corpus):
    from sklearn.linear_model import Ridge

    methods = script("methods")
    values = corpus.expression[corpus.folds == 1]
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    new = corpus.expression[corpus.folds == 2].copy()
    new[:, GENES] = np.nan
    visible = np.flatnonzero(~np.isnan(new[0]))
    chosen = visible[np.argsort(-np.abs(scaled[:, visible].T @ scaled[:, 50]))[:30]]
    reference = Ridge(alpha=7.0, fit_intercept=False).fit(scaled[:, chosen], scaled[:, 50])
    given = (new - values.mean(axis=0)) / values.std(axis=0)
    expected = values[:, 50].mean() + values[:, 50].std() * reference.predict(given[:, chosen])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "N_PREDICTORS", 30)
        predicted = methods.Ridge.fit(values)(new, np.array([50]), 7.0)
    np.testing.assert_allclose(predicted[:, 0], expected, rtol=1e-3)


def test_ridge_fills_what_single_samples_lack(script, training, shown):
    methods = script("methods")
    predictor, visible = methods.ridge(training), ~np.isnan(shown[-1])
    completed = shown.copy()
    completed[-1, :20] = training.factors.predict(shown[-1:], visible)[0][0, :20]
    np.testing.assert_allclose(predictor(shown, GENES)[0], predictor(completed, GENES)[0], rtol=1e-4)


def test_soft_impute_of_complete_data_shrinks_singular_values(script, corpus):
    """A training sample, added anew, gets the row that the shrunken decomposition has for it."""
    values = corpus.expression[corpus.folds == 1].astype(np.float64)
    centred = values - values.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    expected = values.mean(axis=0) + (left[:, :4] * (singular[:4] - singular[4])) @ right[:4]
    predicted, _ = script("methods")._shrunken(values, 4, rounds=2)(values, np.arange(values.shape[1]))
    np.testing.assert_allclose(predicted, expected, atol=1e-3)


def test_settings_are_chosen_on_the_inner_studies(script, training):
    """A method that predicts inner studies exactly is chosen, however it does elsewhere."""
    methods = script("methods")
    truth = methods.inner_trial(training)[2]
    seen = []

    def fits(values):
        seen.append(len(values))
        return {1.0: lambda values, genes: (truth + 1, None), 2.0: lambda values, genes: (truth, None)}

    assert methods.choose(fits, training) == 2.0
    assert seen == [(~training.inner).sum()]


def test_patterns_are_the_rows_that_show_the_same(script, shown):
    found = {tuple(rows): visible for rows, visible in script("methods").patterns(shown)}
    assert set(found) == {tuple(range(len(shown) - 1)), (len(shown) - 1,)}
    for rows, visible in found.items():
        np.testing.assert_array_equal(visible, ~np.isnan(shown[rows[0]]))


def test_autoencoder_learns(script, training, error, monkeypatch):
    networks, methods = script("networks"), script("methods")
    for name, value in {"WIDTH": 20, "STEPS": 150, "LEARNING_RATE": 1e-2}.items():
        monkeypatch.setattr(networks, name, value)
    assert error(networks.autoencoder(training)) < 0.9 * error(methods.gene_mean(training))


def test_untrained_encoder_is_read_out(script, workshop, training, shown, error):
    """Random sample vectors still tell something, and predictions depend on what is shown."""
    networks, methods = script("networks"), script("methods")
    predictor = networks.untrained_encoder(workshop.model(2), training)
    assert error(predictor) < error(methods.gene_mean(training))
    predicted = predictor(shown, GENES)[0]
    assert np.ptp(predicted, axis=0).min() > 0


def test_an_encoder_that_tells_nothing_is_refused(script, training, monkeypatch):
    networks = script("networks")
    monkeypatch.setattr(networks, "untrained", lambda model: SimpleNamespace(name="zero"))
    monkeypatch.setattr(networks, "_vectors", lambda model, values: np.zeros((len(values), 3)))
    with pytest.raises(ValueError, match="zero gives all samples the same vector"):
        networks.untrained_encoder(None, training)


def test_imputation_is_that_of_the_package(script, workshop, shown):
    mean, deviation = script("networks").imputed(workshop.model(2))(shown, GENES)
    assert mean.shape == deviation.shape == (len(shown), len(GENES))
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()
