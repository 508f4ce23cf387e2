"""From weights to edges: the strongest of each target, how often they come again, how groups differ, programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bulkformer_tl.tl._screen import false_discovery_rate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bulkformer_tl.tl._network_input import Plan
    from bulkformer_tl.tl._network_weights import Weights

    Numbers = NDArray[np.float64]
    Mask = NDArray[np.bool_]

#: Genes that a program has at least.
LEAST_GENES = 5


def strongest(strength: Numbers, plan: Plan, n_edges: int, *, directed: bool) -> Mask:
    """Return the ``n_edges`` strongest sources of each target, (K, Q); without direction those of either end."""
    value = np.where(plan.same | np.isnan(strength), -np.inf, strength)
    order = np.argsort(-value, axis=0, kind="stable")[:n_edges]
    chosen = np.zeros(value.shape, dtype=bool)
    np.put_along_axis(chosen, order, values=True, axis=0)
    chosen &= np.isfinite(value)
    return chosen if directed else chosen | chosen.T


def edge_table(
    plan: Plan, weights: Weights, names: NDArray[np.str_], n_edges: int, *, directed: bool, signed: bool
) -> tuple[pd.DataFrame, list[Mask]]:
    """Return the edges of each group, the strongest first, and where they are, (K, Q) for each group.

    Parameters
    ----------
    plan
        What was computed.
    weights
        Weights of all pairs.
    names
        Of the columns of the cohort.
    n_edges
        Edges of each target.
    directed
        Whether an edge from A to B is another than that from B to A.
    signed
        Whether a strong edge can be negative.
    """
    parts, masks = [], []
    for group, name in enumerate(plan.groups):
        mean = weights.mean[group]
        mask = strongest(np.abs(mean) if signed else mean, plan, n_edges, directed=directed)
        masks.append(mask)
        rows, columns = np.nonzero(mask if directed else np.triu(mask))
        table = pd.DataFrame(
            {
                "source": names[plan.sources[rows]],
                "target": names[plan.targets[columns]],
                "group": name,
                "weight": mean[rows, columns],
            }
        )
        if len(weights.runs) > 1:
            again = np.zeros(mask.shape)
            for run in weights.runs[:, group]:
                again += strongest(np.abs(run) if signed else run, plan, n_edges, directed=directed)
            table["frequency"] = again[rows, columns] / len(weights.runs)
        if plan.known is not None:
            table["known"] = plan.known[rows, columns]
        order = np.argsort(-np.abs(table["weight"].to_numpy()), kind="stable")
        parts.append(table.iloc[order])
    return pd.concat(parts, ignore_index=True), masks


def contrast_table(
    plan: Plan, contrast: tuple[Numbers, Numbers], names: NDArray[np.str_], masks: list[Mask], *, directed: bool
) -> pd.DataFrame:
    """Return how far the weight of each edge of any group differs between a group and all others."""
    difference, p = contrast
    mask = np.logical_or.reduce(masks)
    rows, columns = np.nonzero(mask if directed else np.triu(mask))
    # of two groups the second says the same as the first
    compared = range(1 if len(plan.groups) == 2 else len(plan.groups))
    parts = []
    for group in compared:
        own = p[group][rows, columns]
        parts.append(
            pd.DataFrame(
                {
                    "source": names[plan.sources[rows]],
                    "target": names[plan.targets[columns]],
                    "group": plan.groups[group],
                    "other": plan.groups[1] if len(plan.groups) == 2 else "others",
                    "difference": difference[group][rows, columns],
                    "p": own,
                    "fdr": false_discovery_rate(own),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    order = np.argsort(-np.abs(table["difference"].to_numpy()), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def program_table(edges: pd.DataFrame, rng: int) -> pd.DataFrame:
    """Return clusters of genes that positive edges join, five or more, found by Louvain's method in each group."""
    import networkx as nx

    rows = []
    for group, own in edges[edges["weight"] > 0].groupby("group", sort=False):
        graph = nx.from_pandas_edgelist(own, edge_attr="weight")
        found = nx.community.louvain_communities(graph, weight="weight", seed=rng)
        large = sorted(
            (sorted(genes) for genes in found if len(genes) >= LEAST_GENES), key=lambda own: (-len(own), own)
        )
        rows += [(str(group), str(number), gene) for number, genes in enumerate(large, start=1) for gene in genes]
    return pd.DataFrame(rows, columns=["group", "program", "gene"])
