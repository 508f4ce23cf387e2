"""Training of BioFormers: it learns what left-out studies hold, from expression and from other modalities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData

import bulkformer_tl as bf
from bulkformer_tl.train._objectives import MaskedBins

SIZES = {"dim": 16, "layers": 1, "heads": 2, "feed_forward": 32, "n_bins": 40, "dropout": 0.0}


@pytest.fixture(scope="module")
def counts() -> AnnData:
    """Five studies of two tissues, which tell the bins of genes better than how often they occur."""
    return bf.datasets.simulate(
        200, n_vars=20, n_tissues=2, n_batches=5, n_differential=2, batch_effect=0.05, dispersion=0.01, rng=1
    )


def settings(**changes):
    given = {
        "network": SIZES,
        "epochs": 16,
        "batch_size": 16,
        "checkpoint_every": 80,
        "validation": ("batch_5",),
        "binning": {"rna": {"bin_size": 1.0}},
        "masking": bf.train.Masking(fraction=0.2),
        "optimizer": bf.train.Optimizer(learning_rate=2e-2),
    }
    return bf.train.PretrainConfig(family="bioformer", **(given | changes))


def train(adata, out, config=None, **options):
    source = bf.train.Source(adata, study="batch", name="simulated")
    return bf.train.pretrain(source, config or settings(), out=out, **({"vocabulary": adata.var_names} | options))


def result(model):
    training = model.provenance["training"]
    return training["validation_loss"], training["baseline_loss"]


@pytest.mark.parametrize("sizes", [{}, {"decoder": True}], ids=["encoder", "decoder"])
def test_it_beats_how_often_bins_occur_on_a_left_out_study(counts, tmp_path, sizes):
    model = train(counts, tmp_path / "run", settings(network=SIZES | sizes))
    loss, baseline = result(model)
    assert loss < baseline - 0.1
    assert model.binnings["rna"].target_sum == pytest.approx(
        counts.X[(counts.obs["batch"] != "batch_5").to_numpy()].sum(axis=1).mean(), rel=1e-6
    )
    again = bf.models.load(tmp_path / "run", device="cpu")
    bins = model.reader(counts.var_names, _whole(model))(counts.X[:3])
    assert torch.equal(again.encode(bins).pooled, model.encode(bins).pooled)


def _whole(model):
    from bulkformer_tl._vocabulary import match_genes

    return match_genes(model.vocabulary.ids, model.vocabulary)


@pytest.fixture(scope="module")
def states(counts) -> MuData:
    """Expression, ten proteins that follow ten of the genes and lack some samples, and a number of each sample."""
    generator = np.random.default_rng(0)
    values = np.log1p(counts.X[:, :10]) + generator.normal(0, 0.1, (200, 10))
    protein = AnnData(values.clip(0).astype(np.float32), obs=counts.obs.copy())
    protein.var_names = [f"P{i}" for i in range(10)]
    mdata = MuData({"rna": counts.copy(), "protein": protein[40:].copy()})
    for column in ("batch", "condition", "tissue"):
        mdata.obs[column] = counts.obs[column].astype(str).reindex(mdata.obs_names)
    # a number that follows the tissue, so that expression tells it
    mdata.obs["score"] = np.where(mdata.obs["tissue"] == mdata.obs["tissue"].min(), 2.0, 20.0)
    return mdata


def test_several_modalities_with_numbers_and_categories_of_samples(states, tmp_path):
    table = bf.pp.stack_modalities(states, obs=["score"])
    config = settings(external=["condition"], binning={"rna": {"bin_size": 1.0}, "protein": {"n_bins": 5}})
    model = train(table, tmp_path / "run", config)
    loss, baseline = result(model)
    assert loss < baseline - 0.1
    assert model.modalities == ["rna", "protein", "obs"]
    assert model.external == {"obs/condition": ("case", "control")}
    bins = model.reader(table.var_names, _whole(model))(table.X)
    new = (table.obs["batch"] == "batch_5").to_numpy()
    # the score of samples that were not trained on, from expression and proteins, and their proteins from expression
    shown = bins[new]
    shown[:, -1] = np.nan
    predicted, _ = model.predict_bins(shown)
    assert np.mean(predicted[:, -1] == bins[new, -1]) > 0.9
    shown[:, 20:30] = np.nan
    predicted, _ = model.predict_bins(shown, rounds=1)
    known = ~np.isnan(bins[:, 20:30])
    often = [
        np.bincount(own[seen & ~new].astype(int)).argmax() for own, seen in zip(bins[:, 20:30].T, known.T, strict=True)
    ]
    right = [(given == bins[new, 20:30])[known[new]].mean() for given in (predicted[:, 20:30], np.array(often))]
    assert right[0] > right[1] + 0.1
    assert (~known).all(axis=1).sum() == 40


def test_external_tokens_tell_what_expression_does_not(counts, tmp_path):
    """Counts that two treatments scramble differently: the token says how."""
    adata = counts.copy()
    adata.obs["treated"] = np.where(np.arange(200) % 2, "yes", "no")
    adata.X[1::2, :5] *= 30
    losses = [
        result(train(adata, tmp_path / name, settings(external=external, epochs=6)))[0]
        for name, external in (("with", ["treated"]), ("without", []))
    ]
    assert losses[0] < losses[1]


def test_training_goes_on_from_a_model(counts, tmp_path):
    config = settings(epochs=2)
    first = train(counts, tmp_path / "first", config)
    second = train(
        counts, tmp_path / "second", settings(network={}, binning={}, epochs=2), start=first, vocabulary=None
    )
    assert result(second)[0] < result(first)[0]
    assert second.binnings == first.binnings


def test_the_same_run_ends_with_the_same_weights(counts, tmp_path):
    config = settings(epochs=1)
    first, second = (train(counts, tmp_path / name, config).network.state_dict() for name in ("one", "two"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_baseline_is_how_often_bins_occur(counts, tmp_path):
    from bulkformer_tl.train import _bioformers
    from bulkformer_tl.train._corpus import Corpus

    vocabulary = bf.train._pretrain._as_vocabulary(counts.var_names)
    corpus = Corpus(bf.train.Source(counts, study="batch", name="x"), vocabulary)
    network = _bioformers.make_network(settings(), MaskedBins(), corpus, None)
    training = np.arange(200) < 150
    found = _bioformers.scan(corpus, training, settings(), network, None)
    bins = corpus.read(np.arange(200))
    assert np.exp(found.log_probability).sum(axis=1) == pytest.approx(1, abs=1e-5)
    share = (bins[:150, 3] == bins[0, 3]).sum() + np.exp(found.overall[int(bins[0, 3])])
    assert np.exp(found.log_probability[3, int(bins[0, 3])]) == pytest.approx(share / 151, rel=1e-5)
    hidden = np.zeros((2, 20), dtype=bool)
    hidden[:, 3] = True
    loss = MaskedBins().baseline(MaskedBins().collate(bins[:2], hidden), found)
    assert loss[0] == pytest.approx(-found.log_probability[3, int(bins[0, 3])])


def test_only_hidden_bins_cost_and_the_fast_way_is_the_same():
    from bulkformer_tl.models._bioformer import BioformerConfig, BioformerNetwork

    network = BioformerNetwork(BioformerConfig(n_genes=6, **SIZES)).eval()
    generator = np.random.default_rng(0)
    bins = generator.integers(0, 40, (3, 6)).astype(np.float32)
    hidden = generator.random((3, 6)) < 0.4
    hidden[2] = False
    batch = MaskedBins().collate(bins, hidden)
    fast, plain = (MaskedBins(fast=way).losses(network, batch) for way in (True, False))
    torch.testing.assert_close(fast, plain)
    assert fast[2].item() == 0
    logits = network.bin_logits(network(batch["bins"], batch["hidden"])[1])[0, hidden[0]].log_softmax(-1)
    expected = -logits[torch.arange(len(logits)), batch["bins"][0, hidden[0]]].mean()
    torch.testing.assert_close(fast[0], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "negative"}, r"layers\['negative'\] \(rna\): row 3 holds negative values"),
        ({"layer": "logs"}, r"row 0 is fractional and at most .* as logarithms are, not counts"),
        ({"layer": "infinite"}, "row 3 holds infinite values"),
        ({"layer": "scaled"}, "row 0 is fractional and sums to a million, as TPM and CPM do"),
        ({"layer": "empty"}, "hold no counts of the modality 'rna'"),
        ({"graph": (np.zeros((2, 1), int), np.ones(1))}, "has no gene graph"),
        ({"vocabulary": None}, r"needs vocabulary= \(its genes\); to go on"),
        ({"config": {"binning": {"protein": {}}}}, "binning names the modalities"),
        ({"config": {"network": {"width": 3}}}, "unknown fields"),
        ({"config": {"binning": {"rna": {"bins": 3}}}}, r"binning of 'rna' has the unknown fields \['bins'\]"),
        ({"config": {"external": ["sex"]}}, "no column 'sex'"),
        ({"config": {"external": ["nothing"]}}, "holds nothing but missing values"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(counts, tmp_path, change, message):
    adata = counts.copy()
    adata.layers["negative"] = adata.X - 1e9 * (np.arange(200) == 3)[:, None]
    adata.layers["infinite"] = np.where((np.arange(200) == 3)[:, None], np.inf, adata.X)
    adata.layers["logs"] = np.log1p(adata.X)
    adata.layers["scaled"] = adata.X / adata.X.sum(axis=1, keepdims=True) * 1e6
    adata.layers["empty"] = np.zeros_like(adata.X)
    adata.obs["nothing"] = pd.Series(np.nan, index=adata.obs_names)
    source = bf.train.Source(adata, study="batch", name="x", layer=change.pop("layer", None))
    config = settings(**change.pop("config", {}))
    given = {"vocabulary": counts.var_names} | change
    with pytest.raises((ValueError, KeyError), match=message):
        bf.train.pretrain(source, config, out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "mse"}, r"must be one of \['cross_entropy'\] for the family 'bioformer'"),
        ({"family": "g2", "network": {"dim": 8}}, "binning and external are of the family 'bioformer'"),
    ],
)
def test_configurations_that_do_not_exist_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        bf.train.PretrainConfig(**({"family": "bioformer", "binning": {"rna": {}}} | changes))


def test_a_model_keeps_its_sizes(counts, tmp_path):
    model = train(counts, tmp_path / "first", settings(epochs=1))
    for changes in ({"binning": {}}, {"network": {}}):
        with pytest.raises(ValueError, match=r"leave (network|binning)="):
            train(counts, tmp_path / "second", settings(**changes), start=model, vocabulary=None)
