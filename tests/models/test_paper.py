"""Second generation against the reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from bulkformer_tl.models._paper import PaperConfig, PaperNetwork

GENES, PREDICTED = 1e-5, 5e-5


def largest(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


def keep(seen, name, _module, _inputs, output):
    # a hook that returns something would replace the output
    seen[name] = output


def as_missing(x):
    return x.masked_fill(x == -10, torch.nan)


@pytest.mark.parametrize("letter", ["a", "b"])
@pytest.mark.parametrize("suffix", ["", "_nomaskprob"])
def test_gene_vectors_and_predictions_equal_the_reference(paper, letter, suffix):
    _, io = paper(letter)
    model, _ = paper(letter, mask_prob=0.0 if suffix else float(io["mask_prob"]))
    out = model.encode(as_missing(io["x"]), outputs=("genes", "expression"), summary_columns=True)
    assert largest(out.genes, io[f"gene_emb{suffix}"]) <= GENES
    assert largest(out.expression, io[f"pred{suffix}"]) <= PREDICTED
    assert (out.expression < 0).any(), "mean-corrected predictions of missing genes may be negative"


@pytest.mark.parametrize("letter", ["a", "b"])
def test_double_precision_equals_the_reference_in_double_precision(paper, letter):
    _, io = paper(letter)
    model, _ = paper(letter, mask_prob=float(io["mask_prob"]))
    network, x = model.network.double(), io["x"].double()
    observed = x != -10
    with torch.inference_mode():
        hidden = network(x, observed)
        predicted = network.predict(hidden, x, observed)
    # the scalar mask_prob and the normalised graph are float32 in this network
    assert largest(hidden, io["gene_emb_f64"][..., :-3]) <= 2e-6
    assert largest(predicted, io["pred_f64"]) <= 2e-5


@pytest.mark.parametrize("letter", ["a", "b"])
def test_intermediates_equal_the_reference(paper, letter):
    model, io = paper(letter)
    # the fixtures hold them for the last sample
    network, x = model.network, io["x"][-1:]
    block, seen = network.gb_formers[0], {}
    stages = {
        "act_gcn_in": block.layernorm,
        "act_gcn_out": block.g,
        "act_attn0_out": block.f[0].net.layers[0][0],
        "act_performer0_out": block.f[0],
    }
    for name, module in stages.items():
        module.register_forward_hook(partial(keep, seen, name))
    with torch.inference_mode():
        seen["act_tokens"] = network.tokens(x, x != -10)
        network(x, x != -10)
    assert len(seen) == 5
    for name, found in seen.items():
        assert largest(found.reshape(io[name].shape), io[name]) <= GENES, name


@pytest.mark.parametrize("letter", ["a", "b"])
@pytest.mark.parametrize("pooling", ["mean", "max", "median", "all"])
def test_pooled_vectors_equal_the_reference(paper, letter, pooling):
    _, io = paper(letter)
    model, _ = paper(letter, mask_prob=float(io["mask_prob"]))
    x = as_missing(io["x"])
    some = model.encode(x, pooling=pooling, pool_genes=io["gene_idx"], summary_columns=True)
    every = model.encode(x, pooling=pooling, summary_columns=True)
    assert largest(some.pooled, io[f"sample_{pooling}"]) <= GENES
    assert largest(every.pooled, io[f"sample_{pooling}_allgenes"]) <= GENES


def test_summaries_come_from_each_sample(paper):
    model, _ = paper("a")
    x = torch.zeros(2, 64)
    x[0, :16], x[0, 16:32] = torch.nan, 3.0
    x[1, :8] = 2.0
    found = model.encode(x, summary_columns=True).pooled[:, -3:]
    # missing share, mean of the observed, share that is not zero, where missing counts as not zero
    expected = torch.tensor([[0.25, 48.0 / 48, 0.5], [0.0, 16.0 / 64, 0.125]])
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_sample_without_observed_genes_is_not_corrected(paper):
    model, io = paper("a")
    nothing = torch.zeros(1, 64, dtype=torch.bool)
    with torch.inference_mode():
        hidden = model.network(io["x"][:1], nothing)
        predicted = model.network.predict(hidden, io["x"][:1], nothing)
    assert (predicted >= 0).all()


def test_transposed_graph_is_another_model(paper):
    model, io = paper("a")
    x = as_missing(io["x"])
    before = model.encode(x, outputs=("genes",)).genes
    model.network.set_graph(io["edge_index"].flip(0), io["edge_weight"])
    assert largest(before, model.encode(x, outputs=("genes",)).genes) > 1


# parameters and state-dict entries as counted in the published code; entries there hold each Performer tensor twice
SIZES = [
    ("37M", 128, 1, 13_368_647, 61),
    ("50M", 256, 2, 28_641_159, 96),
    ("93M", 512, 6, 75_921_159, 236),
    ("127M", 640, 8, 112_448_967, 306),
    ("147M", 640, 12, 132_143_047, 446),
]


@pytest.mark.parametrize(("name", "dim", "layers", "parameters", "entries"), SIZES)
def test_published_sizes(name, dim, layers, parameters, entries):
    def count(n):
        with torch.device("meta"):
            network = PaperNetwork(PaperConfig(20010, dim, 8, n))
        state = network.state_dict()
        doubled = sum(".net." in key for key in state)
        return sum(p.numel() for p in network.parameters()), len(state) + doubled

    one, two = (count(n) for n in (1, 2))
    total = [a + (layers - 1) * (b - a) for a, b in zip(one, two, strict=True)]
    assert total == [parameters, entries], name
