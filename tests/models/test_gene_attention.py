"""Attention of chosen genes, against the full matrix of the networks' own modules."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from bulkformer_tl import models
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models import Binning, BioFormer
from bulkformer_tl.models._bioformer import BioformerConfig, BioformerNetwork
from bulkformer_tl.models._gene_attention import ROWS, attention_reader, softmax_rows


def full_attention(model, values):
    """Weights of all heads, layer by layer, (H, G, G), by performer-pytorch's kernels, which the modules multiply."""
    from performer_pytorch.performer_pytorch import softmax_kernel

    found = []

    def look(module, given, output):
        q, k, v = given
        options = {"projection_matrix": module.projection_matrix, "device": q.device}
        a, b = softmax_kernel(q, is_query=True, **options), softmax_kernel(k, is_query=False, **options)
        weights = torch.einsum("nhqm,nhkm->nhqk", a, b)
        weights /= weights.sum(dim=-1, keepdim=True)
        # it is what the network mixes values by
        torch.testing.assert_close(weights @ v, output, atol=1e-5, rtol=1e-4)
        found.append(weights[0])

    modules = [m for m in model.network.modules() if type(m).__name__ == "FastAttention"]
    handles = [m.register_forward_hook(look) for m in modules]
    x = torch.from_numpy(values)[None]
    with torch.inference_mode():
        model.network(x.nan_to_num(0.0), ~x.isnan())
    for handle in handles:
        handle.remove()
    return found


@pytest.fixture
def performers(paper, preprint_files, golden):
    return {
        "paper": lambda: paper("a")[0],
        "preprint": lambda: models.load(**preprint_files, device="cpu"),
        "latest": lambda: models.load(golden / "bulkformer_latest" / "bundle", device="cpu"),
    }


@pytest.mark.parametrize("name", ["paper", "preprint", "latest"])
def test_performers_equal_the_full_matrix(performers, name):
    model = performers[name]()
    rng = np.random.default_rng(0)
    n = len(model.vocabulary)
    values = rng.uniform(0, 9, n).astype(np.float32)
    values[rng.random(n) < 0.2] = np.nan
    full = full_attention(model, values)
    reader = attention_reader(model)
    assert reader.n_layers == len(full)
    queries, keys = rng.permutation(n)[:17], rng.permutation(n)[:9]
    layers = list(range(reader.n_layers))[::-1]
    found = reader(values, {}, queries, keys, layers)
    for own, received, layer in zip(found.weights, found.received, layers, strict=True):
        mean = full[layer].mean(dim=0).numpy()
        np.testing.assert_allclose(own, mean[np.ix_(queries, keys)], rtol=2e-4)
        np.testing.assert_allclose(received, mean[queries].mean(axis=0), rtol=2e-4)
        assert received.sum() == pytest.approx(1, abs=1e-4)
    assert found.n_tokens == n
    np.testing.assert_array_equal(found.level, values)


def test_blocks_of_genes_and_single_layers_change_nothing(performers):
    model = performers["preprint"]()
    n = len(model.vocabulary)
    values = np.random.default_rng(1).uniform(0, 9, n).astype(np.float32)
    reader = attention_reader(model)
    genes = np.arange(n)
    whole = reader(values, {}, genes, genes, range(reader.n_layers))
    np.testing.assert_allclose(whole.weights.sum(axis=2), 1, atol=1e-4)
    # the same again, since a sample leaves nothing behind
    np.testing.assert_array_equal(reader(values, {}, genes, genes, [1]).weights[0], whole.weights[1])
    reader.engine.block = 16
    blocks = reader(values, {}, genes, genes, range(reader.n_layers))
    np.testing.assert_allclose(blocks.weights, whole.weights, rtol=1e-3)
    np.testing.assert_allclose(blocks.received, whole.received, rtol=1e-3)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_geneformer_equals_the_full_matrix(golden, tmp_path, version):
    pytest.importorskip("transformers")
    files = golden / "geneformer"
    for name in ("config.json", "model.safetensors"):
        shutil.copy(files / f"model_{version}" / name, tmp_path / name)
    shutil.copy(files / f"token_dictionary_{version}.json", tmp_path / "token_dictionary.json")
    for name in ("gene_median_dictionary.json", "ensembl_mapping_dictionary.json"):
        shutil.copy(files / name, tmp_path / name)
    model = models.load_geneformer(tmp_path, device="cpu")
    rng = np.random.default_rng(0)
    counts = (rng.poisson(3, len(model.vocabulary)) * (rng.random(len(model.vocabulary)) < 0.5)).astype(np.float32)
    reader = attention_reader(model)
    queries, keys = rng.permutation(len(counts)), rng.permutation(len(counts))[:30]
    found = reader(counts, {}, queries, keys, range(reader.n_layers))
    for layer in range(reader.n_layers):
        (full,) = model.attention(counts[None], layer=layer)
        mean = np.full((len(counts), len(counts)), np.nan, dtype=np.float32)
        has = full.genes >= 0
        mean[np.ix_(full.genes[has], full.genes[has])] = full.weights.mean(dim=0).numpy()[np.ix_(has, has)]
        np.testing.assert_allclose(found.weights[layer], mean[np.ix_(queries, keys)], atol=1e-6)
        weights = full.weights.mean(dim=0).numpy()[np.ix_(has, has)]
        np.testing.assert_allclose(found.received[layer][full.genes[has]], weights.mean(axis=0), atol=1e-6)
    assert found.n_tokens == len(full.genes)
    ranked = np.argsort(-found.level[full.genes[has]], kind="stable")
    np.testing.assert_array_equal(ranked, np.arange(has.sum()))


def bioformer(**changes):
    torch.manual_seed(0)
    vocabulary = GeneVocabulary(np.array([f"ENSG{i:011d}" for i in range(12)]), name="twelve")
    sizes = {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 32, "n_bins": 6} | changes
    network = BioformerNetwork(BioformerConfig(n_genes=12, **sizes, dropout=0.0))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    return BioFormer(network, vocabulary, name="tiny", family="bioformer", binnings={"rna": Binning(target_sum=50.0)})


def check_bins(model, offset):
    bins = np.random.default_rng(0).integers(0, model.config.n_bins, 12).astype(np.float32)
    bins[[2, 7]] = np.nan
    features = torch.from_numpy(np.flatnonzero(~np.isnan(bins)))
    genes = np.arange(12)
    reader = attention_reader(model)
    found = reader(bins, {}, genes, genes, range(reader.n_layers))
    tokens = {}
    for number, block in enumerate(model.network.blocks):
        block.register_forward_pre_hook(lambda _, given, number=number: tokens.__setitem__(number, given[0][0]))
    with torch.inference_mode():
        model.network(torch.from_numpy(bins)[features][None].long(), features=features)
        for number, block in enumerate(model.network.blocks):
            x, core = tokens[number], block.attention
            q, k = (part(x).view(len(x), core.heads, -1).transpose(0, 1) for part in (core.query, core.key))
            full = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=0).numpy()[offset:, offset:]
            np.testing.assert_allclose(found.weights[number][np.ix_(features, features)], full, atol=1e-6)
            np.testing.assert_allclose(found.received[number][features], full.mean(axis=0), atol=1e-6)
    assert np.isnan(found.weights[0][2]).all()
    assert np.isnan(found.received[0][7])
    assert found.n_tokens == 10 + offset
    np.testing.assert_array_equal(found.level, bins)


@pytest.mark.parametrize("decoder", [False, True])
def test_bioformer_equals_the_full_matrix(decoder):
    check_bins(bioformer(decoder=decoder), offset=1)


def test_published_bioformer_equals_the_full_matrix(golden):
    folder = golden / "bioformers"
    config = json.loads((folder / "model_config.json").read_text())
    assert config["n_genes"] == 12
    genes = GeneVocabulary(np.array([f"ENSG{i:011d}" for i in range(12)]), name="twelve")
    model = models.load_bioformers(
        folder / "model_weights.safetensors", genes=genes, heads=config["num_attention_heads"], device="cpu"
    )
    check_bins(model, offset=0)


def test_rows_go_in_parts():
    torch.manual_seed(0)
    tokens, query, key = torch.randn(ROWS + 40, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    rows = torch.randperm(len(tokens))
    with torch.inference_mode():
        found = softmax_rows(tokens, query, key, 2, rows)
        part = softmax_rows(tokens, query, key, 2, rows[-5:])
    torch.testing.assert_close(found[-5:], part)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(rows)))


def test_model_without_attention(paper):
    model, _ = paper("a")
    for block in model.network.gb_formers:
        block.f = torch.nn.ModuleList()
    with pytest.raises(ValueError, match="has no layer of attention; take edges from gene vectors"):
        attention_reader(model)


def test_other_precision_is_refused(paper):
    model, _ = paper("a")
    model.network.double()
    with pytest.raises(ValueError, match="is not in float32"):
        attention_reader(model)
