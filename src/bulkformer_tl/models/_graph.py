"""Gene graphs: checks before a network takes one."""

from __future__ import annotations

import torch
from torch import Tensor


def check_graph(edge_index: Tensor, edge_weight: Tensor, n_genes: int) -> None:
    """Refuse a gene graph that cannot belong to a network of ``n_genes`` genes.

    Parameters
    ----------
    edge_index
        Edges, (2, E), integer.
    edge_weight
        Weights, (E,), finite and not negative.
    n_genes
        Number of genes G.

    Raises
    ------
    ValueError
        If shapes, types, positions or weights are wrong.
    """
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.dtype not in (torch.int64, torch.int32):
        message = (
            f"the graph's edges must be integers of shape (2, E), found {edge_index.dtype} {tuple(edge_index.shape)}"
        )
        raise ValueError(message)
    if edge_weight.shape != edge_index.shape[1:] or not edge_weight.is_floating_point():
        message = (
            f"the graph's weights must be floating and one for each of {edge_index.shape[1]:,} edges, "
            f"found {edge_weight.dtype} {tuple(edge_weight.shape)}"
        )
        raise ValueError(message)
    if edge_index.numel() and (int(edge_index.max()) >= n_genes or int(edge_index.min()) < 0):
        message = (
            f"the graph names gene {int(edge_index.max()):,} (lowest {int(edge_index.min())}), but the network has "
            f"{n_genes:,} genes; it belongs to another model"
        )
        raise ValueError(message)
    if not bool((edge_weight.isfinite() & (edge_weight >= 0)).all()):
        message = f"the graph's weights must be finite and not negative, found {float(edge_weight.min()):g}"
        raise ValueError(message)
