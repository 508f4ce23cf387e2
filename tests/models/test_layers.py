"""Shared layers against dense and hand-worked references."""

from __future__ import annotations

import copy

import pytest
import torch

from bulkformer_tl.models._layers import GraphConvolution, ValueEncoding, normalised_adjacency, performer, propagate
from bulkformer_tl.models._paper import PaperConfig, PaperNetwork

# torch says once per process that CSR is in beta
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")


def dense(rows, columns, values, size):
    return torch.sparse_csr_tensor(rows, columns, values, (size, size), check_invariants=False).to_dense()


def small_network():
    torch.manual_seed(0)
    return PaperNetwork(PaperConfig(6, 8, heads=2)).eval()


@pytest.fixture
def edges():
    # gene 0 hears 1 twice, 1 hears 0, 2 hears itself, 3 hears 4, which hears nothing; 5 is alone
    index = torch.tensor([[0, 0, 1, 2, 3], [1, 1, 0, 2, 4]])
    return index, torch.tensor([1.0, 3.0, 9.0, 2.0, 5.0])


def test_adjacency_by_hand(edges):
    index, weight = edges
    found = dense(*normalised_adjacency(index[0], index[1], weight, 6), 6)
    expected = torch.zeros(6, 6)
    # repeated edges add up to 4; degrees are 4 and 9; D^-1/2 A D^-1/2 = 4 / (2 * 3) and 9 / (3 * 2)
    expected[0, 1], expected[1, 0], expected[2, 2] = 4 / 6, 9 / 6, 1.0
    # gene 4 receives nothing, so its factor is 0 and it does not send either
    assert torch.allclose(found, expected)


def test_adjacency_against_a_dense_product():
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(0, 40, (2, 300), generator=generator)
    weight = torch.rand(300, generator=generator)
    matrix = torch.zeros(40, 40, dtype=torch.float64)
    matrix.index_put_((index[0], index[1]), weight.double(), accumulate=True)
    factor = matrix.sum(dim=1).pow(-0.5)
    factor[factor.isinf()] = 0
    expected = factor[:, None] * matrix * factor
    found = dense(*normalised_adjacency(index[0], index[1], weight, 40), 40)
    assert float((found - expected).abs().max()) < 1e-6


def test_convolution_equals_a_dense_product_and_edges_equal_csr(edges):
    index, weight = edges
    rows, columns, values = normalised_adjacency(index[0], index[1], weight, 6)
    convolution = GraphConvolution(4, bias=True)
    torch.nn.init.normal_(convolution.bias)
    hidden = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(2))
    csr = (torch.sparse_csr_tensor(rows, columns, values, (6, 6), check_invariants=False),)
    receivers = torch.repeat_interleave(torch.arange(6), rows.diff())
    with torch.inference_mode():
        found = propagate(convolution, hidden, csr)
        as_edges = propagate(convolution, hidden, (torch.stack([columns, receivers]), values))
        expected = csr[0].to_dense() @ (hidden @ convolution.lin.weight.T) + convolution.bias
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(as_edges, expected, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
# torch-geometric compiles helpers with torch.jit at import, which newer torch deprecates
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_convolution_is_that_of_torch_geometric(edges, bias):
    from torch_geometric.nn import GCNConv

    torch.manual_seed(0)
    theirs = GCNConv(4, 4, normalize=False, add_self_loops=False, bias=bias)
    torch.manual_seed(0)
    ours = GraphConvolution(4, bias=bias)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    rows, columns, values = normalised_adjacency(edges[0][0], edges[0][1], edges[1], 6)
    csr = torch.sparse_csr_tensor(rows, columns, values, (6, 6), check_invariants=False)
    receivers = torch.repeat_interleave(torch.arange(6), rows.diff())
    hidden = torch.randn(6, 4)
    for graph in ((csr,), (torch.stack([columns, receivers]), values)):
        assert torch.equal(ours(hidden, *graph), theirs(hidden, *graph))


def test_gradients_pass_through_the_graph(edges):
    network = small_network()
    network.set_graph(*edges)
    values = torch.rand(2, 6)
    hidden = network(values, torch.ones(2, 6, dtype=torch.bool))
    hidden[..., 0].sum().backward()
    assert network.gb_formers[0].g.lin.weight.grad.abs().sum() > 0


def test_network_without_graph_says_so():
    network = small_network()
    with pytest.raises(RuntimeError, match="no gene graph yet; call set_graph"):
        network(torch.rand(1, 6), torch.ones(1, 6, dtype=torch.bool))


def test_graph_follows_copies_and_precision_but_not_the_state_dict(edges):
    network = small_network()
    network.set_graph(*edges)
    twin = copy.deepcopy(network).double()
    assert twin.graph_values.dtype == torch.float64
    assert not any("graph" in name for name in network.state_dict())
    values, observed = torch.rand(1, 6), torch.ones(1, 6, dtype=torch.bool)
    with torch.inference_mode():
        assert torch.allclose(twin(values.double(), observed).float(), network(values, observed), atol=1e-5)


def test_replacing_the_graph_has_an_effect(edges):
    network = small_network()
    values, observed = torch.rand(1, 6), torch.ones(1, 6, dtype=torch.bool)
    with torch.inference_mode():
        network.set_graph(*edges)
        before = network(values, observed)
        network.set_graph(edges[0].flip(0), edges[1])
        assert not torch.allclose(before, network(values, observed), atol=1e-3)


def test_value_encoding_by_hand():
    encoding = ValueEncoding(4)
    observed = torch.tensor([[True, True, False]])
    found = encoding(torch.tensor([[0.0, 2.0, -10.0]]), observed)[0]
    x = torch.tensor(2.0)
    # frequencies 100^0 and 100^(-2/4); all sines before all cosines
    expected = torch.stack([x.sin(), (x / 10).sin(), x.cos(), (x / 10).cos()])
    assert torch.allclose(found[1], expected)
    assert found[0].tolist() == [0, 0, 1, 1]
    assert found[2].tolist() == [0, 0, 0, 0]


def test_performer_holds_each_tensor_once_and_never_redraws():
    layer = performer(8, heads=2, dim_head=4).train()
    assert not any("instance" in name for name in layer.state_dict())
    attention = layer.net.layers[0][0].fn.fast_attention
    before = attention.projection_matrix.clone()
    layer.proj_updater.calls_since_last_redraw.fill_(10_000)
    layer(torch.randn(1, 3, 8))
    assert torch.equal(before, attention.projection_matrix)


def test_performer_approximates_softmax_attention():
    torch.manual_seed(0)
    layer = performer(8, heads=1, dim_head=8, nb_features=4096)
    attention = layer.net.layers[0][0].fn.fast_attention
    q, k, v = torch.randn(3, 1, 1, 20, 8).unbind(0)
    q, k = q / 2, k / 2
    exact = torch.softmax(q @ k.mT / 8**0.5, dim=-1) @ v
    flat = v.mean(dim=-2, keepdim=True)
    assert float((attention(q, k, v) - exact).abs().mean()) < 0.02
    assert float((flat - exact).abs().mean()) > 0.04
