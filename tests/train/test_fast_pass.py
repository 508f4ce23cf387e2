"""The fast pass against the networks' own modules: same predictions, same gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bulkformer_tl.models._latest import LatestConfig, LatestNetwork
from bulkformer_tl.models._layers import DeviationHead, performer
from bulkformer_tl.models._linear_attention import attention
from bulkformer_tl.models._paper import PaperConfig, PaperNetwork
from bulkformer_tl.models._preprint import PreprintConfig, PreprintNetwork
from bulkformer_tl.train import _forward
from bulkformer_tl.train._fast_pass import Switches, hidden_distribution, hidden_predictions

GENES = 101
PLAIN = Switches(
    hidden_only=False,
    blocked_attention=False,
    blocked_tokens=False,
    recompute_activations=False,
    recompute_tokens=False,
    transposed_graph=False,
)
PAPER = {"dim": 16, "heads": 2, "n_performers": 2}
LATEST = {"dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "nb_features": 12, "graph_hidden_dim": 6}
PREPRINT = {"dim": 16, "protein_dim": 8, "heads": 2, "n_performers": 1}
NETWORKS = {
    "paper": lambda: PaperNetwork(PaperConfig(GENES, **PAPER, mean_correction=False)),
    "corrected": lambda: PaperNetwork(PaperConfig(GENES, **PAPER, n_blocks=2)),
    "latest": lambda: LatestNetwork(LatestConfig(GENES, **LATEST)),
    "preprint": lambda: PreprintNetwork(PreprintConfig(GENES, **PREPRINT)),
    "paper, deviation": lambda: PaperNetwork(
        PaperConfig(GENES, **PAPER, mean_correction=False, learned_deviation=True)
    ),
    "corrected, deviation": lambda: PaperNetwork(PaperConfig(GENES, **PAPER, learned_deviation=True)),
    "latest, deviation": lambda: LatestNetwork(LatestConfig(GENES, **LATEST, learned_deviation=True)),
}
both = pytest.mark.parametrize("name", ["paper", "corrected", "latest"])
every = pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("preprint")])


@pytest.fixture
def make():
    def make(name, *, dropout=False):
        torch.manual_seed(3)
        network = NETWORKS[name]().train()
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout) and not dropout:
                module.p = 0.0
        if hasattr(network, "head"):
            # a ReLU that starts below zero would have no gradient to compare
            torch.nn.init.constant_([part for part in network.head if hasattr(part, "bias")][-1].bias, 3.0)
        if hasattr(network, "deviation"):
            # it starts as a constant, which no vector has a gradient through
            torch.nn.init.normal_(network.deviation.log.weight, std=0.1)
        edges = torch.randint(0, GENES, (2, 5 * GENES))
        network.set_graph(edges, torch.rand(5 * GENES))
        return network

    return make


def batch(samples, share):
    generator = torch.Generator().manual_seed(7)
    values = torch.rand(samples, GENES, generator=generator) * 8
    values[values < 2] = 0.0
    measured = torch.rand(samples, GENES, generator=generator) < 0.9
    hidden = measured & (torch.rand(samples, GENES, generator=generator) < share)
    return values.where(measured, torch.nan), measured & ~hidden, hidden


def plainly(network, values, observed, hidden):
    values = values.where(observed, 0.0)
    if hasattr(network, "deviation"):
        return torch.cat(_forward.hidden_distribution(network, values, observed, hidden))
    return _forward.hidden_predictions(network, values, observed, hidden)


def quickly(network, *data, **switches):
    if hasattr(network, "deviation"):
        return torch.cat(hidden_distribution(network, *data, **switches))
    return hidden_predictions(network, *data, **switches)


def gradients(network, predicted, weights):
    network.zero_grad()
    (predicted * weights.to(predicted)).sum().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def compare(network, data, switches, tolerance):
    """Hold the fast pass to the plain way, in predictions and in each parameter's gradient."""
    values, observed, hidden = data
    expected = plainly(network, values, observed, hidden)
    weights = torch.randn(len(expected), generator=torch.Generator().manual_seed(1))
    found = quickly(network, values, observed, hidden, switches=switches)
    assert torch.allclose(found, expected, atol=tolerance[0], rtol=0)
    wanted, got = gradients(network, expected, weights), gradients(network, found, weights)
    assert wanted.keys() == got.keys()
    # sums that cancel, as those of key biases, are rounding errors beside the others
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert largest > 0
    for parameter, gradient in wanted.items():
        scale = max(float(gradient.abs().max()), 1e-2 * largest)
        assert float((got[parameter] - gradient).abs().max()) <= tolerance[1] * scale, parameter


@every
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_predictions_and_gradients_equal_the_plain_way(make, name, samples, share):
    compare(make(name), batch(samples, share), Switches(), (1e-5, 1e-4))


@both
@pytest.mark.parametrize("elements", [1, 700, 5000])
def test_blocks_that_do_not_divide_the_genes_change_nothing(make, name, elements):
    values, observed, hidden = batch(2, 0.2)
    data = (values.double(), observed, hidden)
    compare(make(name).double(), data, Switches(elements=elements), (1e-10, 1e-8))


@every
@pytest.mark.parametrize("switch", [name for name in Switches.__dataclass_fields__ if name != "elements"])
def test_each_switch_alone_changes_nothing(make, name, switch):
    values, observed, hidden = batch(2, 0.2)
    data = (values.double(), observed, hidden)
    switches = replace(PLAIN, **{switch: True, "elements": 900})
    compare(make(name).double(), data, switches, (1e-10, 1e-8))


@both
def test_samples_with_nothing_or_everything_hidden(make, name):
    values, observed, hidden = batch(3, 0.2)
    measured = observed | hidden
    hidden[0], hidden[1] = False, measured[1]
    compare(make(name), (values, measured & ~hidden, hidden), Switches(elements=900), (1e-5, 1e-4))


@both
def test_nothing_hidden_at_all(make, name):
    network, (values, observed, hidden) = make(name), batch(2, 0.2)
    predicted = hidden_predictions(network, values, observed, hidden & False)
    assert predicted.shape == (0,)
    predicted.sum().backward()


@both
def test_hidden_values_do_not_reach_the_network(make, name):
    network, (values, observed, hidden) = make(name), batch(2, 0.2)
    expected = hidden_predictions(network, values, observed, hidden)
    # the same whether or not the caller took the hidden values out of the observed ones
    found = hidden_predictions(network, values.masked_fill(hidden, 1e6), observed | hidden, hidden)
    assert torch.equal(found, expected)


@both
def test_dropout_is_drawn_once_for_both_directions(make, name):
    network, data = make(name, dropout=True), batch(2, 0.2)
    weights = torch.ones(int(data[2].sum()))
    found = []
    for recompute in (True, False):
        torch.manual_seed(11)
        switches = Switches(recompute_activations=recompute, recompute_tokens=recompute)
        found.append(gradients(network, hidden_predictions(network, *data, switches=switches), weights))
    assert all(torch.allclose(found[0][key], found[1][key], atol=1e-5, rtol=1e-4) for key in found[0])
    torch.manual_seed(12)
    other = gradients(network, hidden_predictions(network, *data), weights)
    assert not all(torch.allclose(found[0][key], other[key], atol=1e-5, rtol=1e-4) for key in other)


@both
def test_bfloat16_stays_near(make, name):
    network, data = make(name), batch(2, 0.3)
    weights = torch.ones(int(data[2].sum())) / len(data[2])
    expected = hidden_predictions(network, *data)
    wanted = gradients(network, expected, weights)
    with torch.autocast("cpu", torch.bfloat16):
        found = hidden_predictions(network, *data)
    assert torch.allclose(found.float(), expected, atol=0.1)
    got = gradients(network, found, weights)
    flat = [torch.cat([part.float().flatten() for part in side.values()]) for side in (wanted, got)]
    assert float(torch.cosine_similarity(*flat, dim=0)) > 0.99


def test_other_networks_go_the_plain_way(make):
    network = make("preprint")
    compare(network, batch(2, 0.2), Switches(), (0.0, 1e-6))
    network.deviation = DeviationHead(16)
    compare(network, batch(2, 0.2), Switches(), (0.0, 1e-6))


def test_a_new_graph_has_an_effect_on_gradients(make):
    network, (values, observed, hidden) = make("paper").double(), batch(2, 0.2)
    data = (values.double(), observed, hidden)
    compare(network, data, Switches(), (1e-10, 1e-8))
    network.set_graph(torch.randint(0, GENES, (2, 300)), torch.rand(300))
    compare(network.double(), data, Switches(), (1e-10, 1e-8))


def test_the_key_stabiliser_follows_the_largest_key():
    torch.manual_seed(0)
    core = performer(16, heads=2, dim_head=8).net.layers[0][0].fn.fast_attention.double()
    queries, keys, values = torch.randn(3, 50, 2, 8, dtype=torch.float64).unbind(0)
    # ascending, so that every block has a larger maximum than those before it
    keys = keys * torch.linspace(0.1, 4, 50)[:, None, None]
    expected = core(*(x.transpose(0, 1)[None] for x in (queries, keys, values)))[0].transpose(0, 1)
    for block in (1, 7, 50, 64):
        found = attention(queries, keys, values, core.projection_matrix, block=block)
        assert torch.allclose(found, expected, atol=1e-12, rtol=0)
