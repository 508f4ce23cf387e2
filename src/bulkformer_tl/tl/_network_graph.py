"""A gene network as a graph of networkx, from which it goes to any file format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkformer_tl._edges import read_edges, symbols_of
from bulkformer_tl._keys import NETWORK

if TYPE_CHECKING:
    import networkx as nx
    from anndata import AnnData


def network_graph(
    adata: AnnData,
    key: str = NETWORK,
    *,
    group: str | None = None,
    min_frequency: float = 0.0,
    gene_symbols: str | None = None,
) -> nx.Graph:
    """Return a gene network as a graph of networkx.

    ``networkx.write_graphml(bf.tl.network_graph(adata), "network.graphml")`` writes a file that Cytoscape and Gephi
    read.

    Parameters
    ----------
    adata
        Annotated samples after :func:`bulkformer_tl.tl.network`.
    key
        Name of the result.
    group
        Group of samples; ``None`` takes the only one, or the first.
    min_frequency
        Least share of models, layers and halves in which an edge comes again.
    gene_symbols
        Column of ``var`` that nodes get as their attribute ``symbol``.

    Returns
    -------
    A ``networkx.DiGraph`` from ``source`` to ``target``, or a ``networkx.Graph`` where edges have no
    direction. Nodes are ``var_names``; edges have ``weight``, and ``frequency`` and ``known`` where the table has them.

    Raises
    ------
    KeyError
        If there is no such result, group or column.
    ValueError
        If no edge is left.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.network(adata, ["ALB", "TTR", "CKM", "DES"], layer="log_tpm", n_edges=1)
    >>> bf.tl.network_graph(adata).number_of_edges()
    4
    """
    import networkx as nx

    table, params = read_edges(adata, key, group=group, min_frequency=min_frequency)
    attributes = [name for name in ("weight", "frequency", "known") if name in table]
    graph: Any = nx.DiGraph() if params["directed"] else nx.Graph()
    for row in table.to_dict("records"):
        graph.add_edge(row["source"], row["target"], **{name: row[name] for name in attributes})
    if gene_symbols is not None:
        nx.set_node_attributes(graph, symbols_of(adata, graph, gene_symbols), "symbol")
    return graph
