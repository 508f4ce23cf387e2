"""The model class: invariance, selections, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bulkformer_tl import models, settings
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models._bulkformer import state_checksum
from bulkformer_tl.models._families import FAMILIES, PUBLISHED, family_classes, make_config
from bulkformer_tl.registry import info

OUTPUTS = ("pooled", "genes", "expression")


@pytest.mark.parametrize("n_genes", [64, 300])
def test_bit_equal_over_batches_and_order(paper, n_genes):
    # rows of 64 values start at aligned addresses, those of 300 do not
    model, _ = paper("a" if n_genes == 64 else "b")
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 9, (5, n_genes)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    together = model.encode(values, outputs=OUTPUTS)
    order = [3, 0, 4, 2, 1]
    shuffled = model.encode(values[order], outputs=OUTPUTS, batch_size=2)
    single = [model.encode(values[[row]], outputs=OUTPUTS) for row in range(5)]
    for name in OUTPUTS:
        whole = getattr(together, name)
        assert torch.equal(whole[order], getattr(shuffled, name)), name
        assert torch.equal(whole, torch.cat([getattr(part, name) for part in single])), name


def test_batches_off_the_cpu_agree(paper, values, monkeypatch):
    model, _ = paper("a")
    alone = model.encode(values, outputs=OUTPUTS)
    model.engine = models.EngineOptions(reference=True)
    # no accelerator is needed to run the code path that one takes
    sizes = []
    forward = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda x, o: (sizes.append(len(x)), forward(x, o))[1])
    monkeypatch.setattr("bulkformer_tl.models._bulkformer.samples_at_once", lambda *_: 3)
    batched = model.encode(values, outputs=OUTPUTS)
    assert sizes == [3, 2]
    for name in OUTPUTS:
        assert float((getattr(alone, name) - getattr(batched, name)).abs().max()) <= 2e-5, name


def test_samples_do_not_see_each_other(paper, values):
    model, _ = paper("a")
    before = model.encode(values, outputs=OUTPUTS)
    changed = values.copy()
    changed[2] = np.nan
    changed[2, 0] = 1.0
    after = model.encode(changed, outputs=OUTPUTS)
    others = [0, 1, 3, 4]
    for name in OUTPUTS:
        assert torch.equal(getattr(before, name)[others], getattr(after, name)[others]), name
        assert getattr(after, name).isfinite().all(), name


def test_only_what_was_asked_for_is_kept(paper, values):
    model, _ = paper("a")
    out = model.encode(values)
    assert out.pooled.shape == (5, 32)
    assert out.genes is None
    assert out.expression is None
    assert out.deviation is None
    wide = model.encode(torch.from_numpy(values).double(), outputs=OUTPUTS, genes=[9, 2], summary_columns=True)
    assert (wide.pooled.shape, wide.genes.shape, wide.expression.shape) == ((5, 35), (5, 2, 35), (5, 64))
    for name in OUTPUTS:
        assert getattr(wide, name).dtype == torch.float32
        assert getattr(wide, name).device.type == "cpu"


def test_selected_genes_come_in_the_order_asked_for(paper, values):
    model, _ = paper("a")
    every = model.encode(values, outputs=("genes",)).genes
    some = model.encode(values, outputs=("genes",), genes=np.array([9, 2, 40])).genes
    assert float((some - every[:, [9, 2, 40]]).abs().max()) <= 2e-6


def test_observed_only_pools_over_observed_genes(paper, values):
    model, _ = paper("a")
    out = model.encode(values, outputs=("pooled", "genes"), observed_only=True, pool_genes=range(10))
    for row, vectors in enumerate(out.genes):
        seen = np.flatnonzero(~np.isnan(values[row, :10]))
        assert torch.allclose(out.pooled[row], vectors[seen].mean(dim=0), atol=1e-6)


def test_results_can_be_trained_on(paper, values):
    model, _ = paper("a")
    layer = torch.nn.Linear(32, 1)
    layer(model.encode(values).pooled).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_progress_is_told_of_each_sample(paper, values):
    model, _ = paper("a")
    seen = []
    model.encode(values, progress=seen.append)
    assert seen == [1] * 5


def test_values_are_left_alone(paper, values):
    model, _ = paper("a")
    before = values.copy()
    model.encode(values, outputs=OUTPUTS)
    assert np.array_equal(before, values, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genes": [1, 1]}, r"genes lists the positions \[1\] more than once"),
        ({"genes": [-1, 3]}, r"genes has the positions \[-1\]; those of .* run from 0 to 63"),
        ({"genes": [64]}, r"genes has the positions \[64\]"),
        ({"genes": [0.5]}, "genes must be a list of positions in model.vocabulary, found float64"),
        ({"genes": np.ones(64, dtype=bool)}, "genes must be a list of positions in model.vocabulary, found bool"),
        ({"genes": []}, r"genes must be a list of positions in model.vocabulary, found float64 of shape \(0,\)"),
        ({"pool_genes": [2, 2]}, "pool_genes lists the positions"),
        ({"pool_genes": [64]}, "pool_genes has the positions"),
        ({"outputs": ("deviation",)}, r"outputs must be a list of some of \['pooled', 'genes', 'expression'\]"),
        ({"outputs": "pooled"}, "outputs must be a list"),
        ({"outputs": ()}, "outputs must be a list"),
        ({"pooling": "sum"}, "pooling must be one of .*'all'.*, found 'sum'"),
        ({"protein": True}, "has no protein table; pass one to bf.models.load"),
    ],
)
def test_refused_requests(paper, values, change, message):
    model, _ = paper("a")
    with pytest.raises(ValueError, match=message):
        model.encode(values, **change)


def test_summary_columns_only_where_there_are_any(golden):
    model = models.load(golden / "bulkformer_latest" / "bundle")
    with pytest.raises(ValueError, match="has no summary columns, only the second generation has"):
        model.encode(np.ones((1, 96), dtype=np.float32), summary_columns=True)


def altered(values, row, gene, value):
    changed = values.copy()
    changed[row, gene] = value
    return changed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x[:, :60], r"values have shape \(5, 60\); .* needs \(N, 64\)"),
        (lambda x: x[0], r"values have shape \(64,\)"),
        (lambda x: x[:0], "values hold no sample"),
        (lambda x: altered(x, 3, 7, -10), "row 3 holds -10 for ENSG00000000007; .* a missing value is NaN"),
        (lambda x: altered(x, 2, 5, np.inf), "row 2 holds inf for ENSG00000000005"),
        (lambda x: altered(x, 1, 4, 250.0), "row 1 holds 250 for ENSG00000000004; .* bf.pp.diagnose"),
        (lambda x: altered(x, 4, slice(None), np.nan), r"no gene of .* was observed in row 4 \(1 such rows of 5\)"),
    ],
)
def test_refused_values(paper, values, make, message):
    model, _ = paper("a")
    with pytest.raises(ValueError, match=message):
        model.encode(make(values))


def test_counts_are_refused(paper):
    model, _ = paper("a")
    with pytest.raises(TypeError, match=r"found torch.int64; call bf.pp.log_tpm on counts first"):
        model.encode(np.ones((2, 64), dtype=np.int64))


def test_no_gene_to_pool_over(paper, values):
    model, _ = paper("a")
    changed = altered(values, 1, slice(0, 4), np.nan)
    with pytest.raises(ValueError, match="none of the genes to pool over was observed in row 1"):
        model.encode(changed, pool_genes=[0, 1, 2, 3], observed_only=True)
    assert model.encode(changed, pool_genes=[0, 1, 2, 3], observed_only=False).pooled.shape == (5, 32)


def test_a_networks_own_rule(paper, values):
    model, _ = paper("a")
    model.default_pooling = "first"
    model.network.sample_vector = lambda x, observed: x[:, :2]
    out = model.encode(values, outputs=("pooled", "genes"))
    assert torch.equal(out.pooled, torch.as_tensor(values)[:, :2].nan_to_num())
    assert torch.equal(model.encode(values).pooled, out.pooled)
    assert not torch.equal(model.encode(values, pooling="mean").pooled, out.pooled)
    with pytest.raises(ValueError, match=r"pooling='first' .* is not a summary of gene vectors"):
        model.encode(values, pool_genes=[1])


def test_deviation_where_the_network_has_one(paper, values):
    model, _ = paper("a")
    model.network.deviation = lambda hidden, x, observed: hidden[..., 0].abs()
    assert model.encode(values, outputs=("deviation",)).deviation.shape == (5, 64)


def test_gene_table_is_a_copy(paper):
    model, _ = paper("a")
    table = model.gene_table()
    assert table.shape == (64, 32)
    table.zero_()
    assert model.gene_table().abs().sum() > 0


def test_protein_table_needs_a_row_per_gene(paper):
    model, _ = paper("a")
    with pytest.raises(ValueError, match=r"\(65, 3\); it needs one floating row for each of the 64 genes"):
        model.set_protein(torch.ones(65, 3))


def test_facts_of_a_model(paper):
    model, _ = paper("a")
    assert (model.width, model.n_summary, model.input_unit, model.denominator) == (32, 3, "log_tpm", "all")
    assert model.trained_missing == (0.15, 0.15)
    assert "config_a" in repr(model)


def test_vocabulary_with_an_extra_row_is_refused(paper):
    model, io = paper("a")
    ids = np.array([f"ENSG{i:011d}" for i in range(65)])
    with pytest.raises(ValueError, match="lists 65 genes, but the network has 64; they do not belong together"):
        models.BulkFormer(
            model.network,
            GeneVocabulary(ids),
            graph=(io["edge_index"], io["edge_weight"]),
            name="x",
            family="g2",
            denominator="all",
        )


def test_checksum_of_a_network_without_a_file(paper):
    model, io = paper("a")
    graph = (io["edge_index"], io["edge_weight"])
    made = models.BulkFormer(model.network, model.vocabulary, graph=graph, name="x", family="g2", denominator="all")
    assert made.checksum == state_checksum(model.network)
    with torch.no_grad():
        model.network.layernorm.bias[0] += 1
    assert made.checksum != state_checksum(model.network)


def test_device_comes_from_the_settings(paper):
    model, _ = paper("a")
    with settings.override(device="cpu"):
        assert model.to(None).device.type == "cpu"


@pytest.mark.parametrize("family", ["g1", "g2", "g3"])
def test_families_are_complete_and_agree_with_the_registry(family):
    config, network = family_classes(family)
    assert dataclasses.is_dataclass(config)
    assert issubclass(network, torch.nn.Module)
    name = {"g1": "bulkformer-preprint", "g2": "bulkformer-147M", "g3": "bulkformer-latest"}[family]
    assert (info(name).pooling, info(name).denominator) == (
        PUBLISHED[family]["default_pooling"],
        PUBLISHED[family]["denominator"],
    )
    assert family in FAMILIES


def test_unknown_family_and_configuration():
    with pytest.raises(ValueError, match="there is no family 'g9'"):
        family_classes("g9")
    with pytest.raises(ValueError, match=r"unknown fields \['depth'\]"):
        make_config("g2", {"n_genes": 3, "dim": 4, "depth": 2})
    with pytest.raises(ValueError, match=r"'g2' network is incomplete: .*'dim'"):
        make_config("g2", {"n_genes": 3})
