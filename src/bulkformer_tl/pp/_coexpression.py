"""Co-expression of genes as a sparse graph."""

from __future__ import annotations

import logging
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bulkformer_tl._anndata import check_anndata, check_slots, copied, dense_rows, get_matrix, write_results
from bulkformer_tl._keys import COEXPRESSION
from bulkformer_tl.encodings import correlate, nearest_genes
from bulkformer_tl.encodings._correlate import BLOCK_ROWS
from bulkformer_tl.pp._by_gene import by_gene, rank
from bulkformer_tl.pp._edge_list import edge_graph, read_edges
from bulkformer_tl.pp._scan import scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Method = Literal["pearson", "spearman"]

#: A correlation of fewer samples says nothing.
LEAST_SAMPLES = 3


def coexpression_graph(
    adata: AnnData,
    *,
    layer: str | None = None,
    method: Method = "pearson",
    n_neighbors: int = 20,
    threshold: float = 0.4,
    groups: str | None = None,
    min_samples: int = LEAST_SAMPLES,
    edges: pd.DataFrame | str | Path | None = None,
    key_added: str = COEXPRESSION,
    copy: bool = False,
) -> AnnData | None:
    """Connect each gene to those it is correlated with, as the graphs of BulkFormer are made.

    Each gene receives from the ``n_neighbors`` others of highest absolute correlation, of at least ``threshold``; the
    weight is the absolute correlation. The graph is directed: what a gene receives from need not receive from it.
    Samples are read in blocks and sums of products kept in double precision, so that memory depends on the genes only:
    less than 8 GiB for 20,000. Where values are missing (``NaN``) a pair is correlated over the samples that
    measured both, as :meth:`pandas.DataFrame.corr` does; that takes six products instead of one.

    Parameters
    ----------
    adata
        Samples by genes; any storage. Any numbers will do, but counts follow library size: ln(TPM+1) is meant.
    layer
        Which values to correlate; ``None`` reads ``X``.
    method
        ``"pearson"``, or ``"spearman"``: ranks of each gene, mean ranks for ties, over the samples (of the study) that
        measured it. Ranks go through a temporary file of 8 bytes per value.
    n_neighbors
        Most neighbours of a gene. Of equal ones the first in ``var_names`` are taken.
    threshold
        Least absolute correlation, between 0 and 1.
    groups
        Column of ``obs`` that names each sample's study. The correlation is then that within a study, averaged
        over the studies in which both genes vary. Differences between studies, of protocol as of tissue, count for
        nothing, and neither a large study nor one of large variance outweighs the others, as they would in a pooled
        covariance. ``None`` correlates all samples together.
    min_samples
        Least number of samples (of a study) that measured both genes; at least 3.
    edges
        Your own list instead of correlations, such as protein interactions or shared annotations: a table or the path
        of a csv or tsv (also compressed) with two columns of ``var_names`` and optionally one of weights. Each pair is
        connected in both directions, the largest weight counts. All are kept, whatever ``n_neighbors`` and
        ``threshold``.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.varp[key_added]`` : :class:`scipy.sparse.csr_matrix` (shape ``(n_vars, n_vars)``, dtype ``float32``)
        Weights; the row receives, the column sends.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        Parameters, number of edges, of genes without any and of studies; of a list also what was left out of it.

    Raises
    ------
    ValueError
        If there are fewer samples than ``min_samples``, ``n_neighbors`` is not smaller than the number of genes, the
        threshold is not between 0 and 1, values are infinite or the marker -10, genes share a name, weights of edges
        are negative, no edge names two genes of ``adata``, or ``key_added`` is taken.
    KeyError
        If there is no such layer or ``obs`` column.

    Warns
    -----
    UserWarning
        If the values look like raw counts.

    See Also
    --------
    bulkformer_tl.pp.graph_edges : the graph as a network takes it.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()[:, :200].copy()
    >>> bf.pp.log_tpm(adata, denominator="all")
    >>> bf.pp.coexpression_graph(adata, layer="log_tpm", n_neighbors=5)
    >>> adata.varp["coexpression"].shape
    (200, 200)
    """
    slot = f"varp/{key_added}"
    check_anndata(adata)
    check_slots(adata, key_added, [slot])
    _check_names(adata)
    if edges is not None:
        if groups is not None or layer is not None:
            message = "edges are not computed from values; leave out layer and groups, or edges"
            raise ValueError(message)
        graph, counts = edge_graph(read_edges(edges), adata.var_names)
        params: dict[str, Any] = {"method": "edges", **counts}
    else:
        _check_options(adata, method, n_neighbors, threshold, min_samples)
        studies = _studies(adata, groups, min_samples)
        graph = nearest_genes(
            _correlate(adata, layer, method, studies, min_samples), n_neighbors=n_neighbors, threshold=threshold
        )
        params = {"method": method, "n_neighbors": int(n_neighbors), "threshold": float(threshold)}
        params |= {"min_samples": int(min_samples), "n_studies": len(studies)}
        params |= {name: given for name, given in (("layer", layer), ("groups", groups)) if given is not None}
    isolated = int((np.diff(graph.indptr) == 0).sum())
    logger.info("%d edges; %d of %d genes receive none", graph.nnz, isolated, adata.n_vars)
    target = copied(adata) if copy else adata
    write_results(target, key_added, {slot: graph}, params | {"n_edges": graph.nnz, "n_isolated": isolated})
    return target if copy else None


def _check_names(adata: AnnData) -> None:
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()][0]
        message = (
            f"adata.var_names are not unique, {twice!r} occurs again; "
            "call adata = bf.pp.merge_duplicates(adata) on counts or TPM first"
        )
        raise ValueError(message)


def _check_options(adata: AnnData, method: Method, n_neighbors: int, threshold: float, min_samples: int) -> None:
    faults = {
        f"method must be 'pearson' or 'spearman', found {method!r}": method not in get_args(Method),
        f"n_neighbors must lie between 1 and {adata.n_vars - 1}, one less than the genes, found {n_neighbors}": (
            not 1 <= n_neighbors < adata.n_vars
        ),
        f"threshold must lie between 0 and 1, found {threshold}": not 0 <= threshold <= 1,
        f"min_samples must be at least {LEAST_SAMPLES}, found {min_samples}": min_samples < LEAST_SAMPLES,
    }
    for message, applies in faults.items():
        if applies:
            raise ValueError(message)


def _studies(adata: AnnData, groups: str | None, min_samples: int) -> list[NDArray[np.int64]]:
    """Return the samples of each study that has enough of them."""
    if groups is None:
        studies, left = [np.arange(adata.n_obs)], 0
    elif groups not in adata.obs:
        message = f"adata.obs has no column {groups!r}; its columns are {adata.obs.columns.tolist()}"
        raise KeyError(message)
    else:
        codes, names = pd.factorize(np.asarray(adata.obs[groups]))
        studies, left = [np.flatnonzero(codes == code) for code in range(len(names))], int((codes < 0).sum())
    enough = [samples for samples in studies if len(samples) >= min_samples]
    if not enough:
        most = max((len(samples) for samples in studies), default=0)
        message = f"a correlation needs at least {min_samples} samples{' of one study' if groups else ''}, found {most}"
        raise ValueError(message)
    if left or len(enough) < len(studies):
        logger.warning(
            "%d of %d studies have fewer than %d samples, and %d samples name no study; they are left out",
            len(studies) - len(enough),
            len(studies),
            min_samples,
            left,
        )
    return enough


@dataclass(frozen=True)
class _Samples:
    """Samples of a table, which can be read again and again in blocks."""

    matrix: Any
    rows: NDArray[np.int64]

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        for start in range(0, len(self.rows), BLOCK_ROWS):
            rows = self.rows[start : start + BLOCK_ROWS]
            # a slice of a file is read much faster than a list of its rows
            adjacent = rows[-1] - rows[0] == len(rows) - 1
            yield dense_rows(self.matrix, slice(rows[0], rows[-1] + 1) if adjacent else rows, np.float64)


def _correlate(
    adata: AnnData, layer: str | None, method: Method, studies: Sequence[NDArray[np.int64]], min_samples: int
) -> NDArray[np.float32]:
    matrix = get_matrix(adata, layer)
    if isinstance(matrix, sp.csc_matrix | sp.csc_array):
        # slicing rows of CSC reads the whole matrix each time
        matrix = matrix.tocsr()
    _check_values(matrix)
    ranked = method == "spearman"
    context: AbstractContextManager[Any] = (
        by_gene([matrix], [np.arange(adata.n_vars)], adata.n_vars) if ranked else nullcontext()
    )
    with context as turned:
        if ranked:
            rank(turned, studies)
        table = turned.T if ranked else matrix
        correlation = correlate([_Samples(table, rows) for rows in studies], min_samples=min_samples)
    undefined = np.isnan(correlation.diagonal())
    if undefined.any():
        names = adata.var_names[undefined][:5].tolist()
        logger.warning(
            "%d of %d genes do not vary or were measured too seldom, and get no edge: %s%s",
            undefined.sum(),
            adata.n_vars,
            names,
            " ..." if undefined.sum() > len(names) else "",
        )
    return correlation


def _check_values(matrix: Any) -> None:
    """Refuse what is no number, and warn of counts."""
    found = scan(matrix)
    if found.infinite:
        message = "the values hold infinities; set them to NaN where they mean missing"
        raise ValueError(message)
    if found.minimum == -10:
        message = "the values hold -10, the published marker of missing entries; replace it by NaN"
        raise ValueError(message)
    if found.whole and found.maximum > 1000 and found.minimum >= 0:
        message = (
            f"the values are whole numbers up to {found.maximum:,.0f}, as raw counts are, whose correlation follows "
            "library size; call bf.pp.log_tpm(adata) first and pass layer='log_tpm'"
        )
        warnings.warn(message, UserWarning, stacklevel=4)
