"""Attributions: they add up, find what was planted, and are held beside those of shuffled weights."""

from __future__ import annotations

import logging
from importlib import util
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
import torch

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._bioformer import BioformerConfig, BioformerNetwork
from bulkformer_tl.models._latest import LatestConfig, LatestNetwork
from bulkformer_tl.models._mini import MiniConfig, MiniNetwork
from bulkformer_tl.train import FinetuneConfig, Target, finetune
from bulkformer_tl.train._attribute import shuffled
from bulkformer_tl.train._backbones import Backbone

pytest.importorskip("captum")

# an untrained network of 16 columns has little that shuffling could take away
pytestmark = pytest.mark.filterwarnings("ignore:attributions correlate with those of shuffled weights")

N, G = 24, 30
CONFIG = FinetuneConfig(method="probe", head_epochs=100)


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    adata = ad.AnnData(rng.gamma(2.0, 1.0, (N, G)).astype(np.float32))
    adata.var_names = [f"ENSG{i:011d}" for i in range(G)]
    adata.obs_names = [f"sample {i}" for i in range(N)]
    # of the first three genes, one is high or low
    adata.X[:, :3] = np.where(np.arange(N)[:, None] % 2 == 0, 6.0, 1.0) + rng.normal(0, 0.1, (N, 3))
    adata.obs["state"] = np.where(np.arange(N) % 2 == 0, "high", "low")
    adata.X[0, 10] = np.nan
    return adata


@pytest.fixture(scope="module")
def model(samples):
    sizes = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "nb_features": 16, "graph_hidden_dim": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LatestNetwork(LatestConfig(n_genes=G - 2, **sizes))
        graph = torch.randint(0, G - 2, (2, 100)), torch.rand(100) + 0.1
    vocabulary = GeneVocabulary(samples.var_names.to_numpy(dtype=str)[:-2][::-1].copy(), name="tiny")
    return bf.models.BulkFormer(network, vocabulary, graph=graph, name="tiny", family="g3", denominator="all")


@pytest.fixture(scope="module")
def adapter(samples, model):
    values = samples[:, model.vocabulary.ids].X
    targets = {
        "state": Target.of_classes(samples.obs["state"].to_numpy()),
        "level": Target.of_numbers(np.asarray(samples.X[:, 0])),
    }
    return finetune(model, values, targets, config=CONFIG)


@pytest.fixture(scope="module")
def explained(samples, adapter, model):
    return bf.tl.attribute(samples, adapter, target="level", model=model, copy=True)


def test_attributions_add_up_to_the_prediction(explained, samples, adapter, model):
    values, table = explained.layers["attributions"], explained.uns["attributions"]["samples"]
    assert np.isnan(values[:, -2:]).all(), "genes that the model does not know"
    own = values[:, :-2]
    mean = np.nanmean(samples.X, axis=0)
    baseline = samples.copy()
    baseline.X = np.where(np.isnan(samples.X), np.nan, mean).astype(np.float32)
    predicted = [adapter.predict(model, one[:, model.vocabulary.ids].X)["level"] for one in (samples, baseline)]
    np.testing.assert_allclose(own.sum(axis=1), predicted[0] - predicted[1], atol=2e-3)
    np.testing.assert_allclose(table["gap"], 0, atol=2e-3)
    assert own[0, 10] == 0, "what was not observed has no say"
    np.testing.assert_allclose(explained.var["attributions_mean"].iloc[:-2], np.abs(own).mean(axis=0), rtol=1e-4)


def test_they_are_the_integral_of_the_gradient(adapter, model, samples):
    """The sum over many small steps, by torch alone."""
    from bulkformer_tl.train._adapter import restore
    from bulkformer_tl.train._cohort import Cohort

    one = samples[1:2]
    found = bf.tl.attribute(
        samples, adapter, target="level", model=model, samples=["sample 1"], n_steps=64, copy=True
    ).layers["attributions"][1, :-2][::-1]
    values = torch.from_numpy(one[:, model.vocabulary.ids].X.copy())
    cohort = Cohort(model, values)
    way, heads = restore(adapter, cohort.backbone)
    observed = torch.ones_like(values, dtype=torch.bool)
    mean = torch.from_numpy(np.nanmean(samples[:, model.vocabulary.ids].X, axis=0, keepdims=True))
    total = torch.zeros_like(values)
    for step in range(400):
        x = (mean + (step + 0.5) / 400 * (values - mean)).requires_grad_()
        pooled, _ = way.vectors({"values": x, "observed": observed}, None)
        total += torch.autograd.grad(heads.outputs((pooled, None))["level"].sum(), x)[0]
    expected = (values - mean) * total / 400
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-3)


def test_classes_and_shuffled_weights(samples, adapter, model, caplog):
    adata = samples.copy()
    with caplog.at_level(logging.INFO):
        bf.tl.attribute(
            adata, adapter, model=model, samples=["sample 3", "sample 4"], reference=list(samples.obs_names[5:])
        )
    table = adata.uns["attributions"]["samples"]
    assert table.index.tolist() == ["sample 3", "sample 4"]
    chosen = adapter.predict(model, samples[[3, 4], model.vocabulary.ids].X)["state"].argmax(axis=1)
    assert table["explained"].tolist() == np.array(["high", "low"])[chosen].tolist()
    assert np.isnan(adata.layers["attributions"][0]).all()
    assert any("rank correlation with attributions of shuffled weights" in text for text in caplog.messages)
    params = adata.uns["attributions"]["params"]
    assert -1 <= params["randomised_correlation"] <= 1
    # the logit of one of two classes is minus that of the other
    bf.tl.attribute(adata, adapter, model=model, label="high", samples=["sample 3"], key_added="high")
    bf.tl.attribute(adata, adapter, model=model, label="low", samples=["sample 3"], key_added="low")
    np.testing.assert_allclose(adata.layers["high"][3], -adata.layers["low"][3], atol=1e-5)


def test_attributions_that_do_not_depend_on_the_weights_are_warned_about(samples, adapter, model, monkeypatch):
    monkeypatch.setattr("bulkformer_tl.train._attribute.shuffled", lambda way, heads, seed: (way, heads))
    with pytest.warns(UserWarning, match=r"correlate with those of shuffled weights \(mean rank correlation 1.00\)"):
        bf.tl.attribute(samples, adapter, model=model, samples=["sample 3"], copy=True)


def test_linear_models_that_no_training_changes_are_shuffled_too():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MiniNetwork(
            MiniConfig(n_genes=G, n_factors=4, n_scores=2, n_entries=G, context=8, n_global=2, heads=2)
        )
    network.neighbours.set_packed(
        torch.ones(G, dtype=torch.int16),
        torch.arange(G, dtype=torch.uint8),
        torch.arange(G, dtype=torch.int8),
        torch.ones(G),
    )
    values, observed = torch.rand(1, G), torch.ones(1, G, dtype=torch.bool)
    before = network.linear(values, observed)[0]
    way = Backbone.__new__(Backbone)
    way.network, way.model = network, SimpleNamespace(name="tiny")
    other = shuffled(way, torch.nn.Linear(2, 2), 0)[0].network
    for name in ("factors.codes", "factors.mean", "neighbours.codes"):
        old, new = network.get_buffer(name), other.get_buffer(name)
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
    assert not torch.equal(network.factors.codes, other.factors.codes)
    assert not torch.equal(network.neighbours.codes, other.neighbours.codes)
    assert torch.equal(network.neighbours.steps, other.neighbours.steps), "positions stay"
    assert torch.equal(network.linear(values, observed)[0], before), "the network itself is left alone"
    found = other.linear(values, observed)[0]
    assert torch.isfinite(found).all()
    assert not torch.allclose(found, before), "nothing of the old ones was kept"


def test_shuffling_leaves_the_adapter_alone(explained, samples, adapter, model):
    again = bf.tl.attribute(samples, adapter, target="level", model=model, copy=True)
    assert np.array_equal(again.layers["attributions"], explained.layers["attributions"], equal_nan=True)
    other = bf.tl.attribute(samples, adapter, target="level", model=model, rng=1, copy=True)
    assert np.array_equal(other.layers["attributions"], explained.layers["attributions"], equal_nan=True)
    correlations = [one.uns["attributions"]["samples"]["randomised_correlation"] for one in (again, other)]
    assert not np.allclose(*correlations)


def test_plot(explained):
    axes = bf.pl.attributions(explained, n_genes=5)
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    mean = explained.var["attributions_mean"]
    assert labels == mean.sort_values(ascending=False).index[:5].tolist()
    assert "attribution to the score of level" in axes.get_xlabel()
    correlation = explained.uns["attributions"]["params"]["randomised_correlation"]
    assert axes.get_title() == f"24 samples, correlation with shuffled weights {correlation:.2f}"
    drawn = axes.collections[0].get_offsets()[:, 0]
    np.testing.assert_allclose(drawn, explained.layers["attributions"][:, mean.argmax()], rtol=1e-6)
    with pytest.raises(KeyError, match=r"is no result of bf\.tl\.attribute"):
        bf.pl.attributions(explained, "other")
    with pytest.raises(KeyError, match="has no column 'symbol'"):
        bf.pl.attributions(explained, names="symbol")


def test_results_go_through_a_file(explained, tmp_path):
    explained.write_h5ad(tmp_path / "explained.h5ad")
    read = ad.read_h5ad(tmp_path / "explained.h5ad")
    bf.pl.attributions(read)


@pytest.mark.parametrize("family", ["bioformer", "geneformer"])
def test_encoders_of_tokens(family, geneformer_folders):
    rng = np.random.default_rng(0)
    if family == "geneformer":
        pytest.importorskip("transformers")
        model = bf.models.load_geneformer(geneformer_folders["v2"], device="cpu")
    else:
        torch.manual_seed(0)
        sizes = {"n_bins": 8, "dim": 16, "layers": 1, "heads": 2, "feed_forward": 32}
        vocabulary = GeneVocabulary(np.array([f"ENSG{i:011d}" for i in range(G)]), name="tiny")
        network = BioformerNetwork(BioformerConfig(n_genes=G, **sizes))
        model = bf.models.BioFormer(
            network, vocabulary, name="tiny", family="bioformer", binnings={"rna": {"target_sum": 500.0}}
        )
    adata = ad.AnnData(rng.poisson(3.0, (8, len(model.vocabulary))).astype(np.float32))
    adata.var_names = model.vocabulary.ids.astype(str)
    read = adata.X if family == "geneformer" else model.bin(adata.X)
    targets = {"half": Target.of_classes(["a", "b"] * 8)}
    # stopped by copies of the same samples, so that heads are sure to have learnt something
    adapter = finetune(model, np.tile(read, (2, 1)), targets, config=CONFIG, validation=np.arange(16) < 8)
    bf.tl.attribute(adata, adapter, model=model, label="a", n_steps=48)
    values, table = adata.layers["attributions"], adata.uns["attributions"]["samples"]
    assert np.isfinite(values).all()
    assert (values[adata.X == 0] == 0).all(), "what is not expressed has no say"
    assert np.abs(values).sum() > 0
    scale = np.abs(values).sum(axis=1)
    assert (table["gap"].abs().to_numpy() < 0.1 * scale + 1e-4).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "x"}, ValueError, r"has no target 'x' of samples; it has \['state', 'level'\]"),
        ({"label": "x"}, ValueError, r"target 'state' has no class 'x'; it has \['high', 'low'\]"),
        ({"n_steps": 1}, ValueError, "n_steps is 1; at least 2"),
        ({"samples": ["x"]}, KeyError, r"adata has no samples \['x'\] \(samples; 1 of 1 are absent\)"),
        ({"reference": "sample 1"}, ValueError, "reference is 'sample 1'; pass a list of names"),
        ({"model": None}, ValueError, "trained on tiny, which is not loaded by its name; pass model="),
        ({"key_added": "a/b"}, ValueError, "cannot be written to a file"),
    ],
)
def test_bad_input(options, error, message, samples, adapter, model):
    with pytest.raises(error, match=message):
        bf.tl.attribute(samples, adapter, **{"model": model, "copy": True, **options})


def test_it_needs_captum(samples, adapter, model, monkeypatch):
    real = util.find_spec
    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda name: None if name == "captum" else real(name))
    with pytest.raises(ImportError, match=r"bf\.tl\.attribute needs captum: pip install"):
        bf.tl.attribute(samples, adapter, model=model)
