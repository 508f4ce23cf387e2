"""The engine against the networks' own modules."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bulkformer_tl import models, settings
from bulkformer_tl._vocabulary import GeneVocabulary
from bulkformer_tl.models import EngineOptions, _products, _stages
from bulkformer_tl.models._latest import LatestConfig, LatestNetwork
from bulkformer_tl.models._layers import performer
from bulkformer_tl.models._paper import PaperConfig, PaperNetwork
from bulkformer_tl.models._preprint import PreprintConfig, PreprintNetwork
from bulkformer_tl.models._random_features import SAFE, KeyValueSums, RandomFeatures

GENES = 101
REFERENCE = EngineOptions(reference=True)
VECTORS, POOLED, PREDICTED = 1e-5, 3e-6, 5e-5
OUTPUTS = ("pooled", "genes", "expression")
PAPER = {"dim": 16, "heads": 2, "n_performers": 2}
LATEST = {"dim": 16, "heads": 2, "graph_hidden_dim": 6}
NETWORKS = {
    "preprint": lambda n: PreprintNetwork(PreprintConfig(n, 16, protein_dim=8, heads=2, n_performers=2, n_blocks=2)),
    "paper": lambda n: PaperNetwork(PaperConfig(n, **PAPER, n_blocks=2)),
    "paper, uncorrected": lambda n: PaperNetwork(PaperConfig(n, **PAPER, mean_correction=False)),
    "paper, deviation": lambda n: PaperNetwork(PaperConfig(n, **PAPER, learned_deviation=True)),
    "latest": lambda n: LatestNetwork(LatestConfig(n, **LATEST, depth=2, dim_head=12, nb_features=10)),
    "latest, deviation": lambda n: LatestNetwork(LatestConfig(n, **LATEST, depth=1, learned_deviation=True)),
}
every = pytest.mark.parametrize("name", NETWORKS)


def wrap(network):
    """Draw weights that make every part of a network matter, and give it a graph and genes."""
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1 and "inv_freq" not in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
        elif "to_q" in name or "to_k" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    if hasattr(network, "head"):
        # a ReLU that ends below zero would say nothing
        torch.nn.init.constant_([part for part in network.head if hasattr(part, "bias")][-1].bias, 3.0)
    genes = network.config.n_genes
    edges, weights = torch.randint(0, genes, (2, 5 * genes)), torch.rand(5 * genes)
    ids = GeneVocabulary(np.array([f"ENSG{i:011d}" for i in range(genes)]))
    return models.BulkFormer(network, ids, graph=(edges, weights), name="drawn", family="any", denominator="all")


@pytest.fixture
def make():
    def make(name, genes=GENES):
        torch.manual_seed(4)
        return wrap(NETWORKS[name](genes))

    return make


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(3, GENES, generator=generator) * 9
    values[torch.rand(3, GENES, generator=generator) < 0.2] = 0.0
    missing = torch.rand(3, GENES, generator=generator) < torch.tensor([[0.0], [0.2], [0.9]])
    return values.masked_fill(missing, torch.nan)


def largest(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


def both(model, values, options=None, **request):
    """Return what the reference and the engine say."""
    model.engine = REFERENCE
    expected = model.encode(values, **request)
    model.engine = options or EngineOptions(block=32)
    return expected, model.encode(values, **request)


def agree(model, values, options=None, *, outputs=OUTPUTS, **request):
    expected, found = both(model, values, options, outputs=outputs, **request)
    for name, tolerance in (
        ("pooled", POOLED),
        ("genes", VECTORS),
        ("expression", PREDICTED),
        ("deviation", PREDICTED),
    ):
        if name not in outputs:
            assert getattr(found, name) is None
            continue
        a, b = getattr(expected, name), getattr(found, name)
        # the sum of three summaries carries the errors of three
        share = 3 if request.get("pooling") == "all" else 1
        assert largest(a, b) <= share * tolerance * max(1.0, float(a.abs().max())), name
    return found


@every
def test_every_output_equals_the_reference(make, samples, name):
    model = make(name)
    found = agree(model, samples, outputs=(*OUTPUTS, *(["deviation"] if hasattr(model.network, "deviation") else [])))
    assert float(found.expression.std()) > 0


@every
@pytest.mark.parametrize("pooling", ["mean", "max", "median", "all"])
@pytest.mark.parametrize("observed_only", [False, True])
def test_pooling_equals_the_reference(make, samples, name, pooling, observed_only):
    model = make(name)
    agree(model, samples, outputs=("pooled",), pooling=pooling, observed_only=observed_only)
    agree(model, samples[:2], outputs=("pooled",), pooling=pooling, observed_only=observed_only, pool_genes=range(40))


@every
def test_chosen_genes_equal_the_reference(make, samples, name):
    model = make(name)
    chosen = [77, 3, 40, 100, 0]
    agree(model, samples, outputs=("genes",), genes=chosen)
    agree(model, samples, outputs=("genes", "pooled"), genes=chosen, pool_genes=[2, 3, 4, 77], observed_only=False)
    agree(model, samples, genes=chosen)


def test_summary_columns_equal_the_reference(make, samples):
    model = make("paper")
    for pooling in ("mean", "all"):
        agree(model, samples, summary_columns=True, pooling=pooling)


@pytest.mark.parametrize("letter", ["a", "b"])
def test_golden_weights(paper, letter):
    model, io = paper(letter)
    x = io["x"].masked_fill(io["x"] == -10, torch.nan)
    for pooling in ("mean", "max", "median", "all"):
        agree(model, x, pooling=pooling)


@pytest.mark.parametrize("folder", ["bulkformer_preprint", "bulkformer_latest"])
def test_golden_weights_of_other_generations(golden, preprint_files, folder):
    latest = folder.endswith("latest")
    model = models.load(golden / folder / "bundle") if latest else models.load(**preprint_files)
    x = load_file(golden / folder / "expected.safetensors")["direct.input"]
    x = x[(x != -10).any(dim=1)]
    agree(model, x.masked_fill(x == -10, torch.nan), pooling="max")


def test_embedded_checkpoint():
    model = models.load("bulkformer-mini", device="cpu")
    generator = np.random.default_rng(0)
    x = np.maximum(model.vocabulary.means + generator.normal(size=(2, len(model.vocabulary))), 0).astype(np.float32)
    x[generator.random(x.shape) < 0.2] = np.nan
    agree(model, x, EngineOptions(), outputs=(*OUTPUTS, "deviation"), pooling="median")
    assert torch.equal(model.encode(x).pooled, both(model, x)[0].pooled)


@pytest.mark.parametrize("switch", ["requested_only", "packed", "unshifted"])
@pytest.mark.parametrize("name", ["paper", "latest"])
def test_each_switch_changes_nothing(make, samples, name, switch):
    model = make(name)
    agree(model, samples, EngineOptions(**{switch: False}), genes=[5, 1])
    agree(model, samples, EngineOptions(**{switch: False}), outputs=("genes",), genes=[5, 1])


@pytest.mark.parametrize("block", [1, 16, 33, 100, 101, 5000])
def test_any_block_gives_the_same_numbers(make, samples, block):
    agree(make("latest"), samples, EngineOptions(block=block))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_bit_equal_over_batches_and_order(make, samples, precision):
    model = make("paper")
    model.engine = EngineOptions(precision=precision)
    together = model.encode(samples, outputs=OUTPUTS)
    order = [2, 0, 1]
    shuffled = model.encode(samples[order], outputs=OUTPUTS, batch_size=2)
    for name in OUTPUTS:
        assert torch.equal(getattr(together, name)[order], getattr(shuffled, name)), name


@every
def test_bfloat16_stays_near(make, name):
    # the errors of single genes average out, and so would differences between samples that were mere noise
    model, generator = make(name, 1000), torch.Generator().manual_seed(2)
    programs = torch.randn(8, 3, generator=generator) @ torch.randn(3, 1000, generator=generator)
    values = (torch.rand(1000, generator=generator) * 8 + programs).clamp(0, 13)
    expected, found = both(model, values, EngineOptions(precision="bf16", block=32), outputs=OUTPUTS)
    differences = [(pooled - pooled.mean(dim=0)).flatten() for pooled in (expected.pooled, found.pooled)]
    assert float(torch.corrcoef(torch.stack(differences))[0, 1]) >= 0.9999
    assert 0 < largest(expected.genes, found.genes) < 0.1 * float(expected.genes.abs().max())


@pytest.mark.parametrize("name", ["paper", "latest", "preprint"])
def test_weights_of_eight_bits_stay_near(make, name):
    model, generator = make(name, 1000), torch.Generator().manual_seed(2)
    programs = torch.randn(4, 3, generator=generator) @ torch.randn(3, 1000, generator=generator)
    values = (torch.rand(1000, generator=generator) * 8 + programs).clamp(0, 13)
    expected, found = both(model, values, EngineOptions(precision="int8"), outputs=OUTPUTS)
    differences = [(pooled - pooled.mean(dim=0)).flatten() for pooled in (expected.pooled, found.pooled)]
    assert float(torch.corrcoef(torch.stack(differences))[0, 1]) >= 0.999
    assert 0 < largest(expected.genes, found.genes) < 0.2 * float(expected.genes.abs().max())


def test_precision_comes_from_the_settings_unless_the_model_says(make, samples):
    model = make("paper")
    exact = model.encode(samples).pooled
    with settings.override(precision="bf16"):
        assert model.options.precision == "bf16"
        assert 0 < largest(model.encode(samples).pooled, exact) < 0.05
        model.engine = EngineOptions()
        assert torch.equal(model.encode(samples).pooled, exact)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, r"precision must be one of \['float32', .*\], found 'int4'"),
        ({"block": 0}, "block must be a number of genes from 1, found 0"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        EngineOptions(**options)


def test_fp16_is_for_cuda(make, samples):
    model = make("paper")
    model.engine = EngineOptions(precision="fp16")
    with pytest.raises(ValueError, match="precision 'fp16' is for CUDA, and the model is on cpu; pass 'bf16'"):
        model.encode(samples)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_large_exponents_take_the_stabiliser(precision):
    torch.manual_seed(0)
    core = performer(16, heads=2, dim_head=8).net.layers[0][0].fn.fast_attention
    q, k, v = torch.randn(3, 2, 50, 8)
    # without a stabiliser these would overflow, and in the first block they would not
    k[:, 20:] *= 60
    q[:, 10:] *= 60
    features = RandomFeatures(core.projection_matrix, EngineOptions(precision=precision))
    assert features.longest * float(k.norm(dim=-1).max()) * features.scale > 88 > SAFE
    sums = KeyValueSums(features, 2, 8)
    for block in (slice(0, 20), slice(20, 50)):
        sums.add(k[:, block].to(features.dtype), v[:, block].to(features.dtype))
    sums.finish(torch.nn.Identity())
    found = torch.cat([sums.read(q[:, rows].to(features.dtype)) for rows in (slice(0, 10), slice(10, 50))], dim=2)
    assert largest(core(q[None], k[None], v[None])[0], (found + sums.common[..., None]).mT) < (
        1e-5 if precision == "float32" else 0.2
    )


def test_whatever_changes_the_network_is_seen(make, samples):
    model = make("paper")
    model.encode(samples)
    with torch.no_grad():
        model.network.gb_formers[0].f[0].net.layers[0][0].fn.to_v.weight.mul_(2)
    agree(model, samples)
    model.network.set_graph(model.graph[0].flip(0), model.graph[1])
    agree(model, samples)
    model.network.load_state_dict(make("paper").network.state_dict())
    agree(model, samples)


def test_networks_in_other_precisions_go_their_own_way(make, samples):
    model = make("latest")
    expected = model.encode(samples).pooled
    model.network.double()
    found, again = both(model, samples)
    assert torch.equal(found.pooled, again.pooled)
    assert 0 < largest(found.pooled, expected) <= POOLED


def test_models_can_be_copied_and_sent_to_workers(make, samples):
    model = make("paper")
    expected = model.encode(samples).pooled
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.encode(samples).pooled, expected)


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_too_little_memory_halves_the_block(make, samples, monkeypatch, caplog, error):
    model = make("paper")
    widen = _stages.Attention.spread

    def spread(self, found, rows, x):
        if len(x) > 30:
            raise error
        return widen(self, found, rows, x)

    monkeypatch.setattr(_stages.Attention, "spread", spread)
    agree(model, samples, EngineOptions(block=101))
    assert "out of memory; going on with blocks of 25 genes" in caplog.text
    monkeypatch.setattr(_stages.Attention, "spread", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(type(error), match=r"memory"):
        model.encode(samples)


def test_other_errors_are_not_taken_for_too_little_memory(make, samples, monkeypatch):
    model = make("paper")
    monkeypatch.setattr(_stages.Attention, "spread", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        model.encode(samples)


@pytest.mark.parametrize("broken", ["absent", "wrong"])
def test_products_that_are_absent_or_wrong_are_not_used(make, samples, monkeypatch, broken):
    def call(self, x):
        if broken == "absent":
            raise AttributeError
        return torch.nn.functional.linear(x, torch.ones(80, 48))

    monkeypatch.setattr(_products._Packed, "__call__", call)
    _products.packs.cache_clear()
    try:
        assert not _products.packs(torch.float32)
        agree(make("paper"), samples)
    finally:
        _products.packs.cache_clear()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_what_is_compiled_gives_the_same_numbers(make, samples, monkeypatch, precision):
    # the compiler's front, which decides what is computed, without the minute that its back would take
    backend, seen = torch._dynamo.lookup_backend, []
    monkeypatch.setattr("torch._dynamo.lookup_backend", lambda name: (seen.append(name), backend("aot_eager"))[1])
    torch._dynamo.reset()
    model = make("paper")
    model.engine = EngineOptions(precision=precision)
    expected = model.encode(samples, outputs=("genes",)).genes
    model.engine = EngineOptions(precision=precision, compile=True)
    found = model.encode(samples, outputs=("genes",)).genes
    assert "inductor" in seen
    assert largest(expected, found) <= (VECTORS if precision == "float32" else 0.1)


def test_nothing_is_missing_or_nearly_everything(make, samples):
    model = make("paper")
    full = samples.nan_to_num()
    agree(model, full)
    one = torch.full_like(full, torch.nan)
    one[:, 7] = full[:, 7]
    agree(model, one)


def test_options_do_not_change_the_model(make):
    model = make("paper")
    assert model.options == EngineOptions()
    model.engine = replace(model.options, precision="bf16")
    assert model.options.precision == "bf16"
    assert model.checksum == make("paper").checksum
