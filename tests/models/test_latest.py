"""Third generation against the reference."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bulkformer_tl import models
from bulkformer_tl.models._latest import LatestConfig, LatestNetwork

TOLERANCE = 2e-5
BOTH = pytest.mark.parametrize("which", ["direct", "pipeline"])


@pytest.fixture
def model(golden):
    return models.load(golden / "bulkformer_latest" / "bundle", device="cpu")


@pytest.fixture
def expected(golden):
    return load_file(golden / "bulkformer_latest" / "expected.safetensors")


def largest(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


def keep(seen, name, _module, _inputs, output):
    # a hook that returns something would replace the output
    seen[name] = output


def as_missing(x):
    return x.masked_fill(x == -10, torch.nan)


@BOTH
def test_outputs_equal_the_reference(model, expected, which):
    out = model.encode(as_missing(expected[f"{which}.input"]), outputs=("pooled", "genes", "expression"))
    assert largest(out.genes, expected[f"{which}.gene_level_all"]) <= TOLERANCE
    assert largest(out.expression, expected[f"{which}.expr_level"]) <= TOLERANCE
    assert largest(out.pooled, expected[f"{which}.sample_level"]) <= TOLERANCE
    assert (out.expression < 0).any(), "the head is unconstrained"


@BOTH
def test_selected_genes_equal_the_reference(model, expected, which):
    x, genes = as_missing(expected[f"{which}.input"]), expected["interested_gene_idx"]
    found = model.encode(x, outputs=("genes",), genes=genes).genes
    assert largest(found, expected[f"{which}.gene_level_selected"]) <= TOLERANCE
    rows = expected[f"{which}.rows_with_visible_subset"]
    pooled = model.encode(x[rows], pool_genes=genes).pooled
    assert largest(pooled, expected[f"{which}.sample_level_subset"]) <= TOLERANCE


@BOTH
def test_rows_without_a_visible_gene_in_the_subset_are_refused(model, expected, which):
    x, genes = as_missing(expected[f"{which}.input"]), expected["interested_gene_idx"]
    refused = sorted(set(range(len(x))) - set(expected[f"{which}.rows_with_visible_subset"].tolist()))
    assert refused
    with pytest.raises(ValueError, match=f"none of the genes to pool over was observed in row {refused[0]}"):
        model.encode(x, pool_genes=genes)


@BOTH
def test_intermediates_equal_the_reference(model, expected, which):
    network, x = model.network, expected[f"{which}.input"]
    observed, seen = x != -10, {}
    convolution = []
    network.graph_block.convolution.register_forward_hook(lambda _m, _i, out: convolution.append(out))
    stages = {
        "after_graph_block": network.graph_block,
        "after_pre_performer_norm": network.pre_performer_norm,
        "after_performer": network.performer,
        "after_input_norm": network.input_norm,
    }
    for name, module in stages.items():
        module.register_forward_hook(partial(keep, seen, name))
    with torch.inference_mode():
        network(x, observed)
        seen["gene_tokens"] = network.gene_table()
        seen["expression_tokens_unscaled"] = network.value_encoding(x, observed) * 2**0.5
    seen["gcn_output"] = torch.stack(convolution)
    for name, found in seen.items():
        assert (
            largest(found if name == "gene_tokens" else found[:2], expected[f"{which}.first2.{name}"]) <= TOLERANCE
        ), name
    assert largest(observed.float().mean(dim=1), expected[f"{which}.input_visible_fraction"]) <= 1e-6
    assert largest(network.visible_scale(observed), expected[f"{which}.mask_ratio_scale"]) <= 1e-6


def test_scale_can_be_switched_off():
    network = LatestNetwork(
        LatestConfig(6, 8, 1, 2, 4, nb_features=4, graph_hidden_dim=2, mask_ratio_scaling_enabled=False)
    )
    observed = torch.tensor([[True, False, False, False, False, False]])
    assert network.visible_scale(observed).tolist() == [1.0]


def test_pooling_by_mean_counts_measured_zeros(model):
    x = np.full((1, 96), np.nan, dtype=np.float32)
    x[0, :4], x[0, 2] = 0.0, 3.0
    out = model.encode(x, outputs=("pooled", "genes"))
    assert torch.allclose(out.pooled, out.genes[:, :4].mean(dim=1), atol=1e-6)
    everything = model.encode(x, observed_only=False).pooled
    assert torch.allclose(everything, out.genes.mean(dim=1), atol=1e-6)


def test_gene_table_has_unit_root_mean_square(model):
    size = model.gene_table().square().mean(dim=1)
    assert torch.allclose(size, torch.ones(96), atol=1e-5)


def test_published_size():
    def count(depth):
        with torch.device("meta"):
            network = LatestNetwork(LatestConfig(19973, depth=depth))
        state = network.state_dict()
        return sum(p.numel() for p in network.parameters()), len(state) + sum(".net." in key for key in state)

    one, two = count(1), count(2)
    assert [a + 11 * (b - a) for a, b in zip(one, two, strict=True)] == [101_323_778, 427]
