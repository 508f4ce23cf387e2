"""Essentiality: how much lines depend on genes, each gene by itself first, beside simple baselines."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, dense_rows, named_layers, write_results
from bulkformer_tl._keys import EssentialityKeys
from bulkformer_tl.tl._contextual import read_vectors, within_between
from bulkformer_tl.tl._mudata import takes_mudata
from bulkformer_tl.tl._pair_task import judge_pairs, keep_pair_head, pair_params, read_inputs, resolve_options, tables
from bulkformer_tl.tl._pairs import Pairs, filled_by
from bulkformer_tl.tl._response import Table, line_names, read_table
from bulkformer_tl.tl._samples import all_expression
from bulkformer_tl.tl._selective import read_lineages, selective_genes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl.metrics import Protocol
    from bulkformer_tl.tl._pair_task import Options, PairVerdict

logger = logging.getLogger(__name__)


@takes_mudata
def essentiality(
    adata: AnnData,
    effect: pd.DataFrame | str,
    *,
    gene_vectors: str | None = None,
    use_rep: str | None = "X_bulkformer",
    layer: str | None = None,
    lines: str | None = None,
    groups: str | None = None,
    covariates: Sequence[str] | None = None,
    unseen: Literal["line", "gene", "both", "pair"] | None = None,
    head: str | None = None,
    protocol: Protocol | Literal["paper"] | None = None,
    reference: AnnData | None = None,
    selective: str | None = None,
    key_added: str = "essentiality",
    copy: bool = False,
) -> AnnData | None:
    """Predict how much lines depend on genes, and compare it with simple baselines.

    Genes differ far more from each other than lines do under one gene: common essential genes are so everywhere, most
    others nowhere. A correlation over all pairs, or within a line, therefore mostly says which genes are essential at
    all; scores within each gene come first, and the others stand beside them, with their axis.

    Each measured pair is predicted by a head that was fitted without its fold, all other pairs by one that was fitted
    to everything measured. Whatever is fitted is fitted inside the fold.

    Parameters
    ----------
    adata
        Samples by genes, with the representation in ``obsm``; or a :class:`~mudata.MuData`, as in
        :func:`bulkformer_tl.tl.classify`, of whose modality ``"rna"`` (or the first) the genes are.
    effect
        Lines by genes, named as ``var_names``; the effect of losing the gene, as of a knock-out screen (below 0 where
        cells die), ``NaN`` where not screened. Or a key of ``layers``.
    gene_vectors
        Key of ``varm`` with a vector of each gene, as :func:`bulkformer_tl.tl.gene_embeddings` writes them; needed to
        predict genes that were not trained on. The key of contextual vectors of groups of samples (``groupby=``) gives
        a further row of the tables: the effect regressed on the vector of each gene in each group. Genes without a
        vector are left out.
    use_rep
        Key of ``obsm``, such as ``"X_bulkformer"`` or ``"X_pca"``; ``None`` takes expression itself.
    layer
        ln(TPM+1) for the baselines and the search for near-duplicates; ``None`` reads ``X``.
    lines
        Column of ``obs`` that names lines as ``effect`` does; ``None`` takes ``obs_names``. Samples of one line are
        kept together.
    groups
        Column of ``obs`` that names what else must stay together, such as the patient.
    covariates
        Columns of ``obs``, such as the tissue of origin, for the baseline ``"covariates"``: the linear head on them.
    unseen
        What a tested pair does not share with those that are trained on: ``"line"``, ``"gene"`` or ``"both"``, or
        ``"pair"``, which splits pairs at random. ``None`` takes ``"line"``, and ``"pair"`` with the paper's protocol.
    head
        ``"linear"`` or ``"mlp"``, as in :func:`bulkformer_tl.tl.drug_response`, on the line's representation and the
        gene's vector. ``None`` takes that of the protocol, or ``"linear"``.
    protocol
        Splits, head, baselines and bootstrap; ``None`` takes ``bf.metrics.Protocol()``. Baselines are ``"gene_mean"``;
        ``"expression"``, the expression of the gene itself in the line; ``"additive"``; ``"nearest_gene"``; ``"raw"``
        and ``"pca"``, the linear head on all genes and on 50 components; ``"covariates"`` where there are some; and
        ``"untrained"``. Intervals resample what is unseen. ``"paper"`` takes
        :func:`bulkformer_tl.metrics.paper_protocol`, and logs what its numbers must not be taken for.
    reference
        Lines to train on in place of those of ``adata``, found in ``effect`` alike. Those that share a group or are
        near-duplicates of a sample of ``adata`` are left out.
    selective
        Column of ``obs``, such as the cancer type: lists the genes that lines of each group depend on more, or less,
        than all others.
    key_added
        Name of the result.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.layers[key_added + "_pred"]`` : :class:`numpy.ndarray` (shape ``(n_obs, n_vars)``, dtype ``float32``)
        Predicted effect, in its unit; ``NaN`` for genes that ``effect`` does not have.
    ``adata.uns[key_added]["scores"]`` : :class:`pandas.DataFrame`
        Scores along the axes ``"per_gene"``, ``"per_line"`` (means over genes and over lines) and ``"global"``, as in
        :func:`bulkformer_tl.tl.drug_response`. The mean of a gene is the same for all lines of a fold and has no
        correlation within it.
    ``adata.uns[key_added]["differences"]`` : :class:`pandas.DataFrame`
        Representation minus baseline on the same resamples; ``better`` names the one that the interval favours.
    ``adata.uns[key_added]["per_gene"]``, ``adata.uns[key_added]["per_line"]`` : :class:`pandas.DataFrame`
        The scores of each gene and of each line, and of how many pairs.
    ``adata.uns[key_added]["selective"]`` : :class:`pandas.DataFrame`
        With ``selective``: of each group and gene, ``difference`` between the mean effect in the group and in all other
        lines, ``p`` (Welch's t-test) and ``fdr`` (Benjamini and Hochberg over all rows), and ``predicted_difference``
        of the out-of-fold predictions of the same pairs, without a p-value: predictions of similar lines are not
        independent. Groups and genes with fewer than three lines on either side are left out. Best first.
    ``adata.uns[key_added]["head"]`` : :class:`dict`
        The head fitted to all measured pairs; see :func:`bulkformer_tl.tl.fitted_head`.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        How it was done, and what is known of the model's pretraining corpus.

    Raises
    ------
    ValueError
        If no line or no gene matches, the effect is constant or empty, a gene is screened in too few lines, vectors are
        needed and absent, ``selective`` has no group of three lines, or a slot holds something else.
    KeyError
        If a column, layer, representation or vector is not there.
    TypeError
        If ``effect`` is no table of numbers.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> import bulkformer_tl as bf
    >>> adata = bf.datasets.toy()
    >>> bf.pp.log_tpm(adata)
    >>> rng = np.random.default_rng(0)
    >>> effect = pd.DataFrame(rng.normal(size=(60, 4)), index=adata.obs_names, columns=adata.var_names[:4])
    >>> bf.tl.essentiality(adata, effect, use_rep=None, layer="log_tpm", selective="tissue")
    >>> sorted(adata.uns["essentiality"]["scores"]["axis"].unique())
    ['global', 'per_gene', 'per_line']
    """
    check_anndata(adata)
    keys = EssentialityKeys(key_added)
    check_slots(adata, keys.key, [keys.prediction])
    readable = layer is not None or getattr(adata, "X", None) is not None
    reads = {"use_rep": use_rep, "layer": layer, "groups": groups, "lines": lines}
    described = gene_vectors is not None
    options = resolve_options(
        "essentiality",
        "gene",
        unseen,
        head,
        protocol,
        readable=readable,
        described=described,
        covariates=covariates,
        **reads,
    )
    parts = [adata] if reference is None else [reference, adata]
    pairs, contextual = _read(parts, _table(parts, effect, lines), gene_vectors, options)
    lineages = None if selective is None else read_lineages(adata, selective, pairs.known[pairs.n_reference :])
    verdict = judge_pairs(parts, pairs, options, contextual)
    params = pair_params(adata, verdict)
    params |= {"gene_vectors": gene_vectors or "", "contextual": bool(contextual), "selective": selective or ""}
    extra = keep_pair_head(verdict, params, [] if pairs.features is None else _names(pairs.features))
    if (verdict.filled.folds[verdict.own] >= 0).any():
        more, params["fingerprint"] = tables(adata, keys.key, verdict)
        extra |= more
    if lineages is not None:
        extra["selective"] = _selective(verdict, *lineages)
    placed = np.full(adata.shape, np.nan, dtype=np.float32)
    placed[:, adata.var_names.get_indexer(pd.Index(pairs.columns))] = verdict.predicted
    written = copied(adata) if copy else adata
    write_results(written, keys.key, {keys.prediction: placed}, params, extra)
    return written if copy else None


def _table(parts: list[AnnData], effect: pd.DataFrame | str, lines: str | None) -> Table:
    """Read the effects, on the genes that all parts have."""
    adata = parts[-1]
    if not all(part.var_names.is_unique for part in parts):
        message = "adata.var_names are not unique; call bf.pp.merge_duplicates(adata) first"
        raise ValueError(message)
    if not isinstance(effect, str):
        table = read_table(parts, effect, lines=lines, name="effect", kind="gene")
    else:
        frame = pd.concat([_layer(part, effect) for part in parts], join="inner")
        table = read_table(parts, frame, lines=None, name=f"adata.layers[{effect!r}]", kind="gene")
        table = table._replace(lines=np.concatenate([line_names(part, lines) for part in parts]))
    if table.classes:
        message = "effect holds booleans; pass the effects themselves, numbers of lines by genes"
        raise TypeError(message)
    here = np.all([pd.Index(table.columns).isin(part.var_names) for part in parts], axis=0)
    if not here.any():
        message = (
            f"none of the {len(here)} genes of effect is in adata.var_names: effect has {table.columns[:3]}, adata "
            f"{adata.var_names[:3].tolist()}. Rename the columns of effect to the identifiers of adata"
        )
        raise ValueError(message)
    return _keep(table, here, "are not in adata.var_names")


def _layer(adata: AnnData, key: str) -> pd.DataFrame:
    if key not in adata.layers:
        known = sorted(named_layers(adata))
        message = f"adata.layers has no {key!r}; it holds {known}. Pass a data frame of lines by genes"
        raise KeyError(message)
    values = dense_rows(adata.layers[key], slice(None), np.float64)
    return pd.DataFrame(values, index=adata.obs_names, columns=adata.var_names)


def _keep(table: Table, kept: NDArray[np.bool_], why: str) -> Table:
    if kept.all():
        return table
    columns = np.array(table.columns, dtype=object)
    logger.info("effect: %d of %d genes %s and left out, such as %s", (~kept).sum(), len(kept), why, columns[~kept][:3])
    return table._replace(known=table.known[:, kept], columns=columns[kept].tolist())


def _read(parts: list[AnnData], table: Table, key: str | None, options: Options) -> tuple[Pairs, dict[str, Any]]:
    """Return pairs, and the contextual vectors as a further candidate."""
    features, contextual = None, {}
    if key is not None:
        adata = parts[-1]
        vectors, groups = read_vectors(adata, key)
        vectors = vectors[..., adata.var_names.get_indexer(pd.Index(table.columns)), :]
        described = np.isfinite(vectors).all(axis=-1)
        described = described if groups is None else described.all(axis=0)
        if not described.any():
            message = f"adata.varm[{key!r}] has no vector of any gene of effect; make vectors of these genes"
            raise ValueError(message)
        table = _keep(table, described, "have no vector")
        vectors = vectors[..., described, :]
        features = vectors
        if groups is not None and len(parts) > 1:
            message = f"the vectors {key!r} are those of samples of adata; pass static ones together with a reference"
            raise ValueError(message)
        if groups is not None:
            features = vectors.mean(axis=0)
            fit = partial(within_between, vectors=vectors, groups=groups)
            contextual = {f"{key} (contextual)": partial(filled_by, fit)}
    inputs = read_inputs(parts, table, options)
    own = all_expression(parts, options.layer, table.columns) if "expression" in options.baselines else None
    pairs = Pairs(
        known=table.known,
        classes=False,
        columns=table.columns,
        features=features,
        column_groups=np.arange(len(table.columns)),
        n_reference=parts[0].n_obs if len(parts) > 1 else 0,
        own=own,
        **inputs,
    )
    return pairs, contextual


def _names(features: NDArray[np.float32]) -> list[str]:
    return [str(position) for position in range(features.shape[1])]


def _selective(verdict: PairVerdict, codes: NDArray[np.intp], groups: list[str]) -> pd.DataFrame:
    pairs = verdict.pairs
    return selective_genes(pairs.known[verdict.own], verdict.predicted, codes, groups, pairs.columns)
