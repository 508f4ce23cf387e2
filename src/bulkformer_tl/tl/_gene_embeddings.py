"""Gene embeddings: the model's static table, or vectors in the context of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bulkformer_tl._anndata import check_anndata, check_slots, copied, gene_mask, write_results
from bulkformer_tl._keys import GeneEmbeddingKeys
from bulkformer_tl._vocabulary import match_genes, to_ensembl
from bulkformer_tl.pp._identifiers import resolve_identifiers
from bulkformer_tl.tl._input import ModelInput, load_model, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from bulkformer_tl._vocabulary import GeneMatch, Identifiers
    from bulkformer_tl.models import Encoder


def gene_embeddings(
    adata: AnnData,
    *,
    model: Encoder | str | Path = "bulkformer-mini",
    contextual: bool = False,
    layer: str | None = None,
    groupby: str | None = None,
    mask_var: NDArray[np.bool_] | str | None = None,
    protein: pd.DataFrame | None = None,
    identifiers: Identifiers | None = None,
    min_coverage: float = 0.2,
    key_added: str = "bulkformer_genes",
    batch_size: int | None = None,
    device: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Gene vectors of a pretrained model, one row per gene of ``adata``.

    The static vectors are the model's own gene table and need no expression. Contextual vectors are those of the last
    layer (of Geneformer, the layer it was loaded with), averaged over the samples, or over the samples of each group;
    of Geneformer over those that express the gene, of a BioFormer over those that measure it.

    Parameters
    ----------
    adata
        Samples by genes; for contextual vectors with ln(TPM+1) values, or the counts that a Geneformer or a
        BioFormer reads. To choose samples, pass ``adata[chosen]``.
    model
        A loaded model, or what :func:`bulkformer_tl.models.load` takes: a name, a folder, ``"geneformer:<folder>"``.
    contextual
        Average the last layer's vectors over samples instead of taking the static table.
    layer
        Key of :attr:`~anndata.AnnData.layers` to read; ``None`` reads ``X``. Contextual vectors only.
    groupby
        Column of ``obs`` with the groups to average over. Contextual vectors only.
    mask_var
        Genes to compute, as a boolean array of length ``n_vars`` or the name of a boolean ``var`` column.
    protein
        Vectors to append, one row per gene by Ensembl id, for example protein embeddings.
    identifiers
        What ``var_names`` are: ``"ensembl"`` (a version is dropped), ``"symbol"`` or ``"entrez"``. ``None`` takes what
        :func:`bulkformer_tl.pp.log_tpm` was told when it made this layer, else Ensembl.
    min_coverage
        Least share of the model's genes that ``adata`` must have for contextual vectors.
    key_added
        Name of the result.
    batch_size
        Samples per forward pass on a GPU. ``None`` takes :attr:`bulkformer_tl.settings.batch_size`.
    device
        Torch device. ``None`` takes :attr:`bulkformer_tl.settings.device`.
    copy
        Return a modified copy instead of writing to ``adata``.

    Returns
    -------
    ``None``, or an :class:`~anndata.AnnData` if ``copy=True``. Sets the following fields:

    ``adata.varm[key_added]`` : :class:`numpy.ndarray` (shape ``(n_vars, D)`` or ``(n_vars, D + P)``, dtype ``float32``)
        Gene vectors; ``NaN`` for genes that the model does not know, or that were not asked for. With ``groupby`` one
        array per group, ``adata.varm[key_added + "_" + group]``.
    ``adata.uns[key_added]["params"]`` : :class:`dict`
        Model and checksum, what was averaged, and the share of the vocabulary that was found.

    Raises
    ------
    ValueError
        If no gene matches, the values cannot be ln(TPM+1), or a slot holds something else.
    KeyError
        If there is no such layer or column.
    """
    check_anndata(adata)
    groups = _groups(adata, groupby, contextual=contextual)
    keys = GeneEmbeddingKeys(key_added)
    check_slots(adata, key_added, [keys.vectors(name) for name in groups])
    chosen = gene_mask(adata, mask_var)
    if contextual:
        given = prepare(
            adata, model=model, layer=layer, identifiers=identifiers, min_coverage=min_coverage, device=device
        )
        match, params = given.match, given.params
        vectors = _contextual(given, groups, chosen, batch_size)
    else:
        loaded = load_model(model)
        names = resolve_identifiers(adata, identifiers)
        match = match_genes(adata.var_names, loaded.vocabulary, identifiers=names)
        params = {"model": loaded.name, "checksum": loaded.checksum, "identifiers": names, "coverage": match.coverage}
        vectors = {None: _place(loaded.gene_table().numpy(), np.arange(len(match.columns)), match, chosen)}
    extra = None if protein is None else _protein(adata, protein, params["identifiers"])
    results = {
        keys.vectors(name): array if extra is None else np.hstack([array, extra]) for name, array in vectors.items()
    }
    target = copied(adata) if copy else adata
    params |= {
        "contextual": contextual,
        "groupby": groupby or "",
        "protein_columns": 0 if extra is None else extra.shape[1],
    }
    write_results(target, key_added, results, params)
    return target if copy else None


def _groups(adata: AnnData, groupby: str | None, *, contextual: bool) -> dict[str | None, NDArray[np.bool_]]:
    if groupby is None:
        return {None: np.ones(adata.n_obs, dtype=bool)}
    if not contextual:
        message = "groupby averages contextual vectors; pass contextual=True"
        raise ValueError(message)
    if groupby not in adata.obs:
        message = f"adata.obs has no column {groupby!r}; its columns are {adata.obs.columns.tolist()}"
        raise KeyError(message)
    labels = adata.obs[groupby]
    if labels.isna().any():
        message = f"adata.obs[{groupby!r}] is missing for {int(labels.isna().sum())} samples; drop them or fill it in"
        raise ValueError(message)
    text = labels.astype(str).to_numpy()
    return {name: text == name for name in pd.unique(text)}


def _contextual(
    given: ModelInput,
    groups: dict[str | None, NDArray[np.bool_]],
    chosen: NDArray[np.bool_] | None,
    batch_size: int | None,
) -> dict[str | None, NDArray[np.float32]]:
    wanted = given.match.found if chosen is None else given.match.found & chosen[given.match.columns]
    genes = np.flatnonzero(wanted)
    if not len(genes):
        message = f"mask_var selects no gene that {given.model.name} knows"
        raise ValueError(message)
    sums: dict[str | None, Any] = dict.fromkeys(groups, 0.0)
    counts = {name: np.zeros((len(genes), 1), dtype=np.int64) for name in groups}
    for rows, values in given.batches("gene_embeddings", batch_size):
        vectors = given.encode(values, "genes", rows=rows, genes=genes)[0].astype(np.float64)
        # where a model has vectors of expressed genes only, the others are NaN
        present = ~np.isnan(vectors[:, :, :1])
        vectors[~present[:, :, 0]] = 0
        for name, members in groups.items():
            sums[name] = sums[name] + vectors[members[rows]].sum(axis=0)
            counts[name] += present[members[rows]].sum(axis=0)
    return {name: _place(_divide(sums[name], counts[name]), genes, given.match, chosen) for name in groups}


def _divide(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return means, ``NaN`` where nothing was counted."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def _place(
    vectors: NDArray[np.float32], genes: NDArray[np.int64], match: GeneMatch, chosen: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    columns = match.columns[genes]
    keep = columns >= 0
    if chosen is not None:
        keep &= chosen[columns]
    placed = np.full((match.n_columns, vectors.shape[1]), np.nan, dtype=np.float32)
    placed[columns[keep]] = vectors[keep]
    return placed


def _protein(adata: AnnData, protein: pd.DataFrame, identifiers: Identifiers) -> NDArray[np.float32]:
    if not protein.index.is_unique:
        message = f"protein lists genes twice: {protein.index[protein.index.duplicated()][:3].tolist()}"
        raise ValueError(message)
    extra = protein.reindex(to_ensembl(adata.var_names, identifiers=identifiers)).to_numpy(dtype=np.float32)
    if np.isnan(extra).all():
        message = (
            f"no gene of adata is in protein's index (for example {protein.index[:3].tolist()}); it holds Ensembl ids"
        )
        raise ValueError(message)
    return extra
