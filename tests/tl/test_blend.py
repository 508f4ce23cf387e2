"""The blend of the encoder with the cohort's own means and factors: never worse than them, blind to hidden values."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
import torch

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.metrics import Protocol
from bulkformer_tl.models._layers import Encoder
from bulkformer_tl.tl import _blend, _encoders
from bulkformer_tl.tl._cohort import Cohort
from bulkformer_tl.tl._held_back import name_seeds
from bulkformer_tl.tl._mixture import Mixture

G, K = 400, 4
PLANTED = np.random.default_rng(0)
MEAN, LOADINGS = PLANTED.uniform(1, 5, G), 0.5 * PLANTED.normal(size=(G, K))
IDS = np.array([f"ENSG{i:011d}" for i in range(G)])


class Planted(Encoder):
    """Knows the mean and the loadings that samples are simulated from; nothing of a study's offset."""

    def __init__(self, *, sense: float = 1.0, deviation: float | None = None) -> None:
        super().__init__(SimpleNamespace(n_genes=G, dim=1))
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.sense = sense
        if deviation is not None:
            self.deviation = lambda hidden, values, observed: torch.full_like(values, deviation)

    def gene_table(self):
        return torch.zeros(G, 1)

    def forward(self, values, observed):
        return values[..., None]

    def predict(self, hidden, values, observed):
        rows = []
        for x, seen in zip(values.double().numpy(), observed.numpy(), strict=True):
            w = LOADINGS[seen]
            scores = np.linalg.solve(w.T @ w + 0.1 * np.eye(K), w.T @ (x - MEAN)[seen])
            rows.append(MEAN + self.sense * LOADINGS @ scores)
        return torch.from_numpy(np.stack(rows)).float()


def planted(family: str = "mini", **options) -> bf.models.BulkFormer:
    graph = (torch.tensor([[0, 1], [1, 0]]), torch.ones(2))
    return bf.models.BulkFormer(
        Planted(**options),
        GeneVocabulary(ids=IDS),
        graph=graph,
        name="planted",
        family=family,
        denominator="all",
        trained_missing=(0.0, 0.95),
    )


def simulate(n: int, seed: int = 0, *, offset: float = 0.5, noise: float = 0.3) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    shift = offset * rng.normal(size=G)
    values = MEAN + shift + rng.normal(size=(n, K)) @ LOADINGS.T + noise * rng.normal(size=(n, G))
    adata = ad.AnnData(values.clip(0, 12).astype(np.float32))
    adata.var_names = IDS
    adata.obs_names = [f"s{seed}-{i}" for i in range(n)]
    return adata


def hide(adata: ad.AnnData, rate: float, seed: int = 1) -> np.ndarray:
    hidden = np.random.default_rng(seed).random(adata.shape) < rate
    adata.layers["hidden"] = hidden
    return hidden


def rmse(adata: ad.AnnData, hidden: np.ndarray) -> float:
    return float(np.sqrt(np.mean((adata.layers["imputed"] - adata.X)[hidden].astype(float) ** 2)))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("by", ["entry", "gene"])
def test_no_simple_method_is_better(seed, by):
    adata = simulate(40, seed)
    bf.tl.score_imputation(adata, model=planted(), rates=(0.15, 0.5, 0.9), by=by)
    gaps = adata.uns["score_imputation"]["differences"]
    blended, alone = (gaps[gaps["method"] == name] for name in ("planted", "planted, encoder alone"))
    assert (blended["better"] != blended["baseline"]).all()
    assert (blended["difference"] < 0.01).all()
    # the offset makes the encoder alone worse than what has seen the cohort
    factors = alone[(alone["baseline"] == "factor_analysis") & (alone["rate"] == 0.5)]
    assert factors["better"].tolist() == ["factor_analysis"]
    scores = adata.uns["score_imputation"]["scores"]
    covered = scores[(scores["metric"] == "coverage_90") & (scores["method"] == "planted")]["mean"]
    assert covered.between(0.85, 0.95).all()


def test_both_together_are_better_than_each():
    adata = simulate(12, seed=4)
    bf.tl.score_imputation(adata, model=planted(), rates=(0.3,), protocol=Protocol(n_splits=4))
    scores = adata.uns["score_imputation"]["scores"]
    error = scores[(scores["metric"] == "rmse") & (scores["axis"] == "global")].set_index("method")["mean"]
    assert error["planted"] < 0.97 * error.drop("planted").min()


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_an_encoder_that_knows_nothing_gets_no_weight(cohort, latest, rate):
    """Random weights; the cohort's factors have to carry the prediction."""
    rng = np.random.default_rng(3)
    values = 4 + rng.normal(size=(60, 3)) @ rng.normal(size=(3, cohort.n_vars)) + 0.2 * rng.normal(size=(60, 89))
    adata = ad.AnnData(values.clip(0, 12).astype(np.float32), var=cohort.var)
    adata.obs_names = [f"s{i}" for i in range(60)]
    hidden = hide(adata, rate)
    with pytest.warns(UserWarning, match="outside what"):
        bf.tl.impute(adata, model=latest, mask="hidden")
    weights = adata.uns["imputed"]["blend"]["measured"]["weights"]
    # encoder, encoder with its offset, mean, factors
    assert weights.shape == (3, 4)
    assert weights[1:, 0].max() < 0.1
    blended = rmse(adata, hidden)
    with pytest.warns(UserWarning, match="outside what"):
        bf.tl.impute(adata, model=latest, mask="hidden", blend=False)
    assert blended < 0.6 * rmse(adata, hidden)
    assert blended < 0.6 * (values - values.mean(axis=0))[hidden].std()


@pytest.mark.parametrize("deviation", [None, 0.4])
def test_without_blending_the_encoder_comes_back_bit_for_bit(deviation):
    adata, model = simulate(9), planted(deviation=deviation)
    hidden = hide(adata, 0.3)
    bf.tl.impute(adata, model=model, mask="hidden", blend=False)
    outputs = ("expression",) if deviation is None else ("expression", "deviation")
    encoded = model.encode(np.where(hidden, np.nan, adata.X).astype(np.float32), outputs=outputs)
    expression = encoded.expression.numpy().clip(min=0)
    np.testing.assert_array_equal(adata.layers["imputed"][hidden], expression[hidden])
    entry = adata.uns["imputed"]
    assert "blend" not in entry
    assert not entry["params"]["blend"]
    residuals = entry.get("residuals")
    own = (
        np.float32(deviation) if residuals is None else np.interp(expression, residuals["expression"], residuals["sd"])
    )
    np.testing.assert_array_equal(
        adata.layers["imputed_sd"][hidden], np.broadcast_to(own, hidden.shape)[hidden].astype("f4")
    )


def test_intervals_follow_the_noise_of_genes():
    """Half of the genes are four times as noisy."""
    rng = np.random.default_rng(0)
    adata = simulate(60)
    noisy = np.arange(G) < G // 2
    adata.X = (adata.X + np.where(noisy, 1.2, 0.0) * rng.normal(size=adata.shape)).clip(0).astype(np.float32)
    hidden = hide(adata, 0.2)
    bf.tl.impute(adata, model=planted(), mask="hidden")
    deviation = adata.layers["imputed_sd"]
    assert deviation[hidden & noisy].mean() > 1.4 * deviation[hidden & ~noisy].mean()
    inside = np.abs(adata.layers["imputed"] - adata.X) < 1.6449 * deviation
    assert 0.85 < inside[hidden].mean() < 0.95


def test_order_chunks_and_storage_do_not_matter(tmp_path):
    adata = simulate(30)
    hide(adata, 0.4)
    bf.tl.impute(adata, model=planted(), mask="hidden")
    order = np.random.default_rng(0).permutation(30)
    moved = adata[order].copy()
    bf.tl.impute(moved, model=planted(), mask="hidden", batch_size=7)
    plain = adata.copy()
    del plain.layers["imputed"], plain.layers["imputed_sd"], plain.uns["imputed"], plain.var["imputed_in_vocabulary"]
    plain.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    stored = bf.tl.impute(backed, model=planted(), mask="hidden", copy=True)
    backed.file.close()
    for layer in ("imputed", "imputed_sd"):
        np.testing.assert_array_equal(moved.layers[layer], adata.layers[layer][order])
        np.testing.assert_array_equal(stored.layers[layer], adata.layers[layer])


def test_dask_chunks_do_not_matter():
    dask = pytest.importorskip("dask.array")
    adata = simulate(20)
    hidden = hide(adata, 0.4)
    lazy = ad.AnnData(dask.from_array(adata.X, chunks=(3, 50)), obs=adata.obs, var=adata.var)
    lazy.layers["hidden"] = dask.from_array(hidden, chunks=(7, 11))
    bf.tl.impute(adata, model=planted(), mask="hidden")
    bf.tl.impute(lazy, model=planted(), mask="hidden")
    np.testing.assert_array_equal(lazy.layers["imputed"], adata.layers["imputed"])


def test_hidden_values_are_not_seen():
    adata = simulate(20)
    hidden = hide(adata, 0.3)
    other = adata.copy()
    other.X[hidden] = np.random.default_rng(5).permutation(other.X[hidden])
    for each in (adata, other):
        bf.tl.impute(each, model=planted(), mask="hidden")
    for layer in ("imputed", "imputed_sd"):
        np.testing.assert_array_equal(other.layers[layer][hidden], adata.layers[layer][hidden])


def test_test_samples_are_not_seen_when_scores_are_made():
    """What is hidden in a fold's test samples changes nothing about how they are predicted."""
    from bulkformer_tl.tl._input import prepare
    from bulkformer_tl.tl._score_model import FoldModel

    adata, protocol = simulate(20), Protocol(n_splits=2)
    given = prepare(adata, model=planted(), layer=None, identifiers=None, min_coverage=0.2, device=None)
    split = protocol.split(20)[0]
    changed = np.array(adata.X)
    changed[split.test] = np.random.default_rng(1).permutation(changed[split.test].ravel()).reshape(-1, G)
    shown = np.where(np.random.default_rng(2).random(adata.shape) < 0.5, np.nan, adata.X).astype(float)
    found = [
        FoldModel.fit(given, values, name_seeds(adata.obs_names), [split], members=None).predict(
            shown, None, SimpleNamespace(update=lambda n: None)
        )
        for values in (adata.X, changed)
    ]
    for name in ("planted", "planted, encoder alone"):
        for before, after in zip(found[0][name], found[1][name], strict=True):
            np.testing.assert_array_equal(before[split.test], after[split.test])


@pytest.mark.parametrize("fmt", [None, "h5ad", "zarr"])
def test_a_stored_blend_gives_the_same_numbers(tmp_path, fmt):
    adata, model = simulate(20), planted(deviation=0.4)
    hide(adata, 0.3)
    bf.tl.impute(adata, model=model, mask="hidden")
    kept = adata
    if fmt is not None:
        getattr(adata, f"write_{fmt}")(tmp_path / f"a.{fmt}")
        kept = getattr(ad, f"read_{fmt}")(tmp_path / f"a.{fmt}")
    some = adata[[7, 3, 11]].copy()
    bf.tl.impute(some, model=model, mask="hidden", blend=kept.uns["imputed"]["blend"])
    for layer in ("imputed", "imputed_sd"):
        np.testing.assert_array_equal(some.layers[layer], adata.layers[layer][[7, 3, 11]])
    assert some.uns["imputed"]["params"]["blend"]


def test_a_stored_blend_serves_a_single_new_sample():
    adata = simulate(41)
    new = adata[:1].copy()
    adata = adata[1:].copy()
    hide(adata, 0.1)
    bf.tl.impute(adata, model=planted(), mask="hidden")
    hidden = hide(new, 0.4)
    bf.tl.impute(new, model=planted(), mask="hidden", blend=adata.uns["imputed"]["blend"])
    known = rmse(new, hidden)
    bf.tl.impute(new, model=planted(), mask="hidden")
    assert known < 0.8 * rmse(new, hidden)


@pytest.mark.parametrize(
    ("blend", "message"),
    [
        ({}, r"blend takes True, False, or the adata\.uns\[key_added\]\['blend'\]"),
        ({"checksums": ["x"], "cohort": 3}, "blend takes True, False, or"),
        ("yes", "blend takes True, False, or"),
    ],
)
def test_what_is_no_blend_is_refused(blend, message):
    adata = simulate(5)
    hide(adata, 0.3)
    with pytest.raises(ValueError, match=message):
        bf.tl.impute(adata, model=planted(), mask="hidden", blend=blend)
    assert not adata.uns


def test_a_blend_of_another_model_is_refused(latest):
    adata = simulate(8)
    hide(adata, 0.3)
    bf.tl.impute(adata, model=planted(), mask="hidden")
    blend = {**adata.uns["imputed"]["blend"], "checksums": [latest.checksum]}
    with pytest.raises(ValueError, match="fitted with another model than planted; pass model= that it was fitted with"):
        bf.tl.impute(adata, model=planted(), mask="hidden", blend=blend)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("deviation", [None, 0.4])
def test_small_cohorts(n, deviation):
    adata, model = simulate(n, seed=n), planted(deviation=deviation)
    hidden = hide(adata, 0.3)
    bf.tl.impute(adata, model=model, mask="hidden")
    blended = rmse(adata, hidden)
    assert np.isfinite(adata.layers["imputed_sd"][hidden]).all()
    assert (adata.uns["imputed"]["blend"]["cohort"]["means"].shape[0] == 1) == (n == 1)
    bf.tl.impute(adata, model=model, mask="hidden", blend=False)
    assert blended < 1.1 * rmse(adata, hidden)


def test_more_samples_of_a_cohort_help():
    error = []
    for n in (2, 5, 20):
        adata = simulate(n, seed=9)
        hidden = hide(adata, 0.3)
        bf.tl.impute(adata, model=planted(), mask="hidden")
        error.append(rmse(adata, hidden))
    assert error[0] > error[1] > error[2]


def test_genes_that_no_sample_measures_come_from_the_encoder():
    adata = simulate(20)
    truth = adata.X.copy()
    adata.X[:, :30] = np.nan
    # this one is measured in a single sample, which cannot learn of it from others
    adata.X[4, 0] = truth[4, 0]
    bf.tl.impute(adata, model=planted())
    blend = adata.uns["imputed"]["blend"]
    assert np.isnan(blend["cohort"]["means"][:, 1:30]).all()
    expected = planted().encode(adata.X, outputs=("expression",)).expression.numpy()[:, 1:30].clip(min=0)
    # more is visible than where anything was held back
    assert blend["shares"].max() < 0.9
    np.testing.assert_allclose(adata.layers["imputed"][:, 1:30], blend["absent"]["weights"][2, 0] * expected, rtol=1e-5)
    assert (adata.layers["imputed_sd"][:, 1:30] > 0).all()
    assert np.isfinite(adata.layers["imputed"]).all()


def test_a_sample_without_any_value_is_refused_before_anything_is_written():
    adata = simulate(5)
    adata.X[2] = np.nan
    with (
        pytest.raises(ValueError, match="sample 's0-2' has no measured gene of the vocabulary"),
    ):
        bf.tl.impute(adata, model=planted())
    assert not adata.uns
    assert "imputed" not in adata.layers


def test_too_few_values_leave_the_encoder_alone(caplog):
    adata, model = simulate(1), planted(deviation=0.4)
    adata.X[:, 40:] = np.nan
    with caplog.at_level(logging.WARNING, logger="bulkformer_tl"):
        bf.tl.impute(adata, model=model)
    assert "too few entries are measured to blend planted with simple methods" in caplog.text
    assert not adata.uns["imputed"]["params"]["blend"]
    with pytest.raises(ValueError, match="measured entries could be hidden to learn the error"):
        bf.tl.impute(adata, model=planted(), key_added="other")


def test_large_cohorts_are_fitted_on_a_bounded_number_of_samples(monkeypatch):
    monkeypatch.setattr(_blend, "MAX_SAMPLES", 12)
    adata, model = simulate(30), planted()
    hidden = hide(adata, 0.3)
    encode, calls = model.encode, []
    monkeypatch.setattr(
        model, "encode", lambda values, **options: (calls.append(len(values)), encode(values, **options))[1]
    )
    bf.tl.impute(adata, model=model, mask="hidden")
    assert sum(calls) == 30 + _blend.N_TRIALS
    blend = adata.uns["imputed"]["blend"]
    assert len(blend["cohort"]["samples"]) == 12
    inside = np.isin(name_seeds(adata.obs_names), blend["cohort"]["samples"])
    error = [
        np.sqrt(np.mean((adata.layers["imputed"] - adata.X)[rows][hidden[rows]] ** 2)) for rows in (inside, ~inside)
    ]
    assert error[1] < 1.2 * error[0]


@pytest.mark.parametrize("share", [0.01, 0.4])
def test_missing_shares_outside_the_trained_range_are_warned_of(share):
    adata, model = simulate(20), planted()
    model.trained_missing = (0.05, 0.15)
    adata.X[3, : round(share * G)] = np.nan
    with pytest.warns(UserWarning, match=f"^1 of 20 .* 5% to 15% of its genes missing.*{share:.1%}"):
        bf.tl.impute(adata, model=model)


def test_missing_shares_within_the_trained_range_are_not(recwarn):
    adata, model = simulate(20), planted()
    model.trained_missing = (0.05, 0.15)
    adata.X[:, :40] = np.nan
    bf.tl.impute(adata, model=model)
    assert not recwarn


def test_other_models_are_helped_by_the_embedded_one(monkeypatch):
    """A model that is off by half gets the better one's predictions; for genes that one lacks, the cohort's."""
    package = planted()
    half = GeneVocabulary(ids=IDS[::-1])
    monkeypatch.setattr(_encoders, "load_vocabulary", lambda name: half)
    monkeypatch.setattr(_encoders, "load_model", lambda name: package)
    package.vocabulary = half
    adata, poor = simulate(10, offset=0.0), planted("g3", sense=0.3)
    hidden = hide(adata, 0.3)
    # its genes stand the other way round
    monkeypatch.setattr(package.network, "predict", lambda h, v, o: Planted().predict(h, v.flip(1), o.flip(1)).flip(1))
    bf.tl.impute(adata, model=poor, mask="hidden")
    weights = adata.uns["imputed"]["blend"]["absent"]["weights"]
    assert weights.shape == (3, 2)
    assert (weights[:, 1] > 0.8).all()
    helped = rmse(adata, hidden)
    monkeypatch.setattr(_encoders, "LEAST_SHARE", 2.0)
    bf.tl.impute(adata, model=poor, mask="hidden")
    assert helped < 0.9 * rmse(adata, hidden)


def test_a_sample_is_predicted_by_factors_that_have_not_seen_it():
    values = simulate(11).X
    seeds = np.sort(name_seeds([f"s{i}" for i in range(11)]))
    before = Cohort.fit(values, seeds)
    changed = values.copy()
    changed[5] = changed[5, ::-1]
    after = Cohort.fit(changed, seeds)
    which = before.fit_for(seeds[5])
    np.testing.assert_array_equal(after.loadings[which], before.loadings[which])
    others = [fit for fit in range(len(before.means)) if fit != which]
    assert all((after.means[fit] != before.means[fit]).any() for fit in others)
    assert before.fit_for(np.uint64(3)) == len(before.means) - 1


def test_groups_stay_in_one_fold():
    values, seeds = simulate(12).X, np.arange(12, dtype=np.uint64)
    groups = np.array(list("abcabcdefdef"))
    fold = Cohort.fit(values, seeds, groups).fold
    assert all(len(set(fold[groups == group])) == 1 for group in groups)
    assert set(fold) == {0, 1, 2, 3}
    assert np.isnan(Cohort.fit(values, seeds, np.array(["a"] * 12)).means).all()


def test_mixtures_find_the_weights_and_cover_nine_tenths():
    rng = np.random.default_rng(0)
    held = []
    for scale in (0.2, 1.0):
        predictions, variances = rng.uniform(0, 8, (3, 4000)), rng.uniform(0.5, 2, (1, 4000))
        error = scale * np.sqrt(variances[0]) * rng.normal(size=4000)
        held.append((predictions, variances, np.array([0.7, 0, 0.3]) @ predictions + error, np.ones(4000)))
    mixture = Mixture.fit(held)
    np.testing.assert_allclose(mixture.weights, [[0.7, 0, 0.3]] * 2, atol=0.02)
    for at, (predictions, variances, truth, _) in enumerate(held):
        mean, deviation = mixture.predict(predictions, variances, float(at))
        assert np.mean(np.abs(mean - truth) <= 1.6449 * deviation) == pytest.approx(0.9, abs=0.002)
        # the variances that were given explain the error better than predicted expression does
        assert np.corrcoef(deviation**2, variances[0])[0, 1] > 0.95
    low, high = (mixture.predict(*held[0][:2], at) for at in (0.0, 1.0))
    between = mixture.predict(*held[0][:2], 0.25)
    np.testing.assert_allclose(between[0], 0.75 * low[0] + 0.25 * high[0])


def test_gaps_equal_a_loop_over_resamples():
    from bulkformer_tl.metrics import resample
    from bulkformer_tl.tl._gaps import rmse_gaps, squared_errors

    rng = np.random.default_rng(0)
    truth = np.where(rng.random((15, 30)) < 0.5, np.nan, rng.normal(size=(15, 30)))
    predicted = {"model": np.zeros((15, 30)), "pca": rng.normal(size=(15, 30))}
    protocol = Protocol(n_bootstrap=200)
    errors = {name: squared_errors(truth, mean) for name, mean in predicted.items()}
    row = rmse_gaps(errors, ["model"], protocol, None, by="entry", rate=0.5).iloc[0]
    draws = []
    for weights in resample(15, n_bootstrap=200, rng=protocol.rng):
        rows = np.repeat(np.arange(15), weights.astype(int))
        own, other = (np.sqrt(np.nanmean((truth - mean)[rows] ** 2)) for mean in predicted.values())
        draws.append(own - other)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert row["better"] == "model"
