"""Fits the local part of the embedded checkpoint: each gene as a weighted sum of the genes that move with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from scipy.linalg import solve

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

N_NEIGHBOURS = 200
#: Ridge penalty, in units of a sample's squared ln(TPM+1).
PENALTY = 50.0
#: Genes whose systems are solved at once.
BLOCK = 250
#: Smallest deviation of a gene that counts as moving at all.
LEAST_SD = 0.05


@dataclass(frozen=True)
class Neighbours:
    """x_g - mean_g = sum of w_gj (x_j - mean_j) over the k genes j of highest absolute correlation with g.

    Parameters
    ----------
    genes
        Neighbours of each gene, ascending, (G, k).
    weights
        Their weights, (G, k).
    """

    genes: NDArray[np.int32]
    weights: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write an ``npz`` file."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **asdict(self))
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an ``npz`` file."""
        return cls(**np.load(path))

    def predict(self, deviations: Floats) -> Floats:
        """Predict deviations from the gene means, (n, G), from those of complete samples, (n, G)."""
        starts = torch.arange(0, self.genes.size + 1, self.genes.shape[1])
        matrix = torch.sparse_csr_tensor(
            starts,
            torch.from_numpy(self.genes.ravel().astype(np.int64)),
            torch.from_numpy(self.weights.ravel()),
            (len(self.genes), len(self.genes)),
        )
        return (matrix @ torch.from_numpy(np.ascontiguousarray(deviations.T, dtype=np.float32))).T.numpy()


def fit(deviations: Floats, n_neighbours: int = N_NEIGHBOURS) -> Neighbours:
    """Fit a ridge regression of each gene on the genes that correlate with it most.

    All systems are cut out of one matrix of sums of products, so that samples are read once.

    Parameters
    ----------
    deviations
        ln(TPM+1) less the gene's mean, (N, G), float32; zero where missing.
    n_neighbours
        Neighbours k of each gene.

    Returns
    -------
    Neighbours and weights.
    """
    values = torch.from_numpy(deviations)
    products = values.T @ values
    scale = (products.diagonal() / len(values)).sqrt().clamp(min=LEAST_SD).reciprocal()
    genes, weights = [], []
    for start in range(0, len(products), BLOCK):
        own = torch.arange(start, min(start + BLOCK, len(products)))
        correlation = (products[own] * scale).abs()
        correlation[torch.arange(len(own)), own] = -1
        chosen = correlation.topk(n_neighbours, dim=1).indices.sort(dim=1).values
        systems = products[chosen[:, :, None], chosen[:, None, :]]
        systems.diagonal(dim1=1, dim2=2).add_(PENALTY)
        targets = products[own[:, None], chosen]
        genes.append(chosen.numpy().astype(np.int32))
        # one by one: torch's batched Cholesky is many times slower at this size
        pairs = zip(systems.numpy(), targets.numpy(), strict=True)
        weights.append(np.stack([solve(a, b, assume_a="pos", check_finite=False) for a, b in pairs]))
    return Neighbours(np.concatenate(genes), np.concatenate(weights))
