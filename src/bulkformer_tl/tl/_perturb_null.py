"""Genes to compare a perturbed one with: as much expressed, with as many neighbours in the gene graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl.tl._perturb_sets import Perturbation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: At most so many bins of expression, and so many of degree in each of them.
EXPRESSION_BINS, DEGREE_BINS = 10, 3
#: Genes that a bin should hold for each one that is drawn from it.
ROOM = 3
#: Bin of genes that are expressed less, or more, than all there are to draw from.
OUTSIDE = -1


def matched_genes(
    perturbations: Sequence[Perturbation],
    level: NDArray[np.float64],
    degree: NDArray[np.int64],
    usable: NDArray[np.bool_],
    *,
    n_null: int,
    rng: np.random.Generator,
) -> list[list[Perturbation]]:
    """Draw, for each perturbation, others of as many genes from the same bins of expression and degree.

    Single genes of a bin share what they are compared with, so that the number of passes stays small.

    Parameters
    ----------
    perturbations
        What is perturbed, P of them.
    level
        Mean expression of each gene, (G,).
    degree
        Neighbours of each gene in the graph, (G,).
    usable
        Genes to draw from, (G,).
    n_null
        How many to draw.
    rng
        Draws.

    Returns
    -------
    For each perturbation at most ``n_null`` others; fewer where a bin holds fewer, and none for genes that are
    expressed less, or more, than all usable ones. Of a set, such genes are left out.
    """
    pool = rng.permutation(np.flatnonzero(usable))
    bins = _bins(level, degree, pool, n_null)
    members = {code: pool[bins[pool] == code] for code in np.unique(bins)}
    found = []
    for item in perturbations:
        if len(item.genes) == 1:
            alike = members.get(bins[item.genes[0]], pool[:0])[: n_null + 1]
            others = [gene for gene in alike if gene != item.genes[0]][:n_null]
            found.append([Perturbation(f"gene {gene}", "gene", (int(gene),)) for gene in others])
            continue
        drawn = (_draw(item.genes, bins, members, rng) for _ in range(n_null))
        found.append([Perturbation(f"set {genes}", "set", genes) for genes in dict.fromkeys(drawn) if genes])
    return found


def _draw(
    genes: tuple[int, ...],
    bins: NDArray[np.int64],
    members: dict[Any, NDArray[np.int64]],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Draw a gene from the bin of each gene, none twice and none of these."""
    taken = set(genes)
    for gene in genes:
        left = [int(other) for other in members.get(bins[gene], ()) if other not in taken]
        if left:
            taken.add(left[rng.integers(len(left))])
    return tuple(sorted(taken - set(genes)))


def _bins(
    level: NDArray[np.float64], degree: NDArray[np.int64], pool: NDArray[np.int64], n_null: int
) -> NDArray[np.int64]:
    """Return the bin of each gene, (G,)."""
    if not len(pool):
        return np.full(len(level), OUTSIDE)
    count = int(np.clip(len(pool) // (ROOM * DEGREE_BINS * n_null), 1, EXPRESSION_BINS))
    outer = _quantile_bins(level, level[pool], count)
    bins = np.zeros(len(level), dtype=np.int64)
    for code in range(count):
        here, there = outer == code, pool[outer[pool] == code]
        # a bin too small to be divided stays whole
        parts = DEGREE_BINS if len(there) >= 2 * DEGREE_BINS * n_null else 1
        bins[here] = code * DEGREE_BINS + _quantile_bins(degree, degree[there], parts)[here]
    return np.where((level >= level[pool].min()) & (level <= level[pool].max()), bins, OUTSIDE)


def _quantile_bins(values: NDArray[np.number], among: NDArray[np.number], count: int) -> NDArray[np.int64]:
    if count == 1 or not len(among):
        return np.zeros(len(values), dtype=np.int64)
    edges = np.quantile(among, np.arange(1, count) / count)
    return np.asarray(np.searchsorted(edges, np.nan_to_num(values), side="right"), dtype=np.int64)
