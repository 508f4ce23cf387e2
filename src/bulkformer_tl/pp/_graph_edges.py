"""From a graph in ``varp`` to the arrays that a network takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from bulkformer_tl._anndata import check_anndata
from bulkformer_tl._keys import COEXPRESSION

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def graph_edges(adata: AnnData, *, key: str = COEXPRESSION) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return a gene graph as the edges and weights that a network and a bundle hold.

    Parameters
    ----------
    adata
        With a graph in ``varp``, as :func:`bulkformer_tl.pp.coexpression_graph` writes it, and the genes of the network
        in its order (see :func:`bulkformer_tl.pp.align_genes`).
    key
        Which graph.

    Returns
    -------
    Edges, (2, E), int64, positions in ``var_names``, receiver first and sorted by it; and positive weights, (E,),
    float32. ``bulkformer-latest`` alone expects senders first: ``edges[::-1]``.

    Raises
    ------
    KeyError
        If there is no such graph.
    ValueError
        If its weights are negative or not finite.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()[:, :200].copy()
    >>> bf.pp.log_tpm(adata, denominator="all")
    >>> bf.pp.coexpression_graph(adata, layer="log_tpm")
    >>> edges, weights = bf.pp.graph_edges(adata)
    >>> edges.shape[1] == len(weights)
    True
    """
    check_anndata(adata)
    if key not in adata.varp:
        message = (
            f"adata.varp has no graph {key!r}, found {sorted(adata.varp)}; call bf.pp.coexpression_graph(adata) first"
        )
        raise KeyError(message)
    graph = sp.csr_array(adata.varp[key], copy=True)
    graph.sort_indices()
    graph.eliminate_zeros()
    if not np.isfinite(graph.data).all() or (graph.data < 0).any():
        message = f"the weights of adata.varp[{key!r}] must be finite and not negative"
        raise ValueError(message)
    edges = graph.tocoo()
    return np.stack([edges.row, edges.col]).astype(np.int64), edges.data.astype(np.float32)
