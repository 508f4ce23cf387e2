"""Layers that the published generations share, built from performer-pytorch and torch-geometric."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

#: How the authors' networks mark a missing value. No other file spells it, and no user ever sees it.
MISSING = -10.0


class ValueEncoding(nn.Module):
    """Sinusoidal encoding of expression values: all sines, then all cosines, zero where missing.

    The preprint prints frequencies ``100^(2i/D)``; the published code, and so this one, uses ``100^(-2i/D)``.

    Parameters
    ----------
    dim
        Width D, even.
    base
        Base of the geometric series of frequencies.
    persistent
        Whether the frequencies are part of the state dict, as a frozen parameter, as in the first two generations.
    """

    def __init__(self, dim: int, *, base: float = 100.0, persistent: bool = True) -> None:
        super().__init__()
        # on the CPU also where a network is laid out on torch's meta device: a constant is in no state dict
        frequencies = 1.0 / base ** (torch.arange(0, dim, 2, device="cpu").float() / dim)
        self.inv_freq: Tensor
        if persistent:
            self.inv_freq = nn.Parameter(frequencies, requires_grad=False)
        else:
            self.register_buffer("inv_freq", frequencies, persistent=False)

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        """Encode values (N, G) into (N, G, D)."""
        angles = values[..., None] * self.inv_freq
        encoded = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return encoded.masked_fill(~observed[..., None], 0.0)


def drop_when_loaded(module: nn.Module) -> None:
    """Have a module call its ``forget()`` whenever new weights are loaded into it."""
    untyped: Any = module
    untyped.register_load_state_dict_post_hook(_forget)


def _forget(loaded: Any, _: Any) -> None:
    # not a lambda, which could not be sent to another process
    loaded.forget()


class Encoder(nn.Module):
    """What all networks share: a configuration and a gene graph.

    The graph is normalised once and kept as the three arrays of a CSR matrix, outside the state dict. They are plain
    buffers, so that they follow the module to any device and precision.
    """

    #: Number of per-sample summary columns that follow the D columns of a vector.
    n_summary: ClassVar[int] = 0
    #: Row of ``edge_index`` that names the gene which receives.
    receiver_row: ClassVar[int] = 0

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.graph_rows: Tensor | None
        self.graph_columns: Tensor | None
        self.graph_values: Tensor | None
        for name in ("graph_rows", "graph_columns", "graph_values"):
            self.register_buffer(name, None, persistent=False)

    def set_graph(self, edge_index: Tensor, edge_weight: Tensor) -> None:
        """Normalise the gene graph: edges (2, E) int64 and positive weights (E,)."""
        rows, columns, values = normalised_adjacency(
            edge_index[self.receiver_row], edge_index[1 - self.receiver_row], edge_weight, self.config.n_genes
        )
        device = next(self.parameters()).device
        self.graph_rows, self.graph_columns = rows.to(device), columns.to(device)
        self.graph_values = values.to(device)
        with warnings.catch_warnings():
            # torch says once per process that CSR is in beta; only products with a dense matrix are used here
            warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
            self.adjacency()

    def adjacency(self) -> tuple[Tensor, ...]:
        """Return the graph as a graph convolution takes it: CSR, or edges on devices without CSR."""
        rows, columns, values = self.graph_rows, self.graph_columns, self.graph_values
        if rows is None or columns is None or values is None:
            message = "the network has no gene graph yet; call set_graph(edge_index, edge_weight)"
            raise RuntimeError(message)
        size = self.config.n_genes
        if values.device.type == "mps":
            receivers = torch.repeat_interleave(torch.arange(size, device=rows.device), rows.diff())
            return torch.stack([columns, receivers]), values
        return (torch.sparse_csr_tensor(rows, columns, values, (size, size), check_invariants=False),)


def normalised_adjacency(receiver: Tensor, sender: Tensor, weight: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute D^-1/2 A D^-1/2 with the degree of a gene being the sum of the weights it receives.

    Parameters
    ----------
    receiver, sender
        Genes of each edge, shape (E,). Repeated edges add up.
    weight
        Weights, shape (E,).
    size
        Number of genes G; genes without edges count.

    Returns
    -------
    Row pointers (G + 1,), columns and values of the CSR matrix. A gene that receives nothing neither receives nor
    sends: its infinite factor becomes 0.
    """
    edges = torch.sparse_coo_tensor(
        torch.stack([receiver, sender]).cpu(), weight.float().cpu(), (size, size), check_invariants=False
    ).coalesce()
    (row, column), value = edges.indices(), edges.values()
    degree = torch.zeros(size).index_add_(0, row, value)
    factor = degree.pow(-0.5)
    factor[factor.isinf()] = 0.0
    rows = torch.zeros(size + 1, dtype=torch.int64)
    rows[1:] = torch.bincount(row, minlength=size).cumsum(0)
    return rows, column, factor[row] * value * factor[column]


def _geometric() -> Any:
    with warnings.catch_warnings():
        # it compiles helpers with torch.jit at import, which newer torch deprecates
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_geometric import utils
    return utils


class GraphConvolution(nn.Module):
    """Graph convolution over a graph that is already normalised, A x W^T + b.

    It has the names, numbers and initial weights of GCNConv of torch-geometric, which is imported when it is run:
    neither loading a model nor the engine, which mixes genes by itself, waits for that.

    Parameters
    ----------
    dim
        Width D.
    bias
        Whether there is a b.
    """

    def __init__(self, dim: int, *, bias: bool) -> None:
        super().__init__()
        self.lin = nn.Linear(dim, dim, bias=False)
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(dim)) if bias else None
        bound = math.sqrt(6.0 / (dim + dim))
        nn.init.uniform_(self.lin.weight, -bound, bound)

    def forward(self, hidden: Tensor, graph: Tensor, weights: Tensor | None = None) -> Tensor:
        """Map (G, D) to (G, D) over a CSR matrix (G, G), or over edges (2, E), sender first, and their weights (E,)."""
        utils = _geometric()
        hidden = self.lin(hidden)
        if weights is None:
            mixed: Tensor = utils.spmm(graph, hidden)
        else:
            sender, receiver = graph
            mixed = utils.scatter(hidden[sender] * weights[:, None], receiver, dim_size=len(hidden))
        return mixed if self.bias is None else mixed + self.bias


def propagate(convolution: nn.Module, hidden: Tensor, adjacency: tuple[Tensor, ...]) -> Tensor:
    """Apply a graph convolution to each sample of (N, G, D)."""
    if torch.is_autocast_enabled(hidden.device.type):
        # products with a sparse matrix do not exist in bfloat16 everywhere
        with torch.autocast(hidden.device.type, enabled=False):
            return propagate(convolution, hidden.float(), adjacency)
    return torch.stack([convolution(sample, *adjacency) for sample in hidden])


def performer(
    dim: int,
    *,
    depth: int = 1,
    heads: int,
    dim_head: int,
    nb_features: int | None = None,
    ff_mult: int = 4,
    attn_dropout: float = 0.0,
    ff_dropout: float = 0.0,
) -> nn.Module:
    """Build Performer layers whose random projections stay as they are.

    performer-pytorch redraws the projections every 1,000 training steps, which changes the model; here never. Its
    updater holds every tensor a second time under ``proj_updater.instance``; that copy is dropped.
    """
    with warnings.catch_warnings():
        # performer-pytorch reads torch's version with distutils, which only setuptools still supplies
        warnings.simplefilter("ignore", DeprecationWarning)
        from performer_pytorch import Performer
    target = torch.get_default_device()
    # the orthogonal projections are drawn by a QR decomposition, which torch's meta device does not have
    with torch.device("cpu"):
        layers: Any = Performer(
            dim,
            depth,
            heads,
            dim_head,
            nb_features=nb_features,
            ff_mult=ff_mult,
            attn_dropout=attn_dropout,
            ff_dropout=ff_dropout,
            feature_redraw_interval=None,
            auto_check_redraw=False,
        )
    del layers.proj_updater.instance
    moved: nn.Module = layers.to(target)
    return moved


def mlp(dim_in: int, dim_hidden: int, dim_out: int) -> nn.Sequential:
    """Build the two-layer network with ReLU that the first two generations use for all their inputs."""
    return nn.Sequential(nn.Linear(dim_in, dim_hidden), nn.ReLU(), nn.Linear(dim_hidden, dim_out))


class DeviationHead(nn.Module):
    """Standard deviation of a prediction, learned beside it; 1 before it has learned anything.

    None of the published networks has one.
    """

    #: Bounds of the logarithm of the deviation, 0.02 to 20 in units of ln(TPM+1).
    bounds: ClassVar[tuple[float, float]] = (-4.0, 3.0)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.log = nn.Linear(dim, 1)
        nn.init.zeros_(self.log.weight)
        nn.init.zeros_(self.log.bias)

    def forward(self, hidden: Tensor, values: Tensor, observed: Tensor) -> Tensor:
        """Return the standard deviation of each prediction, (...,), from gene vectors (..., D) alone."""
        logarithm: Tensor = self.log(self.norm(hidden)).squeeze(-1)
        return logarithm.clamp(*self.bounds).exp()


class GraphPerformer(nn.Module):
    """Block of the first two generations: LayerNorm, graph convolution, Performers.

    The residual around the graph convolution is the normalised input; the incoming stream itself ends here.
    """

    def __init__(self, dim: int, *, heads: int, n_performers: int, attn_dropout: float, ff_dropout: float) -> None:
        super().__init__()
        self.g = GraphConvolution(dim, bias=True)
        self.f = nn.ModuleList(
            performer(dim, heads=heads, dim_head=dim // heads, attn_dropout=attn_dropout, ff_dropout=ff_dropout)
            for _ in range(n_performers)
        )
        self.layernorm = nn.LayerNorm(dim)

    def forward(self, hidden: Tensor, adjacency: tuple[Tensor, ...]) -> Tensor:
        """Map (N, G, D) to (N, G, D)."""
        hidden = self.layernorm(hidden)
        hidden = hidden + propagate(self.g, hidden, adjacency)
        for layer in self.f:
            hidden = layer(hidden)
        return hidden
