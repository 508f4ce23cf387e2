"""Ablations of the embedded checkpoint on a corpus of five small studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

# torch says once per process that CSR is in beta, or that its indices go unchecked
pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")

N_GENES, N_SAMPLES, N_FACTORS = 120, 24, 64


@pytest.fixture(scope="session")
def fitted(script, tmp_path_factory):
    """Corpus of five folds with two files each, and a folder with linear models of all that is left out."""
    corpora, factors, neighbours = (script(name) for name in ("corpus", "factors", "neighbours"))
    rng = np.random.default_rng(0)
    n = 5 * N_SAMPLES
    scores = rng.normal(size=(n, 6)) @ rng.normal(size=(6, N_GENES)) / 2
    values = np.maximum(3 + scores + 0.3 * rng.normal(size=(n, N_GENES)), 0).astype(np.float32)
    files = np.repeat([f"{letter}.h5ad" for letter in "abcdefghij"], N_SAMPLES // 2)
    values[files == "c.h5ad", :7] = np.nan
    folds = np.repeat(np.arange(5), N_SAMPLES)
    folder = tmp_path_factory.mktemp("stages")
    for without in ([0], [0, 1], [0, 2], [0, 3], [0, 4]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(factors, "FILLING_FACTORS", 6)
            known = values[~np.isin(folds, without)]
            name, model = f"without{''.join(map(str, without))}.npz", factors.fit(known, N_FACTORS)
            model.save(folder / f"factors-{name}")
            neighbours.fit(np.nan_to_num(known - model.mean), 5).save(folder / f"neighbours-{name}")
    return corpora.Corpus(values, pd.DataFrame({"file": files, "fold": folds})), folder


@pytest.fixture
def ablations(script, fitted, monkeypatch):
    """Return the script at a tiny budget, and a way to a bench in a folder."""
    module, bench, mini = (script(name) for name in ("ablations", "bench", "mini"))
    monkeypatch.setattr(mini.corpora, "load", lambda *_: fitted[0])
    monkeypatch.setattr(bench, "N_GENES", 90)
    return module


@pytest.fixture
def bench(ablations, fitted):
    return ablations.Bench(ablations.Workshop(Path(), fitted[1]), 0)


def test_nothing_of_the_scored_fold_is_trained_on(bench, fitted):
    assert not set(bench.train.files) & (set(bench.score.files) | set(bench.choose.files))
    assert set(bench.score.files) == {"a.h5ad", "b.h5ad"}
    assert set(bench.choose.files) == {"c.h5ad", "d.h5ad"}
    values = fitted[0].expression[:, bench.genes]
    own = {row.tobytes() for row in bench.score.expression}
    assert own <= {row.tobytes() for row in values[:N_SAMPLES]}
    assert bench.materials.variance.shape == (90,)


def test_merged_banks_keep_samples_and_masks_together(bench, script):
    merged, bank = script("bench").merged([bench.score, bench.choose]), bench.choose
    start = len(bench.score)
    for row in range(len(bank)):
        drawn = merged.draw(start + row, np.random.default_rng(row))
        for one, other in zip(drawn, bank.draw(row, np.random.default_rng(row)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_factors_of_some_genes_say_the_same_of_them(bench, script):
    whole = bench.workshop.factors(0).leading(N_FACTORS)
    part = bench.materials.factors
    expected = (whole.loadings * whole.variances) @ whole.loadings.T
    found = (part.loadings * part.variances) @ part.loadings.T
    np.testing.assert_allclose(found, expected[np.ix_(bench.genes, bench.genes)], rtol=1e-4, atol=1e-5)


def test_all_rows_are_scored_and_a_stopped_run_goes_on(ablations, bench, fitted, monkeypatch):
    names = ["gene mean", "factor model", ablations.LINEAR, *ablations.VARIANTS]
    every = list(ablations.VARIANTS)
    rows = ablations.run(bench, every, (0,), 2)
    table = ablations.summarise(rows)
    assert table["variant"].tolist() == names
    assert table[["rmse", "rmse_15", "rmse_50", "rmse_90", "r_global"]].notna().all(axis=None)
    score = table.set_index("variant")["rmse"]
    assert score[ablations.LINEAR] < score["gene mean"]
    # two steps of a network that starts as the linear models leave it near them
    assert score[ablations.FULL] == pytest.approx(score[ablations.LINEAR], rel=0.05)
    assert not list(fitted[1].glob("*.tmp"))

    trained = []
    contest = ablations.contest
    monkeypatch.setattr(ablations, "contest", lambda *own: trained.append(own[1]) or contest(*own))
    (fitted[1] / "ablation-without-graph-seed0-2-without0.json").unlink()
    again = ablations.run(ablations.Bench(bench.workshop, 0), every, (0,), 2)
    assert trained == ["without graph"]
    pd.testing.assert_frame_equal(again.drop(columns="cpu_seconds"), rows.drop(columns="cpu_seconds"))
    # another budget is another table
    monkeypatch.setattr(ablations, "contest", lambda *own: trained.append(own[1]) or {"rmse": 0.0})
    ablations.run(bench, every, (0,), 1)
    assert trained[1:] == list(ablations.VARIANTS)


def test_variants_differ_from_the_full_network_in_one_part(ablations, bench):
    sizes = {name: variant.build(bench.materials).size() for name, variant in ablations.VARIANTS.items()}
    full = sizes[ablations.FULL]
    assert sizes["without graph"] == full - 32 * 32 - 32
    assert sizes["without graph"] - sizes["without graph and attention"] == full - sizes["without attention"]
    assert sizes["random gene table"] == sizes["without low-rank context"] == sizes["masks of 15 %"] == full
    assert sizes["width 16"] < full < sizes["width 64"]


@pytest.mark.parametrize(("name", "depends"), [("without graph", True), ("without graph and attention", False)])
def test_other_genes_reach_a_gene_only_through_graph_and_attention(ablations, bench, name, depends):
    torch.manual_seed(0)
    contestant = ablations.VARIANTS[name].build(bench.materials).eval()
    torch.nn.init.normal_(contestant.network.head.weight)
    values, mean = torch.full((1, 90), 2.0), torch.full((1, 90), 1.0)
    still = torch.zeros(1, 90)
    visible = torch.ones(1, 90, dtype=torch.bool)
    shifted = values.clone()
    # as much more as less, so that the sample's misfit stays as it is
    shifted[0, :2] = torch.tensor([3.0, 2.0])
    contestant.variance.fill_(1.0)
    contestant.network.unseen.fill_(1.0)
    swapped = shifted.clone()
    swapped[0, :2] = torch.tensor([2.0, 3.0])
    with torch.inference_mode():
        one, other = (contestant(given, visible, mean, still, still)[1][0, 2:] for given in (shifted, swapped))
    assert bool(torch.allclose(one, other, atol=1e-5)) is not depends


def test_without_low_rank_context_the_linear_models_are_not_seen(ablations, bench):
    contestant = ablations.VARIANTS["without low-rank context"].build(bench.materials).eval()
    torch.nn.init.normal_(contestant.network.head.weight)
    values, visible = torch.full((1, 90), 2.0), torch.ones(1, 90, dtype=torch.bool)
    given = [torch.rand(3, 1, 90) for _ in range(2)]
    with torch.inference_mode():
        one, other = (contestant(values, visible, *linear) for linear in given)
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[0][0], torch.from_numpy(bench.materials.factors.mean))


def test_shrinkage_finds_the_share_of_the_way_that_is_right(ablations, bench):
    bank = bench.choose
    predicted = []
    for block in bank.blocks:
        start = block.mean.astype(np.float32)
        predicted.append((start, start + 4 * (np.nan_to_num(bank.expression[block.rows]) - start)))
    assert ablations.shrinkage(bank, predicted) == pytest.approx(0.25, abs=1e-3)


def test_scores_are_of_hidden_entries_alone(ablations, bench):
    bank = bench.score
    near = [np.where(block.hidden, bank.expression[block.rows] + 0.5, 1e3) for block in bank.blocks]
    found = ablations.score(bank, near)
    assert [found[name] for name in ("rmse", "rmse_15", "rmse_90")] == pytest.approx([0.5] * 3, abs=1e-5)
    assert [found[name] for name in ("r_global", "r_gene")] == pytest.approx([1, 1])


def test_the_curriculum_ends_where_it_should(script):
    variants = script("variants")
    assert variants.growing(0.0) == (0.05,)
    assert variants.growing(0.8) == variants.WIDE_RATES
    sizes = [len(variants.growing(progress)) for progress in np.linspace(0, 1, 20)]
    assert sizes == sorted(sizes)


def test_picture_shows_three_widths_and_the_linear_models(ablations):
    rows = [{"variant": ablations.LINEAR, "weights": 0, "rmse": 0.5}]
    for name, weights in (("width 16", 5e3), (ablations.FULL, 2e4), ("width 64", 6e4)):
        rows += [{"variant": name, "weights": weights, "rmse": 0.6 - 0.02 * np.log10(weights), "rmse_unshrunk": 0.7}]
    axes = ablations.draw_scaling(pd.DataFrame(rows))
    assert [len(points.get_offsets()) for points in axes.collections] == [3, 3]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "shrunk: -0.0200 for ten times the weights" in labels
    assert "linear models alone" in labels
    assert axes.get_xscale() == "log"
