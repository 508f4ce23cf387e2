"""What is hidden, from whom, and that a stopped run goes on."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def evaluation(script, monkeypatch):
    module = script("evaluation")
    sizes = {"RATES": (0.3, 0.7), "ENTRY_RATES": (0.3, 0.7), "PANELS": (20,), "PER_FOLD": 12, "SCORED": 10, "JUDGED": 3}
    for name, value in sizes.items():
        monkeypatch.setattr(module, name, value)
    for name in ("STEPS", "WIDTH"):
        monkeypatch.setattr(script("networks"), name, 25)
    monkeypatch.setattr(script("scores"), "N_BOOTSTRAP", 50)
    return module


def test_folds_and_masks_are_the_same_each_time(evaluation, workshop):
    one, two = (list(evaluation.trials(workshop, 0)) for _ in range(2))
    assert len(one) == 2 * 3 + 2 * 2
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.mask, second.mask)
        np.testing.assert_array_equal(first.rows, second.rows)
        assert set(workshop.folds[first.rows]) == {0}


def test_genes_and_panels_are_hidden_in_all_samples(evaluation, workshop):
    shared = [trial for trial in evaluation.trials(workshop, 0) if trial.setting != "entries"]
    for trial in shared:
        assert (trial.mask == trial.mask[0]).all()
        assert trial.mask[0, trial.genes].all()
        assert len(trial.genes) <= 10
        assert trial.judged == len(trial.rows) == 6
    panels = [trial for trial in shared if trial.setting == "panel"]
    expressed = np.nanmean(workshop.expression[workshop.folds != 0], axis=0)
    for trial in panels:
        visible = np.flatnonzero(~trial.mask[0])
        assert len(visible) == 20
        assert expressed[visible].min() > np.median(expressed)
    # seeds hide other genes from other samples
    assert (panels[0].mask[0] != panels[1].mask[0]).any()
    assert not set(panels[0].rows) & set(panels[1].rows)


def test_entries_are_hidden_sample_by_sample(evaluation, workshop):
    entries = [trial for trial in evaluation.trials(workshop, 0) if trial.setting == "entries"]
    for trial in entries:
        assert len(set(workshop.files[trial.rows])) == 1
        assert len({tuple(mask) for mask in trial.mask}) == len(trial.rows) == 12
        assert trial.mask.mean() == pytest.approx(trial.hidden, abs=0.05)
        assert len(trial.alone().rows) == len(trial.alone().mask) == trial.judged == 3


def test_inner_studies_are_whole(evaluation):
    groups = np.repeat(list("abcdefghij"), 5)
    chosen = evaluation.inner_studies(groups)
    assert chosen.sum() == 5
    assert len(set(groups[chosen])) == 1


def as_scored(evaluation, workshop):
    """List the trials in the order in which a method meets them, each without company."""
    groups = evaluation.grouped(evaluation.trials(workshop, 0)).values()
    return [trial.alone() for group in groups for trial in group]


def test_predictors_see_nothing_hidden(evaluation, workshop):
    given = []

    def predictor(values, genes):
        given.append(values)
        return np.zeros((len(values), len(genes))), None

    evaluation.score(workshop, 0, "spy", evaluation.Method(lambda: predictor))
    for values, trial in zip(given, as_scored(evaluation, workshop), strict=True):
        assert np.isnan(values[trial.mask]).all()
        np.testing.assert_array_equal(values[~trial.mask], workshop.expression[trial.rows][~trial.mask])


def test_scores_are_of_hidden_entries(evaluation, workshop):
    """Whoever knows the truth at the genes that are asked for has no error."""
    found = iter(as_scored(evaluation, workshop))

    def oracle(values, genes):
        truth = workshop.expression[next(found).rows][:, genes]
        return truth, np.full(truth.shape, 1e-3)

    table = evaluation.score(workshop, 0, "oracle", evaluation.Method(lambda: oracle))[0].unstack("score")
    assert (table["rmse"] < 1e-6).all()
    assert (table[["r_global", "r_sample", "coverage90"]] > 1 - 1e-6).all(axis=None)


def test_evaluation_scores_every_method(evaluation, workshop):
    table = evaluation.evaluate(workshop, [0, 1])
    whole = table[(table["fold"].astype(str) == "all") & (table["hidden"] == 0.3)].set_index("method")
    at = whole[whole["setting"] == "genes"]
    assert set(at.index) == {*evaluation.Fold(workshop, 0).methods()} - {"tl.impute"}
    assert set(whole.index[whole["setting"] == "entries"]) == {*at.index, "tl.impute"} - {
        "ridge 300",
        "untrained encoder",
        "mini, seed 1",
    }
    # the network of this corpus predicts gene means
    assert at.loc["mini", "rmse"] == at.loc["gene mean", "rmse"] == at.loc["mini, seed 1", "rmse"]
    assert at.loc["factor model 500", "rmse"] < at.loc["gene mean", "rmse"]
    assert at.loc["mini", "coverage90_low"] <= at.loc["mini", "coverage90"] <= at.loc["mini", "coverage90_high"]
    assert at["baseline"].unique().tolist() == [at.loc[list(evaluation.LINEAR), "rmse"].idxmin()]


def test_a_stopped_run_goes_on(evaluation, workshop, monkeypatch):
    chosen = {"gene mean": evaluation.Fold(workshop, 0).methods()["PCA 60"]}
    monkeypatch.setattr(evaluation.Fold, "methods", lambda self: chosen)
    monkeypatch.setattr(evaluation, "LINEAR", ("gene mean",))
    first = evaluation.evaluate(workshop, [0])
    chosen["gene mean"] = evaluation.Method(lambda: pytest.fail("fitted again"))
    assert first.equals(evaluation.evaluate(workshop, [0]))
