"""Modules of genes whose vectors point the same way, and the gene sets that they hold."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, get_params, write_results
from bulkformer_tl._keys import gene_module
from bulkformer_tl._optional import require
from bulkformer_tl.tl._contextual import read_vectors
from bulkformer_tl.tl._enrich import _names
from bulkformer_tl.tl._gene_sets import read_gene_sets
from bulkformer_tl.tl._screen import false_discovery_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

logger = logging.getLogger(__name__)

METHODS = ("kmeans", "leiden")


def gene_modules(
    adata: AnnData,
    vectors: str = "bulkformer_genes",
    *,
    method: Literal["kmeans", "leiden"] = "kmeans",
    n_modules: int = 50,
    resolution: float = 1.0,
    n_neighbors: int = 15,
    min_genes: int = 5,
    gene_sets: str | Path | Mapping[str, Sequence[str]] | None = None,
    symbols: str | None = None,
    rng: int = 0,
    key_added: str = "gene_modules",
    copy: bool = False,
) -> AnnData | None:
    """Cluster genes by the direction of their vectors, and ask which gene sets each module holds.

    Parameters
    ----------
    adata
        Samples by genes, with gene vectors.
    vectors
        Key of ``varm``, as of :func:`bulkformer_tl.tl.gene_embeddings`, or of contextual vectors by group of samples,
        of which the mean over groups is taken. Genes without a vector are in no module.
    method
        ``"kmeans"`` of vectors of unit length; or ``"leiden"``, communities of the graph of the nearest genes by
        cosine, which needs igraph (extra ``modules``).
    n_modules
        Number of modules of k-means.
    resolution
        Of ``"leiden"``: higher gives more modules.
    n_neighbors
        Of ``"leiden"``: nearest genes that each is joined to.
    min_genes
        Genes of a module at least; those of smaller ones are in none. Also the genes that a gene set needs among all
        that have a vector.
    gene_sets
        A GMT file, such as those of MSigDB, or names of sets and their genes. Needs decoupler (extra ``de``).
    symbols
        Column of ``var`` with the names that the sets use, as of :func:`bulkformer_tl.tl.enrich`.
    rng
        Starts the clustering.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.var[key_added]`` : :class:`pandas.Series` (dtype ``category``)
        Module of each gene, ``"1"`` the largest; missing for genes in none.
    ``adata.uns[key_added]["modules"]`` : :class:`pandas.DataFrame`
        Per ``module`` the number of its genes, ``n_genes``, and ``cosine``, the mean cosine of its vectors with their
        mean: 1 where all point the same way.
    ``adata.uns[key_added]["enrichment"]`` : :class:`pandas.DataFrame`
        With gene sets: per ``module`` and ``set`` the genes of the set that have a vector, ``n_genes``, those of them
        in the module, ``n_found``, the logarithm of the odds ratio, ``score``, Fisher's ``p`` and ``fdr`` (Benjamini
        and Hochberg over all modules and sets); sorted by ``p``.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done.

    Raises
    ------
    KeyError
        If there are no such vectors or column.
    FileNotFoundError
        If there is no such file.
    ValueError
        If there are fewer genes than modules or neighbours, no module is large enough, no set names enough genes, or a
        slot holds something else.
    ImportError
        If igraph or decoupler is needed and not installed.

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.tl.gene_embeddings(adata)
    >>> bf.tl.gene_modules(adata, n_modules=20)
    >>> adata.var["gene_modules"].cat.categories.size
    20
    """
    check_anndata(adata)
    check_slots(adata, key_added, [gene_module(key_added)])
    if method not in METHODS:
        message = f"method is {method!r}; choose among {list(METHODS)}"
        raise ValueError(message)
    matrix, _ = read_vectors(adata, vectors)
    matrix = matrix if matrix.ndim == 2 else matrix.mean(axis=0)
    described = np.isfinite(matrix).all(axis=1) & (np.abs(matrix) > 0).any(axis=1)
    _check_number(method, int(described.sum()), n_modules, n_neighbors)
    pairs = None if gene_sets is None else read_gene_sets(gene_sets)
    names = None if pairs is None else _names(adata, pairs, symbols)
    if pairs is not None:
        require("decoupler", extra="de", purpose="bf.tl.gene_modules(gene_sets=)")
    unit = matrix[described].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found = _kmeans(unit, n_modules, rng) if method == "kmeans" else _leiden(unit, n_neighbors, resolution, rng)
    codes, table = _by_size(found, unit, min_genes)
    labels = np.full(adata.n_vars, -1)
    labels[described] = codes
    module = pd.Categorical.from_codes(labels, categories=pd.Index(table["module"].to_numpy()))
    extra = {"modules": table}
    if pairs is not None and names is not None:
        extra["enrichment"] = _enrich(names[described], codes, table["module"].tolist(), pairs, min_genes)
    params = {
        "task": "gene_modules",
        "vectors": vectors,
        "model": str(get_params(adata, vectors).get("model", "")),
        "method": method,
        **({"n_modules": n_modules} if method == "kmeans" else {"resolution": resolution, "n_neighbors": n_neighbors}),
        "min_genes": min_genes,
        "n_without_vector": int((~described).sum()),
        "n_without_module": int((codes < 0).sum()),
    }
    logger.info("%s: %d modules, the largest of %d genes", key_added, len(table), table["n_genes"].iloc[0])
    target = copied(adata) if copy else adata
    write_results(target, key_added, {gene_module(key_added): module}, params, extra)
    return target if copy else None


def _check_number(method: str, n_genes: int, n_modules: int, n_neighbors: int) -> None:
    name, value = ("n_modules", n_modules) if method == "kmeans" else ("n_neighbors", n_neighbors)
    if not 1 <= value < n_genes:
        message = f"{name} is {value}, and {n_genes} genes have a vector; it must be at least 1 and below that"
        raise ValueError(message)


def _kmeans(unit: Numbers, n_modules: int, rng: int) -> NDArray[np.intp]:
    from sklearn.cluster import KMeans

    found: NDArray[np.intp] = KMeans(n_modules, n_init=4, random_state=rng).fit_predict(unit).astype(np.intp)
    return found


def _leiden(unit: Numbers, n_neighbors: int, resolution: float, rng: int) -> NDArray[np.intp]:
    require("igraph", extra="modules", purpose="bf.tl.gene_modules(method='leiden')")
    import scanpy as sc
    from anndata import AnnData
    from sklearn.neighbors import kneighbors_graph

    # of unit vectors the nearest by distance are the nearest by cosine, which is 1 - distance^2 / 2
    graph = kneighbors_graph(unit, n_neighbors, mode="distance")
    graph.data = np.maximum(1 - graph.data**2 / 2, 0)
    genes = AnnData(obs=pd.DataFrame(index=pd.RangeIndex(len(unit)).astype(str)))
    sc.tl.leiden(
        genes,
        resolution,
        adjacency=graph.maximum(graph.T),
        directed=False,
        flavor="igraph",
        n_iterations=2,
        random_state=rng,
    )
    found: NDArray[np.intp] = genes.obs["leiden"].cat.codes.to_numpy().astype(np.intp)
    return found


def _by_size(codes: NDArray[np.intp], unit: Numbers, min_genes: int) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Number modules from the largest on, -1 for genes of small ones, and describe them."""
    counts = np.bincount(codes)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= max(min_genes, 1)]
    if not len(order):
        message = f"no module has {min_genes} genes, the largest has {counts.max()}; lower min_genes or n_modules"
        raise ValueError(message)
    places = np.full(len(counts), -1)
    places[order] = np.arange(len(order))
    renamed = places[codes].astype(np.intp)
    cosines = []
    for module in range(len(order)):
        own = unit[renamed == module]
        center = own.mean(axis=0)
        cosines.append(float((own @ center).mean() / max(np.linalg.norm(center), np.finfo(np.float64).tiny)))
    numbers = [str(number) for number in range(1, len(order) + 1)]
    return renamed, pd.DataFrame({"module": numbers, "n_genes": counts[order], "cosine": cosines})


def _enrich(
    names: pd.Series[Any], codes: NDArray[np.intp], modules: list[str], pairs: pd.DataFrame, min_genes: int
) -> pd.DataFrame:
    """Test every module for every set, among all genes that have a vector and a name of their own."""
    import decoupler as dc

    text = names.to_numpy().astype(str)
    once = (text != "") & ~pd.Index(text).duplicated()
    genes, codes = text[once], codes[once]
    here = pairs[pairs["target"].isin(genes)]
    sizes = here["source"].value_counts()
    here = here[here["source"].isin(sizes.index[sizes >= min_genes])]
    if here.empty:
        message = (
            f"no gene set has {min_genes} genes with a vector; the largest of {pairs['source'].nunique()} has "
            f"{int(sizes.max()) if len(sizes) else 0}. Lower min_genes, or pass sets of these genes"
        )
        raise ValueError(message)
    parts = []
    for code, module in enumerate(modules):
        inside = genes[codes == code].tolist()
        found = dc.mt.query_set(features=inside, net=here, n_bg=len(genes), tmin=1).set_index("source")
        n_found = here[here["target"].isin(inside)]["source"].value_counts()
        parts.append(
            pd.DataFrame(
                {
                    "module": module,
                    "set": found.index.to_numpy(),
                    "n_genes": sizes.reindex(found.index).to_numpy(),
                    "n_found": n_found.reindex(found.index).fillna(0).astype(int).to_numpy(),
                    "score": found["stat"].to_numpy(dtype=np.float64),
                    "p": found["pval"].to_numpy(dtype=np.float64),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table["fdr"] = false_discovery_rate(table["p"].to_numpy())
    return table.sort_values("p", kind="stable", ignore_index=True)
