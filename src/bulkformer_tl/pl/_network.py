"""The strongest edges of a gene network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bulkformer_tl._edges import read_edges, symbols_of
from bulkformer_tl._keys import NETWORK
from bulkformer_tl.pl._palette import OKABE_ITO, new_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

#: Colours of genes at which edges start and others, and of edges: in the table, not in it, and negative ones.
SOURCE, OTHER = OKABE_ITO[1], "#9fb8c8"
KNOWN, PLAIN, NEGATIVE = OKABE_ITO[2], "#8a8a8a", OKABE_ITO[3]


def network(
    adata: AnnData,
    key: str = NETWORK,
    *,
    group: str | None = None,
    n_edges: int = 50,
    min_frequency: float = 0.0,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the strongest edges of a gene network.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.network`.
    key
        Name of the result.
    group
        Group of samples; ``None`` takes the only one, or the first.
    n_edges
        How many edges to draw.
    min_frequency
        Least share of models, layers and halves in which an edge comes again.
    gene_symbols
        Column of ``var`` with the names to write; ``None`` takes ``var_names``.
    ax
        Axes to draw on. ``None`` makes a new figure.

    Returns
    -------
    The axes: genes as dots, orange where edges start and the network has a direction; edges the wider the stronger,
    green where the table of regulators has them and pink where the weight is negative.

    Raises
    ------
    KeyError
        If there is no such result, group or column.
    ValueError
        If no edge is left, or ``n_edges`` is not above 0.
    """
    import networkx as nx

    if n_edges < 1:
        message = f"n_edges is {n_edges}; use 1 or more"
        raise ValueError(message)
    table, params = read_edges(adata, key, group=group, min_frequency=min_frequency)
    edges, directed = table.head(n_edges), bool(params["directed"])
    several = f", {params['groupby']} {edges['group'].iloc[0]}" if params["groupby"] else ""
    graph: Any = nx.DiGraph() if directed else nx.Graph()
    graph.add_edges_from(zip(edges["source"], edges["target"], strict=True))
    places = _layout(graph)
    axes = new_axes(ax, (8.0, 7.0))
    weight = edges["weight"].abs().to_numpy()
    widths = 0.4 + 2.2 * (weight - weight.min()) / max(np.ptp(weight), 1e-12)
    known = edges["known"].to_numpy(dtype=bool) if "known" in edges else np.zeros(len(edges), dtype=bool)
    colours = np.where(known, KNOWN, np.where(edges["weight"].to_numpy() < 0, NEGATIVE, PLAIN))
    order = list(zip(edges["source"], edges["target"], strict=True))
    options: dict[str, Any] = {"edgelist": order, "width": widths.tolist(), "edge_color": colours.tolist()}
    if directed:
        options |= {"arrowsize": 7, "node_size": 70}
    nx.draw_networkx_edges(graph, places, ax=axes, alpha=0.7, **options)
    starts = set(edges["source"]) if directed else set()
    faces = [SOURCE if gene in starts else OTHER for gene in graph]
    nx.draw_networkx_nodes(graph, places, ax=axes, node_size=70, node_color=faces, linewidths=0)
    names = symbols_of(adata, graph, gene_symbols)
    lifted = {gene: (place[0], place[1] + 0.016) for gene, place in places.items()}
    nx.draw_networkx_labels(graph, lifted, names, ax=axes, font_size=6.5, verticalalignment="bottom")
    _legend(axes, directed=directed, known=bool(known.any()), negative=bool((edges["weight"] < 0).any()))
    title = f"{params['method']}{several}: {len(edges)} of {len(table):,} edges"
    axes.set_title(title, fontsize="medium")
    axes.margins(0.08)
    axes.set_axis_off()
    return axes


def _layout(graph: Any) -> dict[str, Any]:
    """Place genes by springs, each connected part in a field of its own, the largest first."""
    import networkx as nx

    parts = sorted(nx.connected_components(graph.to_undirected()), key=lambda own: (-len(own), min(own)))
    side = np.sqrt([len(part) for part in parts])
    places: dict[str, Any] = {}
    across, down, high, widest = 0.0, 0.0, 0.0, max(float(side[0]), float(np.sqrt((side**2).sum()))) * 1.3
    for part, size in zip(parts, side, strict=True):
        if across and across + size > widest:
            across, down, high = 0.0, down - high, 0.0
        own = nx.spring_layout(graph.subgraph(sorted(part)), seed=0, k=1.6 / np.sqrt(len(part)))
        for gene, place in own.items():
            places[gene] = np.array([across, down]) + 0.42 * size * (place + np.array([1, -1]))
        across, high = across + size, max(high, size)
    table = np.array(list(places.values()))
    span = max(float(np.ptp(table, axis=0).max()), 1e-12)
    return {gene: (place - table.min(axis=0)) / span for gene, place in places.items()}


def _legend(axes: Axes, *, directed: bool, known: bool, negative: bool) -> None:
    from matplotlib.lines import Line2D

    handles = []
    if directed:
        dots: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 6}
        handles += [Line2D([], [], color=SOURCE, label="source", **dots)]
        handles += [Line2D([], [], color=OTHER, label="target only", **dots)]
    if known:
        handles.append(Line2D([], [], color=KNOWN, label="in the table"))
    if negative:
        handles.append(Line2D([], [], color=NEGATIVE, label="negative"))
    if handles:
        axes.legend(handles=handles, frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, 0), ncols=4)
