"""First generation against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bulkformer_tl import models

TOLERANCE = 2e-5


@pytest.fixture
def model(preprint_files, golden):
    table = golden / "bulkformer_preprint" / "esm2_table.pt"
    return models.load(**preprint_files, protein=table, device="cpu")


@pytest.fixture
def expected(golden):
    return load_file(golden / "bulkformer_preprint" / "expected.safetensors")


def largest(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


def usable(expected, which):
    """Rows with an observed gene, as NaN-marked values; encode refuses the others."""
    x = expected[f"{which}.input"]
    rows = (x != -10).any(dim=1)
    return x.masked_fill(x == -10, torch.nan)[rows], rows


@pytest.mark.parametrize("which", ["direct", "pipeline"])
def test_hidden_states_and_predictions_equal_the_reference(model, expected, which):
    x = expected[f"{which}.input"]
    observed = x != -10
    with torch.inference_mode():
        for block in range(3):
            found = model.network(x, observed, block=block)
            assert largest(found, expected[f"{which}.hidden_repr_layer_{block}"]) <= TOLERANCE, block
        hidden = model.network(x, observed)
        predicted = model.network.predict(hidden, x, observed)
    assert torch.equal(hidden, found)
    assert largest(predicted, expected[f"{which}.predicted_expression"]) <= TOLERANCE
    assert (predicted == 0).any()


@pytest.mark.parametrize("which", ["direct", "pipeline"])
def test_intermediates_equal_the_reference(model, expected, which):
    network, x = model.network, expected[f"{which}.input"][:2]
    observed = x != -10
    seen = []
    network.gb_formers[0].g.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    with torch.inference_mode():
        network(x, observed)
        found = {
            "after_x_proj": network.tokens(x, observed),
            "block0_gcn_output": torch.stack(seen),
            "expression_encoding": network.expr_emb(x, observed),
            "gene_projection": network.gene_emb_proj(network.gene_emb),
            "sample_projection": network.ae_enc(x),
        }
    for name, tensor in found.items():
        assert largest(tensor, expected[f"{which}.first2.{name}"]) <= TOLERANCE, name


@pytest.mark.parametrize("which", ["direct", "pipeline"])
@pytest.mark.parametrize("pooling", ["max", "mean", "median", "all"])
@pytest.mark.parametrize("subset", ["odd", "even"])
def test_pooled_vectors_equal_the_reference(model, expected, golden, which, pooling, subset):
    genes = np.load(golden / "bulkformer_preprint" / "subsets.npz")[f"high_var_{subset}"]
    x, rows = usable(expected, which)
    found = model.encode(x, pooling=pooling, pool_genes=genes, observed_only=False).pooled
    assert largest(found, expected[f"{which}.pooled_{pooling}_{subset}"][rows]) <= TOLERANCE


@pytest.mark.parametrize("which", ["direct", "pipeline"])
def test_gene_level_output_with_protein_embeddings(model, expected, which):
    x, rows = usable(expected, which)
    assert rows[:2].all()
    found = model.encode(x[:2], outputs=("genes",), genes=expected["valid_gene_idx"], protein=True).genes
    assert largest(found, expected[f"{which}.gene_level_esm2_concat"]) <= TOLERANCE


def test_published_rule_is_the_maximum_over_all_genes(model, expected):
    x, _ = usable(expected, "direct")
    out = model.encode(x, outputs=("pooled", "genes"))
    assert torch.equal(out.pooled, out.genes.amax(dim=1))


def test_unknown_block(model, expected):
    x = expected["direct.input"][:1]
    with pytest.raises(ValueError, match="block must lie between 0 and 2, found 3"):
        model.network(x, x != -10, block=3)


def test_gene_table_is_the_checkpoints_own(model, golden):
    handed_over = torch.load(golden / "bulkformer_preprint" / "esm2_table.pt", weights_only=True)
    assert model.gene_table().shape == handed_over.shape
    assert not torch.equal(model.gene_table(), handed_over)
    assert torch.equal(model.protein, handed_over)
