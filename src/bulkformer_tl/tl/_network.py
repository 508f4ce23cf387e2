"""Gene networks: from attention, from gene vectors, or from co-expression."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bulkformer_tl._anndata import check_anndata, check_slots, copied, write_results
from bulkformer_tl._keys import NETWORK
from bulkformer_tl.tl._input import prepare
from bulkformer_tl.tl._network_edges import contrast_table, edge_table, program_table
from bulkformer_tl.tl._network_input import (
    Plan,
    choose_genes,
    draw_halves,
    place_regulators,
    read_expression,
    read_groups,
)
from bulkformer_tl.tl._network_scores import recovery
from bulkformer_tl.tl._network_weights import (
    LEAST,
    attention_weights,
    coexpression_weights,
    cosine_weights,
    usable_vectors,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import Identifiers
    from bulkformer_tl.models import Encoder
    from bulkformer_tl.tl._input import ModelInput
    from bulkformer_tl.tl._network_input import Regulators
    from bulkformer_tl.tl._network_weights import Weights

    AnyModel = Encoder | str | Path
    Method = Literal["attention", "cosine", "coexpression"]

logger = logging.getLogger(__name__)

METHODS = ("attention", "cosine", "coexpression")
#: Share of a model's genes that a cohort has to have.
MIN_COVERAGE = 0.2


def network(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    *,
    method: Method = "attention",
    model: AnyModel | Sequence[AnyModel] = "bulkformer-mini",
    vectors: str | Sequence[str] = "bulkformer_genes",
    layer: str | None = None,
    identifiers: Identifiers | None = None,
    groupby: str | None = None,
    attention_layers: Sequence[int] | None = None,
    regulators: Regulators | None = None,
    n_edges: int = 10,
    resamples: int = 0,
    n_null: int = 100,
    rng: int = 0,
    key_added: str = NETWORK,
    copy: bool = False,
) -> AnnData | None:
    """Join genes by attention, by the cosine of their vectors or by co-expression, and ask what that recovers.

    Each target keeps its strongest sources. Attention runs from the gene that is attended to (``source``) to the one
    that attends (``target``), without a matrix of all genes by all genes. It often follows how high genes are
    expressed, and differs between training runs: so the correlation with the rank of expression stands beside every
    layer, several models, layers and halves of the samples say how often an edge comes again, and co-expression and
    expression level stand beside what is recovered of known targets. The device is that of
    :attr:`bulkformer_tl.settings`.

    Parameters
    ----------
    adata
        Samples by genes, with ln(TPM+1) values, or with the counts that a Geneformer or a BioFormer reads.
    genes
        Genes to join, as in ``var_names``, by Ensembl id or by symbol; ``None`` takes the 1,000 most variable ones that
        can be used.
    method
        ``"attention"`` of a model, mean over heads; ``"cosine"`` of gene vectors; ``"coexpression"``, Pearson's r.
    model
        For attention: a loaded model, or what :func:`bulkformer_tl.models.load` takes; or a list of them, such as
        networks that were trained from several seeds.
    vectors
        For the cosine: key of ``varm`` as of :func:`bulkformer_tl.tl.gene_embeddings`, or a list of keys.
    layer
        Key of :attr:`~anndata.AnnData.layers` to read; ``None`` reads ``X``.
    identifiers
        What ``var_names`` are; see :func:`bulkformer_tl.tl.embed`.
    groupby
        Column of ``obs``: a network of each group, and how it differs from the others. Vectors need to be made with the
        same ``groupby``.
    attention_layers
        Numbers of layers, from 0, or from the end as -1, -2, ...; ``None`` takes all, with equal weight.
    regulators
        Names of regulators, at which edges then start; or a table (or CSV file) with the columns ``source`` (or
        ``tf``) and ``target``, such as CollecTRI or DoRothEA, with whose pairs the network is compared; other columns,
        such as DoRothEA's ``confidence``, are not read: pass the rows that you trust.
    n_edges
        Edges that each target keeps.
    resamples
        Halves of the samples of each group that are drawn to say how often an edge comes again.
    n_null
        Networks of the same degrees that the number of known pairs is compared with.
    rng
        Draws halves and networks, and starts the search for programs.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.uns[key_added]["edges"]`` : :class:`pandas.DataFrame`
        One row per edge and ``group`` (``"all"`` without groups), the strongest of each group first: ``source``,
        ``target``; ``weight``, of attention in units of uniform attention (1 / number of tokens), else cosine or r;
        with several models, layers, vectors or halves ``frequency``, the share of them in which it is among the
        strongest; with a table ``known``. Without regulators, cosine and co-expression have each pair once.
    ``adata.uns[key_added]["layers"]`` : :class:`pandas.DataFrame`
        Of attention: per ``model`` (numbered where several have one name), ``layer`` and ``group`` the mean over
        ``n_samples`` samples of ``regulator_share``, the share of the attention of ``genes`` that regulators receive;
        ``uniform_share``, the same if it were uniform; and ``rank_correlation``, Spearman's correlation over all genes
        of what they receive with their expression.
    ``adata.uns[key_added]["contrast"]`` : :class:`pandas.DataFrame`
        With ``groupby``: ``difference`` of the weight of each edge of any group between ``group`` and ``other``, all
        other samples; ``p`` and ``fdr`` (Benjamini and Hochberg within a group) of Welch's test over samples, of
        co-expression of Fisher's z; ``NaN`` for the cosine, which has no samples.
    ``adata.uns[key_added]["programs"]`` : :class:`pandas.DataFrame`
        Of cosine and co-expression without regulators: ``group``, ``program`` and ``gene`` of clusters of five genes or
        more (Louvain's method on positive edges).
    ``adata.uns[key_added]["recovery"]`` : :class:`pandas.DataFrame`
        With a table: for ``edges`` of this network, of ``"coexpression"`` and by ``"level"`` (the sum of both ranks of
        mean expression) the area ``auroc`` over all pairs; how many of ``n_edges`` are among the ``n_known`` pairs
        (``n_found``), ``odds_ratio`` (half a pair added to each cell) and ``p`` of Fisher's exact test; and mean
        ``null``, ``null_z`` and ``null_p`` of networks in which every gene has as many edges.
    ``adata.uns[key_added]["regulators"]`` : :class:`pandas.DataFrame`
        The same for each ``regulator``, with ``fdr``, and ``auroc`` over its possible targets where 5 are known.
    ``adata.uns[key_added]["scores"]``, ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        Mean ``auroc`` over regulators with a 95 % bootstrap interval, and paired differences to co-expression and
        level, where two regulators have 5 known targets.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, with models and checksums.

    Raises
    ------
    KeyError
        If a gene, layer, column or result of vectors is not there.
    ValueError
        If a group has no sample or is the only one; if no regulator or known pair is among the genes; if a model has no
        attention or no such layer; if values cannot be what is read; if there are too many pairs of genes; or a slot
        holds something else.
    TypeError
        If regulators are something else.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    Fisher's test takes pairs as independent, which they are not: genes with many edges that are also well studied are
    enough to make ``p`` small. ``null_p`` keeps all degrees, and areas within regulators do not depend on degrees.

    References
    ----------
    Choromanski et al., Rethinking attention with Performers, ICLR 2021. Müller-Dott et al., Expanding the coverage of
    regulons, Nucleic Acids Research 2023 (CollecTRI). Strona et al., Nature Communications 2014 (the null). Meinshausen
    and Bühlmann, Stability selection, JRSS B 2010 (halves).

    Examples
    --------
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> bf.tl.network(adata, ["ALB", "TTR", "CKM", "DES", "GFAP", "MBP"], layer="log_tpm", n_edges=2)
    >>> len(adata.uns["network"]["edges"])
    12
    """
    check_anndata(adata)
    check_slots(adata, key_added, [])
    _check_options(adata, method, n_edges, resamples, n_null)
    inputs: list[ModelInput] = []
    if method == "attention":
        options: dict[str, Any] = {"layer": layer, "identifiers": identifiers, "device": None}
        inputs = [prepare(adata, model=one, min_coverage=MIN_COVERAGE, **options) for one in _several(model)]
    keys = [str(key) for key in _several(vectors)]
    generator = np.random.default_rng(rng)
    least = {"attention": 2 if resamples else 1, "cosine": 1, "coexpression": LEAST * (2 if resamples else 1)}
    groups = read_groups(adata, groupby, least[method])
    usable = _usable(adata, inputs, method=method, keys=keys, groupby=groupby, groups=groups[0])
    counts = any(given.model.input_unit == "counts" for given in inputs)
    targets = choose_genes(adata, genes, usable, layer, counts=counts)
    sources, known = targets, None
    if regulators is not None:
        sources, known = place_regulators(adata, regulators, usable, targets)
    marked = None if regulators is None else sources
    plan = Plan(sources, targets, marked, known, *groups, draw_halves(groups[1], resamples, generator))
    values = None
    if known is not None or method == "coexpression":
        values = read_expression(adata, layer, plan.genes, counts=counts)
    weights = _weigh(adata, plan, values, inputs, method=method, layers=attention_layers, keys=keys, groupby=groupby)
    tables = _tables(adata, plan, weights, values, method=method, n_edges=n_edges, n_null=n_null, rng=rng)
    params = {
        **_described(plan, weights, inputs),
        "method": method,
        "directed": method == "attention" or regulators is not None,
        "layer": layer or "X",
        "groupby": groupby or "",
        "vectors": keys if method == "cosine" else [],
        "n_edges": n_edges,
        "resamples": resamples,
        "n_null": n_null,
    }
    target = copied(adata) if copy else adata
    write_results(target, key_added, {}, params, tables)
    return target if copy else None


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _check_options(adata: AnnData, method: str, n_edges: int, resamples: int, n_null: int) -> None:
    if method not in METHODS:
        message = f"method is {method!r}; choose among {list(METHODS)}"
        raise ValueError(message)
    for name, value, least in (("n_edges", n_edges, 1), ("resamples", resamples, 0), ("n_null", n_null, 0)):
        if value < least:
            message = f"{name} is {value}; it must be at least {least}"
            raise ValueError(message)
    if resamples and method == "cosine":
        message = (
            "resamples draws samples, and gene vectors are of all of them; make several vectors, of several models or "
            "of parts of the samples, and pass their keys as vectors=[...]"
        )
        raise ValueError(message)
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()][0]
        message = f"adata.var_names are not unique, {twice!r} occurs again; call bf.pp.merge_duplicates(adata) first"
        raise ValueError(message)


def _usable(
    adata: AnnData,
    inputs: Sequence[ModelInput],
    *,
    method: str,
    keys: list[str],
    groupby: str | None,
    groups: list[str],
) -> NDArray[np.bool_]:
    """Return which genes can stand at an end of an edge, (n_vars,)."""
    if method == "cosine":
        return usable_vectors(adata, keys, groupby, groups)
    usable = np.ones(adata.n_vars, dtype=bool)
    for given in inputs:
        known = np.zeros(adata.n_vars, dtype=bool)
        known[given.match.columns[given.match.found]] = True
        usable &= known
    return usable


def _weigh(
    adata: AnnData,
    plan: Plan,
    values: NDArray[np.float32] | None,
    inputs: Sequence[ModelInput],
    *,
    method: str,
    layers: Sequence[int] | None,
    keys: list[str],
    groupby: str | None,
) -> Weights:
    if method == "attention":
        return attention_weights(plan, inputs, layers)
    if method == "cosine" or values is None:
        return cosine_weights(adata, plan, keys, groupby)
    return coexpression_weights(plan, values)


def _described(plan: Plan, weights: Weights, inputs: Sequence[ModelInput]) -> dict[str, Any]:
    """Return what a result says of how it was made, beside the options."""
    return {
        "task": "network",
        "groups": plan.groups,
        "models": [given.model.name for given in inputs],
        "checksums": [given.model.checksum for given in inputs],
        "n_sources": len(plan.sources),
        "n_targets": len(plan.targets),
        "n_runs": len(weights.runs),
    }


def _tables(
    adata: AnnData,
    plan: Plan,
    weights: Weights,
    values: NDArray[np.float32] | None,
    *,
    method: str,
    n_edges: int,
    n_null: int,
    rng: int,
) -> dict[str, Any]:
    """Return what is stored of the weights."""
    names = adata.var_names.astype(str).to_numpy()
    directed, signed = method == "attention" or plan.regulators is not None, method == "coexpression"
    edges, masks = edge_table(plan, weights, names, n_edges, directed=directed, signed=signed)
    found: dict[str, Any] = {"edges": edges}
    if weights.layers is not None:
        found["layers"] = weights.layers
    if weights.contrast is not None:
        found["contrast"] = contrast_table(plan, weights.contrast, names, masks, directed=directed)
    if not directed:
        found["programs"] = program_table(edges, rng)
    logger.info("%d edges from %d genes to %d", len(edges), len(plan.sources), len(plan.targets))
    if plan.known is not None and values is not None:
        strengths = np.abs(weights.mean) if signed else weights.mean
        drawn = np.random.default_rng(rng)
        found |= recovery(
            plan, plan.known, strengths, values, names, method=method, n_edges=n_edges, n_null=n_null, rng=drawn
        )
        best = found["recovery"].set_index("edges")["auroc"]
        logger.info("area over known pairs: %s", ", ".join(f"{name} {area:.3f}" for name, area in best.items()))
    return found
