"""Training of Geneformers: lists of genes, medians of the corpus, what is masked, and models that load."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch

import bulkformer_tl as bf
from bulkformer_tl._rank_vocabulary import RankVocabulary
from bulkformer_tl.train._objectives import MaskedGenes
from bulkformer_tl.train._rank_network import RankNetwork

if TYPE_CHECKING:
    from anndata import AnnData

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 24}
G = 30


@pytest.fixture(scope="module")
def counts() -> AnnData:
    """Five studies of two tissues, whose orders of genes differ."""
    return bf.datasets.simulate(
        200, n_vars=G, n_tissues=2, n_batches=5, n_differential=2, batch_effect=0.05, dispersion=0.01, rng=1
    )


def settings(**changes):
    given = {
        "network": SIZES,
        "epochs": 1,
        "batch_size": 16,
        "checkpoint_every": 5,
        "validation": ("batch_5",),
        "optimizer": bf.train.Optimizer(learning_rate=1e-2),
    }
    return bf.train.PretrainConfig(family="geneformer", **(given | changes))


def train(adata, out, config=None, **options):
    source = bf.train.Source(adata, study="batch", name="simulated")
    return bf.train.pretrain(source, config or settings(), out=out, **({"vocabulary": adata.var_names} | options))


def result(model):
    training = model.provenance["training"]
    return training["validation_loss"], training["baseline_loss"]


def training_samples(adata) -> AnnData:
    return adata[(adata.obs["batch"] != "batch_5").to_numpy()].copy()


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_it_beats_how_often_genes_occur_on_a_left_out_study(counts, tmp_path, version):
    model = train(counts, tmp_path / "run", settings(network=SIZES | {"version": version}, epochs=8))
    loss, baseline = result(model)
    assert loss < baseline - 0.2
    assert model.has_specials == (version == "V2")
    folder = f"geneformer:{tmp_path / 'run'}"
    again = bf.models.load_geneformer(tmp_path / "run", device="cpu")
    assert again.provenance["training"] == model.provenance["training"]
    bf.tl.embed(counts, model=folder)
    first = counts[:3].copy()
    bf.tl.embed(first, model=bf.models.load(tmp_path / "run", device="cpu"))
    np.testing.assert_array_equal(first.obsm["X_bulkformer"], counts.obsm["X_bulkformer"][:3])
    bf.tl.perturb(first, model.vocabulary.ids[0], model=folder, change="overexpress", n_null=0)
    assert (first.uns["perturb"]["table"]["effect"] > 0).all()


def test_lists_are_those_of_the_model_and_the_encoder(counts, tmp_path):
    model = train(counts, tmp_path / "run", settings(network=SIZES | {"version": "V2"}))
    encoded = bf.pp.rank_value_encode(counts, medians=model.dictionary, max_length=24, copy=True)
    own = np.asarray(counts.X, dtype=np.float32)[:, counts.var_names.get_indexer(model.vocabulary.ids)]
    for tokens, row, length in zip(
        model.tokenize(own), encoded.obsm["rank_tokens"], encoded.obs["rank_length"], strict=True
    ):
        np.testing.assert_array_equal(tokens, row[:length])


def test_medians_are_those_of_the_training_samples(counts, tmp_path):
    model = train(counts, tmp_path / "run")
    known = bf.pp.build_vocabulary(training_samples(counts), min_share=0)
    order = pd.Index(known.ids).get_indexer(model.vocabulary.ids)
    assert (order >= 0).all()
    np.testing.assert_array_equal(model.vocabulary.medians, known.medians[order])


@pytest.mark.parametrize("form", ["vocabulary", "mapping", "file"])
def test_medians_of_others_stay(counts, tmp_path, form):
    medians = dict(zip(counts.var_names, np.linspace(1, 2, G), strict=True))
    (tmp_path / "medians.json").write_text(json.dumps(medians))
    ids = counts.var_names.to_numpy(dtype=str)
    given = {
        "vocabulary": bf._vocabulary.GeneVocabulary(ids, medians=np.linspace(1, 2, G)),
        "mapping": medians,
        "file": tmp_path / "medians.json",
    }[form]
    model = train(counts, tmp_path / "run", vocabulary=given)
    assert dict(zip(model.vocabulary.ids, model.vocabulary.medians, strict=True)) == medians


def test_genes_without_counts_have_no_median_and_zeros_no_token(counts, tmp_path):
    adata = counts[:, :-1].copy()
    adata.X[:, 3] = 0
    source = bf.train.Source(adata, study="batch", name="simulated", annotation=counts.var_names)
    model = bf.train.pretrain(source, settings(), out=tmp_path / "run", vocabulary=counts.var_names)
    absent = {counts.var_names[3], counts.var_names[-1]}
    assert set(counts.var_names) - set(model.vocabulary.ids) == absent
    assert absent < set(model.dictionary.numbered)


def network(version="V2", context=12, genes=9):
    specials = {name: number for number, name in enumerate(bf._rank_vocabulary.SPECIALS_OF[version])}
    tokens = len(specials) + torch.arange(genes)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=genes + len(specials), max_position_embeddings=context, **sizes)
    return RankNetwork(transformers.BertForMaskedLM(config), tokens, specials)


def ranks() -> np.ndarray:
    values = np.full((3, 9), np.nan, dtype=np.float32)
    values[0, [4, 2, 7, 0]] = range(4)
    values[1, [1, 8]] = range(2)
    values[2, np.arange(9)[::-1]] = range(9)
    return values


def test_batches_are_lists_in_order():
    hidden = np.zeros((3, 9), dtype=bool)
    hidden[0, [2, 0]], hidden[2, 8] = True, True
    batch = MaskedGenes().collate(ranks(), hidden)
    assert batch["genes"][0].tolist() == [4, 2, 7, 0, -1, -1, -1, -1, -1]
    assert batch["genes"][1, :3].tolist() == [1, 8, -1]
    assert batch["hidden"].nonzero().tolist() == [[0, 1], [0, 3], [2, 0]]


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_loss_is_that_of_masked_lists_one_by_one(version):
    """By hand: no padding, all of what is hidden masked, all tokens through the head."""
    made = network(version).eval()
    hidden = np.zeros((3, 9), dtype=bool)
    hidden[0, [2, 0]], hidden[2, [8, 3, 5]] = True, True
    batch = MaskedGenes().collate(ranks(), hidden)
    fast, plain = (MaskedGenes(fast=way).losses(made, batch) for way in (True, False))
    torch.testing.assert_close(fast, plain)
    assert fast[1].item() == 0
    for row in (0, 2):
        genes = np.argsort(ranks()[row])[: (~np.isnan(ranks()[row])).sum()]
        ids = made.tokens[torch.from_numpy(genes)]
        asked = torch.from_numpy(hidden[row, genes])
        shown = ids.masked_fill(asked, made.specials["<mask>"])
        if version == "V2":
            ends = (torch.tensor([made.specials[name]]) for name in ("<cls>", "<eos>"))
            first, last = ends
            shown = torch.cat([first, shown, last])
        scores = made.bert(input_ids=shown[None]).logits[0, made.ends : made.ends + len(ids)][asked]
        expected = torch.nn.functional.cross_entropy(scores, ids[asked])
        torch.testing.assert_close(fast[row], expected)


def test_eight_of_ten_are_masked_one_is_another_and_one_stays():
    made = network(genes=2000).train()
    tokens = made.tokens[torch.randint(2000, (20000,), generator=torch.Generator().manual_seed(0))]
    torch.manual_seed(1)
    found = made._corrupted(tokens)
    masked, kept = (found == made.specials["<mask>"]).float().mean(), (found == tokens).float().mean()
    assert masked.item() == pytest.approx(0.8, abs=0.01)
    assert kept.item() == pytest.approx(0.1, abs=0.01)
    assert (made.eval()._corrupted(tokens) == made.specials["<mask>"]).all()


def test_baseline_is_how_often_genes_occur(counts, tmp_path):
    from bulkformer_tl.train import _geneformers
    from bulkformer_tl.train._corpus import Corpus

    vocabulary = bf.train._pretrain._as_vocabulary(counts.var_names)
    corpus = Corpus(bf.train.Source(counts, study="batch", name="x"), vocabulary)
    made = _geneformers.make_network(settings(), MaskedGenes(), corpus, None)
    training = np.arange(200) < 150
    found = _geneformers.scan(corpus, training, settings(), made, None)
    values = corpus.read(np.arange(200))
    times = (~np.isnan(values[:150])).sum(axis=0)
    assert times.sum() == 150 * 24
    np.testing.assert_allclose(np.exp(found.log_probability), (times + 1) / (150 * 24 + G), rtol=1e-5)
    hidden = ~np.isnan(values[:2])
    loss = MaskedGenes().baseline(MaskedGenes().collate(values[:2], hidden), found)
    np.testing.assert_allclose(loss[1], -found.log_probability[hidden[1]].mean(), rtol=1e-6)
    _geneformers.centre(made, found)
    bias = made.bert.cls.predictions.bias.detach().numpy()
    np.testing.assert_array_equal(bias[2:], found.log_probability)


def test_training_goes_on_from_a_model(counts, tmp_path):
    first = train(counts, tmp_path / "first", settings(epochs=2))
    second = train(counts, tmp_path / "second", settings(network={}, epochs=2), start=first, vocabulary=None)
    assert result(second)[0] < result(first)[0]
    assert second.dictionary.numbered == first.dictionary.numbered
    np.testing.assert_array_equal(second.vocabulary.medians, first.vocabulary.medians)


def same(model, other):
    ours, theirs = model.network.state_dict(), other.network.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_killed_run_ends_like_the_uninterrupted_one(counts, forks, tmp_path, caplog):
    paths = []
    for name, rows in counts.obs.groupby("batch", observed=True).groups.items():
        paths.append(tmp_path / f"{name}.h5ad")
        counts[rows].copy().write_h5ad(paths[-1])
    # dropout is on, and what is masked is drawn anew in each step
    config = settings(epochs=3, micro_batch_size=8)
    run = {"corpus": [str(path) for path in paths], "config": config.to_dict(), "vocabulary": list(counts.var_names)}
    whole, out = tmp_path / "whole", tmp_path / "model"
    assert forks.wait(forks.start(out=str(whole), **run)) == 0
    pid = forks.start(out=str(out), **run)
    states, end = out / "training" / "states", time.monotonic() + 300
    while not any(state.stem >= "round-000002" for state in states.glob("round-*.pt")):
        assert time.monotonic() < end
        assert not (out / "config.json").exists(), "the run ended before it could be killed"
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    assert forks.wait(pid) == -signal.SIGKILL
    assert not (out / "config.json").exists()
    begun = (out / "training" / "history.csv").read_text()
    # in new processes all of them, as runs go on
    assert forks.wait(forks.start(out=str(out), **run)) == 0
    history = (out / "training" / "history.csv").read_text()
    assert history.startswith(begun)
    assert history == (whole / "training" / "history.csv").read_text()
    assert same(bf.models.load_geneformer(out), bf.models.load_geneformer(whole))
    with caplog.at_level(logging.INFO):
        # finished, it is loaded and not trained again
        finished = bf.train.pretrain(paths, config, out=out, vocabulary=counts.var_names)
        assert same(finished, bf.models.load_geneformer(whole))
    assert "is finished" in caplog.text
    medians = dict(zip(counts.var_names, np.linspace(1, 2, G), strict=True))
    with pytest.raises(ValueError, match="another medians"):
        bf.train.pretrain(paths, config, out=out, vocabulary=medians)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "logs"}, r"layers\['logs'\]: row 0 is fractional and at most .* as logarithms are, not counts"),
        ({"layer": "negative"}, "row 3 holds negative values"),
        ({"layer": "scaled"}, "row 0 is fractional and sums to a million, as TPM and CPM do"),
        ({"layer": "empty"}, "row 4 holds no count of any gene that can be ranked; drop such samples"),
        ({"graph": (np.zeros((2, 1), int), np.ones(1))}, "a 'geneformer' has no gene graph; leave graph= out"),
        ({"vocabulary": None}, r"needs vocabulary= \(its genes\); to go on"),
        ({"config": {"network": {"dim": 3}}}, r"unknown fields \['dim'\]; a 'geneformer' has \['version'"),
        ({"config": {"network": {"version": "V3"}}}, r"version must be one of \['V1', 'V2'\], found 'V3'"),
        ({"config": {"network": {"num_hidden_layers": 1}}}, "num_hidden_layers=1: vectors come from the layer before"),
        ({"config": {"network": {"hidden_size": 10}}}, "hidden_size=10 is not a multiple of num_attention_heads=4"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(counts, tmp_path, change, message):
    adata = counts.copy()
    adata.layers["negative"] = adata.X - 1e9 * (np.arange(200) == 3)[:, None]
    adata.layers["logs"] = np.log1p(adata.X)
    adata.layers["scaled"] = adata.X / adata.X.sum(axis=1, keepdims=True) * 1e6
    adata.layers["empty"] = np.where((np.arange(200) == 4)[:, None], 0, adata.X)
    source = bf.train.Source(adata, study="batch", name="x", layer=change.get("layer"))
    given = {"vocabulary": counts.var_names} | {key: change[key] for key in ("graph", "vocabulary") if key in change}
    with pytest.raises(ValueError, match=message):
        bf.train.pretrain(source, settings(**change.get("config", {})), out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_most_genes_need_a_median(counts, tmp_path):
    wide = [*counts.var_names, *(f"ENSG9{i:010d}" for i in range(2 * G))]
    with pytest.raises(ValueError, match="only 30 of the 90 genes that have a token have a median"):
        train(counts, tmp_path / "run", vocabulary=wide)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "mse"}, r"must be one of \['masked_genes'\] for the family 'geneformer'"),
        ({"masking": bf.train.Masking(kinds={"balanced": 1.0})}, "'balanced' hide zeros, and a gene without counts"),
        ({"binning": {"rna": {}}}, "binning and external are of the family 'bioformer'"),
    ],
)
def test_configurations_that_do_not_exist_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        bf.train.PretrainConfig(family="geneformer", **changes)


def test_what_is_hidden_unless_it_is_said():
    assert bf.train.PretrainConfig(family="geneformer").masking == bf.train.Masking(0.15)
    assert bf.train.PretrainConfig(family="g2").masking == bf.train.Masking()


def test_models_that_cannot_be_trained(counts, tmp_path):
    model = train(counts, tmp_path / "first")
    with pytest.raises(ValueError, match=r"the sizes of the network are that of .* leave network="):
        train(counts, tmp_path / "second", start=model, vocabulary=None)
    bare = settings(network={})
    model.provenance["quantize"] = "8bit"
    with pytest.raises(ValueError, match="was loaded in 8bit; load it without quantize= to train it"):
        train(counts, tmp_path / "second", bare, start=model, vocabulary=None)
    model.provenance["quantize"] = ""
    known = model.dictionary
    numbered = {name.replace("<mask>", "<other>"): token for name, token in known.numbered.items()}
    medians = dict(zip(known.ids, known.medians, strict=True))
    model.dictionary = RankVocabulary.of(medians, numbered)
    with pytest.raises(ValueError, match="hold no <mask> to train with"):
        train(counts, tmp_path / "second", bare, start=model, vocabulary=None)


def test_transformers_are_asked_for(counts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"bulkformer-tl\[geneformer\]"):
        train(counts, tmp_path / "run")
    assert not (tmp_path / "run").exists()
