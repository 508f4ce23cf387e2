"""From a corpus to a model that predicts hidden genes of studies that it has not seen."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from scipy.stats import norm

import bulkformer_tl as bf
from bulkformer_tl._vocabulary import _EXACT
from bulkformer_tl.models._compiled import compiled
from bulkformer_tl.train import Optimizer, Source
from bulkformer_tl.train._network import as_graph

#: Long enough to learn something from a hundred samples.
LEARNING = {
    "epochs": 25,
    "batch_size": 10,
    "checkpoint_every": 50,
    "optimizer": Optimizer(learning_rate=1e-2, weight_decay=0.0),
}


def same(model, other):
    ours, theirs = model.network.state_dict(), other.network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def history(out):
    return pd.read_csv(out / "training" / "history.csv", **_EXACT)


@pytest.fixture(scope="module")
def given(vocabulary, graph):
    return {"vocabulary": vocabulary, "graph": graph}


@pytest.fixture(scope="module")
def sources(studies):
    return [Source(study, name=name) for name, study in studies.items()]


@pytest.fixture(scope="module")
def short(sources, config, given, tmp_path_factory):
    """A tiny run of the third generation, 12 rounds."""
    out = tmp_path_factory.mktemp("short") / "tiny"
    return bf.train.pretrain(sources, config(), out=out, **given), out


@pytest.mark.parametrize("family", ["g2", "g3"])
def test_beats_the_gene_means_on_left_out_studies(family, sources, config, given, tmp_path):
    settled = config(family, **LEARNING)
    model = bf.train.pretrain(sources, settled, out=tmp_path / "model", **given)
    table = history(tmp_path / "model")
    assert table["validation_loss"].min() < 0.85 * table["baseline_loss"].iloc[0]
    assert table["training_loss"].iloc[-1] < 0.5 * table["training_loss"].iloc[1]
    assert model.family == family


def test_bundle_is_what_was_trained(short, vocabulary):
    model, out = short
    loaded = bf.models.load(out)
    assert same(loaded, model)
    assert (loaded.name, loaded.family, loaded.denominator) == ("tiny", "g3", "vocabulary")
    assert loaded.trained_missing == (0.05, 0.15)
    assert loaded.vocabulary.checksum == vocabulary.checksum
    assert np.isfinite(loaded.vocabulary.means).all()
    training = loaded.provenance["training"]
    assert training["left_out_studies"] == ["batch_6"]
    assert bf.train.PretrainConfig.from_dict(training["config"]).epochs == 4.8
    assert training["validation_loss"] == history(out)["validation_loss"].min()
    assert not (out / "training" / "states").exists()
    assert list((out / "training" / "logs").iterdir())


@pytest.mark.parametrize(("family", "receivers"), [("g2", 0), ("g3", 1)])
def test_graph_is_read_with_receivers_first(family, receivers, graph, tmp_path):
    """Whatever order of rows the family's own files have."""
    edges, weights = graph
    save_file({"edge_index": edges, "edge_weight": weights}, tmp_path / "graph.safetensors")
    for given in (graph, tmp_path / "graph.safetensors", str(tmp_path / "graph.safetensors")):
        ours, found = as_graph(given, family, 60)
        np.testing.assert_array_equal(ours[receivers], edges[0])
        np.testing.assert_array_equal(found, weights)
    save_file({"weights": weights}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="should hold the tensors edge_index and edge_weight"):
        as_graph(tmp_path / "other.safetensors", family, 60)
    with pytest.raises(FileNotFoundError, match="the gene graph is not at"):
        as_graph(tmp_path / "absent.safetensors", family, 60)


def test_history(short):
    _, out = short
    table = history(out)
    assert table["step"].tolist() == list(range(0, 61, 5))
    assert table["samples"].tolist() == list(range(0, 481, 40))
    assert (table["baseline_loss"] == table["baseline_loss"].iloc[0]).all()
    assert table.drop(columns="training_loss").notna().all().all()
    assert table["validation_loss"].iloc[-1] < table["validation_loss"].iloc[0]


def test_model_is_used_like_any_other(short, studies):
    model, _ = short
    adata = studies["batch_3"].copy()
    bf.tl.embed(adata, model=model)
    assert adata.obsm["X_bulkformer"].shape == (20, 16)


def test_files_and_workers_change_nothing(short, files, config, given, tmp_path):
    model, out = short
    again = bf.train.pretrain(files[::-1], config(), out=tmp_path / "tiny", workers=1, **given)
    assert same(again, model)
    pd.testing.assert_frame_equal(history(tmp_path / "tiny"), history(out), check_exact=True)


@pytest.mark.parametrize("objective", ["mse", "gaussian_nll"])
def test_fast_pass_changes_only_the_order_of_sums(objective, sources, config, given, tmp_path):
    """No dropout in this configuration, whose draws the two ways take in another order."""
    for name, fast in (("fast", True), ("plain", False)):
        settled = config(epochs=0.8, objective=objective, fast=fast)
        bf.train.pretrain(sources, settled, out=tmp_path / name, **given)
    pd.testing.assert_frame_equal(history(tmp_path / "fast"), history(tmp_path / "plain"), rtol=1e-4)


def test_mean_correction_is_left_out_if_told_and_then_for_good(sources, config, given, tmp_path):
    settled = config("g2", epochs=0.1)

    def train(name, network, **arguments):
        model = bf.train.pretrain(sources, replace(settled, network=network), out=tmp_path / name, **arguments)
        return model.config.mean_correction

    assert train("new", settled.network, **given)
    assert not train("faster", {**settled.network, "mean_correction": False}, **given)
    assert not train("adapted", {}, start=tmp_path / "faster")


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch, caplog):
    def no_compiler(*_):
        message = "no compiler here"
        raise RuntimeError(message)

    monkeypatch.setattr("torch._dynamo.lookup_backend", lambda _: no_compiler)
    doubled = torch.compile(lambda x: 2 * x, backend=compiled)
    assert doubled(torch.ones(2)).tolist() == [2, 2]
    assert "torch cannot compile the network, which runs as it is: no compiler here" in caplog.text


def test_micro_batches_change_little(sources, config, given, tmp_path):
    """No dropout in this configuration, so that only the order of sums differs."""
    for name, size in (("two", 2), ("eight", 8)):
        bf.train.pretrain(sources, config(epochs=0.8, micro_batch_size=size), out=tmp_path / name, **given)
    pd.testing.assert_frame_equal(history(tmp_path / "two"), history(tmp_path / "eight"), rtol=1e-4)


def test_finished_run_is_loaded(short, sources, config, given, caplog):
    model, out = short
    before = (out / "manifest.json").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        again = bf.train.pretrain(sources, config(), out=out, **given)
    assert "is finished; its model is loaded" in caplog.text
    assert same(again, model)
    assert (out / "manifest.json").stat().st_mtime_ns == before


def test_goes_on_from_a_checkpoint(short, sources, config, tmp_path):
    _, out = short
    settled = config(network={}, epochs=0.4, optimizer=Optimizer(learning_rate=1e-4))
    bf.train.pretrain(sources, settled, out=tmp_path / "more", start=out)
    table = history(tmp_path / "more")
    # the weights that it starts from are scored, with masks and studies of its own
    assert table["validation_loss"].iloc[0] == pytest.approx(history(out)["validation_loss"].min(), rel=1e-5)
    assert bf.models.load(tmp_path / "more").provenance["training"]["start"] == "tiny"


def test_learned_deviation_is_calibrated(sources, config, given, studies, tmp_path):
    settled = config(objective="gaussian_nll", **LEARNING)
    model = bf.train.pretrain(sources, settled, out=tmp_path / "model", **given)
    table = history(tmp_path / "model")
    assert table["validation_loss"].min() < table["baseline_loss"].iloc[0]
    values = studies["batch_6"].X.copy()
    hidden = np.random.default_rng(0).random(values.shape) < 0.1
    encoded = model.encode(np.where(hidden, np.nan, values), outputs=("expression", "deviation"))
    deviation = encoded.deviation.numpy()[hidden]
    z = (values[hidden] - encoded.expression.numpy()[hidden]) / deviation
    assert deviation.std() > 0.05
    assert np.mean(np.abs(z) < norm.ppf(0.95)) == pytest.approx(0.9, abs=0.12)
    adata = studies["batch_6"].copy()
    adata.X[hidden] = np.nan
    bf.tl.impute(adata, model=model, blend=False)
    np.testing.assert_allclose(adata.layers["imputed_sd"][hidden], deviation, rtol=1e-4)


def test_early_stopping_keeps_the_best(sources, config, given, tmp_path, caplog):
    settled = config(optimizer=Optimizer(learning_rate=0.3, warmup=0.0), patience=2)
    with caplog.at_level(logging.INFO):
        bf.train.pretrain(sources, settled, out=tmp_path / "model", **given)
    table = history(tmp_path / "model")
    assert "training ends early" in caplog.text
    assert len(table) < 13
    best = bf.models.load(tmp_path / "model").provenance["training"]
    assert best["validation_loss"] == table["validation_loss"].min()
    assert table["validation_loss"].iloc[-3:].min() == table["validation_loss"].iloc[-3]


def test_infinite_loss_ends_the_run(sources, config, given, tmp_path, caplog):
    settled = config(optimizer=Optimizer(learning_rate=1e30, warmup=0.0))
    with pytest.raises(ValueError, match=r"gradient was not finite at step \d+.*lower optimizer\.learning_rate"):
        bf.train.pretrain(sources, settled, out=tmp_path / "model", **given)
    assert not (tmp_path / "model" / "config.json").exists()


def test_shared_batches(sources, config, given, tmp_path):
    with pytest.raises(ValueError, match="batch_size=8 cannot be shared evenly: 1 processes hold 3"):
        bf.train.pretrain(sources, config(micro_batch_size=3), out=tmp_path / "model", **given)
    assert not (tmp_path / "model").exists()


def test_other_folders_are_left_alone(short, sources, config, given, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no pretraining run and is left as it is"):
        bf.train.pretrain(sources, config(), out=tmp_path, **given)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    _, out = short
    with pytest.raises(ValueError, match=r"differs from this one \(epochs: 4.8 -> 9; seed: 0 -> 1\)"):
        bf.train.pretrain(sources, config(epochs=9, seed=1), out=out, **given)
    with pytest.raises(ValueError, match="another corpus"):
        bf.train.pretrain(sources[1:], config(), out=out, **given)


def test_parts_that_do_not_belong_together(short, sources, config, given, tmp_path):
    _, out = short
    cases = [
        (config(), {}, "needs vocabulary= .* and graph="),
        (config(network={}), {"start": out, **given}, "vocabulary and graph are those of tiny"),
        (config(), {"start": out}, "leave network=.* out"),
        (config("g2", network={}), {"start": out}, "family 'g3', the configuration of 'g2'"),
        (config(), {"start": "bulkformer-mini"}, "'mini'; only"),
        (config(network={"width": 3}), given, r"unknown fields \['width'\]"),
        (config("g2", network={}), given, "incomplete.*dim"),
        (config("g2", network={"dim": 10, "heads": 4}), given, "dim=10 is not a multiple of heads=4"),
        (config(), {**given, "graph": (np.array([[0], [99]]), np.ones(1))}, "names gene 99"),
        (config(), {**given, "strategy": "horovod"}, "strategy must be one of"),
        (config(), {**given, "devices": 0}, "devices must be a whole number from 1"),
    ]
    for settled, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            bf.train.pretrain(sources, settled, out=tmp_path / "model", **arguments)
        assert not (tmp_path / "model").exists()


def test_lightning_is_asked_for(sources, config, given, tmp_path, monkeypatch):
    monkeypatch.setattr("bulkformer_tl._optional.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'pretraining needs lightning: pip install "bulkformer-tl\[train\]"'):
        bf.train.pretrain(sources, config(), out=tmp_path / "model", **given)
